"""Rows as people hold them: what is missing is never scored, and columns are those of the training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.anchors import small_vae
from vae import VAE
from vae.evidence import importance_sampling
from vae.model.rows import as_numbers

GAUSSIAN = {"name": "gaussian"}
NAMES = ["a", "b", "c", "d"]
FIT: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "progress": False, "threads": 1}
Array = NDArray[np.float64]


@pytest.fixture
def plain() -> VAE:
    return small_vae(GAUSSIAN)


@pytest.fixture
def with_gaps() -> VAE:
    """A model that takes missing values."""
    return small_vae({"name": "mixed", "columns": [GAUSSIAN] * 4}, inputs=[{"missing": True}] * 4)


@pytest.fixture(scope="module")
def y() -> Array:
    return np.random.default_rng(0).normal(size=(30, 4))


def methods(vae: VAE) -> list[Callable[[Any], Any]]:
    """All that take rows."""

    def fit(y: Any) -> Any:
        return vae.fit(y, **FIT)

    def validate(y: Any) -> Any:
        return vae.fit(np.zeros((5, 4)), validation=y, **FIT)

    def importance(y: Any) -> Any:
        return importance_sampling(vae, y, 5)

    return [fit, validate, vae.infer, vae.log_likelihood, vae.terms, vae.make_objective, importance]


def test_a_mask_hides_values(with_gaps: VAE, y: Array) -> None:
    mask = np.random.default_rng(1).random(y.shape) < 0.2
    hidden = np.where(mask, np.nan, y)
    masked = np.ma.array(np.where(mask, -999.0, y), mask=mask)
    expected = with_gaps.log_likelihood(hidden, 20, estimator="importance")
    for rows in (masked, [*masked], masked.copy(order="F"), masked[::-1].copy()[::-1]):
        assert torch.equal(with_gaps.log_likelihood(rows, 20, estimator="importance"), expected)
    assert torch.equal(with_gaps.infer(masked)[0], with_gaps.infer(hidden)[0])
    counted = np.ma.array(np.arange(8).reshape(2, 4), mask=[[1, 0, 0, 0], [0, 0, 0, 1]])
    assert np.isnan(as_numbers(counted, "y")[[0, 1], [0, 3]]).all()
    fitted = [small_vae({"name": "mixed", "columns": [GAUSSIAN] * 4}, inputs=[{"missing": True}] * 4) for _ in range(2)]
    weights = [vae.fit(rows, **FIT).pack_weights() for vae, rows in zip(fitted, (masked, hidden), strict=True)]
    assert torch.equal(*weights)


def test_a_mask_is_refused_where_values_may_not_be_missing(plain: VAE, y: Array) -> None:
    masked = np.ma.array(y, mask=False)
    assert torch.equal(plain.log_likelihood(masked), plain.log_likelihood(y))
    masked[3, 2] = np.ma.masked
    frame = pd.DataFrame(y, columns=NAMES).convert_dtypes()
    frame.loc[3, "c"] = pd.NA
    for rows in (masked, frame):
        for method in methods(plain):
            with pytest.raises(ValueError, match=r"got nan in row 3, column 2; missing values \(NaN, masked, NA\) need the l"):
                method(rows)


def test_nullable_columns_are_numbers(with_gaps: VAE, y: Array) -> None:
    columns = {
        "a": pd.array([1, None, 3], dtype="Int64"),
        "b": pd.array([1.5, 2.5, None], dtype="Float64"),
        "c": pd.array([True, False, None], dtype="boolean"),
        "d": [1.0, 2.0, np.nan],
    }
    expected = np.array([[1, 1.5, 1, 1], [np.nan, 2.5, 0, 2], [3, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(as_numbers(pd.DataFrame(columns), "y"), expected)
    assert torch.equal(with_gaps.log_likelihood(pd.DataFrame(columns), 20), with_gaps.log_likelihood(expected, 20))
    whole = pd.DataFrame(y, columns=NAMES).convert_dtypes()
    np.testing.assert_array_equal(as_numbers(whole, "y"), y)


@pytest.mark.parametrize(
    "held",
    [
        lambda y: y[::-1][::-1, ::-1][:, ::-1],
        lambda y: y[::-1].copy()[::-1],
        lambda y: y.astype(">f8"),
        lambda y: y.astype(np.longdouble),
        np.asfortranarray,
        lambda y: y.tolist(),
        lambda y: torch.tensor(y),
        lambda y: pd.DataFrame(y)[::-1][::-1],
        lambda y: pd.DataFrame(y.astype(">f8")),
        lambda y: np.repeat(y, 2, axis=0)[::2],
    ],
)
def test_any_array_of_numbers_is_taken(held: Callable[[Array], Any], plain: VAE, y: Array) -> None:
    expected = plain.log_likelihood(y, 20)
    assert torch.equal(plain.log_likelihood(held(y), 20), expected)
    plain.fit(held(y), validation=held(y), **FIT)


KINDS = ["?", "i1", "u1", ">i2", "<u2", ">u4", "<i8", ">u8", "<f2", ">f2", ">f4", "<f8", ">f8", "g"]


@settings(deadline=None, max_examples=50)
@given(data=st.data(), kind=st.sampled_from(KINDS), shape=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_numbers_of_every_type_and_layout_stay(data: st.DataObject, kind: str, shape: tuple[int, int]) -> None:
    numbers = st.lists(st.integers(0, 1), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    values = np.array(data.draw(numbers)).reshape(shape)
    masked = np.ma.array(values.astype(kind), mask=np.array(data.draw(numbers)).reshape(shape) > 0)
    step = st.sampled_from([(1, 1), (-1, 1), (1, -1), (-1, -1)])
    rows, columns = data.draw(step)
    view = masked[::rows, ::columns]
    for array, expected in (
        (view.data, values[::rows, ::columns]),
        (view, np.where(view.mask, np.nan, values[::rows, ::columns])),
    ):
        found = torch.tensor(as_numbers(array, "y")).double().numpy()
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([[1, "x", 2, 3]], dtype=object), "must be numbers; got 1, in an array of object: give texts and categories"),
        ([[1.0, None, 2.0, 3.0]], "must be numbers; got 1.0, in an array of object"),
        ([["1", "2", "3", "4"]], "must be numbers; got np.str_('1'), in an array of <U1"),
        (np.zeros((2, 4), dtype=complex), "must be numbers; got np.complex128(0j), in an array of complex128"),
        (np.zeros((2, 4), dtype="M8[s]"), "in an array of datetime64[s]"),
        (np.zeros(2, dtype=[("a", "f8"), ("b", "f8")]), "must be numbers; got "),
        ([[1.0, 2.0], [1.0]], "must have rows of one length; got a list of several"),
        (pd.DataFrame({"a": ["x"], "b": 1.0, "c": 1.0, "d": 1.0}), "must be numbers; its column 'a' holds str: give texts"),
        (pd.DataFrame({"a": [1.0], "b": pd.Categorical(["x"]), "c": 1.0, "d": 1.0}), "its column 'b' holds category"),
        (pd.DataFrame({"a": pd.Series([1.0, None], dtype=object), "b": 1.0, "c": 1.0, "d": 1.0}), "column 'a' holds object"),
    ],
)
def test_what_is_no_number_is_refused_in_words(rows: Any, message: str, plain: VAE) -> None:
    for method in methods(plain):
        with pytest.raises(ValueError, match=re.escape(message)):
            method(rows)


def test_what_the_message_names_mends_it(plain: VAE) -> None:
    rows = np.array([[1, 2.0, True, None]], dtype=object).repeat(2, axis=0)
    assert as_numbers(rows.astype(float), "y").dtype == np.float64


def test_columns_are_those_of_the_training(plain: VAE, y: Array, tmp_path: Path) -> None:
    """In any order, by every method, and after the model was saved."""
    frame = pd.DataFrame(y, columns=NAMES)
    plain.fit(frame, validation=frame[NAMES[::-1]], **FIT)
    assert plain.columns == tuple(NAMES)
    plain.save(tmp_path)
    for vae in (plain, VAE.load(tmp_path)):
        expected = vae.log_likelihood(y, 20)
        for order in (NAMES, NAMES[::-1], ["c", "a", "d", "b"]):
            assert torch.equal(vae.log_likelihood(frame[order], 20), expected)
            assert torch.equal(vae.infer(frame[order])[0], vae.infer(y)[0])
            assert torch.equal(vae.terms(frame[order]).closed_form, vae.terms(y).closed_form)
            found = importance_sampling(vae, frame[order], 5).log_likelihood
            assert torch.equal(found, importance_sampling(vae, y, 5).log_likelihood)
        weights = np.asarray(vae.pack_weights())
        assert vae.make_objective(frame[NAMES[::-1]])[0](weights) == vae.make_objective(frame)[0](weights)
        others = [
            ("lacks 'd' and adds 'e'", frame.rename(columns={"d": "e"})),
            ("adds 'e'", frame.assign(e=0.0)),
            ("lacks 'd'", frame[["a", "b", "c"]]),
            ("lacks 'd'", frame[["a", "b", "c", "c"]]),
            ("has one of them twice", frame[["a", "b", "c", "d", "d"]]),
            ("lacks 'a', 'b', 'c' and adds 0, 1, 2", pd.DataFrame(y)),
        ]
        for (odd, rows), method in product(others, methods(vae)):
            with pytest.raises(ValueError, match=f"columns that the model was fitted to, in any order; it {odd}; name"):
                method(rows)
        assert torch.equal(vae.log_likelihood(pd.DataFrame(y).to_numpy(), 20), expected)


def test_a_model_without_names_takes_columns_as_they_come(plain: VAE, y: Array, tmp_path: Path) -> None:
    """Files of such a model are as they were."""
    plain.fit(pd.DataFrame(y), **FIT)
    assert plain.columns is None
    plain.save(tmp_path)
    assert "columns" not in json.loads((tmp_path / "model.json").read_text())
    assert torch.equal(plain.log_likelihood(pd.DataFrame(y, columns=NAMES)), plain.log_likelihood(y))


def test_a_fit_that_was_refused_remembers_no_names(plain: VAE, y: Array) -> None:
    with pytest.raises(ValueError, match="shape"):
        plain.fit(pd.DataFrame(y[:, :3], columns=NAMES[:3]), **FIT)
    plain.fit(pd.DataFrame(y, columns=list("wxyz")), **FIT)
    assert plain.columns == tuple("wxyz")


def test_rows_on_disk_may_be_of_another_byte_order(plain: VAE, y: Array, tmp_path: Path) -> None:
    """Where they are read in pools, too."""
    for name, kind in (("big", ">f8"), ("little", "<f8")):
        np.save(tmp_path / f"{name}.npy", y.astype(kind))
    weights = []
    for name in ("big", "little"):
        rows = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        vae = small_vae(GAUSSIAN)
        weights.append(vae.fit(rows, validation=rows[::-1], memory_gib=1e-9, **FIT).pack_weights())
    assert torch.equal(*weights)
