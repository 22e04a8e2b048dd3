"""What this project knows of DVC's own formats and folders; tests/test_dvc.py holds it against the pinned DVC."""
