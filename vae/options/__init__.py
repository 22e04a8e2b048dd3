"""Everything about a model that can be chosen, declared once: types, defaults, ranges and names. No torch is imported here."""
