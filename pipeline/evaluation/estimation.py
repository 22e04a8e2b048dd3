"""The estimators on the test rows, in the order in which they run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import TaskProgressColumn
from torch import Tensor

from pipeline.base.bar import progress_bar
from pipeline.base.errors import InputError
from pipeline.evaluation.computations import Work
from pipeline.evaluation.findings import Annealed, Findings
from pipeline.evaluation.pieces import Pieces
from pipeline.params.evaluate import Evaluate, EvaluateParams
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.distributions.noise import DRAWS_PER_BLOCK, generator
from vae.evidence import (
    Annealing,
    Estimate,
    MeanWithError,
    annealed_importance_sampling,
    evidence_lower_bound,
    exact,
    exact_applies,
    importance_sampling,
    inference_gap,
    latent_usage,
    prior_sampling,
    reverse_annealing,
    settle,
    settled_bounds,
    simulated_rows,
    tune_step_sizes,
)
from vae.evidence.annealing.path import Start
from vae.evidence.estimate import Advance, rows_per_chunk
from vae.evidence.verdict.assess import WIDE
from vae.model.latent_model import LatentModel


def chosen(vae: LatentModel, settings: Evaluate, rows: int) -> list[str]:
    """The estimators asked for, or all that apply.

    Raises:
        InputError: If exact is asked for and does not apply, more rows are to be annealed than there are, or those that are
            not annealed would have no value.
    """
    annealed, names = settings.annealing.examples, settings.estimators
    if names is not None and "exact" in names and not exact_applies(vae):
        raise InputError(
            "evaluate.estimators: exact needs model.latent_dim 1 or 2, or [1, 1], or a Gaussian likelihood with "
            f"model.generative.hidden: [] and no hierarchy; this model has latent_dim {vae.card.latent_dim}; leave "
            "exact out, or set estimators to null"
        )
    if annealed is not None and annealed > rows:
        raise InputError(
            f"evaluate.annealing.examples: {annealed} rows are to be annealed, but there are {rows} test rows; null "
            "anneals all"
        )
    if names is None:
        return ["prior", "importance", "annealed", "bounds"] + ["exact"] * exact_applies(vae)
    if annealed is not None and annealed < rows and "annealed" in names and "importance" not in names:
        raise InputError(
            f"evaluate.estimators: annealing {annealed} of {rows} test rows needs importance sampling for the others; add "
            "importance, or set evaluate.annealing.examples to null"
        )
    return list(names)


class Estimation:
    """Runs the estimators on test rows.

    Args:
        vae: The model.
        params: The params.
        schema: Of the data.
        rows: By split the prepared rows: training rows for the comparison with them, validation rows as the pilot on which
            step sizes are tuned, and test rows.
        groups: By split the group of each row, integers (N,), or None where each row is by itself; where there are groups,
            whole ones are drawn, and errors are over groups.
        pieces: What an earlier start has computed, and where this one leaves what it computes.

    Raises:
        InputError: If the estimators that are asked for cannot be had; see `chosen`.
    """

    def __init__(
        self,
        vae: LatentModel,
        params: EvaluateParams,
        schema: Schema,
        rows: Mapping[str, Array],
        groups: Mapping[str, NDArray[np.integer] | None],
        pieces: Pieces,
    ) -> None:
        self.vae, self.schema, self.pieces = vae, schema, pieces
        self.settings, self.annealing, self.seed = params.evaluate, params.evaluate.annealing, params.seed
        self.train, self.valid, self.test = (vae.as_rows(rows[split]) for split in ("train", "valid", "test"))
        self.groups = {split: None if labels is None else torch.from_numpy(labels) for split, labels in groups.items()}
        self.names = chosen(vae, params.evaluate, len(self.test))

    def run(self) -> Findings:
        """All that was asked for, in nats of the raw data."""
        if len(self.pieces):
            print(f"going on with {len(self.pieces)} parts of the evaluation done by an earlier start", flush=True)
        steps = {
            "prior": self._prior,
            "importance": self._importance,
            "annealed": self._annealed,
            "bounds": self._bounds,
            "exact": self._exact,
        }
        with progress_bar(TaskProgressColumn()) as bar:
            self._work = Work(bar, self.pieces)
            lower_bound = evidence_lower_bound(self.vae, self.test, self.settings.elbo_samples, seed=self.seed)
            findings = Findings(lower_bound, latent_usage(self.vae, self.test), groups=self.groups["test"])
            for name, step in steps.items():
                findings = step(findings) if name in self.names else findings
            return self._gap(findings).of_raw_data(self.test, self._log_jacobian)

    def _prior(self, findings: Findings) -> Findings:
        S = self.settings.prior_samples
        smaller = [10**k for k in range(1, len(str(S))) if 10**k < S]
        estimate = self._sampled("prior sampling", self.test)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ladder = [prior_sampling(self.vae, self.test, s, seed=self.seed) for s in smaller]
        return replace(findings, prior=estimate, prior_ladder=tuple(ladder))

    def _importance(self, findings: Findings) -> Findings:
        chunk, ladder = rows_per_chunk(self.vae, DRAWS_PER_BLOCK), self.settings.rungs
        sampling = partial(importance_sampling, self.vae, S=self.settings.samples, ladder=ladder, seed=self.seed)
        ids = torch.arange(len(self.test))
        return replace(findings, importance=self._work.in_chunks("importance sampling", self.test, ids, chunk, 1, sampling))

    def _exact(self, findings: Findings) -> Findings:
        values = self._work.whole("exact", len(self.test), partial(exact, self.vae, self.test))
        return replace(findings, exact=values)

    def _annealed(self, findings: Findings) -> Findings:
        groups, asked = self.groups["test"], self.annealing.examples or len(self.test)
        subset = self._drawn("annealed rows", asked, len(self.test), groups).sort().values

        def run(what: str, rows: Tensor, annealing: Annealing) -> Estimate:
            return self._anneal(what, self.test[subset[rows]], subset[rows], annealing)

        wide = self._sampled("sampling from a wide prior", self.test[subset], widen=WIDE)
        sampled = findings.prior.of(subset).or_better(wide) if findings.prior else wide
        checked = settle(run, len(subset), *self._starts, extra=self.annealing.extra, sampled=sampled)
        difference, compared = self._train_minus_test(checked.estimate, subset, checked.settings)
        return replace(findings, annealed=Annealed(checked, subset, wide, difference, compared))

    def _sampled(self, what: str, rows: Tensor, *, widen: float | None = None) -> Estimate:
        sampling = partial(prior_sampling, self.vae, rows, self.settings.prior_samples, widen=widen, seed=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the summary says how far off it is
            return self._work.whole(what, self.settings.prior_samples, sampling)

    def _train_minus_test(self, test: Estimate, subset: Tensor, settings: Annealing) -> tuple[MeanWithError, int]:
        """How much likelier training rows are than test rows, whose estimate is of ``subset``, and how many were compared."""
        of_train, of_test, n = self.groups["train"], _groups_of(self.groups["test"], subset), len(subset)
        m = min(self.settings.diagnostics_examples, n, len(self.train))
        drawn = self._drawn("training rows", m, len(self.train), of_train)
        train = self._anneal("annealing training rows", self.train[drawn], len(self.test) + drawn, settings)
        compared = self._drawn("test rows", m, n, of_test)
        known = MeanWithError.of(self._comparable(train, self.train[drawn]), _groups_of(of_train, drawn))
        unseen = MeanWithError.of(self._comparable(test, self.test[subset])[compared], _groups_of(of_test, compared))
        return known.minus(unseen), len(compared)

    def _bounds(self, findings: Findings) -> Findings:
        """Add bounds on simulated rows, with the gaps of test rows where these have any, checked as test rows are.

        They are not repeated where test rows are not settled, as nothing could be gained by that.
        """
        in_vain = findings.annealed is not None and not findings.annealed.checked.settled.all()
        gaps = self.test.isnan()
        y, z = simulated_rows(self.vae, self.annealing.bounds_examples, missing=gaps if gaps.any() else None, seed=self.seed)

        def forward(what: str, rows: Tensor, annealing: Annealing) -> Estimate:
            return self._anneal(f"simulated rows, {what}", y[rows], rows, annealing)

        def reverse(what: str, rows: Tensor, annealing: Annealing) -> Estimate:
            return self._anneal(f"simulated rows, {what}", y[rows], rows, annealing, z[rows])

        extra = 0.0 if in_vain else self.annealing.extra
        sampled = self._sampled("simulated rows, prior sampling", y)
        settling: dict[str, Any] = {"extra": extra, "tolerance": self.settings.tolerance, "sampled": sampled}
        bounds = settled_bounds(y, forward, reverse, *self._starts, **settling)
        return replace(findings, bounds=bounds)

    def _gap(self, findings: Findings) -> Findings:
        """Add the split of the ELBO's gap on rows that were annealed, or for which the exact value is known."""
        if findings.exact and not findings.exact.reason:
            best, rows = findings.exact.log_likelihood, torch.arange(len(self.test))
        elif findings.annealed:
            best, rows = findings.annealed.estimate.log_likelihood, findings.annealed.subset
        else:
            return findings
        places = self._drawn("gap rows", self.settings.diagnostics_examples, len(rows), _groups_of(self.groups["test"], rows))
        ids = rows[places]
        splitting = partial(inference_gap, self.vae, self.test[ids], best[places], seed=self.seed, ids=ids)
        gap = self._work.whole("split of the ELBO's gap", len(ids), splitting)
        return replace(findings, gap=gap, gap_rows=ids)

    def _comparable(self, estimate: Estimate, rows: Tensor) -> Tensor:
        """The log densities of the raw rows that prepared ones stand for, with what their missing values count as."""
        missing = torch.from_numpy(self.schema.log_missing(rows.cpu().numpy())).to(rows.device)
        return estimate.log_likelihood + self._log_jacobian(rows) + missing

    def _log_jacobian(self, y: Tensor) -> Tensor:
        return torch.tensor(self.schema.log_jacobian(y.cpu().numpy()), dtype=torch.float64, device=y.device)

    @cached_property
    def _starts(self) -> tuple[Annealing, Annealing]:
        """How to anneal from q and from the prior."""
        return self._tuned("posterior"), self._tuned("prior")

    def _tuned(self, start: Start) -> Annealing:
        annealing = Annealing(self.annealing.temperatures, self.annealing.leapfrog_steps, start)
        tuning = partial(tune_step_sizes, self.vae, self.valid, annealing=annealing, seed=self.seed)
        return self._work.whole(f"step sizes from the {start}", None, tuning)

    def _anneal(self, what: str, rows: Tensor, ids: Tensor, annealing: Annealing, z: Tensor | None = None) -> Estimate:
        """Anneal rows; in reverse, where there are latents z that made them."""
        settings: dict[str, Any] = {"S": self.annealing.chains, "annealing": annealing, "seed": self.seed, "stream": what}

        def estimate(places: Tensor, ids: Tensor, advance: Advance) -> Estimate:
            if z is None:
                return annealed_importance_sampling(self.vae, rows[places], ids=ids, advance=advance, **settings)
            return reverse_annealing(self.vae, rows[places], z[places], ids=ids, advance=advance, **settings)

        chunk = rows_per_chunk(self.vae, self.annealing.chains)
        return self._work.in_chunks(what, torch.arange(len(rows)), ids, chunk, annealing.temperatures, estimate)

    def _drawn(self, stream: str, count: int, N: int, groups: Tensor | None) -> Tensor:
        """Positions of so many of N rows at random; or of whole groups, as many as have so many rows on average.

        To draw groups until there are enough rows would favour large ones, which are more often the last.
        """
        labels = torch.arange(N) if groups is None else groups.unique()
        order = torch.randperm(len(labels), generator=generator(self.seed, stream))
        if groups is None:
            return order[:count]
        enough = max(2, math.ceil(len(labels) * count / N))  # an error needs two
        return torch.isin(groups, labels[order[:enough]]).nonzero().squeeze(1)


def _groups_of(groups: Tensor | None, rows: Tensor) -> Tensor | None:
    """The groups of some rows."""
    return None if groups is None else groups[rows]
