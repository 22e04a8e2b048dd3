"""The model: priors, networks, conditionals, and how it is stored."""
