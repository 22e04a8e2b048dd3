"""Scripts that measure speed, memory and published figures; each prints a table."""
