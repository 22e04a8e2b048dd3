"""What a prepared table is."""
