"""What the stages will take: that work is counted as it grows, from rows that are counted without reading them all.

How long some work takes is measured, and so nothing here says how long.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import check
from pipeline.experiment.records import STAGES
from pipeline.foretelling import forecast as foretelling
from pipeline.foretelling import training
from pipeline.foretelling.due import stages_due
from pipeline.foretelling.excerpt import COUNTED, TEXT, Excerpt
from pipeline.foretelling.forecast import Expected, forecast, lines
from pipeline.foretelling.portions import Evaluation, Portion, Trial, seconds_of
from pipeline.model.building import build
from pipeline.params.whole import load_params
from pipeline.reading.formats import READERS, reader_of
from pipeline.stages import evaluate, generate, prepare, train
from tests.test_job import locked
from tests.test_readers import VALUES, WRITERS, data_of
from tests.workspace import BINARY, mixed_table, table, write_params, write_table


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few epochs are enough, as no figure is looked at."""
    monkeypatch.setattr(training, "SECONDS", 0.01)


def evaluation(folder: Path, frame: pd.DataFrame | None = None, **changes: Any) -> Evaluation:
    """That of a small table."""
    write_table(folder, frame)
    write_params(folder, **changes)
    params = load_params()
    (folder / "excerpt").mkdir(exist_ok=True)
    excerpt = Excerpt.of(params.data, params.seed, folder / "excerpt")
    return Evaluation(build(params, excerpt.schema, folder=folder / "excerpt"), params, excerpt)


def work(asked: Evaluation) -> dict[str, float]:
    """How much there is to do, by kinds."""
    amounts: dict[str, float] = {}
    for portion in (portion for step in asked.steps() for portion in step):
        amounts[portion.trial.name] = amounts.get(portion.trial.name, 0) + portion.units
    return amounts


# ---- rows


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_counted_in_every_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, VALUES)
    data = data_of(path, key="x" if name in ("two.npz", "a.mat") else None)
    assert COUNTED[reader_of(path)](path, data) == len(VALUES)


def test_every_format_is_counted() -> None:
    assert set(COUNTED) == set(READERS)


@pytest.mark.parametrize("packed", [False, True])
def test_the_rows_of_a_long_text_are_counted_about(packed: bool, tmp_path: Path) -> None:
    """From its first bytes, of which there are three times as many."""
    rows = np.random.default_rng(0).integers(10_000_000, 99_999_999, 3 * TEXT // 9)
    text = "number\n" + "\n".join(map(str, rows)) + "\n"
    path = tmp_path / "long.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert COUNTED[reader_of(path)](path, data_of(path)) == pytest.approx(len(rows), rel=0.05)


def test_rows_of_files_for_splits_are_of_these(workspace: Path) -> None:
    for split, count in {"train": 40, "test": 30}.items():
        write_table(workspace, table(rows=count), f"{split}.csv")
    write_params(workspace, **{"data.path": "data/raw", "data.files": {"train": "train.csv", "test": "test.csv"}})
    (workspace / "excerpt").mkdir()
    excerpt = Excerpt.of(load_params().data, 0, workspace / "excerpt")
    assert excerpt.rows["test"] == 30
    assert excerpt.rows["train"] + excerpt.rows["valid"] == 40


# ---- work


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"evaluate.prior_samples": 2000}, {"prior sampling": 10}),
        ({"evaluate.samples": 100}, {"importance sampling": 2}),
        ({"evaluate.elbo_samples": 10}, {"ELBO": 2, "by column": 2}),
        (
            {"evaluate.annealing": {"chains": 4, "temperatures": 12, "leapfrog_steps": 2, "bounds_examples": 5}},
            {"annealing": 2, "step sizes": 2},
        ),
        ({"evaluate.estimators": ["prior"]}, {"importance sampling": 0, "annealing": 0, "step sizes": 0}),
    ],
)
def test_work_grows_with_the_settings(change: dict[str, Any], kinds: dict[str, float], workspace: Path) -> None:
    before, after = work(evaluation(workspace)), work(evaluation(workspace, **change))
    grown = {name: after.get(name, 0) / amount for name, amount in before.items()}
    assert {name: grown[name] for name in kinds} == pytest.approx(kinds, rel=0.02)
    if "evaluate.estimators" not in change:
        assert {name for name, ratio in grown.items() if ratio != 1} == set(kinds)


def test_work_grows_with_the_rows(workspace: Path) -> None:
    """But for what is done on pilot rows and on some rows only."""
    before, after = (work(evaluation(workspace, table(rows=count))) for count in (200, 800))
    grown = {name: amount / before[name] for name, amount in after.items()}
    alike = {name: grown.pop(name) for name in ("step sizes", "split of the ELBO's gap")}
    assert set(alike.values()) == {1.0}
    annealing = grown.pop("annealing")
    assert grown == pytest.approx(dict.fromkeys(grown, 4), rel=0.2)
    assert 3 < annealing < 4


