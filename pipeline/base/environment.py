"""The facts of this machine on which bytes may depend: shown in MLflow, part of a saved state's name, never in an output."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pytorch-lightning",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
)


def facts(threads: int | None = None) -> dict[str, str]:
    """Versions, instruction set, threads and device, by name."""
    named = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    named["packages"] = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    if threads is not None:
        named["threads"] = str(threads)
    torch = sys.modules.get("torch")  # a stage that does without it does not depend on its build
    if torch is not None:
        named["torch_build"] = str(torch.version.git_version)
        named["cuda"] = str(torch.version.cuda)
        named["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        named["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return named


def main_repository() -> Path:
    """The repository of the user, also inside the throw-away copies of ``dvc exp run --temp`` and of queue workers."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def is_first_process() -> bool:
    """Whether this is the process that writes files, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
