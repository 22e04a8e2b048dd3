"""The experiment as four DVC stages, prepare -> train -> evaluate -> generate, and what they share: files, params, MLflow."""

import os
import time

STARTED = time.time()  # of this process, before it reads any other file of the project

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on a GPU; too late after torch
