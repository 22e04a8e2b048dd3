"""The experiment as four DVC stages, prepare -> train -> evaluate -> generate, and what they share: files, params, MLflow."""

import os
import time

STARTED = time.time()  # of this process, before it reads any other file of the project

if "OMP_WAIT_POLICY" not in os.environ:
    # how long a thread spins for the others before it sleeps; by default so long that two processes with two threads each take
    # more than three times as long side by side as one after the other; too late after torch (docs/reproducibility.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on a GPU; too late after torch
