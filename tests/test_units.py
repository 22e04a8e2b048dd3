"""Nothing but densities depends on the units of the data, and these only by their Jacobian."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.stages import evaluate, prepare, train
from pipeline.tables.schema import Column, Schema
from pipeline.tables.transforms import Identity, Log, Standardize, Transform
from tests.workspace import table, write_params, write_table

FACTORS, SHIFTS = np.array([1000.0, 1.0, 1000.0, 0.001]), np.array([300.0, -0.2, 100.0, 0.0])
SETTINGS = {
    "train.max_epochs": 5,
    "evaluate.diagnostics_examples": 12,
    "evaluate.imputation": {"samples": 50, "draws": 20},
}


def with_gaps(rows: int = 160) -> pd.DataFrame:
    """Numbers around 0, of which a fifth is missing."""
    frame = table(rows=rows)
    return (frame - frame.mean()).mask(np.random.default_rng(1).random(frame.shape) < 0.2)


def evaluated(frame: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """The metrics, by path, and the rows."""
    write_table(Path(), frame)
    write_params(Path(), **SETTINGS)
    for stage in (prepare, train, evaluate):
        stage.main()
    metrics = json.loads(Path("results/evaluate/metrics.json").read_text())
    return dict(leaves(metrics)), pd.read_parquet("results/evaluate/examples.parquet")


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure and text, with the names that lead to it."""
    if not isinstance(node, dict | list):
        yield path, node
        return
    for name, below in node.items() if isinstance(node, dict) else enumerate(node):
        yield from leaves(below, f"{path}.{name}" if path else str(name))


DENSITIES = {
    "elbo": ("elbo", "standard_errors.elbo"),
    "reconstruction": ("reconstruction", "standard_errors.reconstruction"),
    "log_likelihood": ("log_likelihood.mean", "log_likelihood.standard_error"),
    "independent": ("baselines.independent.mean", "baselines.independent.standard_error"),
} | {
    f"log_likelihood_{name}": (f"estimators.{name}.mean", f"estimators.{name}.standard_error")
    for name in ("prior", "importance", "annealed")
}  # the columns of examples.parquet, and where their means and errors stand


def test_only_densities_depend_on_units(workspace: Path) -> None:
    """Columns in units a thousand times smaller or larger, and from another origin."""
    frame = with_gaps()
    before, examples = evaluated(frame)
    after, _ = evaluated(frame * FACTORS + SHIFTS)
    assert before.keys() == after.keys()
    jacobian = -(frame.notna() @ np.log(FACTORS))[examples["index"]].to_numpy()
    expected = dict(before)
    for column, (mean, error) in DENSITIES.items():
        values = examples[column] + jacobian
        expected |= {mean: values.mean(), error: values.std() / math.sqrt(len(values))}
    least = examples["index"].to_list().index(before["least_likely.index"])
    expected["least_likely.log_likelihood"] += jacobian[least]
    lower, upper = (after[name] - before[name] for name in ("estimators.bounds.lower.mean", "estimators.bounds.upper.mean"))
    assert lower == pytest.approx(upper, abs=2e-3)
    simulated = {f"estimators.bounds.{side}.{of}" for side in ("lower", "upper") for of in ("mean", "standard_error")}
    wrong = {
        path: (after[path], expected[path]) for path in expected.keys() - simulated if not alike(after[path], expected[path])
    }
    assert not wrong


@pytest.mark.parametrize("transform", [Identity(), Standardize(shift=3, scale=5), Log(shift=1, scale=0.2)])
def test_a_missing_value_counts_as_much_in_any_unit(transform: Transform) -> None:
    """As log p does: by minus the log of the factor; a value that is there, and a category, count 0."""
    counted = []
    for factor in (1.0, 1000.0):
        column = Column(name="a", kind="continuous", transform=_in_units(transform, factor), spread=_spread(transform, factor))
        columns = [column, Column(name="b", kind="count", spread=7.0)]
        schema = Schema(columns=columns, format=".csv", shape=None, units="", rows={})
        counted.append(schema.log_missing(np.array([[np.nan, np.nan], [0.3, np.nan], [np.nan, 2.0]])))
    np.testing.assert_allclose(counted[1] - counted[0], -math.log(1000) * np.array([1, 0, 1]), atol=1e-12)
    assert counted[0][1] == 0


def _in_units(transform: Transform, factor: float) -> Transform:
    if isinstance(transform, Standardize):
        return Standardize(shift=transform.shift * factor, scale=transform.scale * factor)
    return Log(shift=transform.shift + math.log(factor), scale=transform.scale) if isinstance(transform, Log) else transform


def _spread(transform: Transform, factor: float) -> float:
    return 2.0 * factor if isinstance(transform, Identity) else 1.0


def alike(one: Any, other: Any) -> bool:
    """Whether figures agree to two parts in a thousand, and all else wholly."""
    return math.isclose(one, other, rel_tol=2e-3, abs_tol=2e-3) if isinstance(one, float) else one == other
