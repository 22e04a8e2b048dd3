"""Settings of all tests: no network, no telemetry, one thread, and no MLflow but where a test is about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from tests.services import no_tracking_server, tracking_server

os.environ.update(DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true", EVIDENCE_TRACKING="off")
os.environ["EVIDENCE_WORKERS"] = "1"  # tests run side by side
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("DASK_SCHEDULER_ADDRESS", None)
os.environ.pop("DVC_ROOT", None)
torch.set_num_threads(1)  # two test processes share the machine, and small tensors gain nothing from more


# the files that take longest, so that none is left to one process when the others have ended
LONGEST = ("test_pipeline", "test_tracking", "test_stages", "test_workers", "test_signals", "test_cluster", "test_restore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are shown in MLflow, as users have it."""
    monkeypatch.delenv("EVIDENCE_TRACKING")


@pytest.fixture(autouse=True)
def sketches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes more than half of the stages' time, unless a test is marked ``pictures``."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(Figure, "savefig", _sketch)


def _sketch(figure: Figure, path: Path, **options: object) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + repr([ax.get_title() for ax in figure.axes]).encode())


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on a real PostgreSQL."""
    if why := no_tracking_server():
        pytest.skip(why)
    with tracking_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose MLflow store lies in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path