def test_missing_values_are_filled_in(workspace: Path) -> None:
    asked = evaluation(workspace, mixed_table(gaps=True), **{"model.likelihood": {"name": "mixed"}})
    assert {"missing values", "IterativeImputer", "each value given its row"} <= set(work(asked))


def test_workers_share_what_has_parts() -> None:
    clock = Trial("a", 1.0, lambda: None)
    object.__setattr__(clock, "seconds", 1.0)
    steps = [[Portion(clock, 10.0, 10, repeats=True), Portion(clock, 4.0)], [Portion(clock, 3.0)]]
    assert seconds_of(steps, 1, 0.0) == 17
    assert seconds_of(steps, 2, 0.0) == 10
    assert seconds_of(steps, 100, 0.0) == 7
    assert seconds_of(steps, 1, 1.0) == 27


@pytest.fixture
def epochs_take_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretelling, "epoch_seconds", lambda *_: 1.0)


@pytest.mark.usefixtures("epochs_take_a_second")
def test_training_is_expected_to_stop_early_only_where_it_may(workspace: Path) -> None:
    write_table(workspace)

    def trained(**changes: Any) -> Expected:
        write_params(workspace, **{"train.max_epochs": 1000, **changes})
        return forecast(load_params(), ["train"])["train"]

    endless, early, longer = trained(), trained(**{"train.patience": 5}), trained(**{"train.max_epochs": 3000})
    assert endless.seconds == endless.most
    assert early.seconds < early.most == pytest.approx(endless.most, abs=50)
    assert longer.seconds - endless.seconds == pytest.approx(2000, abs=50)


# ---- the command


@pytest.mark.parametrize(
    ("frame", "changes"),
    [
        (table(), {}),
        (table("binary"), {**BINARY, "evaluate.estimators": None}),
        (mixed_table(gaps=True), {"model.likelihood": {"name": "mixed"}, "model.latent_dim": 3}),
    ],
)
def test_four_stages_are_foretold(
    frame: pd.DataFrame, changes: dict[str, Any], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(workspace, frame)
    write_params(workspace, **changes)
    before = sorted(workspace.rglob("*"))
    check.main()
    out, err = capsys.readouterr()
    title, columns, *rows = out.splitlines()
    assert title.startswith("what `dvc repro` will take")
    assert columns.split() == ["stage", "minutes", "at", "most", "GiB"]
    assert [row.split()[0] for row in rows] == [*STAGES, "together"]
    assert all(float(row.split()[1]) >= 0 for row in rows)
    assert not err
    assert sorted(workspace.rglob("*")) == before


def test_what_cannot_be_foretold_is_a_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(workspace, mixed_table())
    write_params(workspace, **{"model.likelihood": {"name": "gaussian"}})
    check.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("how long `dvc repro` will take cannot be foretold: ")
    assert "model.likelihood.name" in line


def test_only_what_is_to_run_is_foretold(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(workspace)
    write_params(workspace)
    assert stages_due() == [*STAGES]
    for stage in (prepare, train, evaluate, generate):
        stage.main()
    locked(workspace)
    assert stages_due() == []
    capsys.readouterr()
    check.main()
    assert capsys.readouterr().out == "no stage has to run: dvc.lock has the results of these inputs\n"
    write_params(workspace, **{"generate.samples": 30})
    assert stages_due() == ["generate"]
    write_params(workspace, **{"train.learning_rate": 0.5})
    assert stages_due() == ["train", "evaluate", "generate"]


def test_nothing_runs_that_the_cache_can_restore(workspace: Path) -> None:
    """Outputs that are not on disk, of a run that dvc.lock does not know any more."""
    write_table(workspace)
    write_params(workspace)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    prepare.main()
    locked(workspace)
    subprocess.run([sys.executable, "-m", "dvc", "commit", "-q", "-f", "prepare"], check=True)
    for path in (workspace / "data/prepared").iterdir():
        path.unlink()
    assert stages_due() == ["train", "evaluate", "generate"]
    (workspace / "dvc.lock").unlink()
    assert stages_due() == ["train", "evaluate", "generate"]
    shutil.rmtree(workspace / ".dvc/cache/runs")
    assert stages_due() == [*STAGES]


def test_the_table_says_what_may_take_longer() -> None:
    rows = list(lines({"train": Expected(90, 180, 2**30, "7 epochs"), "generate": Expected(6, 6, 2**29)}, 1.0))
    assert rows[2:] == [
        "  train          1.5      3.0   1.0   7 epochs",
        "  generate       0.1            0.5",
        "  together       1.6",
    ]
