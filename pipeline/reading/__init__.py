"""From a raw file to a prepared table."""
