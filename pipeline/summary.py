"""What came out: printed at the end of `make repro`, and by ``python -m pipeline.summary`` at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.base.command import run
from pipeline.base.environment import facts
from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS, from_yaml
from pipeline.base.git import git
from pipeline.dvc.formats import LOCK_FILE, untracked_note
from pipeline.experiment.records import STAGES, load_lock, load_record, lock_records
from pipeline.tables.labels import STILL_IMPROVING, baseline_label, estimator_label, nats, plus_minus, still_improving
from vae.training.collapse import usage_lines

Metrics = Mapping[str, Any]

NEAR_ONE = 10  # effective samples
FAR_OFF = "[bold]far too low[/bold]: almost no draw from the prior explains a row"


def main() -> None:
    """Print the summary."""
    metrics = _metrics("evaluate")
    reported, estimators = metrics["log_likelihood"], metrics["estimators"]
    unit, source = nats(reported.get("given")), _params()["data"]["path"]
    title = f"Held-out log-likelihood of {metrics['examples']} test rows of {source}\n({unit}, larger is better)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model")
    table.add_column("log p(y)", justify="right")
    table.add_column("VAE minus this, paired", justify="right")
    label = estimator_label(reported["estimator"], estimators[reported["estimator"]])
    table.add_row(f"VAE ({label})", plus_minus(reported), "")
    for name, baseline in metrics["baselines"].items():
        table.add_row(baseline_label(name, baseline), plus_minus(baseline), plus_minus(baseline["vae_minus_baseline"], "+.2f"))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(table)
    for section in SECTIONS:
        for line in section(metrics):
            console.print(line)


def errors(metrics: Metrics) -> Iterator[str]:
    """What stands after ±."""
    groups = metrics.get("groups")
    if groups is None:
        yield "± is one standard error over test rows"
        return
    yield f"± is one standard error over {groups['number']} groups of test rows, worth {groups['effective']:.1f} of one size"
    if None not in (interval := metrics["log_likelihood"]["interval_95"]):
        yield f"95 % interval of the VAE's log p(y), by Student's t: {interval[0]:.2f} to {interval[1]:.2f}"
    if groups["note"]:
        yield f"[bold]few groups[/bold]: {groups['note']}"


def verdict(metrics: Metrics) -> Iterator[str]:
    """Whether the reported figure can be trusted, and how many rows' checks agree, or were run longer for that."""
    error = metrics["log_likelihood"]["monte_carlo_error"]
    noise = "" if error is None else f" (Monte Carlo error {error:.3f} nats)"
    yield f"the VAE's log-likelihood [bold]{metrics['verdict']['statement']}[/bold]{noise}"
    yield from (f"  {reason}" for reason in metrics["verdict"]["reasons"])
    diagnostics = metrics["estimators"].get("annealed", {}).get("diagnostics", {})
    if "rows_by_level" in diagnostics:  # not in older results
        levels, n = diagnostics["rows_by_level"], metrics["estimators"]["annealed"]["examples"]
        settled, longer = n - len(diagnostics["unsettled_rows"]), sum(levels[1:])
        count = f"all {n}" if settled == n else f"{settled} of {n}"
        repeated = f"; {longer} ran longer, with up to {4 ** (len(levels) - 1)} times the temperatures" if longer else ""
        yield f"  {count} annealed rows are settled{repeated}"


def estimates(metrics: Metrics) -> Iterator[str]:
    """The ELBO, and what each estimator says."""
    if given := metrics["log_likelihood"].get("given"):
        yield f"all figures are given {given}, and cannot be compared with those of models that are not"
    yield f"ELBO {metrics['elbo']:.2f} = reconstruction {metrics['reconstruction']:.2f} - KL {metrics['kl']:.2f}"
    for name, entry in metrics["estimators"].items():
        if name == "bounds":
            yield f"bounds on {entry['examples']} simulated rows: {plus_minus(entry, '+.3f', '.3f')} nats apart"
        elif entry["mean"] is None:
            yield f"{estimator_label(name, entry)}: no value for {entry['diagnostics']['rows_without_value']} rows"
        elif name == "exact":
            yield f"{estimator_label(name, entry)}: {plus_minus(entry)}"
        else:
            median, least = (entry["diagnostics"][f"{which}_effective_sample_size"] for which in ("median", "least"))
            sizes = f"effective samples per row: median {median:.1f}, least {least:.1f}"
            note = f" - {FAR_OFF}" if name == "prior" and median < NEAR_ONE else ""
            yield f"{estimator_label(name, entry)}: {plus_minus(entry)}; {sizes}{note}"


