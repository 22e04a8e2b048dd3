"""The stages one after the other on small data: files, contracts, units, refusals, and that nothing is half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from pipeline import summary
from pipeline.base.command import run
from pipeline.base.errors import InputError
from pipeline.base.files import complete
from pipeline.evaluation.findings import METRICS
from pipeline.stages import evaluate, generate, prepare, train
from pipeline.tables.schema import Schema, load_index, load_split
from pipeline.tracking.contents import points_of
from tests.workspace import BINARY, ROOT, mixed_table, table, write_params, write_table
from vae import VAE
from vae.training.diagnosis import usage

STAGES = {"prepare": prepare, "train": train, "evaluate": evaluate, "generate": generate}


def run_all(workspace: Path, frame: pd.DataFrame | None = None, name: str = "table.csv", **changes: Any) -> None:
    write_table(workspace, frame, name)
    write_params(workspace, **{"data.path": f"data/raw/{name}", **changes})
    for stage in STAGES.values():
        stage.main()


def contents(*folders: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for folder in folders for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def metrics(stage: str) -> dict[str, Any]:
    return json.loads(Path(f"results/{stage}/metrics.json").read_text())


SAMPLED = {"train.objective": {"name": "elbo"}}
FULL = {"name": "full_covariance_gaussian"}
VAMP = {"name": "vamp", "components": 3}
FLOW = {"name": "flow", "transforms": 1, "hidden": [8]}
BOTTOM_UP = {"name": "bottom_up", "hidden": [[4]]}
LADDER = {"name": "ladder", "hidden": [[4]]}
KINDS: dict[str, tuple[pd.DataFrame, str, dict[str, Any]]] = {
    "continuous csv": (table(), "table.csv", {}),
    "integer parquet": (table("integer"), "table.parquet", {"data.dequantize": 1, "model.posterior": FULL, **SAMPLED}),
    "binary": (
        table("binary"),
        "table.csv",
        {**BINARY, "model.prior": {"name": "gaussian_mixture", "components": 3}, **SAMPLED},
    ),
    "images": (table("integer"), "table.csv", {"data.dequantize": 1, "data.shape": [2, 2]}),
    "images, latent of three": (table("binary"), "table.csv", {**BINARY, "data.shape": [2, 2], "model.latent_dim": 3}),
    "layers": (table(), "table.parquet", {"model.latent_dim": [3, 2], "model.hierarchy": BOTTOM_UP, **SAMPLED}),
    "binary images, layers": (
        table("binary"),
        "table.csv",
        {**BINARY, "data.shape": [2, 2], "model.latent_dim": [2, 3], "model.hierarchy": LADDER, **SAMPLED},
    ),
    "one column, one latent": (table()[["a"]], "table.csv", {"model.latent_dim": 1}),
    "mixed": (mixed_table(), "table.tsv", {"model.likelihood": {"name": "mixed"}}),
    "mixed, with gaps": (
        mixed_table(gaps=True),
        "table.csv.gz",
        {"model.likelihood": {"name": "mixed"}, "model.prior": VAMP, **SAMPLED},
    ),
    "counts, given their total": (
        table("integer").abs(),
        "table.csv",
        {"model.likelihood": {"name": "dirichlet_multinomial", "library": 340}, **SAMPLED},
    ),
    "numbers with gaps": (
        table().mask(table() > 99.5),
        "table.parquet",
        {"model.prior": FLOW, "model.posterior": FLOW, **SAMPLED},
    ),
}


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def ran(workspace: Path, kept: Path) -> Path:
    """A workspace in which all stages have run on the continuous table: once, and then copied."""
    if not (kept / "all").exists():
        run_all(workspace)
        shutil.copytree(workspace, kept / "all")
    shutil.copytree(kept / "all", workspace, dirs_exist_ok=True)
    return workspace


SLOW = ("images, latent of three", "binary images, layers", "numbers with gaps")  # others have what these have


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def finished(request: pytest.FixtureRequest, workspace: Path) -> tuple[pd.DataFrame, str]:
    frame, name, changes = KINDS[request.param]
    run_all(workspace, frame, name, **changes)
    return frame, request.param


@pytest.mark.pictures
def test_contracts(finished: tuple[pd.DataFrame, str]) -> None:
    frame, kind = finished
    check_training()
    check_evaluation(kind)
    check_examples()
    check_samples(frame, kind)
    pictures = {path.name for path in Path("results").rglob("*.png")}
    expected = {"samples.png", "reconstructions.png", "latent.png"} if "images" in kind else {"marginals.png"}
    assert {"curves.png", "latents.png", "likelihoods.png", "ladder.png", "bounds.png", "extremes.png", *expected} <= pictures


def check_training() -> None:
    """The epochs, and the one that was kept."""
    history = pd.read_csv("results/train/history.csv")
    names = ("bound", "elbo", "reconstruction", "kl", "loss")
    quantities = [f"{split}_{name}" for split in ("train", "valid") for name in names]
    watched = ["train_gradient_norm", "valid_active_units"]
    assert sorted(history.columns) == sorted(["epoch", "learning_rate", *quantities, *watched])
    assert list(history["epoch"]) == [0, 1]
    assert np.isfinite(history.to_numpy()).all()
    trained = metrics("train")
    assert trained["epochs_run"] == 2
    best = history.iloc[trained["best_epoch"]]
    assert best["valid_bound"] == history["valid_bound"].max()
    for split in ("train", "valid"):
        assert trained[split] == {name: best[f"{split}_{name}"] for name in names}
    assert trained["active_units"] == best["valid_active_units"]
    check_latents(VAE.load("models"))


def check_latents(vae: VAE) -> None:
    """How they are used, by the model that was kept and the first validation rows."""
    latents = pd.read_csv("results/train/latents.csv")
    variance, kl = usage(vae, vae.as_rows(np.array(load_split("valid"))))
    name, expected = ("mean_variance", variance) if kl is None else ("kl", kl)
    assert list(latents.columns) == ["epoch", *(f"{name}_{k + 1}" for k in range(vae.card.latent_size))]
    found = latents.set_index("epoch").loc[metrics("train")["best_epoch"]]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def check_evaluation(kind: str) -> None:
    """The estimators and the baselines."""
    evaluated = metrics("evaluate")
    assert {"examples", "elbo", "reconstruction", "kl", "bits_per_dimension", "log_likelihood"} <= set(evaluated)
    given = {"given"} if "total" in kind else set()
    assert {"mean", "standard_error", "monte_carlo_error", "estimator", "samples"} | given == set(evaluated["log_likelihood"])
    assert evaluated["log_likelihood"]["estimator"] == "annealed"
    assert set(evaluated["estimators"]) == {"prior", "importance", "annealed", "bounds"}
    for entry in evaluated["estimators"].values():
        assert {"mean", "standard_error", "monte_carlo_error", "diagnostics"} <= set(entry)
    plain = {"bernoulli" if "binary" in kind or "three" in kind else "gaussian", "mixture"}
    assert set(evaluated["baselines"]) == (
        {"independent"} if {"mixed", "gaps", "total"} & set(re.findall(r"\w+", kind)) else plain
    )
    discrete = (
        "integer parquet",
        "binary",
        "images",
        "counts, given their total",
        "images, latent of three",
        "binary images, layers",
    )
    assert (evaluated["bits_per_dimension"] is None) == (kind not in discrete)


def check_examples() -> None:
    """The rows of the test split, whose means are the metrics."""
    evaluated, examples = metrics("evaluate"), pd.read_parquet("results/evaluate/examples.parquet")
    assert list(examples["index"]) == list(load_index("test"))
    assert len(examples) == evaluated["examples"] == 9
    for name in ("elbo", "reconstruction", "kl"):
        assert examples[name].mean() == pytest.approx(evaluated[name])
    assert examples["log_likelihood"].mean() == pytest.approx(evaluated["log_likelihood"]["mean"])
    assert examples["log_likelihood"].std() / 3 == pytest.approx(evaluated["log_likelihood"]["standard_error"])
    least = evaluated["least_likely"]
    assert examples.set_index("index")["log_likelihood"][least["index"]] == least["log_likelihood"]
    assert np.isnan(load_split("test")).any() or examples["log_likelihood"].min() == least["log_likelihood"]
    np.testing.assert_allclose(examples["elbo"], examples["reconstruction"] - examples["kl"], rtol=1e-5)


def check_samples(frame: pd.DataFrame, kind: str) -> None:
    """Rows like those of the table, in its format."""
    (path,) = Path("results/generate").glob("samples.[!p]*" if "images" in kind else "samples.*")
    separator = "\t" if path.suffix == ".tsv" else ","
    samples = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep=separator)
    assert list(samples.columns) == list(frame.columns)
    assert len(samples) == 20
    if "binary" in kind or "three" in kind:
        assert set(np.unique(samples)) <= {0, 1}
    if kind in ("integer parquet", "images"):
        assert np.array_equal(samples, np.round(samples))
    if "mixed" in kind:
        assert samples.dtypes.map(lambda dtype: dtype.kind).tolist() == list("fiOiOi")
        assert set(samples["sex"]) == {"female", "male"}
        assert set(samples["grade"]) <= {1, 2, 3}


@pytest.mark.pictures
def test_the_same_inputs_give_the_same_bytes(workspace: Path) -> None:
    run_all(workspace)
    before = contents("data", "models", "results")
    with matplotlib.rc_context(
        {"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 30, "axes.facecolor": "red"}
    ):  # a user's
        run_all(workspace)
    assert contents("data", "models", "results") == before


def test_everything_is_in_nats_of_the_raw_data(workspace: Path) -> None:
    """In units a thousand times smaller every column's density is a thousand times smaller: log p falls by D log 1000."""
    found, gaps = [], []
    for factor in (1, 1000):
        run_all(workspace, table() * factor)
        evaluated, trained = metrics("evaluate"), metrics("train")
        gaps.append(evaluated["estimators"]["bounds"]["mean"])
        found.append(
            [evaluated["elbo"], evaluated["reconstruction"], evaluated["log_likelihood"]["mean"]]
            + [evaluated["estimators"][name]["mean"] for name in ("prior", "importance", "annealed")]
            + [evaluated["estimators"]["bounds"][side]["mean"] for side in ("lower", "upper")]
            + [entry["mean"] for entry in evaluated["baselines"].values()]
            + [trained[split][name] for split in ("train", "valid") for name in ("elbo", "reconstruction")]
        )
    np.testing.assert_allclose(np.array(found[1]) - np.array(found[0]), -4 * np.log(1000), atol=1e-3)
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-3)  # a difference has no units


