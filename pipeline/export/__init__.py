"""Files with a value for each row."""
