"""What Lightning calls while it trains a VAE: the steps of the optimiser, validation, and what is logged of both.

Lightning's loop, called for each step of a small model, takes as long as the step itself. So it is given stretches of many
batches, and `Steps.training_step` takes all steps of one. Noise, learning rate and schedules are functions of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from typing_extensions import override

from vae.distributions.noise import of_step
from vae.objectives import DONE, Objective, Values
from vae.training.averaging import Average
from vae.training.fast.vector import VectorAdam, WeightVector
from vae.training.gradients import GradientNorms
from vae.training.rows.batches import Batch, Stretch
from vae.training.rows.hiding import hide
from vae.training.totals import OF_RAW_DATA, QUANTITIES, Totals

if TYPE_CHECKING:
    from vae.settings import Training


class Steps(pl.LightningModule):
    """The optimiser's steps of a model that has an ``objective``.

    Attributes:
        objective: What training minimises.
        training_settings: How to train.
        log_jacobian: Mean log |dy/dx| of each split, added to what is logged so that it is in nats of the raw data.
        average: Of the weights, if there is one.
        weights: In one vector, while a fit lasts.
        gradient_norms: Of the epoch so far.
    """

    objective: Objective
    training_settings: Training
    log_jacobian: dict[str, float]
    average: Average | None = None
    weights: WeightVector
    _rank: int = 0
    _place: torch.device | None = None  # kept while a fit lasts, as looking it up takes a while
    automatic_optimization = False

    def begin(self) -> None:
        """Forget what an earlier fit has added up."""
        self._totals = {"train": Totals(), "valid": Totals()}
        self.gradient_norms = GradientNorms()

    def end(self) -> None:
        """A fit is over."""
        if weights := getattr(self, "weights", None):  # it may have ended before it had an optimiser
            weights.release()
            del self.weights, self._rank, self._place
        self.eval()

    def training_step(self, stretch: Stretch, batch_idx: int) -> None:
        """The steps of a stretch; the noise is a function of the seed and the step's number."""
        optimizer, first = self.optimizers(), self.trainer.current_epoch * stretch.steps + stretch.first
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        self._set_learning_rate(optimizer.optimizer, first / stretch.steps)
        self.weights.bind(fuse=self._fuses)
        descend = self._descend_directly if self._direct else self._descend
        for step, batch in enumerate(stretch, first):
            self.weights.clear()
            self._measured = self.gradient_norms.is_due(step % stretch.steps, stretch.steps)
            descend(self._losses(batch, step, step / stretch.steps), self._processes / batch.size, optimizer)
            if self.average is not None:
                self.average.update()
        self._count(step + 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same noise in every epoch, so that epochs are compared on equal terms."""
        self._values("valid", batch.rows, batch_idx, DONE)

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # in on_train_epoch_end it would come after the callbacks that read it
            self._log("train", gradient_norm=self.gradient_norms.mean())

    @override
    def on_validation_epoch_end(self) -> None:
        self._log("valid")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, fused where gradients need no scaling."""
        settings = self.training_settings
        self.weights = WeightVector(self)
        scaled = self.trainer.precision == "16-mixed"
        self._processes, self._rank, self._place = self.trainer.world_size, self.global_rank, self.weights.vector.device
        self._direct = self._processes == 1 and not scaled
        self._fuses = self._direct and not str(self.trainer.precision).endswith("mixed")
        return VectorAdam(
            self.weights,
            lr=settings.learning_rate,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
            fused=not scaled,
        )

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the gradient, whose scale is right by now, and clip it."""
        if self._measured:
            self.gradient_norms.note_gradient(torch.linalg.vector_norm(self.weights.gradient))
        if (limit := self.training_settings.gradient_clip_norm) is not None:
            clip_grad_norm_(self.weights.vector, limit)

    # ---- a step

    def _losses(self, batch: Batch, step: int, epoch: float) -> Tensor:
        """Of this process's rows, (N,)."""
        if not len(batch.rows):  # a last batch smaller than the number of processes; the others wait for this one's gradient
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum(dim=0, keepdim=True) * 0.0
        return self._values("train", batch.rows, step, epoch).loss

    def _descend_directly(self, losses: Tensor, weight: float, optimizer: pl.core.optimizer.LightningOptimizer) -> None:
        """A step by the gradient of the weighted sum of losses (N,), without a detour through Lightning."""
        losses.backward(torch.full_like(losses, weight))
        self.weights.finish()
        adam = optimizer.optimizer
        assert isinstance(adam, VectorAdam)
        self.on_before_optimizer_step(adam)
        adam.update()

    def _descend(self, losses: Tensor, weight: float, optimizer: pl.core.optimizer.LightningOptimizer) -> None:
        """The same by Lightning, which averages over processes, so each gives its share of the sum, and scales gradients."""
        self.manual_backward(losses.sum() * weight)
        optimizer.step()

    def _count(self, steps: int) -> None:
        """Tell Lightning, which counts its own steps only."""
        self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = steps

    def _values(self, split: str, rows: Tensor, position: int, epoch: float) -> Values:
        rows, whole = self._shown(split, rows, position)
        values: Values = self(rows, None, self._noise(split, position), epoch)
        self._totals[split].add(values, whole)
        return values

    def _shown(self, split: str, rows: Tensor, position: int) -> tuple[Tensor, Tensor | None]:
        """The rows, some of which lose values while training, and those that do not: what is logged is of them."""
        settings = self.training_settings
        if split == "train" and settings.binarize:
            rows = torch.bernoulli(rows, generator=self._noise("binarize", position))
        if split != "train" or not settings.hide:
            return rows, None
        return hide(rows, settings.hide, self._noise("hide", position))

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer, epoch: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.training_settings.learning_rate_after(epoch)

    def _noise(self, stream: str, position: int) -> torch.Generator:
        return of_step(self.training_settings.seed, stream, position, self._rank, device=self._place or self.device)

    def _log(self, split: str, **others: Tensor) -> None:
        means = dict(zip(QUANTITIES, self._totals[split].means(self.trainer.strategy).tolist(), strict=True))
        values = {name: mean + OF_RAW_DATA[name] * self.log_jacobian[split] for name, mean in means.items()}
        self.log_dict(
            {f"{split}/{name}": value for name, value in {**values, **others}.items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
        )