def test_transformed_columns_are_in_nats_of_the_raw_data(workspace: Path) -> None:
    """exp(x) under transform log is trained on what x is trained on; row by row its log p is lower by the sum of x."""
    scores = {}
    for name, frame, transform in (("plain", table(), "standardize"), ("log", np.exp(table() / 20), "log")):
        run_all(workspace, frame * (0.05 if name == "plain" else 1), **{"data.scale": transform})
        scores[name] = pd.read_parquet("results/evaluate/examples.parquet")
    raw = table().to_numpy()[scores["log"]["index"]] / 20
    for column in ("elbo", "reconstruction", "log_likelihood", "log_likelihood_prior", "log_likelihood_importance"):
        np.testing.assert_allclose(scores["plain"][column] - scores["log"][column], raw.sum(axis=1), atol=2e-3)
    baseline = scores["plain"]["gaussian"] - scores["log"]["gaussian"]
    np.testing.assert_allclose(baseline, raw.sum(axis=1), atol=2e-3)


@pytest.mark.pictures
def test_a_column_that_no_test_row_has_and_pixels_with_gaps(workspace: Path) -> None:
    frame = table()
    run_all(workspace, **{"train.max_epochs": 1})
    run_all(workspace, frame.assign(d=frame["d"].mask(frame.index.isin(load_index("test")))))
    assert np.isfinite(metrics("evaluate")["log_likelihood"]["mean"])
    run_all(workspace, table("integer").mask(table("integer") > 300), **{"data.dequantize": 1, "data.shape": [2, 2]})
    assert Path("results/generate/reconstructions.png").exists()


