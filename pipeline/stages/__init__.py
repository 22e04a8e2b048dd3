"""The work of the four stages; their commands are one folder up, and load it only to do it."""
