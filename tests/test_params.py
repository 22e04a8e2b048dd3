"""params.yaml: what is refused, and how it is said."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.experiment.records import load_record
from pipeline.params.file import without_dropped
from pipeline.params.whole import Params, check_params, load_params
from pipeline.stages import prepare, train
from tests.workspace import ROOT, params_with, write_params, write_table
from vae import likelihoods, objectives
from vae.errors import OptionError
from vae.model import hierarchies, posteriors, priors
from vae.options.declaration import Entry
from vae.options.registry import HIERARCHIES, LIKELIHOODS, POSTERIORS, PRIORS, Between
from vae.settings import OBJECTIVES, Training

FAMILIES = [
    (LIKELIHOODS, likelihoods),
    (OBJECTIVES, objectives),
    (PRIORS, priors),
    (POSTERIORS, posteriors),
    (HIERARCHIES, hierarchies),
]
LADDER = {"name": "ladder", "hidden": [[4]]}


def test_the_shipped_params_are_valid_and_flatten_to_the_contracts_names() -> None:
    flat = load_params(ROOT / "params.yaml").flat()
    contract = """data.path model.latent_dim model.likelihood.name model.generative.hidden model.inference.hidden
        train.max_epochs train.batch_size train.learning_rate train.objective.name train.objective.samples
        train.accelerator train.devices train.precision evaluate.samples generate.samples seed threads"""
    assert set(contract.split()) <= set(flat)


@pytest.mark.parametrize("text", ["1e-5", "1e-05", "1E-5", "0.00001"])
def test_exponents_are_numbers(text: str, tmp_path: Path) -> None:
    source = (ROOT / "params.yaml").read_text().replace("learning_rate: 1.0e-3", f"learning_rate: {text}")
    (tmp_path / "params.yaml").write_text(source)
    assert load_params(tmp_path / "params.yaml").train.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.learnin_rate": 1}, "train.learnin_rate: unknown key; did you mean 'learning_rate'?"),
        (
            {"evaluate.annealing.check_examples": 9},
            "evaluate.annealing: check_examples is no more, as every annealed row is checked",
        ),
        ({"evaluate.tolerance": 0}, "evaluate.tolerance: input should be greater than 0; got 0"),
        ({"model.latentdim": 1}, "model.latentdim: unknown key; did you mean 'latent_dim'?"),
        ({"train.learning_rate": "fast"}, "train.learning_rate: input should be a valid number; got 'fast'"),
        ({"train.max_epochs": "abc"}, "train.max_epochs: input should be a valid integer; got 'abc'"),
        ({"train.max_epochs": 2.5}, "train.max_epochs: input should be a valid integer"),
        ({"train.max_epochs": True}, "train.max_epochs: input should be a valid integer; got True"),
        ({"train.learning_rate": 0}, "train.learning_rate: input should be greater than 0; got 0"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate: input should be a finite number; got nan"),
        ({"model.latent_dim": 0}, "model.latent_dim: input should be greater than or equal to 1; got 0"),
        ({"model.latent_dim": [3, 0]}, "model.latent_dim.1: input should be greater than or equal to 1; got 0"),
        ({"model.latent_dim": "many"}, "model.latent_dim: input should be a valid integer; got 'many'"),
        ({"model.latent_dim": [3, 2]}, r"model: latent_dim lists the dimensions .* got \[3, 2\] and None"),
        ({"model.hierarchy": LADDER}, "model: latent_dim lists the dimensions .* got 16 and {'name': 'ladder', "),
        ({"model.latent_dim": [3, 2, 1], "model.hierarchy": LADDER}, "model: hierarchy.hidden must list the widths between "),
        ({"model.latent_dim": [3, 2], "model.hierarchy": LADDER | {"name": "steps"}}, "model.hierarchy.name: must be one of "),
        (
            {"model.latent_dim": [3, 2], "model.hierarchy": LADDER | {"hidden": [4]}},
            "model.hierarchy.hidden.0: input ",
        ),
        ({"model.latent_dim": [3, 2], "model.hierarchy": LADDER | {"width": 4}}, "model.hierarchy.width: unknown key"),
        ({"evaluate.samples": -5}, "evaluate.samples: input should be greater than or equal to 1; got -5"),
        ({"generate.samples": None}, "generate.samples: input should be a valid integer; got None"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0; got -1"),
        ({"data.shape": [8]}, "data.shape: list should have at least 2 items"),
        ({"data.fractions.test": 0.5}, "data.fractions: train, valid and test must add up to 1, not 1.35"),
        ({"model.generative.hidden": [16, 0]}, "model.generative.hidden.1: input should be greater than or equal to 1; got 0"),
        ({"model.inference.activation": "sin"}, "model.inference.activation: input should be 'tanh', 'relu'"),
        (
            {"model.likelihood": {"name": "normal"}},
            "model.likelihood.name: must be one of 'gaussian', .*'bernoulli', .*; got 'normal'",
        ),
        (
            {"model.likelihood": {"name": "gaussian", "variance": 0}},
            "model.likelihood.variance: input should be greater than 0",
        ),
        ({"model.likelihood": {"name": "bernoulli", "varianc": 1}}, "model.likelihood.varianc: unknown key"),
        ({"model.prior": {"name": "standard_normal", "component": 3}}, "model.prior.component: unknown key"),
        ({"model.prior": {"name": "normal", "components": 3}}, "model.prior.name: must be one of 'standard_normal'"),
        ({"model.prior": {"components": 3}}, "model.prior: "),
        ({"model.likelihood": "gaussian"}, "model.likelihood: "),
        ({"train.objective.name": "evidence"}, "train.objective.name: must be one of 'elbo', 'beta_elbo', 'free_bits', "),
        ({"train.objective.samples": 0}, "train.objective.samples: input should be greater than or equal to 1; got 0"),
        ({"train.accelerator": "abacus"}, "train.accelerator: input should be 'auto', 'cpu'"),
        ({"model.likelihood": {"name": "bernoulli"}}, "bernoulli needs values in {0, 1}: set data.dequantize: null"),
        ({"data.binarize": 8}, "data.binarize: makes values 0 and 1, which needs model.likelihood.name: bernoulli"),
        (
            {"data.binarize": 8, "data.dequantize": None, "data.scale": "none"},
            "data.binarize: makes values 0 and 1, which needs model.likelihood.name: bernoulli",
        ),
    ],
)
def test_problems_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("?", r"\?")):
        check_params(params_with(changes))


def options_of(entry: Entry) -> dict[str, Any]:
    """A value of each option that is not its default."""
    hidden = [[4]] if entry.options is Between else [5]
    values: dict[str, Any] = {"hidden": hidden, "kl": "closed_form", "schedule": "linear"}
    return {field.name: values.get(field.name, 3) for field in fields(entry.options) if field.name != "activation"}


SECTIONS = {
    "model.likelihood": LIKELIHOODS,
    "model.likelihood.count": LIKELIHOODS,
    "model.likelihood.columns.a.b": LIKELIHOODS,
    "model.prior": PRIORS,
    "model.posterior": POSTERIORS,
    "model.hierarchy": HIERARCHIES,
    "train.objective": OBJECTIVES,
}
PAIRS = [(section, one, other) for section, names in SECTIONS.items() for one in names for other in names if one != other]


def params_of(section: str, content: dict[str, Any]) -> Any:
    """The params with a section of this content."""
    changes: dict[str, Any] = {section: content, "data.dequantize": None}
    if section.startswith("model.likelihood."):
        _, _, kind, *column = section.split(".", 3)
        changes = {"model.likelihood": {"name": "mixed", kind: {column[0]: content} if column else content}}
    if section == "model.hierarchy":
        changes["model.latent_dim"] = [3, 2]
    return params_with(changes)


@settings(deadline=None, max_examples=50)
@given(pair=st.sampled_from(PAIRS))
def test_the_name_of_a_section_is_changed_alone(pair: tuple[str, str, str]) -> None:
    """Whatever options the other name has: those are dropped, and said; what both have stays; what none has is refused."""
    section, one, other = pair
    names = SECTIONS[section]
    left, right = options_of(names[one]), options_of(names[other])
    needed = {name: value for name, value in right.items() if name not in left}
    content = {"name": other, **left, **needed}
    clean = {"name": other, **{name: value for name, value in content.items() if name in right}}
    assert check_params(params_of(section, content)) == check_params(params_of(section, clean))
    _, said = without_dropped(params_of(section, content), Params)
    dropped = sorted(left.keys() - right.keys())
    assert sorted(line.split(" ")[0] for line in said) == [f"{section}.{name}" for name in dropped]
    assert all(one in line.partition("it is for ")[2].partition(", not ")[0] for line in said)
    assert all(line.endswith(f", not {other}") for line in said)
    for typo in ("componets", "min_varianc", "sample"):
        with pytest.raises(InputError, match=f"{section}.{typo}: unknown key"):
            check_params(params_of(section, content | {typo: 3}))


def test_mixed_may_be_left_and_chosen() -> None:
    count, column = {"name": "poisson", "library": 3}, {"name": "student_t", "levels": 3}
    mixed = {"name": "mixed", "count": count, "columns": {"a": column}}
    content, said = without_dropped(params_with({"model.likelihood": mixed | {"min_variance": 0.1}}), Params)
    count, column = {"name": "poisson"}, {"name": "student_t"}
    assert content["model"]["likelihood"] == {"name": "mixed", "count": count, "columns": {"a": column}}
    named = [line.split(" ")[0].removeprefix("model.likelihood.") for line in said]
    assert named == ["min_variance", "count.library", "columns.a.levels"]
    changes = {"model.likelihood": mixed | {"name": "poisson"}, "data.dequantize": None, "data.scale": "none"}
    assert check_params(params_with(changes)).model.likelihood.model_dump() == {"name": "poisson"}


def test_what_is_dropped_is_no_param_of_the_model(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after `-S model.prior.name=standard_normal`: the stage says so once, and its files and MLflow have what was read."""
    write_table(workspace)
    write_params(workspace, **{"model.prior": {"name": "standard_normal", "components": 20}})
    note = "note: model.prior.components is dropped: it is for gaussian_mixture, vamp, not standard_normal\n"
    prepare.main()
    assert note not in capsys.readouterr().out
    train.main()
    assert capsys.readouterr().out.count(note) == 1
    assert json.loads(Path("models/model.json").read_text())["prior"] == {"name": "standard_normal"}
    record = load_record("train")
    assert record is not None
    assert record.read_as["model"]["prior"] == {"name": "standard_normal"}
    assert "model.prior.components" not in load_params().flat()