def test_a_metric_is_one_line(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it alone a value of each test row is in the table, its mean and error are in the metrics, and MLflow shows it."""
    monkeypatch.setitem(METRICS, "doubled_kl", lambda findings: 2 * findings.lower_bound.kl)
    run_all(workspace)
    examples, found = pd.read_parquet("results/evaluate/examples.parquet"), metrics("evaluate")
    np.testing.assert_array_equal(examples["doubled_kl"], 2 * examples["kl"])
    assert found["doubled_kl"] == pytest.approx(2 * found["kl"])
    assert found["standard_errors"]["doubled_kl"] == pytest.approx(2 * found["standard_errors"]["kl"])
    assert ("test/doubled_kl", found["doubled_kl"], 0) in points_of(["evaluate"], lambda path: Path(path).read_bytes())


def test_a_missing_jacobian_is_seen(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the change of variables left out. The comparison above then finds no difference between the units."""
    monkeypatch.setattr(Schema, "log_jacobian", lambda schema, y: np.zeros(len(y)))
    means = []
    for factor in (1, 1000):
        run_all(workspace, table() * factor)
        means.append(metrics("evaluate")["log_likelihood"]["mean"])
    assert abs(means[1] - means[0]) < 1


def test_the_exported_weights_are_those_of_the_best_epoch(workspace: Path) -> None:
    run_all(workspace, **{"train.max_epochs": 20, "train.learning_rate": 0.3})
    history = pd.read_csv("results/train/history.csv")
    assert metrics("train")["best_epoch"] < 19
    run_all(workspace, **{"train.max_epochs": metrics("train")["best_epoch"] + 1, "train.learning_rate": 0.3})
    assert metrics("train")["valid"]["bound"] == history["valid_bound"].max()


def test_nothing_of_an_earlier_run_stays(workspace: Path) -> None:
    run_all(workspace, table("integer"), "table.parquet", **{"data.dequantize": 1, "data.shape": [2, 2]})
    Path("results/generate/.gitignore").write_text("kept")
    run_all(workspace)
    assert {path.name for path in Path("results/generate").iterdir()} == {
        ".gitignore",
        "record.json",
        "samples.csv",
        "marginals.png",
        "pairs.png",
        "latent.png",
    }


def test_the_objective_in_params_is_what_trains(ran: Path) -> None:
    before = contents("models")
    run_all(ran, **{"train.objective": {"name": "elbo", "samples": 3, "kl": "monte_carlo"}})
    assert contents("models")["models/model.safetensors"] != before["models/model.safetensors"]


NEEDS_COUNTS = {"model.likelihood": {"name": "poisson"}}
NEEDS_POSITIVE = {"data.scale": "none", "model.likelihood": {"name": "log_normal"}}
MISFITS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("continuous", BINARY, InputError, "model.likelihood.name: bernoulli needs values that are each 0 or 1, but .*table.csv"),
    (
        "binary",
        {"data.scale": "none"},
        InputError,
        "is a density of real numbers, which is unbounded for column 'a' of .*, which is binary; choose bernoulli",
    ),
    (
        "continuous",
        NEEDS_COUNTS,
        InputError,
        "poisson needs values that are each a whole number from 0 on, but column 'a' of data/raw/table.csv holds real",
    ),
    (
        "continuous",
        NEEDS_POSITIVE,
        InputError,
        r"each greater than 0, but column 'a' has -\S+, as prepared, in row \d+ of .*table",
    ),
    (
        "continuous",
        {"train.accelerator": "gpu"},
        InputError,
        "accelerator='gpu'.*cannot be had on this machine.*params.yaml that is train.accelerator",
    ),
    ("continuous", {"train.learning_rate": 1e9, "train.max_epochs": 40}, InputError, "training diverged in epoch.*data.scale"),
]


