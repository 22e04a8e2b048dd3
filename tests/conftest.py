"""Settings of all tests: no network, no telemetry, one thread, and an MLflow store of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ.update(DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("DVC_ROOT", None)
torch.set_num_threads(1)  # two test processes share the machine, and small tensors gain nothing from more


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose MLflow store lies in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path
