"""What came out: printed at the end of `make repro`, and by ``python -m pipeline.summary`` at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.base.command import run
from pipeline.base.environment import facts
from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS, from_yaml
from pipeline.base.git import git
from pipeline.dvc.formats import LOCK_FILE
from pipeline.params.whole import load_params
from pipeline.record.records import load_lock, lock_records
from pipeline.tables.labels import STILL_IMPROVING, baseline_label, estimator_label, nats, still_improving
from vae.training.collapse import usage_lines

NEAR_ONE = 10  # effective samples
FAR_OFF = "[bold]far too low[/bold]: almost no draw from the prior explains a row"


def main() -> None:
    """Print the summary."""
    metrics = _metrics("evaluate")
    reported = metrics["log_likelihood"]
    source = load_params().data.path
    unit = nats(reported.get("given"))
    title = f"Held-out log-likelihood of {metrics['examples']} test rows of {source}\n({unit}, larger is better)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model")
    table.add_column("log p(y)", justify="right")
    table.add_column("VAE minus this, paired", justify="right")
    estimators = metrics["estimators"]
    table.add_row(f"VAE ({estimator_label(reported['estimator'], estimators[reported['estimator']])})", _pm(reported), "")
    for name, baseline in metrics["baselines"].items():
        table.add_row(baseline_label(name, baseline), _pm(baseline), _pm(baseline["vae_minus_baseline"], "+.2f"))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(table)
    for line in _lines(metrics):
        console.print(line)


def _lines(metrics: dict[str, Any]) -> Iterator[str]:
    yield from _errors(metrics.get("groups"), metrics["log_likelihood"])
    yield from _verdict(metrics["verdict"], metrics["log_likelihood"])
    if "rows_by_level" in metrics["estimators"].get("annealed", {}).get("diagnostics", {}):  # not in older results
        yield _settled(metrics["estimators"]["annealed"])
    if given := metrics["log_likelihood"].get("given"):
        yield f"all figures are given {given}, and cannot be compared with those of models that are not"
    yield f"ELBO {metrics['elbo']:.2f} = reconstruction {metrics['reconstruction']:.2f} - KL {metrics['kl']:.2f}"
    for name, entry in metrics["estimators"].items():
        yield from _estimator(name, entry)
    yield from _model(metrics["diagnostics"])
    yield from _imputation(metrics.get("imputation"))
    least = metrics["least_likely"]
    yield f"least likely test row: {least['log_likelihood']:.2f}, data row {least['index'] + 1} of the file"
    if metrics["bits_per_dimension"] is not None:
        yield f"bits per dimension: {metrics['bits_per_dimension']:.3f}"
    if still_improving(_metrics("train"), load_params().train.max_epochs):
        yield STILL_IMPROVING
    yield from _other_bytes()
    yield "pictures:"
    yield from sorted(f"  {path}" for path in RESULTS.glob("*/*.png"))
    yield "compare runs: make ui"


def _errors(groups: dict[str, Any] | None, reported: dict[str, Any]) -> Iterator[str]:
    """What stands after ±."""
    if groups is None:
        yield "± is one standard error over test rows"
        return
    yield f"± is one standard error over {groups['number']} groups of test rows, worth {groups['effective']:.1f} of one size"
    if None not in reported["interval_95"]:
        low, high = reported["interval_95"]
        yield f"95 % interval of the VAE's log p(y), by Student's t: {low:.2f} to {high:.2f}"
    if groups["note"]:
        yield f"[bold]few groups[/bold]: {groups['note']}"


def _other_bytes() -> Iterator[str]:
    """Stages whose inputs are those of the commit, and whose outputs are not."""
    here = load_lock()
    committed = lock_records(from_yaml(git("show", f"HEAD:./{LOCK_FILE}")))
    other = [name for name in here.keys() & committed.keys() if here[name].inputs == committed[name].inputs]
    changed = sorted({path for name in other for path in _differing(here[name].files, committed[name].files)})
    if changed:
        import torch  # noqa: F401  # its build and what it sees of the CPU are among the facts

        machine = facts(load_params().threads)
        yield f"[bold]same inputs as the commit's, other bytes[/bold]: {', '.join(changed)}"
        yield "  the same bytes are promised for one CPU instruction set, number of threads and set of versions: see"
        yield f"  docs/reproducibility.md; here: {', '.join(f'{name} {of}' for name, of in machine.items())}"


def _differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {path for path in one if one[path] != other.get(path)}


def _verdict(verdict: dict[str, Any], reported: dict[str, Any]) -> Iterator[str]:
    error = reported["monte_carlo_error"]
    noise = "" if error is None else f" (Monte Carlo error {error:.3f} nats)"
    yield f"the VAE's log-likelihood [bold]{verdict['statement']}[/bold]{noise}"
    yield from (f"  {reason}" for reason in verdict["reasons"])


def _settled(annealed: dict[str, Any]) -> str:
    """How many rows' checks agree, and how many were run longer for that."""
    diagnostics, n = annealed["diagnostics"], annealed["examples"]
    settled, longer = n - len(diagnostics["unsettled_rows"]), sum(diagnostics["rows_by_level"][1:])
    most = len(diagnostics["rows_by_level"]) - 1
    count = f"all {n}" if settled == n else f"{settled} of {n}"
    repeated = f"; {longer} ran longer, with up to {4**most} times the temperatures" if longer else ""
    return f"  {count} annealed rows are settled{repeated}"


