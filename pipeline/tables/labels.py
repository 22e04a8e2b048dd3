"""What is said of the entries of the metrics files, in more than one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def baseline_label(name: str, entry: Mapping[str, Any]) -> str:
    """What a baseline is called, by its name and its entry."""
    if name == "independent":
        return "independent columns" if "given" not in entry else "independent columns, given the same total"
    return f"mixture of {entry['components']}" if name == "mixture" else f"single {name.capitalize()}"


def estimator_label(name: str, entry: Mapping[str, Any]) -> str:
    """What an estimator is called, by its name and its entry."""
    if name == "exact":
        return f"exact, by {entry['diagnostics']['method']}"
    if name == "annealed":
        return f"annealed, {entry['samples']} chains"
    return f"{name} sampling, S = {entry['samples']:,}"


def condition(totals: Sequence[Sequence[int]], names: Sequence[str]) -> str | None:
    """What log p is given, by the columns of each total that is, and the columns' names: None if it is given nothing."""
    if not totals:
        return None
    groups = [", ".join(names[d] for d in total[:FEW]) + ", ..." * (len(total) > FEW) for total in totals]
    return "each row's total" if len(totals[0]) == len(names) else "each row's total of " + ", and of ".join(groups)


def nats(given: str | None) -> str:
    """The unit of a figure of log p, and what it is given."""
    return "nats per example" if given is None else f"nats per example, given {given}"


def plus_minus(entry: Mapping[str, Any], form: str = ".2f", error_form: str = ".2f") -> str:
    """A mean with its standard error, where it has one."""
    error = entry["standard_error"]
    return f"{entry['mean']:{form}}" + ("" if error is None else f" ± {error:{error_form}}")


FEW = 6  # columns that are named
STILL_IMPROVING = (
    "note: training stopped at train.max_epochs while the validation bound was still rising; raise it for a better model"
)


def still_improving(train_metrics: Mapping[str, Any], max_epochs: int) -> bool:
    """Whether the best epoch is among the last twentieth of all that were allowed."""
    return train_metrics["epochs_run"] == max_epochs and train_metrics["best_epoch"] >= max_epochs - 1 - max_epochs // 20
