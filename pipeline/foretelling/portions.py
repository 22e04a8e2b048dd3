"""What an evaluation is made of: how much of each kind of work there is, and some of it, to be timed.

It follows `pipeline.evaluation.estimation` and `pipeline.stages.evaluate`: what runs at once there is a list here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.baselines import ENOUGH, fit_baselines
from pipeline.evaluation.estimation import chosen
from pipeline.evaluation.hidden_values import by_iterative_imputer
from pipeline.foretelling.excerpt import Excerpt
from pipeline.params.evaluate import EvaluateParams
from vae.distributions.noise import DRAWS_PER_BLOCK, generator
from vae.evidence import (
    evidence_lower_bound,
    exact,
    importance_sampling,
    impute,
    inference_gap,
    latent_usage,
    log_likelihood_given_rest,
    reconstruction_by_column,
)
from vae.evidence.aggregate import ENOUGH_ROWS
from vae.evidence.annealing.hmc import Transition
from vae.evidence.annealing.path import path_of
from vae.evidence.annealing.temperatures import ChainNoise
from vae.evidence.annealing.tuning import CHAINS, PASSES
from vae.evidence.annealing.tuning import ROWS as TUNED_ROWS
from vae.evidence.density import all_pairs
from vae.evidence.estimate import rows_per_block, rows_per_chunk
from vae.evidence.from_prior import DRAWS
from vae.evidence.from_prior import ROWS as PRIOR_ROWS
from vae.evidence.gap import DRAWS_PER_STEP
from vae.evidence.verdict.checked import OF_OTHER_START, OF_SAME_START
from vae.model.latent_model import LatentModel

SECONDS, LONG = 0.05, 0.25  # that a kind of work is watched for, and that it is not done twice from
WITH_JUDGES = 1 + OF_SAME_START + OF_OTHER_START  # runs of a row, in those that are reported
OF_GAP = 400  # steps that the split of the ELBO's gap takes
STREAMS = 3  # of a row, at once
FEW, BESIDE = 16, 256  # rows of a trial whose rows take long, and of one beside the workers


@dataclass(frozen=True)
class Trial:
    """Some work of one kind.

    Attributes:
        name: Of the kind.
        units: How much of it a call does.
        call: Does it.
    """

    name: str
    units: float
    call: Callable[[], object]

    @cached_property
    def seconds(self) -> float:
        """Of a unit, by some calls: those of the processor, as other processes disturb others in so short a time."""
        begin, calls = time.process_time(), 1
        self.call()
        if time.process_time() - begin < LONG:  # else there is little in it that is done once
            begin, calls = time.process_time(), 0
            while not calls or time.process_time() - begin < SECONDS:
                self.call()
                calls += 1
        return (time.process_time() - begin) / calls / self.units


@dataclass(frozen=True)
class Portion:
    """Work of one kind that is to be done.

    Attributes:
        trial: Some of it.
        units: How much there is.
        parts: In which workers share it.
        repeats: Whether there will be more of it, as rows are not settled at first.
    """

    trial: Trial
    units: float
    parts: int = 1
    repeats: bool = False


AtOnce = list[Portion]


def seconds_of(steps: Sequence[AtOnce], workers: int, repeated: float) -> float:
    """How long so many workers take for steps of work, each of which waits for the one before.

    Args:
        steps: The work.
        workers: That share it.
        repeated: Cost of what is repeated, over that of its first runs.
    """
    total = 0.0
    for step in steps:
        alone = [portion.units * portion.trial.seconds * (1 + repeated * portion.repeats) for portion in step]
        longest = max((spent / portion.parts for spent, portion in zip(alone, step, strict=True)), default=0.0)
        total += max(sum(alone) / workers, longest)
    return total


class Evaluation:
    """The evaluation of a model.

    Args:
        vae: The model, trained or not.
        params: The params.
        excerpt: Of the data.

    Raises:
        InputError: If an estimator does not apply.
    """

    def __init__(self, vae: LatentModel, params: EvaluateParams, excerpt: Excerpt) -> None:
        self.vae, self.settings, self.excerpt = vae, params.evaluate, excerpt
        self.N, self.schema, self.names = (
            excerpt.rows["test"],
            excerpt.schema,
            chosen(vae, params.evaluate, excerpt.rows["test"]),
        )
        self.annealed = (params.evaluate.annealing.examples or self.N) * ("annealed" in self.names)
        self.simulated = params.evaluate.annealing.bounds_examples * ("bounds" in self.names)

    def steps(self) -> list[AtOnce]:
        """All that there is to do."""
        return [*self._sampling(), *self._annealing(), *self._columns(), *self._gaps(), *self._beside()]

    def _some(self, most: int) -> Tensor:
        """Test rows, as many as there are if there are no more than that."""
        return self.vae.as_rows(self.excerpt.repeated("test", min(self.N, most)))

    def _sampling(self) -> Iterator[AtOnce]:
        vae, N, S, chunk = self.vae, self.N, DRAWS_PER_BLOCK, rows_per_chunk(self.vae, DRAWS_PER_BLOCK)
        y, many, few, parts = self._some(chunk), self._some(PRIOR_ROWS), self._some(FEW), math.ceil(N / chunk)
        bound = Trial("ELBO", len(y) * S, partial(evidence_lower_bound, vae, y, S))
        from_prior = Trial("prior sampling", len(many) * DRAWS, self._pairs(many))
        from_posterior = Trial("importance sampling", len(y) * S, partial(importance_sampling, vae, y, S))
        draws = self.settings.prior_samples
        smaller = sum(10**k for k in range(1, len(str(draws))) if 10**k < draws)
        asked = {
            "prior": Portion(from_prior, N * (draws + smaller), math.ceil(N / PRIOR_ROWS)),
            "importance": Portion(from_posterior, N * self.settings.samples, parts),
            "exact": Portion(Trial("exact", len(few), partial(exact, vae, few)), N),
        }
        of_bound = Portion(bound, N * self.settings.elbo_samples, parts)
        yield [of_bound, *(asked[name] for name in self.names if name in asked)]
        for count in filter(None, (self.annealed, self.simulated)):
            yield [Portion(from_prior, count * draws, math.ceil(count / PRIOR_ROWS))]

    def _pairs(self, y: Tensor) -> Callable[[], object]:
        """Densities of rows and draws as `prior_sampling` has them where there are many draws: so few would be cut up."""
        z = self.vae.prior().sample((DRAWS,), generator(0, "pilot"))
        pairs = all_pairs(self.vae.generative, y, z)
        return torch.no_grad()(lambda: pairs.at(z)(slice(0, len(y))).logsumexp(dim=0))

    def _annealing(self) -> Iterator[AtOnce]:
        if not self.annealed + self.simulated:
            return
        settings, compared = self.settings.annealing, min(self.settings.diagnostics_examples, self.annealed)
        T, block = settings.temperatures, rows_per_block(self.vae, settings.chains)
        size = min(block, max(self.annealed, self.simulated))
        tuning = Trial("step sizes", 1, self._transition(TUNED_ROWS, CHAINS))
        yield [Portion(tuning, 2 * PASSES * T, 2)]
        step = Trial("annealing", size, self._transition(size, settings.chains))
        for count, runs in ((self.annealed, WITH_JUDGES), (compared, 1), (self.simulated, WITH_JUDGES), (self.simulated, 1)):
            blocks = max(1, math.ceil(count / block))
            yield [Portion(step, count * runs * T, (STREAMS if runs > 1 else 1) * blocks, repeats=runs > 1)]
        if self.annealed:
            y, gap = self._some(min(rows_per_block(self.vae, DRAWS_PER_STEP), compared)), partial(inference_gap, self.vae)
            call = partial(gap, y, torch.zeros(len(y)), steps=DRAWS_PER_STEP, S=DRAWS_PER_STEP)
            trial = Trial("split of the ELBO's gap", DRAWS_PER_STEP * len(y), call)
            yield [Portion(trial, OF_GAP * compared, math.ceil(compared / len(y)))]

    def _transition(self, count: int, chains: int) -> Callable[[], object]:
        """A transition of so many rows' chains, from where they begin."""
        path = path_of(self.vae, self.vae.as_rows(self.excerpt.repeated("test", count)), "posterior")
        noise = ChainNoise(path, 0, "pilot", torch.arange(count), chains)
        transition = Transition(path, 0.5, 0.1, self.settings.annealing.leapfrog_steps)
        with torch.no_grad():
            point = path.at(path.position(path.start.transform(noise.start())))
            transition(point, noise.at(0))  # the first finds the shapes of posteriors
        return torch.no_grad()(lambda: transition(point, noise.at(0)))

    def _columns(self) -> Iterator[AtOnce]:
        """What is done for each value of a table."""
        if self.schema.shape is not None:
            return
        S, draws = self.settings.imputation.samples, DRAWS_PER_BLOCK
        chunk = rows_per_chunk(self.vae, S)
        y, parts = self._some(min(chunk, FEW)), math.ceil(self.N / chunk)
        by_column = Trial("by column", len(y) * draws, partial(reconstruction_by_column, self.vae, y, draws))
        given_rest = Trial("each value given its row", len(y), partial(log_likelihood_given_rest, self.vae, y, S))
        both = [Portion(by_column, self.N * self.settings.elbo_samples, parts), Portion(given_rest, self.N, parts)]
        yield both if self.vae.inference.may_miss(y).all() else both[:1]

    def _gaps(self) -> Iterator[AtOnce]:
        """How missing values are filled in, and how well."""
        if not self.schema.has_missing:
            return
        settings, train = self.settings.imputation, self.excerpt.arrays["train"]
        chunk = rows_per_chunk(self.vae, settings.samples)
        y = self._some(min(chunk, FEW)).index_fill(1, torch.tensor([0]), torch.nan)
        by_model = Trial("missing values", len(y), partial(impute, self.vae, y, settings.samples, settings.draws))
        gappy = self.N * float(np.isnan(self.excerpt.arrays["test"]).any(axis=1).mean())
        hidden = min(settings.examples, self.N) * (1 + len(self.schema.columns))
        yield [Portion(by_model, hidden + gappy, math.ceil(self.N / chunk))]
        iterative = Trial("IterativeImputer", len(train), partial(by_iterative_imputer, self.schema, train))
        yield [Portion(iterative, min(self.excerpt.rows["train"], ENOUGH))]

    def _beside(self) -> Iterator[AtOnce]:
        """What one process does while the others wait."""
        y, train, valid = self._some(BESIDE), self.excerpt.arrays["train"][: 4 * BESIDE], self.excerpt.arrays["valid"][:BESIDE]
        yield [Portion(Trial("use of latents", len(y), partial(latent_usage, self.vae, y)), min(self.N, ENOUGH_ROWS))]
        totals = self.vae.generative.likelihood.totals(len(self.schema.columns))
        fit = partial(fit_baselines, components=self.settings.mixture_components, totals=totals, seed=0)
        trial = Trial("baselines", len(train), partial(fit, train, valid, self.schema))
        yield [Portion(trial, min(self.excerpt.rows["train"], ENOUGH))]
