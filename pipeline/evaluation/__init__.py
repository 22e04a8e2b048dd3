"""What the evaluation computes and reports."""
