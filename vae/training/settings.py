"""How to train, and what is raised where that cannot be had or leads nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from vae.registry import SCHEDULES
from vae.training import learning_rates


class DivergenceError(RuntimeError):
    """Training produced a loss that is not finite."""


class AcceleratorError(ValueError):
    """The accelerator, devices or precision asked for are not available on this machine."""


@dataclass(frozen=True)
class Training:
    """How to train; the field names are those of the ``train`` section of params.yaml.

    Attributes:
        max_epochs: Passes over the training rows at most.
        batch_size: Rows per optimiser step, over all devices.
        learning_rate: Of Adam, at first.
        schedule: How the learning rate goes on, a name in `vae.registry.SCHEDULES`.
        adam_epsilon: Added to the root of the second moment; Burda et al. (2016) have 1e-4.
        ema_decay: Of an exponential moving average of the weights, which is validated and kept in their place; None has none.
        weight_decay: L2 penalty of Adam.
        patience: Stop after this many epochs without a better validation bound; None never stops early.
        gradient_clip_norm: Clip the gradient to this norm; None does not clip.
        accelerator, devices, precision: As in Lightning's Trainer.
        hide: Share of the rows of a step of which the model is given some values only, at random; needs a likelihood and
            inputs that take missing values.
        binarize: Whether training values are probabilities, of which each step draws zeros and ones anew; for likelihoods of
            binary values.
        memory_gib: Training or validation rows in a memory-mapped array that are larger are read from disk in shuffled pools,
            see `vae.training.rows.mapped`; smaller ones are held in memory.
        deterministic: Refuse operations whose result varies between runs (matters on GPUs).
        seed: Of the order of the rows and of all noise.
        progress: Show Lightning's progress bar, in which a batch is a stretch of steps.
    """

    max_epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    adam_epsilon: float = 1e-8
    ema_decay: float | None = None
    weight_decay: float = 0.0
    patience: int | None = None
    gradient_clip_norm: float | None = None
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    hide: float = 0.0
    binarize: bool = False
    memory_gib: float = 4.0
    deterministic: bool = True
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        at_least_one = ("max_epochs", "batch_size", "devices", "patience")
        positive = ("learning_rate", "adam_epsilon", "gradient_clip_norm", "memory_gib")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        for names, allowed, rule in (
            (at_least_one, lambda value: value >= 1, "at least 1"),
            (positive, lambda value: value > 0, "greater than 0"),
            (("weight_decay",), lambda value: value >= 0, "at least 0"),
            (("hide",), lambda value: 0 <= value <= 1, "from 0 to 1"),
            (("ema_decay",), lambda value: 0 <= value < 1, "from 0 to below 1"),
        ):
            for name in names:
                value = getattr(self, name)
                if value is not None and not allowed(value):
                    raise ValueError(f"{name} must be {rule}; got {value}")

    def learning_rate_after(self, epoch: float) -> float:
        """The learning rate after so many epochs."""
        factor: float = getattr(learning_rates, self.schedule)(epoch / self.max_epochs)
        return self.learning_rate * factor
