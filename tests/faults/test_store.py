"""A store that was being made when its process was killed is made again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from pipeline.tracking.store import Store
from tests.workspace import ROOT

pytestmark = pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy and others deprecate


def die_in_a_migration() -> None:
    """Make a store, and be killed between two statements of a change to its schema."""

    def die(*details: Any) -> None:
        if "CREATE TABLE _alembic_tmp_" in details[2]:
            os.kill(os.getpid(), 9)

    event.listen(Engine, "after_cursor_execute", die)
    Store(Path.cwd())


def test_a_database_that_is_half_made_is_made_again(workspace: Path) -> None:
    code = "from tests.faults.test_store import die_in_a_migration; die_in_a_migration()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    Store(workspace)
    assert {path.name for path in workspace.iterdir()} == {".evidence", "mlflow.db"}
