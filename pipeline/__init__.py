"""The experiment as four DVC stages, prepare -> train -> evaluate -> generate, and what they share: files, params, MLflow."""

import os
import time
from pathlib import Path

STARTED = time.time()  # of this process, before it reads any other file of the project

if "OMP_WAIT_POLICY" not in os.environ:
    # how long a thread spins for the others before it sleeps; by default so long that two processes with two threads each take
    # more than three times as long side by side as one after the other; too late after torch (docs/reproducibility.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on a GPU; too late after torch

cpu = Path("/proc/cpuinfo")
if cpu.is_file() and " avx2 " in cpu.read_text(encoding="utf-8", errors="replace"):
    # OpenBLAS takes other kernels on CPUs of other makers and years that have the same instructions, and these round
    # differently; too late after NumPy
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
