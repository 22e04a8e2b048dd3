"""The likelihood report: a table of the test rows, which estimate is reported, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.evaluation.findings import METRICS, Annealed, Findings
from pipeline.tables.statistics import Array
from vae.evidence import PREFERENCE, Estimate, MeanWithError, Verdict, reported_estimator, two_stage, verdict
from vae.evidence.verdict.assess import grounds_of


class Report:
    """What is said of the test rows, in nats of the raw data.

    Args:
        findings: In nats of the raw data.
        index: Positions of the test rows in the raw file, (N,).
        log_missing: What their missing values count as where rows are compared, (N,); see `Schema.log_missing`.
        tolerance: In nats, that the mean should be trusted to.

    Attributes:
        examples: A row per test row.
        comparable: Log-likelihoods in whose order rows are likely, whatever the units of columns, (N,).
        estimator: The one that is reported.
        verdict: Whether it can be trusted.

    Raises:
        InputError: If a row has no finite log-likelihood.
    """

    def __init__(self, findings: Findings, index: Any, log_missing: Any, tolerance: float) -> None:
        self.findings = findings
        available = [name for name in PREFERENCE if self._has(name)]
        if not available and findings.exact:
            raise InputError(
                f"there is no exact log-likelihood, and no other estimator was asked for: {findings.exact.reason}"
            )
        self.estimator = reported_estimator(available)
        self.examples = self._examples(index)
        bad = ~np.isfinite(self.examples[[*METRICS, "log_likelihood"]].to_numpy()).all(axis=1)
        if bad.any():
            row = int(self.examples.loc[bad, "index"].iloc[0])
            raise InputError(
                f"row {row + 1} of the raw file, a test row, has no finite log-likelihood ({int(bad.sum())} such rows); look "
                "for extreme values in it"
            )
        self.comparable = self.examples["log_likelihood"].to_numpy() + log_missing
        self.verdict = self._verdict(tolerance)

    def add(self, columns: Mapping[str, Array]) -> None:
        """Add columns, (N,), to the table."""
        self.examples = pd.concat([self.examples, pd.DataFrame(columns)], axis=1)

    def mean(self, minus: Any = 0.0) -> MeanWithError:
        """The reported mean log p(y), or its paired difference from other values (N,), with its standard error.

        Where only a subset was annealed: importance sampling on all rows and its correction on the subset.
        """
        if self.estimator == "annealed":
            subset, everywhere = self.annealed.subset, "importance" if self._has("importance") else "annealed"
            x = self.examples[f"log_likelihood_{everywhere}"] - minus
            better = (self.examples["log_likelihood_annealed"] - minus).to_numpy()[subset.numpy()]
            return two_stage(torch.tensor(x.to_numpy()), torch.tensor(better), subset.cpu(), self.findings.groups)
        return self.over(torch.tensor((self.examples["log_likelihood"] - minus).to_numpy()))

    def over(self, values: Tensor, rows: Tensor | None = None) -> MeanWithError:
        """The mean over test rows, or over some of them, with its error over their groups where they have any."""
        groups = self.findings.groups
        return MeanWithError.of(values, groups if groups is None or rows is None else groups[rows])

    def over_column(self, name: str) -> MeanWithError:
        """The mean over test rows of a column of the table."""
        return self.over(torch.tensor(self.examples[name].to_numpy()))

    @property
    def annealed(self) -> Annealed:
        """The annealing, if it was asked for."""
        assert self.findings.annealed is not None
        return self.findings.annealed

    @property
    def unsettled(self) -> list[int]:
        """Rows of the raw file, counted from 1, whose annealing is not settled."""
        places = self.annealed.subset[~self.annealed.checked.settled.cpu()]
        return [int(index) + 1 for index in self.examples["index"].to_numpy()[places.numpy()]]

    @property
    def others(self) -> dict[str, Estimate]:
        """Other estimates of the annealed rows, which must not be higher."""
        named = {"importance sampling": self.findings.importance, "prior sampling": self.findings.prior}
        others = {name: estimate.of(self.annealed.subset) for name, estimate in named.items() if estimate}
        return others | {"sampling from a wide prior": self.annealed.wide}

    def _has(self, name: str) -> bool:
        value = getattr(self.findings, name)
        return value is not None and not (name == "exact" and value.reason)

    def _examples(self, index: Any) -> pd.DataFrame:
        findings = self.findings
        columns = {"index": index} | ({} if findings.groups is None else {"group": findings.groups.numpy()})
        columns |= {name: metric(findings).cpu().numpy() for name, metric in METRICS.items()}
        for name in ("prior", "importance"):
            if self._has(name):
                columns |= _columns(name, getattr(findings, name))
        if findings.annealed:
            places, annealed = findings.annealed.subset.cpu().numpy(), _columns("annealed", findings.annealed.estimate)
            columns |= {name: _spread(values, places, len(index)) for name, values in annealed.items()}
        if findings.exact:
            columns["log_likelihood_exact"] = findings.exact.log_likelihood.cpu().numpy()
        best = columns[f"log_likelihood_{self.estimator}"]
        if self._has("importance"):
            best = np.where(np.isnan(best), columns["log_likelihood_importance"], best)
        return pd.DataFrame(columns | {"log_likelihood": best}, copy=False)  # of millions of rows, maybe

    def _verdict(self, tolerance: float) -> Verdict:
        """The verdict on the reported estimate; that an exact value was asked for and is missing is a reason against it."""
        findings, groups, grounds = self.findings, self.findings.groups, None
        if findings.annealed and findings.bounds:
            checked, subset = findings.annealed.checked, findings.annealed.subset
            grounds = grounds_of(checked, findings.bounds, self.others, None if groups is None else groups[subset])
            rows = len(self.examples) if groups is None else len(groups.unique())
            grounds = replace(grounds, unsettled=self.unsettled, rows=rows)
        said = verdict(self.estimator, grounds, tolerance)
        if findings.exact and findings.exact.reason and not said.trusted:
            return replace(said, reasons=(f"the exact value is missing: {findings.exact.reason}", *said.reasons))
        return said


def _columns(name: str, estimate: Estimate) -> dict[str, Array]:
    """The columns of an estimator, of the rows that it is of."""
    values = {"log_likelihood": estimate.log_likelihood, "effective_sample_size": estimate.effective_sample_size}
    if estimate.pareto_k.isfinite().any():
        values["pareto_k"] = estimate.pareto_k
    return {f"{quantity}_{name}": value.cpu().numpy() for quantity, value in values.items()}


def _spread(values: Array, places: Array, N: int) -> Array:
    """Values (n,) at their places among N rows, of which the others have none, (N,)."""
    column = np.full(N, np.nan)
    column[places] = values
    return column
