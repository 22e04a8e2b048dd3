"""What a stage was given, what it made, and what it has computed so far."""
