"""What the stages will take, before they run; no stage depends on it."""
