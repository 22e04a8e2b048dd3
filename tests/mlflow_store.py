"""What an MLflow store shows, for comparing."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

MEASURED = {"train/examples_per_second"}
OF_THE_MACHINE = ("machine.", "evidence.process", "evidence.trained_in", "mlflow.", "git.", "dvc.")


def statuses(store: Path) -> list[str]:
    """Of the runs in a database, which a stage may be about to make."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs ORDER BY start_time")]
    return []


class Shown:
    """The runs in a store, oldest first."""

    def __init__(self, uri: str, experiment: str = "evidence") -> None:
        self.uri, self.experiment = uri, experiment

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self) -> list[Run]:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            return []
        return list(self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))

    def curve(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """Steps and values, in the order of steps, with what was logged twice twice."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, metric))

    def artifacts(self, run: Run) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(self.client.download_artifacts(run.info.run_id, "", folder))
            return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def everything(self) -> list[Any]:
        """All there is of each run."""
        return [
            (
                run.info.run_id,
                run.info.status,
                run.info.run_name,
                run.data.params,
                {name: value for name, value in run.data.tags.items() if name != "evidence.process"},
                {name: self.curve(run, name) for name in run.data.metrics},
                self.artifacts(run),
            )
            for run in self.runs()
        ]

    def comparable(self) -> dict[str, Any]:
        """By the digest of the experiment, what a rebuilt store shows as the lost one did."""
        digests = {run.info.run_id: run.data.tags["evidence.digest"] for run in self.runs()}
        return {
            run.data.tags["evidence.digest"]: (
                run.info.status,
                run.data.params,
                {name: value for name, value in run.data.tags.items() if not name.startswith(OF_THE_MACHINE)},
                digests.get(run.data.tags.get("evidence.trained_in", "")),
                {name: self.curve(run, name) for name in run.data.metrics.keys() - MEASURED},
                {name: body for name, body in self.artifacts(run).items() if name != "code.patch"},
            )
            for run in self.runs()
            if run.info.status == "FINISHED"
        }
