"""Rows that come in groups, from the raw table to the errors of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import summary
from pipeline.evaluation.metrics import too_few
from pipeline.stages import evaluate, prepare, train
from pipeline.tables.schema import load_groups
from tests.workspace import table, write_params, write_table
from vae.evidence import MeanWithError, two_stage

OVER_GROUPS = {"mean", "standard_error", "groups", "effective_groups", "degrees_of_freedom", "interval_95"}
SMALL = {"chains": 4, "temperatures": 6, "leapfrog_steps": 2, "bounds_examples": 5, "examples": 12}


def evaluated(**changes: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """Of a table whose rows come in 40 groups of one to seven, all rows of a group near one another."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    frame = table(rows=len(who)) * 0.3 + rng.normal(size=(40, 4))[who]
    write_table(Path(), frame.assign(who=who))
    write_params(
        Path(), **{"data.split": {"group": "who"}, "data.fractions": {"train": 0.4, "valid": 0.1, "test": 0.5}}, **changes
    )
    for stage in (prepare, train, evaluate):
        stage.main()
    return json.loads(Path("results/evaluate/metrics.json").read_text()), pd.read_parquet("results/evaluate/examples.parquet")


def test_every_error_is_over_groups(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, examples = evaluated(**{"evaluate.diagnostics_examples": 9})
    groups = load_groups("test")
    assert groups is not None
    assert examples["group"].tolist() == groups.tolist()
    labels, estimators, diagnostics = torch.from_numpy(groups), metrics["estimators"], metrics["diagnostics"]
    for name in ("importance", "prior", "annealed"):
        expected = MeanWithError.of(torch.tensor(examples[f"log_likelihood_{name}"].to_numpy()), labels)
        assert estimators[name]["standard_error"] == pytest.approx(expected.standard_error)
        assert estimators[name]["interval_95"] == pytest.approx(expected.interval())
        assert estimators[name]["groups"] == len(set(groups.tolist())) == metrics["groups"]["number"]
    for name in ("elbo", "reconstruction", "kl"):
        expected = MeanWithError.of(torch.tensor(examples[name].to_numpy()), labels)
        assert metrics["standard_errors"][name] == pytest.approx(expected.standard_error)
    entries = [metrics["log_likelihood"], diagnostics["train_minus_test"]]
    entries += [diagnostics["inference_gap"][name] for name in ("approximation", "amortisation")]
    entries += [entry for baseline in metrics["baselines"].values() for entry in (baseline, baseline["vae_minus_baseline"])]
    checks = ("posterior_start_minus_prior_start", "temperatures_minus_half", "minus_importance")
    entries += [estimators["annealed"]["diagnostics"][name] for name in checks]
    for entry in entries:
        assert set(entry) >= OVER_GROUPS
        assert entry["interval_95"][0] < entry["mean"] < entry["interval_95"][1]
    assert "groups" not in estimators["bounds"]  # simulated rows are independent
    ladder = pd.read_csv("results/evaluate/ladder.csv")
    assert ladder["standard_error"].iloc[-1] == pytest.approx(estimators["importance"]["standard_error"])
    note = metrics["groups"]["note"]
    assert note in capsys.readouterr().out
    summary.main()
    text = " ".join(capsys.readouterr().out.split())
    assert f"± is one standard error over {metrics['groups']['number']} groups of test rows, worth" in text
    assert "few groups: the test rows come in" in text


def test_whole_groups_are_annealed(workspace: Path) -> None:
    """And the error is that of both stages over groups."""
    metrics, examples = evaluated(**{"evaluate.annealing": SMALL})
    annealed = examples["log_likelihood_annealed"]
    whole = annealed.notna().groupby(examples["group"]).mean()
    assert set(whole) == {0.0, 1.0}
    assert whole.sum() == np.ceil(len(whole) * 12 / len(examples))
    assert metrics["estimators"]["annealed"]["examples"] == annealed.notna().sum()
    subset = torch.tensor(np.flatnonzero(annealed.notna()))
    everywhere = torch.tensor(examples["log_likelihood_importance"].to_numpy())
    better, labels = torch.tensor(annealed.dropna().to_numpy()), torch.tensor(examples["group"].to_numpy())
    expected, found = two_stage(everywhere, better, subset, labels), metrics["log_likelihood"]
    assert found["standard_error"] == pytest.approx(expected.standard_error)
    assert found["interval_95"] == pytest.approx(expected.interval())
    assert found["effective_groups"] == pytest.approx(expected.effective_groups) == metrics["groups"]["effective"]


def test_a_report_without_groups_says_nothing_of_them(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    for stage in (prepare, train, evaluate):
        stage.main()
    assert "groups" not in Path("results/evaluate/metrics.json").read_text()
    assert "group" not in pd.read_parquet("results/evaluate/examples.parquet")


def test_few_groups_and_sizes_that_differ_are_noted() -> None:
    assert too_few(30, 30.0) is None
    assert "come in 29 groups: below 30" in str(too_few(29, 29.0))
    assert "come in 80 groups, worth 9.4 of one size: below 30" in str(too_few(80, 9.4))