MISFIT = ["bernoulli", "gaussian", "poisson", "log-normal", "gpu", "diverges"]


@pytest.mark.parametrize(("kind", "changes", "error", "message"), MISFITS, ids=MISFIT)
def test_train_fails_without_exporting(
    kind: str, changes: dict[str, Any], error: type[Exception], message: str, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents("models", "results/train", "results/evaluate")
    write_table(ran, table(kind))
    write_params(ran, **changes)
    prepare.main()
    with pytest.raises(error, match=message.replace("{", r"\{")):
        train.main()
    monkeypatch.setattr(sys, "argv", ["train"])
    assert run("train", "", train.main) == 1
    assert contents("models", "results/train", "results/evaluate") == before
    assert not list(ran.glob("*.partial")) + list(ran.glob("results/*.partial"))


def test_other_densities_run_through(workspace: Path) -> None:
    """With heavy tails, and of positive numbers that are not scaled."""
    run_all(workspace, **{"model.likelihood": {"name": "student_t"}})
    assert np.isfinite(metrics("evaluate")["log_likelihood"]["mean"])
    write_table(workspace, table().abs() + 0.1)
    write_params(workspace, **NEEDS_POSITIVE)
    for stage in STAGES.values():
        stage.main()
    assert np.isfinite(metrics("evaluate")["log_likelihood"]["mean"])
    assert (pd.read_csv("results/generate/samples.csv") > 0).all(axis=None)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_run_through(precision: str, workspace: Path) -> None:
    run_all(workspace, **{"train.precision": precision})
    assert np.isfinite(metrics("evaluate")["log_likelihood"]["mean"])


def test_a_subset_is_annealed_and_the_rest_corrected(workspace: Path) -> None:
    """log p = mean over all (importance) + mean over the subset (annealed - importance), with the error of both."""
    small = {"chains": 12, "temperatures": 6, "examples": 5, "bounds_examples": 4}
    run_all(workspace, **{"evaluate.annealing": small})
    evaluated, examples = metrics("evaluate"), pd.read_parquet("results/evaluate/examples.parquet")
    annealed = examples["log_likelihood_annealed"]
    assert annealed.notna().sum() == evaluated["estimators"]["annealed"]["examples"] == 5
    importance = examples["log_likelihood_importance"]
    assert evaluated["log_likelihood"]["mean"] == pytest.approx(importance.mean() + (annealed - importance).mean())
    assert evaluated["log_likelihood"] == {
        name: evaluated["estimators"]["annealed"][name] for name in ("mean", "standard_error", "monte_carlo_error", "samples")
    } | {"estimator": "annealed"}
    everywhere = pd.Series(np.where(annealed.notna(), annealed, importance))
    assert examples["log_likelihood"].to_list() == everywhere.to_list()
    difference = evaluated["baselines"]["gaussian"]["vae_minus_baseline"]["mean"]
    assert difference == pytest.approx(evaluated["log_likelihood"]["mean"] - evaluated["baselines"]["gaussian"]["mean"])


def test_small_latents_get_the_exact_value(workspace: Path) -> None:
    """null asks for all that apply: with two latent dimensions that is quadrature, which is reported and can be trusted."""
    run_all(workspace, **{"evaluate.estimators": None})
    evaluated = metrics("evaluate")
    assert evaluated["log_likelihood"]["estimator"] == "exact"
    assert evaluated["verdict"] == {
        "trusted": True,
        "statement": "can be trusted to 0.2 nats",
        "reasons": [],
        "tolerance": 0.2,
    }
    found = evaluated["estimators"]
    assert found["annealed"]["mean"] == pytest.approx(found["exact"]["mean"], abs=0.1)
    assert found["prior"]["mean"] == pytest.approx(found["exact"]["mean"], abs=0.3)


@pytest.mark.parametrize("names", [["importance"], ["prior"], ["exact"], ["annealed"], ["importance", "bounds"]])
def test_any_choice_of_estimators(names: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not asked for is absent from the metrics, the table and the summary; the pictures stay."""
    run_all(workspace, **{"evaluate.estimators": names})
    evaluated, examples = metrics("evaluate"), pd.read_parquet("results/evaluate/examples.parquet")
    assert set(evaluated["estimators"]) == set(names)
    assert evaluated["log_likelihood"]["estimator"] == names[0]
    assert evaluated["verdict"]["trusted"] == (names == ["exact"])
    assert bool(evaluated["verdict"]["reasons"]) == (names != ["exact"])
    shown = {str(name).removeprefix("log_likelihood_") for name in examples if str(name).startswith("log_likelihood_")}
    assert shown == set(names) - {"bounds"}
    capsys.readouterr()
    summary.main()
    assert evaluated["verdict"]["statement"] in capsys.readouterr().out
    assert len(pd.read_csv("results/evaluate/ladder.csv")) == (3 if "importance" in names else 0)


BAD_CHOICES: list[tuple[dict[str, Any], str]] = [
    (
        {"evaluate.annealing": {"examples": 10}},
        "evaluate.annealing.examples: 10 rows are to be annealed, but there are 9",
    ),
    (
        {"evaluate.annealing": {"examples": 5}, "evaluate.estimators": ["annealed"]},
        "annealing 5 of 9 test rows needs importance sampling for the others",
    ),
    ({"evaluate.estimators": ["exact"], "model.latent_dim": 3}, "evaluate.estimators: exact needs model.latent_dim 1 or 2"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CHOICES)
def test_estimators_that_cannot_run_are_refused(changes: dict[str, Any], message: str, workspace: Path) -> None:
    """Before anything is computed, and with nothing written."""
    run_all(workspace, **{name: value for name, value in changes.items() if name.startswith("model")})
    before = contents("results")
    write_params(workspace, **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        evaluate.main()
    assert contents("results") == before


def test_a_model_of_other_data_is_refused(ran: Path) -> None:
    VAE({}, {}, data_dim=3, latent_dim=2).save("models")
    for stage in (evaluate, generate):
        with pytest.raises(
            InputError, match="models holds a model of 3 real columns, but the prepared data has 4 real columns"
        ):
            stage.main()


@pytest.mark.slow
def test_two_processes_train_as_one(workspace: Path) -> None:
    """The last batch leaves one process without a row; the validation ELBOs agree but for the noise."""
    found = []
    for devices in (1, 2):
        write_table(workspace, table(rows=131))
        write_params(workspace, **{"train.devices": devices, "train.batch_size": 30, "train.max_epochs": 6})
        for stage in ("prepare", "train"):
            command = [sys.executable, "-m", f"pipeline.{stage}"]
            subprocess.run(command, cwd=workspace, check=True, timeout=200, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found.append(metrics("train")["valid"]["elbo"])
    assert json.loads(Path("data/prepared/schema.json").read_text())["rows"]["train"] % 30 == 1
    assert found[0] == pytest.approx(found[1], abs=0.5)


@pytest.mark.parametrize("stage", ["evaluate", "generate"])
@pytest.mark.parametrize("harm", ["truncated", "missing", "other schema"])
def test_damaged_models_are_refused(stage: str, harm: str, ran: Path) -> None:
    before = contents("results")
    weights = Path("models/model.safetensors")
    if harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif harm == "missing":
        weights.unlink()
    else:
        VAE({}, {}, data_dim=4, latent_dim=5).save("elsewhere")
        Path("elsewhere/model.safetensors").rename(weights)
    with pytest.raises(InputError, match=r"model.safetensors is .*train again .* `dvc checkout models`"):
        STAGES[stage].main()
    assert contents("results") == before


@pytest.mark.parametrize("stage", ["train", "evaluate", "generate"])
def test_missing_or_damaged_preparation_is_named(stage: str, workspace: Path) -> None:
    write_params(workspace)
    with pytest.raises(InputError, match=r"data/prepared/schema.json is missing; make it with `dvc repro prepare`"):
        STAGES[stage].main()
    (workspace / "data/prepared").mkdir(parents=True)
    (workspace / "data/prepared/schema.json").write_text("{}")
    with pytest.raises(InputError, match=r"schema.json is damaged or old \(columns: Field required\)"):
        STAGES[stage].main()


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")

    def write_half() -> None:
        with complete(tmp_path / "other", tmp_path / "out") as (_, folder):
            (folder / "new").write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_summary_says_what_came_out(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"results/evaluate/metrics.json is missing"):
        summary.main()
    run_all(workspace)
    assert f"{metrics('train')['active_units']} of 2 latent dimensions in use" in capsys.readouterr().out
    summary.main()
    text, evaluated = capsys.readouterr().out, metrics("evaluate")
    for mean in (evaluated["log_likelihood"]["mean"], evaluated["elbo"], evaluated["baselines"]["mixture"]["mean"]):
        assert f"{mean:.2f}" in text
    assert "9 test rows" in text
    assert re.search(r"[012] of 2 latent dimensions in use", text)
    assert "results/train/curves.png" in text
    assert "make ui" in text


def test_the_readme_quotes_the_locked_run() -> None:
    """Each figure in the README's table is the one that the committed metrics hold, as `make repro` prints it."""
    readme = (ROOT / "README.md").read_text()
    locked = json.loads((ROOT / "results/evaluate/metrics.json").read_text())
    entries = [locked["log_likelihood"], *locked["baselines"].values()]
    differences = [baseline["vae_minus_baseline"] for baseline in locked["baselines"].values()]
    for entry, sign in [(e, "") for e in entries] + [(d, "+") for d in differences]:
        assert f"{entry['mean']:{sign}.2f} ± {entry['standard_error']:.2f}" in readme
    prior = locked["estimators"]["prior"]
    assert f"({prior['diagnostics']['median_effective_sample_size']:.1f} of {prior['samples']:,} on the digits)" in readme
    assert locked["verdict"]["statement"] in readme
    assert f"Monte Carlo error {locked['log_likelihood']['monte_carlo_error']:.3f} nats" in readme