def test_the_address_of_a_cluster_decides_nothing() -> None:
    """It may stand in two places; DVC is told of neither, but for the whole of data."""
    address = "tcp://scheduler:8786"
    none = check_params(params_with({}))
    assert none.scheduler is None
    for changes in ({"cluster": address}, {"data.cluster": address}, {"cluster": address, "data.cluster": address}):
        params = check_params(params_with(changes))
        assert params.scheduler == address
        assert params.flat() == none.flat()
        assert params.data.model_dump() == none.data.model_dump()
    with pytest.raises(InputError, match=f"data.cluster: tcp://other:1 is another than cluster: {address}; remove data.clus"):
        check_params(params_with({"cluster": address, "data.cluster": "tcp://other:1"}))


def test_layers_of_latents() -> None:
    model = check_params(params_with({"model.latent_dim": [3, 2], "model.hierarchy": LADDER})).model
    assert model.latent_dim == [3, 2]
    assert model.model_dump()["hierarchy"] == LADDER | {"activation": "tanh"}


def test_one_message_lists_every_problem() -> None:
    changes = {"seed": -1, "train.batch_size": 0, "data.pth": "x", "data.fractions.test": 0.5, "data.binarize": 3}
    with pytest.raises(InputError) as caught:
        check_params(params_with(changes))
    message = str(caught.value)
    assert message.startswith("params.yaml has 5 problems:\n")
    conflicts = ("  data.fractions: train", "  data.binarize: makes")
    assert all(
        path in message
        for path in (*conflicts, "  seed:", "  train.batch_size:", "  data.pth: unknown key; did you mean 'path'?")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: must be a mapping of keys to values; got None"),
        ("[1, 2]", "the file: must be a mapping"),
        ("a: [1", "is not valid YAML"),
        ("seed: 1\nseed: 2", "is not valid YAML.*duplicate key"),
        ("seed: !!python/object/apply:os.system [echo]", "is not valid YAML"),
    ],
)
def test_files_that_are_not_params(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params.yaml is missing; restore it"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("entries", "module"), FAMILIES)
def test_each_option_is_declared_once(entries: dict[str, Entry], module: ModuleType) -> None:
    """In what params.yaml's schema is made of; the class takes that, and has no default or range of its own."""
    for entry in entries.values():
        made, options = getattr(module, entry.class_name), {field.name for field in fields(entry.options)}
        assert issubclass(made, entry.options) or not options & inspect.signature(made).parameters.keys()


def test_what_an_option_may_be_is_told_where_it_is_declared() -> None:
    assert Training(np.int64(3), learning_rate=np.float32(0.5)) == Training(max_epochs=3, learning_rate=0.5)
    with pytest.raises(OptionError, match="max_epochs must be a valid integer; got '3'"):
        Training(max_epochs="3")
    with pytest.raises(OptionError, match="hidden must be given"):
        Between(activation="tanh")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="width is no option of Between, which has hidden, activation"):
        Between(width=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_defaults_come_from_the_registry(name: str) -> None:
    entry = LIKELIHOODS[name]
    defaults = {field.name: field.default for field in fields(entry.options) if field.default is not MISSING}
    defaults |= dict.fromkeys(entry.left_open)
    required = dict.fromkeys({field.name for field in fields(entry.options)} - defaults.keys(), 3)
    changes = {"model.likelihood": {"name": name, **required}, "data.dequantize": None, "data.scale": "none"}
    likelihood = check_params(params_with(changes)).model.likelihood.model_dump()
    assert likelihood == {"name": name, **required, **defaults}
