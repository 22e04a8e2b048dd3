"""What `pipeline.score` writes and says of rows."""