def _estimator(name: str, entry: dict[str, Any]) -> Iterator[str]:
    if name == "bounds":
        yield f"bounds on {entry['examples']} simulated rows: {_pm(entry, '+.3f', '.3f')} nats apart"
    elif entry["mean"] is None:
        yield f"{estimator_label(name, entry)}: no value for {entry['diagnostics']['rows_without_value']} rows"
    elif name == "exact":
        yield f"{estimator_label(name, entry)}: {_pm(entry)}"
    else:
        sizes = entry["diagnostics"]
        line = (
            f"{estimator_label(name, entry)}: {_pm(entry)}; effective samples per row: median "
            f"{sizes['median_effective_sample_size']:.1f}, least {sizes['least_effective_sample_size']:.1f}"
        )
        yield line + (f" - {FAR_OFF}" if name == "prior" and sizes["median_effective_sample_size"] < NEAR_ONE else "")


def _imputation(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield "log p(y) is that of the observed values; missing ones are filled in, in results/evaluate/imputed.csv"
    names = {"vae": "VAE", "mean": "mean imputation", "iterative": "IterativeImputer"}
    for pattern, what in (("at_random", f"{found['hidden_share']:.0%} of all values"), ("whole_columns", "whole columns")):
        for score, of in (("error", "error in standard deviations"), ("error_rate", "wrong categories")):
            values = {name: found[pattern][name][score] for name in names}
            if None not in values.values():
                yield f"  hidden {what}, {of}: " + ", ".join(f"{names[name]} {value:.2f}" for name, value in values.items())


def _model(diagnostics: dict[str, Any]) -> Iterator[str]:
    if "inference_gap" in diagnostics:
        gap = diagnostics["inference_gap"]
        yield (
            f"log p(y) - ELBO: {_pm(gap['approximation'])} nats by the family of q, {_pm(gap['amortisation'])} by the "
            f"inference network ({gap['examples']} rows)"
        )
    if "train_minus_test" in diagnostics:
        difference = diagnostics["train_minus_test"]
        yield f"training minus test rows: {_pm(difference, '+.2f')} nats ({difference['examples']} of each)"
    yield from usage_lines(diagnostics["active_units"]["0.01"], load_params().model.latent_size)


def _pm(entry: dict[str, Any], form: str = ".2f", error_form: str = ".2f") -> str:
    error = entry["standard_error"]
    return f"{entry['mean']:{form}}" + ("" if error is None else f" ± {error:{error_form}}")


def _metrics(stage: str) -> dict[str, Any]:
    path = RESULTS / stage / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run("summary", __doc__, main))
