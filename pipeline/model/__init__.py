"""Models made by params and a schema, and loaded."""
