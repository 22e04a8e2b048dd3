"""The estimators on the test rows, in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.evaluation.computations import Computation, Work, in_blocks, whole
from pipeline.evaluation.findings import Annealed, Findings
from pipeline.evaluation.rows import PreparedRows
from pipeline.evaluation.workers import Call
from pipeline.params.evaluate import Evaluate, EvaluateParams
from pipeline.tables.schema import Schema
from pipeline.tables.slices import by_slices, some_of
from pipeline.tables.statistics import Array
from vae.distributions.noise import DRAWS_PER_BLOCK, generator
from vae.evidence import (
    Annealing,
    Chains,
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
from vae.evidence.aggregate import ENOUGH_ROWS
from vae.evidence.annealing.path import Start
from vae.evidence.annealing.tuning import ROWS as PILOT_ROWS
from vae.evidence.estimate import rows_per_block, rows_per_chunk
from vae.evidence.from_posterior import join
from vae.evidence.from_prior import ROWS as PRIOR_ROWS
from vae.evidence.gap import DRAWS_PER_STEP
from vae.evidence.gap import join as joined_gaps
from vae.evidence.integration.exact import join as joined_exact
from vae.evidence.integration.quadrature import ROWS as EXACT_ROWS
from vae.evidence.lower_bound import join as joined_bounds
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
        work: What computes.

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
        work: Work,
    ) -> None:
        self.vae, self.schema, self._work = vae, schema, work
        self.settings, self.annealing, self.seed = params.evaluate, params.evaluate.annealing, params.seed
        self.train, self.valid, self.test = (PreparedRows(vae, rows[split]) for split in ("train", "valid", "test"))
        self._prepared = rows["test"]
        self.groups = {split: None if labels is None else torch.from_numpy(labels) for split, labels in groups.items()}
        self.names = chosen(vae, params.evaluate, len(self.test))

    def run(self) -> Findings:
        """All that was asked for, in nats of the raw data."""
        findings = self._independent()
        for name, step in {"annealed": self._annealed, "bounds": self._bounds}.items():
            findings = step(findings) if name in self.names else findings
        return self._gap(findings).of_raw_data(
            torch.from_numpy(by_slices(self.schema.log_jacobian, self._prepared)), self._log_jacobian
        )

    def _independent(self) -> Findings:
        """What depends on nothing else."""
        chunk, ids = rows_per_chunk(self.vae, DRAWS_PER_BLOCK), torch.arange(len(self.test))
        S = self.settings.prior_samples
        smaller = [10**k for k in range(1, len(str(S))) if 10**k < S]

        def bound(rows: Tensor) -> Call:
            return partial(evidence_lower_bound, y=self.test[rows], S=self.settings.elbo_samples, ids=rows, seed=self.seed)

        def importance(rows: Tensor) -> Call:
            settings: dict[str, Any] = {"S": self.settings.samples, "ladder": self.settings.rungs, "seed": self.seed}
            return partial(_condensed, y=self.test[rows], ids=rows, **settings)

        asked: dict[str, list[Computation[Any]]] = {
            "lower bound": [in_blocks("ELBO", ids, chunk, bound, joined_bounds)],
            "prior": [self._sampled("prior sampling", self.test, s) for s in (S, *smaller)],
            "importance": [in_blocks("importance sampling", ids, chunk, importance, join)],
            "exact": [in_blocks("exact", ids, EXACT_ROWS, lambda rows: partial(exact, y=self.test[rows]), joined_exact)],
        }
        asked = {name: each for name, each in asked.items() if name in ("lower bound", *self.names)}
        results = iter(self._work.all(list(chain(*asked.values()))))
        found = {name: [next(results) for _ in each] for name, each in asked.items()}
        of_prior = found.get("prior", [None])
        return Findings(
            found["lower bound"][0],
            latent_usage(self.vae, self.test[torch.from_numpy(some_of(len(self.test), ENOUGH_ROWS, self.seed))]),
            prior=of_prior[0],
            prior_ladder=tuple(of_prior[1:]),
            importance=found.get("importance", [None])[0],
            exact=found.get("exact", [None])[0],
            groups=self.groups["test"],
        )

    def _sampled(self, what: str, rows: Tensor | PreparedRows, S: int, *, widen: float | None = None) -> Computation[Estimate]:
        """From the prior, which the summary says how far it is off."""
        sampling = partial(prior_sampling, S=S, widen=widen, seed=self.seed)

        def call(block: Tensor) -> Call:
            return partial(sampling, y=rows[block])

        return in_blocks(f"{what}, {S} draws", torch.arange(len(rows)), PRIOR_ROWS, call, join, bar=what)

    def _annealed(self, findings: Findings) -> Findings:
        groups, asked = self.groups["test"], self.annealing.examples or len(self.test)
        subset = self._drawn("annealed rows", asked, len(self.test), groups).sort().values

        def run(asked: Sequence[Chains]) -> list[Estimate]:
            return self._work.all([self._annealing("", chains, self.test[subset], subset) for chains in asked])

        wide = self._work.one(
            self._sampled("sampling from a wide prior", self.test[subset], self.settings.prior_samples, widen=WIDE)
        )
        sampled = findings.prior.of(subset).or_better(wide) if findings.prior else wide
        checked = settle(run, len(subset), *self._starts, extra=self.annealing.extra, sampled=sampled)
        difference, compared = self._train_minus_test(checked.estimate, subset, checked.settings)
        return replace(findings, annealed=Annealed(checked, subset, wide, difference, compared))

    def _train_minus_test(self, test: Estimate, subset: Tensor, settings: Annealing) -> tuple[MeanWithError, int]:
        """How much likelier training rows are than test rows, whose estimate is of ``subset``, and how many were compared."""
        of_train, of_test, n = self.groups["train"], _groups_of(self.groups["test"], subset), len(subset)
        m = min(self.settings.diagnostics_examples, n, len(self.train))
        drawn = self._drawn("training rows", m, len(self.train), of_train)
        chains = Chains("annealing", torch.arange(len(drawn)), settings)
        train = self._work.one(self._annealing("training rows", chains, self.train[drawn], len(self.test) + drawn))
        compared = self._drawn("test rows", m, n, of_test)
        known = MeanWithError.of(self._comparable(train, self.train[drawn]), _groups_of(of_train, drawn))
        unseen = MeanWithError.of(self._comparable(test, self.test[subset])[compared], _groups_of(of_test, compared))
        return known.minus(unseen), len(compared)

    def _bounds(self, findings: Findings) -> Findings:
        """Add bounds on simulated rows, with the gaps of test rows where these have any, checked as test rows are.

        They are not repeated where test rows are not settled, as nothing could be gained by that.
        """
        in_vain = findings.annealed is not None and not findings.annealed.checked.settled.all()
        gaps = torch.from_numpy(np.isnan(self._prepared)) if self.schema.has_missing else None
        missing = gaps if gaps is not None and gaps.any() else None
        y, z = simulated_rows(self.vae, self.annealing.bounds_examples, missing=missing, seed=self.seed)

        def run(asked: Sequence[Chains], z: Tensor | None = None) -> list[Estimate]:
            return self._work.all([self._annealing("simulated rows", chains, y, torch.arange(len(y)), z) for chains in asked])

        extra = 0.0 if in_vain else self.annealing.extra
        sampled = self._work.one(self._sampled("simulated rows, prior sampling", y, self.settings.prior_samples))
        settling: dict[str, Any] = {"extra": extra, "tolerance": self.settings.tolerance, "sampled": sampled}
        bounds = settled_bounds(y, run, partial(run, z=z), *self._starts, **settling)
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

        def splitting(rows: Tensor) -> Call:
            part = ids[rows]
            return partial(inference_gap, y=self.test[part], log_likelihood=best[places[rows]], seed=self.seed, ids=part)

        asked = in_blocks("split of the ELBO's gap", ids, rows_per_block(self.vae, DRAWS_PER_STEP), splitting, joined_gaps)
        return replace(findings, gap=self._work.one(asked), gap_rows=ids)

    def _comparable(self, estimate: Estimate, rows: Tensor) -> Tensor:
        """The log densities of the raw rows that prepared ones stand for, with what their missing values count as."""
        missing = torch.from_numpy(self.schema.log_missing(rows.cpu().numpy())).to(rows.device)
        return estimate.log_likelihood + self._log_jacobian(rows) + missing

    def _log_jacobian(self, y: Tensor) -> Tensor:
        return torch.tensor(self.schema.log_jacobian(y.cpu().numpy()), dtype=torch.float64, device=y.device)

    @cached_property
    def _starts(self) -> tuple[Annealing, Annealing]:
        """How to anneal from q and from the prior."""
        starts: tuple[Start, Start] = ("posterior", "prior")
        settings = [Annealing(self.annealing.temperatures, self.annealing.leapfrog_steps, start) for start in starts]
        pilot = self.valid[torch.arange(min(PILOT_ROWS, len(self.valid)))]
        tuning = [partial(tune_step_sizes, y=pilot, annealing=annealing, seed=self.seed) for annealing in settings]
        names = [f"step sizes from the {start}" for start in starts]
        posterior, prior = self._work.all([whole(name, call) for name, call in zip(names, tuning, strict=True)])
        return posterior, prior

    def _annealing(self, of: str, chains: Chains, y: Tensor, ids: Tensor, z: Tensor | None = None) -> Computation[Estimate]:
        """Of rows y (N, D) with these ids, those that are asked for; in reverse, where there are latents z that made them."""
        places, chosen, S = chains.rows, ids[chains.rows], self.annealing.chains
        what = ", ".join(filter(None, [of, chains.stream]))
        settings: dict[str, Any] = {"S": S, "annealing": chains.annealing, "seed": self.seed, "stream": what}

        def call(block: Tensor) -> Call:
            rows, their_ids = places[block], chosen[block]
            if z is None:
                return partial(annealed_importance_sampling, y=y[rows], ids=their_ids, **settings)
            return partial(reverse_annealing, y=y[rows], z=z[rows], ids=their_ids, **settings)

        longer = chains.stream.partition(", ")[2].replace(" times as long", " T")
        bar = ", ".join(filter(None, [f"annealing {of or 'test rows'}", longer]))
        return in_blocks(what, chosen, rows_per_block(self.vae, S), call, join, bar=bar)

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


def _condensed(vae: LatentModel, **settings: Any) -> Estimate:
    return importance_sampling(vae, **settings).condensed()


def _groups_of(groups: Tensor | None, rows: Tensor) -> Tensor | None:
    """The groups of some rows."""
    return None if groups is None else groups[rows]
