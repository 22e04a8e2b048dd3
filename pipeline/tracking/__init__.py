"""What MLflow shows of the runs."""
