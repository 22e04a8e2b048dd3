"""The transformations: inverses, derivatives, and densities that integrate to one in raw units."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions, Data, Fractions
from pipeline.reading.columns.kept import kept_blocks
from pipeline.reading.columns.passes import fitted as fitted_columns
from pipeline.reading.columns.passes import measured, planned, surveyed, transformed
from pipeline.tables.schema import Column, Schema
from pipeline.tables.transforms import MOST_TIED, STEEPEST, TRANSFORMS, Quantile, Transform

RNG = np.random.default_rng(0)
TRAIN = {
    "normal": RNG.normal(50, 3, 400),
    "skewed": np.exp(RNG.normal(0, 1.5, 400)),
    "rounded": np.round(RNG.gamma(2, 3, 400), 1) + 0.1,
    "two groups": np.concatenate([RNG.normal(1, 0.1, 200), RNG.normal(900, 0.1, 200)]),
    "few": np.exp(RNG.normal(size=12)),
}


@pytest.fixture(params=[(name, data) for name in TRANSFORMS for data in TRAIN], ids="-".join)
def fitted(request: pytest.FixtureRequest) -> tuple[Transform, np.ndarray]:
    name, data = request.param
    return TRANSFORMS[name].fit(TRAIN[data]), TRAIN[data]


def test_the_inverse_inverts_far_beyond_the_training_rows(fitted: tuple[Transform, np.ndarray]) -> None:
    transform, train = fitted
    y = np.linspace(-8, 8, 1001) if transform.name != "none" else np.linspace(train.min() - 9, train.max() + 9, 1001)
    x = transform.inverse(y)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(transform.forward(x), y, rtol=1e-9, atol=1e-6)


def test_the_derivative_is_that_of_the_map(fitted: tuple[Transform, np.ndarray]) -> None:
    transform, train = fitted
    x = np.quantile(train, np.linspace(0.013, 0.987, 97)) + 0.037
    h = 1e-7 * np.abs(x)
    slope = (transform.forward(x + h) - transform.forward(x - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(transform.log_derivative(transform.forward(x))), slope, rtol=1e-4)


def test_a_density_of_prepared_values_is_one_of_raw_values(fitted: tuple[Transform, np.ndarray]) -> None:
    """The integral over raw values of N(y; 0, 1) dy/dx, piece by piece between the images of a grid of y."""
    transform, _ = fitted
    if transform.name == "none":
        pytest.skip("nothing is transformed")
    edges = np.unique([*np.linspace(-8, 8, 33), *getattr(transform, "y", ())])
    raw = transform.inverse(edges)

    def density(x: float) -> float:
        y = transform.forward(np.array([x]))
        return float(np.exp(stats.norm.logpdf(y) + transform.log_derivative(y))[0])

    total = sum(integrate.quad(density, a, b)[0] for a, b in pairwise(raw))
    assert total == pytest.approx(1, abs=1e-6)


def test_quantiles_become_normal() -> None:
    """Kolmogorov-Smirnov at a false-alarm rate below 1e-4: fitted rows are closer to normal than fresh ones would be."""
    for data in ("normal", "skewed", "rounded"):
        y = Quantile.fit(TRAIN[data]).forward(TRAIN[data])
        assert stats.kstest(y, "norm").pvalue > 1e-4
        assert np.isfinite(y).all()


def test_quantile_slopes_are_bounded_and_repeated_values_share_a_knot() -> None:
    for train in TRAIN.values():
        quantile = Quantile.fit(train)
        assert (np.diff(quantile.x) > 0).all()
        assert (np.diff(quantile.y) > 0).all()
        slopes = np.diff(quantile.y) / np.diff(quantile.x)
        assert slopes.max() <= STEEPEST / train.std() * (1 + 1e-9) or len(slopes) == 1


def fit_transform(x: NDArray[np.float64], transform: str, folder: Path) -> tuple[Column, NDArray[np.float64]]:
    """A column whose training rows are x, through all passes; the held-out rows are its first two."""
    data = Data(  # type: ignore[call-arg]  # the others have defaults
        path="table.csv",
        fractions=Fractions(train=0.6, valid=0.2, test=0.2),
        columns={"a": ColumnOptions(kind="continuous", transform=transform)},
    )
    labels = np.concatenate([np.zeros(len(x)), [1, 1, 2, 2]]).astype(np.int8)
    frame = pd.DataFrame({"a": np.concatenate([x, x[:2], x[:2]])})
    with kept_blocks(folder / "prepared") as blocks:
        program, _ = planned(surveyed([(frame, labels)], data, blocks), data, 0)
        columns = fitted_columns(program, measured(program, blocks), blocks)
        (piece,) = transformed(program, columns, blocks)
    return columns[0], piece.y[: len(x), 0].astype(np.float64)


def test_ties_are_refused(tmp_path: Path) -> None:
    ties = round(100 * MOST_TIED) + 1
    x = np.concatenate([np.zeros(ties), RNG.normal(5, 1, 100 - ties)])
    with pytest.raises(InputError, match=rf"data.columns.a.transform: .* but {ties} of 100 training values are 0; choose"):
        fit_transform(x, "quantile", tmp_path)


def test_logarithms_of_what_is_not_positive_are_refused(tmp_path: Path) -> None:
    x = np.array([1.0, 2.0, 0.0, 3.0])
    with pytest.raises(InputError, match=r"data.columns.a.transform: log needs values greater than 0; got 0; choose"):
        fit_transform(x, "log", tmp_path)


def test_missing_values_stay_missing(tmp_path: Path) -> None:
    x = np.array([*TRAIN["skewed"], np.nan])
    for name in TRANSFORMS:
        column, y = fit_transform(x, name, tmp_path)
        assert np.isnan(y[-1])
        schema = Schema(columns=[column], format=".csv", shape=None, units="", rows={})
        derivatives = schema.log_derivatives(y[:, None])
        assert derivatives[-1] == 0
        np.testing.assert_allclose(derivatives[:-1, 0], column.transform.log_derivative(y[:-1]))
        np.testing.assert_allclose(schema.log_jacobian(y[:, None]), derivatives[:, 0])
        assert np.isfinite(y[:-1]).all()
