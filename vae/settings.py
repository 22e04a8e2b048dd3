"""How a model is trained: the objectives by name, the learning rate's schedules, and the settings of a fit. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from vae.options.declaration import AboveZero, AtLeastZero, BelowOne, Entry, OneOrMore, Share, declared
from vae.options.registry import KL

BURDA_STAGES = 8

OutputBias = Literal["data", "random"]  # where the generative network's output begins
OUTPUT_BIAS: OutputBias = "data"


# ---- objectives


@declared
class Draws:
    """Monte Carlo samples S per example."""

    samples: OneOrMore = 1


@declared
class BoundOptions(Draws):
    """Those of the ELBO: how the KL is computed, too."""

    kl: KL = "monte_carlo"


@declared
class WeightedBound(BoundOptions):
    """The weight of the KL, how it rises from 0, and the epochs of a linear rise, or of a cycle."""

    beta: AtLeastZero = 1.0
    schedule: Literal["constant", "linear", "cyclic"] = "constant"
    epochs: AboveZero = 10.0


@declared
class FreeNats(BoundOptions):
    """The nats that each group of latent dimensions has for free, and how many dimensions are in a group."""

    nats: AtLeastZero = 0.1
    group: OneOrMore = 1


@declared
class ImportanceDraws(Draws):
    """Importance samples K of a bound."""

    samples: OneOrMore = 5


@declared
class AveragedBounds(ImportanceDraws):
    """Bounds M per example, from M times K draws."""

    averages: OneOrMore = 8


OBJECTIVES: dict[str, Entry] = {
    "elbo": Entry("ELBO", BoundOptions),
    "beta_elbo": Entry("BetaELBO", WeightedBound),
    "free_bits": Entry("FreeBits", FreeNats),
    "sticking_the_landing": Entry("StickingTheLanding", Draws),
    "iwae": Entry("IWAE", ImportanceDraws),
    "dreg": Entry("DReG", ImportanceDraws),
    "piwae": Entry("PIWAE", AveragedBounds),
}


# ---- learning rates, as factors of the first one: functions of the share of all epochs that is done


def constant(done: float) -> float:
    """The first learning rate throughout."""
    return 1.0


def cosine(done: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter 2017, "SGDR", eq. 5 without restarts)."""
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


def burda(done: float) -> float:
    """Eight stages, each three times as long as the one before, that divide the rate by ten in equal ratios.

    In Burda et al. (2016, section 5) stage i = 0, ..., 7 takes 3^i of 3,280 epochs at 1e-4 * round(10^(1 - i / 7), 1).
    """
    total = (3**BURDA_STAGES - 1) // 2
    stage = next((i for i in range(BURDA_STAGES - 1) if done * total < (3 ** (i + 1) - 1) // 2), BURDA_STAGES - 1)
    return round(10 ** (1 - stage / (BURDA_STAGES - 1)), 1) / 10


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "burda": burda}


@declared
class Training:
    """How to train.

    Attributes:
        max_epochs: Passes over the training rows at most.
        batch_size: Rows per optimiser step, over all devices.
        learning_rate: Of Adam, at first.
        schedule: How the learning rate goes on, a name in `SCHEDULES`.
        adam_epsilon: Added to the root of the second moment; Burda et al. (2016) have 1e-4.
        ema_decay: Of an exponential moving average of the weights, which is validated and kept in their place; None has none.
        weight_decay: L2 penalty of Adam.
        patience: Stop after this many epochs without a better validation bound; None never stops early.
        gradient_clip_norm: Clip the gradient to this norm; None does not clip.
        accelerator, devices, precision: As in Lightning's Trainer.
        hide: Share of the rows of a step of which the model is given some values only, at random; needs a likelihood and
            inputs that take missing values.
        memory_gib: Training or validation rows in a memory-mapped array that are larger are read from disk in shuffled pools,
            see `vae.training.rows.mapped`; smaller ones are held in memory.
        deterministic: Refuse operations whose result varies between runs (matters on GPUs).
        binarize: Whether training values are probabilities, of which each step draws zeros and ones anew; for likelihoods of
            binary values.
        seed: Of the order of the rows and of all noise.
        threads: CPU threads; None has as many as pay, by the size of a step; see `vae.training.threads`.
        progress: Show Lightning's progress bar, in which a batch is a stretch of steps.
    """

    max_epochs: OneOrMore = 100
    batch_size: OneOrMore = 64
    learning_rate: AboveZero = 1e-3
    schedule: Literal[tuple(SCHEDULES)] = "constant"  # type: ignore[valid-type]
    adam_epsilon: AboveZero = 1e-8
    ema_decay: BelowOne | None = None
    weight_decay: AtLeastZero = 0.0
    patience: OneOrMore | None = None
    gradient_clip_norm: AboveZero | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: OneOrMore = 1
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    hide: Share = 0.0
    memory_gib: AboveZero = 4.0
    deterministic: bool = True
    binarize: bool = False
    seed: int = 0
    threads: OneOrMore | None = None
    progress: bool = True

    def learning_rate_after(self, epoch: float) -> float:
        """The learning rate after so many epochs."""
        return self.learning_rate * SCHEDULES[self.schedule](epoch / self.max_epochs)
