"""What came out: printed at the end of `make repro`, and by ``python -m pipeline.summary`` at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import InputError
from pipeline.files import RESULTS
from pipeline.labels import STILL_IMPROVING, baseline_label, still_improving
from pipeline.params import load_params
from pipeline.stage import run


def main() -> None:
    """Print the summary."""
    metrics = _metrics("evaluate")
    reported = metrics["log_likelihood"]
    source = load_params().data.path
    title = f"Held-out log-likelihood of {metrics['examples']} test rows of {source}\n(nats per example, larger is better)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model")
    table.add_column("log p(y)", justify="right")
    table.add_column("VAE minus this, paired", justify="right")
    table.add_row(f"VAE ({reported['estimator']} sampling, S = {reported['samples']:,})", _pm(reported), "")
    for name, baseline in metrics["baselines"].items():
        table.add_row(baseline_label(name, baseline), _pm(baseline), _pm(baseline["vae_minus_baseline"], "+.2f"))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(table)
    for line in _lines(metrics):
        console.print(line)


def _lines(metrics: dict[str, Any]) -> Iterator[str]:
    yield "± is one standard error over test rows"
    yield f"ELBO {metrics['elbo']:.2f} = reconstruction {metrics['reconstruction']:.2f} - KL {metrics['kl']:.2f}"
    for name, entry in metrics["estimators"].items():
        yield (
            f"{name} sampling, S = {entry['samples']:,}: {_pm(entry)}; effective samples per row: median "
            f"{entry['median_effective_sample_size']:.1f}, least {entry['least_effective_sample_size']:.1f}"
        )
    least = metrics["least_likely"]
    yield f"least likely test row: {least['log_likelihood']:.2f}, data row {least['index'] + 1} of the file"
    if metrics["bits_per_dimension"] is not None:
        yield f"bits per dimension: {metrics['bits_per_dimension']:.3f}"
    if still_improving(_metrics("train"), load_params().train.max_epochs):
        yield STILL_IMPROVING
    yield "pictures:"
    yield from sorted(f"  {path}" for path in RESULTS.glob("*/*.png"))
    yield "compare runs: make ui"


def _pm(entry: dict[str, Any], form: str = ".2f") -> str:
    return f"{entry['mean']:{form}} ± {entry['standard_error']:.2f}"


def _metrics(stage: str) -> dict[str, Any]:
    path = RESULTS / stage / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run("summary", __doc__, main))