def model(metrics: Metrics) -> Iterator[str]:
    """Where the ELBO loses, how much likelier training rows are, and how many latent dimensions are in use."""
    diagnostics = metrics["diagnostics"]
    if "inference_gap" in diagnostics:
        gap = diagnostics["inference_gap"]
        yield (
            f"log p(y) - ELBO: {plus_minus(gap['approximation'])} nats by the family of q, "
            f"{plus_minus(gap['amortisation'])} by the inference network ({gap['examples']} rows)"
        )
    if "train_minus_test" in diagnostics:
        difference = diagnostics["train_minus_test"]
        yield f"training minus test rows: {plus_minus(difference, '+.2f')} nats ({difference['examples']} of each)"
    yield from usage_lines(diagnostics["active_units"]["0.01"], int(np.sum(_params()["model"]["latent_dim"])))


def imputation(metrics: Metrics) -> Iterator[str]:
    """How well hidden values are told, where some are missing."""
    if "imputation" not in metrics:
        return
    quality = metrics["imputation"]
    yield "log p(y) is that of the observed values; missing ones are filled in, in results/evaluate/imputed.csv"
    names = {"vae": "VAE", "mean": "mean imputation", "iterative": "IterativeImputer"}
    for pattern, what in (("at_random", f"{quality['hidden_share']:.0%} of all values"), ("whole_columns", "whole columns")):
        for measure, label in (("error", "error in standard deviations"), ("error_rate", "wrong categories")):
            values = {name: quality[pattern][name][measure] for name in names}
            if None not in values.values():
                yield f"  hidden {what}, {label}: " + ", ".join(f"{names[name]} {value:.2f}" for name, value in values.items())


def rows(metrics: Metrics) -> Iterator[str]:
    """The least likely row, and bits where there are any."""
    least = metrics["least_likely"]
    yield f"least likely test row: {least['log_likelihood']:.2f}, data row {least['index'] + 1} of the file"
    if metrics["bits_per_dimension"] is not None:
        yield f"bits per dimension: {metrics['bits_per_dimension']:.3f}"


def training(metrics: Metrics) -> Iterator[str]:
    """Whether training should have gone on."""
    if still_improving(_metrics("train"), _params()["train"]["max_epochs"]):
        yield STILL_IMPROVING


def other_bytes(metrics: Metrics) -> Iterator[str]:
    """Stages whose inputs are those of the commit, and whose outputs are not."""
    here = load_lock()
    committed = lock_records(from_yaml(git("show", f"HEAD:./{LOCK_FILE}")))
    other = [name for name in here.keys() & committed.keys() if here[name].inputs == committed[name].inputs]
    changed = sorted(
        {path for name in other for path, md5 in here[name].files.items() if md5 != committed[name].files.get(path)}
    )
    if changed:
        import torch  # noqa: F401  # its build and what it sees of the CPU are among the facts

        machine = facts(_params()["threads"])
        yield f"[bold]same inputs as the commit's, other bytes[/bold]: {', '.join(changed)}"
        yield "  the same bytes are promised for one CPU instruction set, number of threads and set of versions: see"
        yield f"  docs/reproducibility.md; here: {', '.join(f'{name} {value}' for name, value in machine.items())}"


def untracked(metrics: Metrics) -> Iterator[str]:
    """Data that queued experiments would not have."""
    data = _params()["data"]
    files = [name for name in (data.get("files") or {}).values() if name]
    for path in [Path(data["path"], name) for name in files] or [Path(data["path"])]:
        if (note := untracked_note(path)) is not None:
            yield f"[bold]not kept[/bold]: {escape(note)}"


def pictures(metrics: Metrics) -> Iterator[str]:
    """Where to look further."""
    yield "pictures:"
    yield from sorted(f"  {path}" for path in RESULTS.glob("*/*.png"))
    yield "compare runs: make ui"


SECTIONS = (errors, verdict, estimates, model, imputation, rows, training, other_bytes, untracked, pictures)


def _params() -> dict[str, Any]:
    """The params of the results, which may be of a version with others than today's."""
    records = [record for stage in STAGES if (record := load_record(stage))]
    return {name: value for record in records for name, value in record.params.items()}


def _metrics(stage: str) -> dict[str, Any]:
    path = RESULTS / stage / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run("summary", __doc__, main))
