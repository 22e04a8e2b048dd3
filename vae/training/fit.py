"""What training adds to a model while it lasts.

Lightning's loop, called for each step of a small model, takes as long as the step itself. So it is given stretches of many
batches, and `Fit.descend` takes all steps of one. Noise, learning rate and schedules are functions of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from vae.distributions.noise import of_step
from vae.model.latent_model import LatentModel
from vae.model.layers import Step, active_layers, during
from vae.objectives import Objective
from vae.settings import Training
from vae.training.averaging import Average
from vae.training.diagnosis import Diagnosis
from vae.training.epochs import History
from vae.training.fast.fused_terms import terms_of_steps
from vae.training.fast.vector import VectorAdam, WeightVector
from vae.training.resume import BestEpoch, Saving, Snapshots
from vae.training.rows.batches import Batch, Stretch
from vae.training.rows.data import TrainingRows
from vae.training.rows.hiding import hide
from vae.training.rows.mapped import Mapped
from vae.training.threads import paying_threads, using_threads
from vae.training.totals import OF_RAW_DATA, QUANTITIES, GradientNorms, Totals
from vae.training.trainer import tidy, trainer_for


class Trainable(LatentModel, pl.LightningModule):  # type: ignore[misc]  # whose dtype is a str | torch.dtype
    """A latent model that Lightning trains.

    Attributes:
        objective: What training minimises.
    """

    objective: Objective
    automatic_optimization = False


class Fit:
    """The state of a training: weights in one vector, optimiser and average, and the sums of what is logged.

    Args:
        vae: The model.
        training: Settings.
        log_jacobian: Mean log |dy/dx| of training and validation rows, added to what is logged so that it is in nats of the
            raw data x.

    Attributes:
        weights: Those of the model, once there is an optimiser.
    """

    weights: WeightVector

    def __init__(self, vae: Trainable, training: Training, log_jacobian: tuple[float, float] = (0.0, 0.0)) -> None:
        self._vae, self._training = vae, training
        self._log_jacobian = dict(zip(("train", "valid"), log_jacobian, strict=True))
        self._totals = {"train": Totals(), "valid": Totals()}
        self._norms = GradientNorms()
        self._active = active_layers(vae)
        self._average = None if training.ema_decay is None else Average(training.ema_decay)

    def run(
        self,
        y: Tensor | Mapped,
        validation: Tensor | Mapped | None = None,
        callbacks: Sequence[Callback] = (),
        snapshots: Snapshots | None = None,
    ) -> History:
        """Train the model and leave it with the weights of its best epoch by validation bound (the last, without one).

        Args:
            y: Training rows, shape (N, D); a memory-mapped array stays on disk.
            validation: Rows of shape (M, D), or None; likewise.
            callbacks: More Lightning callbacks.
            snapshots: Where the state for resuming is kept; a fit that was interrupted goes on from the last, to the same
                bytes.

        Raises:
            DivergenceError: If a loss is not finite; the weights are then those of that epoch.
            AcceleratorError: If the accelerator, devices or precision are not available.
        """
        vae, training, best = self._vae, self._training, BestEpoch()
        diagnosis = Diagnosis(vae, y, validation, training)
        history = History(diagnosis)
        saving = Saving(snapshots) if snapshots else None
        state = saving.load(vae, best) if saving else None
        if state and state["finished"]:
            _restore(vae, state, best, history, diagnosis)
            return history
        chosen = [diagnosis, history, *callbacks, best]
        if validation is not None and training.patience is not None:
            chosen.append(EarlyStopping("valid/bound", mode="max", patience=training.patience, check_finite=False))
        chosen += [] if self._average is None else [self._average]
        data = TrainingRows(y, validation, training.batch_size, training.seed, vae.objective.draws)
        threads = training.threads or paying_threads(vae.eval(), training.batch_size, vae.objective.draws)
        with tidy(), using_threads(threads):
            trainer = trainer_for(training, chosen, saving, validates=validation is not None)
            try:
                trainer.fit(vae.train(), datamodule=data, ckpt_path="state" if state else None, weights_only=True)
            except SystemExit as end:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from end
            finally:
                if hasattr(self, "weights"):  # it may have ended before it had an optimiser
                    self.weights.release()
                vae.eval()
        return history

    def optimizer(self) -> VectorAdam:
        """Adam of the weights, where Lightning has put them by now; fused where gradients need no scaling."""
        training, trainer = self._training, self._vae.trainer
        self.weights = WeightVector(self._vae)
        if self._average is not None:
            self._average.begin(self.weights.vector.detach())
        scaled = trainer.precision == "16-mixed"
        self._processes, self._rank, self._place = trainer.world_size, trainer.global_rank, self.weights.vector.device
        self._direct = self._processes == 1 and not scaled
        self._fuses = self._direct and not str(trainer.precision).endswith("mixed")
        return VectorAdam(
            self.weights,
            lr=training.learning_rate,
            eps=training.adam_epsilon,
            weight_decay=training.weight_decay,
            fused=not scaled,
        )

    def descend(self, stretch: Stretch) -> None:
        """Take the steps of a stretch; the noise is a function of the seed and the step's number."""
        objective, optimizer, trainer = self._vae.objective, self._vae.optimizers(), self._vae.trainer
        assert isinstance(optimizer, LightningOptimizer)
        first = trainer.current_epoch * stretch.steps + stretch.first
        for group in optimizer.optimizer.param_groups:
            group["lr"] = self._training.learning_rate_after(first / stretch.steps)
        self.weights.bind(fuse=self._fuses)
        terms = terms_of_steps(objective, self.weights.fused)
        for step, batch in enumerate(stretch, first):
            self.weights.clear()
            self._measured = self._norms.is_due(step % stretch.steps, stretch.steps)
            if len(batch.rows):
                (rows, whole), noise = self._shown(batch.rows, step), self._noise("train", step)
                with during(Step(noise), self._active):
                    values = objective.values(terms(self._vae, rows, objective.draws, noise), step / stretch.steps)
                self._totals["train"].add(values, whole)
                loss = values.loss
            else:  # a last batch smaller than the number of processes; the others wait for this one's gradient
                loss = torch.stack([weight.sum() for weight in self._vae.parameters()]).sum(dim=0, keepdim=True) * 0.0
            self._step(loss, self._processes / batch.size, optimizer)
        # Lightning counts its own steps only
        trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = step + 1

    def validate(self, batch: Batch, number: int) -> None:
        """Take in a batch, with the same noise in every epoch, so that epochs are compared on equal terms."""
        self._totals["valid"].add(self._vae.objective(self._vae, batch.rows, self._noise("valid", number)))

    def tend_gradient(self) -> None:
        """Measure the gradient of a step, whose scale is right by now, and clip it."""
        if self._measured:
            self._norms.note_gradient(torch.linalg.vector_norm(self.weights.gradient))
        if (limit := self._training.gradient_clip_norm) is not None:
            clip_grad_norm_(self.weights.vector, limit)

    def log(self, split: str) -> None:
        """Log the means of the epoch that ends, of training with its gradient's norm."""
        means = dict(zip(QUANTITIES, self._totals[split].means(self._vae.trainer.strategy).tolist(), strict=True))
        values: dict[str, Any] = {name: mean + OF_RAW_DATA[name] * self._log_jacobian[split] for name, mean in means.items()}
        if split == "train":
            values["gradient_norm"] = self._norms.mean()
        named = {f"{split}/{name}": value for name, value in values.items()}
        self._vae.log_dict(named, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _step(self, losses: Tensor, weight: float, optimizer: LightningOptimizer) -> None:
        """Take a step by the gradient of the weighted sum of losses (N,).

        Lightning averages over processes, so each gives its share of the sum, and scales gradients. Where neither is needed
        it is left out.
        """
        adam = optimizer.optimizer
        assert isinstance(adam, VectorAdam)
        if self._direct:
            losses.backward(torch.full_like(losses, weight))
            self.weights.finish()
            self.tend_gradient()
            adam.update()
        else:
            self._vae.manual_backward(losses.sum() * weight)
            optimizer.step()
        if self._average is not None:
            self._average.update()

    def _shown(self, rows: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """The rows as a step is shown them, some with values hidden, and which are whole, (N,): their means are logged."""
        if self._training.binarize:
            rows = torch.bernoulli(rows, generator=self._noise("binarize", step))
        if not self._training.hide:
            return rows, None
        return hide(rows, self._training.hide, self._noise("hide", step))

    def _noise(self, stream: str, position: int) -> torch.Generator:
        return of_step(self._training.seed, stream, position, self._rank, device=self._place)


def _restore(vae: Trainable, state: dict[str, Any], best: BestEpoch, *callbacks: Callback) -> None:
    """Give the model what a fit left that had finished: the process ended between training and what was to come after."""
    vae.load_state_dict(state["state_dict"])
    for callback in (*callbacks, best):
        callback.load_state_dict(state["callbacks"][callback.state_key])
    best.restore(vae)
    vae.eval()
