"""What every command does with files, errors, processes and the machine."""
