"""What the MLflow run of an experiment shows: a pure function of the files that its stages made."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.base.files import to_yaml
from pipeline.dvc.formats import LOCK_FILE
from pipeline.experiment.identity import Experiment
from pipeline.experiment.records import STAGES, Record, digest, lock_of, record_path
from pipeline.params.file import PARAMS_FILE
from pipeline.params.versions import BEFORE_READ_AS, BEFORE_TOLERANCE, LATEST, completed

Point = tuple[str, float, int]  # name, value, step
Read = Callable[[str], bytes]  # the content of a file that a stage made

ARTIFACT_SUFFIXES = (".json", ".csv", ".parquet", ".png")
LARGEST_ARTIFACT = 5 * 2**20  # bytes; larger tables stay where DVC keeps them
MOST_CURVES = 64  # of latent dimensions; where there are more, they stand in their file alone
MEASURED = frozenset({"train/examples_per_second"})  # on some machine at some time, and shown live: no file has it
TRAINED = "evidence.trained"  # tag: the digest of what the training depended on


@dataclass(frozen=True)
class Content:
    """What an MLflow run should show.

    Attributes:
        experiment: Whose run it is.
        finished: The stages whose files it shows.
        points: Metrics.
        artifacts: Files by path under the run.
        tags: Beside those of the experiment.
        patch: How the code that ran differs from its commit.
        read_as: The flattened params, as the versions that ran read them; None before any has.
    """

    experiment: Experiment
    finished: tuple[str, ...] = ()
    points: frozenset[Point] = frozenset()
    artifacts: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    patch: str = ""
    read_as: Mapping[str, Any] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all stages are shown."""
        return self.finished == STAGES

    @property
    def params(self) -> dict[str, str]:
        """The flattened params, with the defaults of those that are left out."""
        flat = completed(self.experiment.params) if self.read_as is None else self.read_as
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat.items()}


def content_of(experiment: Experiment, records: Mapping[str, Record], read: Read) -> Content:
    """The content of a run.

    Args:
        experiment: Whose run it is.
        records: The stages that have run, with all files that they made.
        read: Gives the content of such a file.
    """
    finished = tuple(stage for stage in STAGES if stage in records)
    points = points_of(finished, read)
    artifacts = {str(PARAMS_FILE): to_yaml(experiment.params)}
    for stage in finished[1:]:
        artifacts |= dict(_artifacts(stage, records[stage], read))
    tags: dict[str, str] = {}
    said: dict[str, Any] = {}
    version = LATEST
    for stage in finished:
        said |= json.loads(read(str(record_path(stage)))).get("read_as", {})
    if "train" in records:
        tags = {TRAINED: digest(records["train"].inputs), "model.md5": records["train"].files["models/model.safetensors"]}
    if "evaluate" in records:
        verdict = json.loads(read("results/evaluate/metrics.json"))["verdict"]
        tags["verdict"] = verdict["statement"]
        version = BEFORE_READ_AS if "tolerance" in verdict else BEFORE_TOLERANCE
    if finished == STAGES:
        artifacts[str(LOCK_FILE)] = lock_of(records)
    return Content(experiment, finished, points, artifacts, tags, read_as=completed(experiment.params, said, version))


def points_of(stages: Iterable[str], read: Read) -> frozenset[Point]:
    """The metrics in the files of these stages."""
    return frozenset(point for stage in stages if stage in _POINTS for point in _POINTS[stage](read))


def live_points(row: Mapping[str, float]) -> list[Point]:
    """The points of one row of history.csv or latents.csv, or of what is `MEASURED` in an epoch."""
    columns = [name for name in row if name != "epoch"]
    return [(_metric_name(name), row[name], int(row["epoch"])) for name in columns if len(columns) <= MOST_CURVES]


def _artifacts(stage: str, record: Record, read: Read) -> Iterator[tuple[str, bytes]]:
    folder = f"results/{stage}/"
    for path in sorted(record.files.keys() - {str(record_path(stage))}):  # which dvc.lock names and the record itself does not
        if path.startswith(folder) and path.endswith(ARTIFACT_SUFFIXES):
            content = read(path)
            if len(content) <= LARGEST_ARTIFACT:
                yield f"{stage}/{path.removeprefix(folder)}", content


def _train_points(read: Read) -> list[Point]:
    try:
        latents = read("results/train/latents.csv")
    except (KeyError, FileNotFoundError):  # of a version that did not write them
        latents = b"epoch\n"
    return _curves(read("results/train/history.csv")) + _curves(latents)


def _curves(table: bytes) -> list[Point]:
    rows = pd.read_csv(io.BytesIO(table)).to_dict("records")
    return [point for row in rows for point in live_points({str(name): value for name, value in row.items()})]


def _metric_name(column: str) -> str:
    if latent := re.fullmatch(r"(kl|mean_variance)_(\d+)", column):
        return f"valid/{latent[1]}_per_dimension/{int(latent[2]):02d}"
    split, _, quantity = column.partition("_")
    return f"{split}/{quantity}" if split in ("train", "valid") else column


def _test_points(read: Read) -> list[Point]:
    metrics = json.loads(read("results/evaluate/metrics.json"))
    values = {f"test/{name}": metrics[name] for name in (*metrics["standard_errors"], "bits_per_dimension")}
    values["test/log_likelihood"] = metrics["log_likelihood"]["mean"]
    values["test/log_likelihood_se"] = metrics["log_likelihood"]["standard_error"]
    values["test/log_likelihood_monte_carlo_error"] = metrics["log_likelihood"]["monte_carlo_error"]
    values["test/trusted"] = float(metrics["verdict"]["trusted"])
    for name, entry in metrics["estimators"].items():
        values[f"test/{name}"] = entry["mean"]
        values[f"test/{name}_se"] = entry["standard_error"]
    for name, baseline in metrics["baselines"].items():
        values[f"test/baseline_{name}"] = baseline["mean"]
    ladder = pd.read_csv(io.BytesIO(read("results/evaluate/ladder.csv")))
    rungs = [("test/ladder", float(mean), int(s)) for s, mean in zip(ladder["samples"], ladder["mean"], strict=True)]
    return [(name, float(value), 0) for name, value in values.items() if value is not None] + rungs


_POINTS: dict[str, Callable[[Read], list[Point]]] = {"train": _train_points, "evaluate": _test_points}
