"""The model that is built for a schema: likelihoods and inputs by column, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.model.building import build
from pipeline.model.loading import load_model
from pipeline.params.whole import load_params
from pipeline.stages import prepare, train
from pipeline.tables.schema import load_schema, load_split
from tests.workspace import mixed_table, table, write_params, write_table
from vae.evidence import importance_sampling, inference_gap
from vae.model.encoding import Input

MIXED = {"model.likelihood": {"name": "mixed"}}


def prepared(workspace: Path, frame: Any = None, **changes: Any) -> None:
    write_table(workspace, mixed_table(gaps=True) if frame is None else frame)
    write_params(workspace, **changes)
    prepare.main()


def test_each_kind_gets_its_likelihood_and_its_input(workspace: Path) -> None:
    chosen = {"name": "mixed", "continuous": {"name": "student_t"}, "columns": {"visits": {"name": "poisson"}}}
    prepared(workspace, **{"model.likelihood": chosen})
    vae = build(load_params(), load_schema())
    columns = vae.card.likelihood["columns"]
    assert [column["name"] for column in columns] == [
        "student_t",
        "poisson",
        "bernoulli",
        "bernoulli",
        "categorical",
        "ordinal",
    ]
    assert (columns[4]["levels"], columns[5]["levels"]) == (3, 3)
    height, visits, sex, _, colour, _ = vae.card.inputs or []
    np.testing.assert_allclose((height.shift, height.scale), (0, 1), atol=1e-6)
    observed = np.log1p(np.array(load_split("train"))[:, 1])
    assert visits == Input(np.nanmean(observed), np.nanstd(observed), log=True, missing=True)
    assert (sex.classes, colour.classes) == (0, 3)
    assert all(of.missing for of in vae.card.inputs or [])


def test_levels_and_trials_are_those_of_the_data(workspace: Path) -> None:
    prepared(workspace, mixed_table()[["visits"]], **{"model.likelihood": {"name": "binomial"}})
    assert build(load_params(), load_schema()).card.likelihood["columns"] == [{"name": "binomial", "trials": 11}]
    assert mixed_table()["visits"].max() == 11


def test_one_likelihood_of_all_columns_takes_missing_values(workspace: Path) -> None:
    """The same parameters as without gaps: log p of the rows that are complete is the same."""
    frame = table()
    gaps = frame.mask(frame > 99.5)
    prepared(workspace, gaps, **{"data.scale": "none"})
    vae = build(load_params(), load_schema())
    assert {column["name"] for column in vae.card.likelihood["columns"]} == {"gaussian_per_dimension"}
    assert len(vae.generative.likelihood.parts) == 1
    prepared(workspace, frame, **{"data.scale": "none"})
    plain = build(load_params(), load_schema())
    assert plain.card.inputs is None
    z, y = vae.prior().sample((5,)), np.array(load_split("test"))[:5]
    plain.generative.load_state_dict(
        {name.replace("likelihood.parts.0", "likelihood"): value for name, value in vae.generative.state_dict().items()}
    )
    np.testing.assert_allclose(
        vae.generative(z).log_prob(vae.as_rows(y)).detach(), plain.generative(z).log_prob(plain.as_rows(y)).detach(), rtol=1e-6
    )


def test_the_split_of_the_gap_sees_what_the_inference_network_is_given(workspace: Path) -> None:
    """ELBO + both parts of the gap is log p(y), for rows with gaps as well."""
    prepared(workspace, **MIXED)
    vae = build(load_params(), load_schema())
    y = vae.as_rows(np.array(load_split("test")))
    truth = importance_sampling(vae, y, 20_000).log_likelihood
    gap = inference_gap(vae, y, truth, steps=100, S=2000)
    elbo = vae.terms(y, 2000)
    difference = truth - (elbo.log_likelihood - elbo.closed_form).double()
    np.testing.assert_allclose((gap.approximation + gap.amortisation).detach(), difference.detach(), atol=0.1)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a density of counts": (
        {"model.likelihood": {"name": "gaussian"}, "data.exclude": ["sex", "smokes", "colour", "grade"]},
        "model.likelihood.name: gaussian is a density .* unbounded for column 'visits' of data/raw/table.csv, which is "
        "count; choose negative_binomial, .*, set data.columns.visits to {dequantize: 1}, or mixed",
    ),
    "a probability of real numbers": (
        {"model.likelihood": {"name": "poisson"}},
        "model.likelihood.name: poisson needs values that are each a whole number from 0 on, but .*'height' .* real numbers",
    ),
    "categories as numbers": (
        {"model.likelihood": {"name": "mixed", "categorical": {"name": "poisson"}}},
        "model.likelihood.categorical: poisson takes the categories of column 'colour' .* for numbers; choose categorical",
    ),
    "outside the support": (
        {"model.likelihood": {"name": "mixed", "columns": {"height": {"name": "log_normal"}}}},
        r"model.likelihood.columns.height needs values that are each greater than 0, but .*'height' has -.* in row \d+ of",
    ),
    "too few levels": (
        {"model.likelihood": {"name": "mixed", "count": {"name": "binomial", "trials": 2}}},
        "model.likelihood.count needs values that are each a whole number from 0 to 2, but column 'visits' has",
    ),
    "shares of an unknown total": (
        {"model.likelihood": {"name": "mixed", "count": {"name": "zero_inflated_negative_binomial", "library": 20.0}}},
        "model.likelihood: library makes counts shares of a row's total, which is not known where values are missing, so that",
    ),
    "an unknown column": (
        {"model.likelihood": {"name": "mixed", "columns": {"size": {"name": "gaussian"}}}},
        "model.likelihood.columns: no column 'size'; the columns are height, visits",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsuitable_likelihoods_are_refused(case: str, workspace: Path) -> None:
    changes, message = REFUSED[case]
    prepared(workspace, **changes)
    with pytest.raises(InputError, match=message):
        train.main()
    assert not (workspace / "models").exists()


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"name": "mixed", "counts": {"name": "poisson"}}, "model.likelihood.counts: unknown key; did you mean 'count'"),
        ({"name": "mixed", "count": {"name": "poison"}}, "model.likelihood.count.name: must be one of"),
        ({"name": "mixed", "count": {"name": "binomial", "trials": 0}}, "model.likelihood.count.trials: "),
        ({"name": "mixed", "columns": {"a": {"name": "student_t", "min_scale": 0}}}, "model.likelihood.columns.a.min_scale: "),
        ({"name": "mixed", "binary": {"name": "mixed"}}, "model.likelihood.binary.name: must be one of"),
    ],
)
def test_bad_choices_are_named(likelihood: dict[str, Any], message: str, workspace: Path) -> None:
    write_params(workspace, **{"model.likelihood": likelihood})
    with pytest.raises(InputError, match=message):
        load_params()


def test_a_model_of_another_schema_is_refused(workspace: Path) -> None:
    prepared(workspace, **MIXED)
    train.main()
    assert load_model(load_schema()).card.data_dim == 6
    prepared(workspace, mixed_table(), **MIXED)
    with pytest.raises(InputError, match="has 1 real columns and 5 discrete columns, of other scales or classes; train again"):
        load_model(load_schema())
    prepared(workspace, table())
    message = "models holds a model of 1 real columns and 5 discrete columns, but the prepared data has 4 real columns; train"
    with pytest.raises(InputError, match=message):
        load_model(load_schema())
