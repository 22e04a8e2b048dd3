"""The VAE as a LightningModule: the lecture's model with what trains it, fit and make_objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.func import functional_call
from typing_extensions import override

from vae import likelihoods
from vae.distributions.noise import generator, of_step
from vae.errors import OptionError
from vae.model.layers import BatchNorm, Step, active_layers, during
from vae.model.rows import names_to_keep, native
from vae.objectives import DONE, ELBO, Objective, Values
from vae.options.architecture import Architecture
from vae.settings import OUTPUT_BIAS, OutputBias, Training
from vae.training import flat
from vae.training.epochs import History
from vae.training.fast.vector import VectorAdam
from vae.training.fit import Fit, Trainable
from vae.training.resume import Snapshots
from vae.training.rows.batches import Batch, Stretch
from vae.training.rows.mapped import Mapped

CHECKED = 2**16  # rows at a time
FIRST_ROWS = 10_000  # chosen at random, that decide where training begins


class VAE(Trainable):
    """A variational autoencoder: a `LatentModel`, whose arguments it takes, that is trained with Lightning.

    Args:
        generative_architecture: Layers of f_w, an `Architecture` or a mapping ``{"hidden": [...], "activation": ...}``.
        inference_architecture: Layers of the inference network, likewise.
        objective: What training minimises; the ELBO by default.
        output_bias: Where the bias of the generative network's last layer begins: with ``"data"`` the first fit sets it by the
            training rows, see `Generative.initialize`; with ``"random"`` it stays as random as other weights.
        settings: ``data_dim``, ``latent_dim``, ``likelihood``, ``inputs``, ``shape``, ``prior``, ``posterior``, ``seed``; see
            `LatentModel`.

    Attributes:
        training_settings: Of the latest fit.
        history: Of the latest fit.

    Raises:
        OptionError: If a dimension is below 1, a name is unknown, or the parts do not fit together.
    """

    history: History
    _fit: Fit  # while it lasts

    def __init__(
        self,
        generative_architecture: Architecture | Mapping[str, Any],
        inference_architecture: Architecture | Mapping[str, Any],
        *,
        objective: Objective | None = None,
        output_bias: OutputBias = OUTPUT_BIAS,
        **settings: Any,
    ) -> None:
        super().__init__(generative_architecture, inference_architecture, **settings)
        if output_bias not in get_args(OutputBias):
            raise OptionError(f"output_bias must be one of {', '.join(get_args(OutputBias))}; got {output_bias!r}")
        self.output_bias = output_bias
        self._active = active_layers(self)
        self.objective = objective or ELBO()
        self.objective.check(self)
        self.training_settings = Training()

    def fit(
        self,
        y: ArrayLike | Tensor,
        S: int | None = None,
        *,
        validation: ArrayLike | Tensor | None = None,
        log_jacobian: tuple[float, float] = (0.0, 0.0),
        callbacks: Sequence[pl.Callback] = (),
        snapshots: Snapshots | None = None,
        **settings: Any,
    ) -> Self:
        """Train on rows ``y`` of shape (N, D) with Lightning, and keep the best epoch by validation bound.

        Args:
            y: Training rows; with ``binarize=True`` the probabilities that their values are 1. The names of a data frame's
                columns are remembered, see `as_rows`.
            S: Monte Carlo samples in the objective; None keeps the objective's own number.
            validation: Rows of shape (M, D) to select the epoch by; without them the last epoch is kept.
            log_jacobian: Mean log |dy/dx| over training and validation rows where y is a transformation of raw data x: added
                to what is logged, so that it is in nats of the raw data.
            callbacks: More Lightning callbacks.
            snapshots: Where the state for resuming is kept; see `vae.training.resume.Snapshots`.
            settings: Fields of `vae.settings.Training`, such as ``max_epochs`` and ``learning_rate``.

        Returns:
            The fitted model itself; ``history`` has its epochs.

        Raises:
            ValueError: If rows are not finite or of the wrong shape, or batch norm does not go with the settings.
            DivergenceError: If the loss becomes infinite or NaN.
            AcceleratorError: If the accelerator asked for is not there.
        """
        self.training_settings = Training(**settings)
        self._refuse_batch_norm()
        if not self.initialized or self.columns is None:
            self.columns = names_to_keep(y)
        rows = self._rows(y, self._probabilities if self.training_settings.binarize else self.as_rows)
        held_out = None if validation is None else self._rows(validation, partial(self.as_rows, name="validation"))
        self.objective = self.objective.with_samples(S)
        self.objective.check(self)
        self._initialize(rows)
        self._fit = Fit(self, self.training_settings, log_jacobian)
        try:
            self.history = self._fit.run(rows, held_out, callbacks, snapshots)
        finally:
            del self._fit
        return self

    def make_objective(
        self, y: ArrayLike | Tensor, y_var: float | None = None, S: int | None = None
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The loss, the negative ELBO by default, and its gradient, as functions of a flat parameter vector and iteration t.

        Both are means over rows. The noise is a function of t and of a row's position, the one that training draws for the
        batch of its step t, so for a fixed t (0 by default) the objective is deterministic and fits `scipy.optimize.minimize`.
        Numpy in, numpy out; torch likewise. Dropout and batch norm do what they do in training in training mode, as before the
        first fit; `eval` and `train` change it. Running means and variances stay as they are.

        Args:
            y: Rows, shape (N, D).
            y_var: sigma_y^2 of the fixed-variance Gaussian, in place of the model's own.
            S: Monte Carlo samples; None keeps the objective's own number.

        Returns:
            ``objective(params, t=0)`` and ``gradient(params, t=0)``; `pack_weights` gives the current ``params``.

        Raises:
            ValueError: If y_var is given and the likelihood has no fixed variance, or is not positive.
        """
        rows, objective = self.as_rows(y), self.objective.with_samples(S)
        objective.check(self)
        fixed = self._fixed_variance(y_var)

        def variational_objective(params: Tensor, t: int = 0) -> Tensor:
            inference, generative = self.unpack_weights(params)
            weights = {**inference, **generative, **fixed}
            noise = of_step(self.training_settings.seed, "train", t, 0, device=rows.device)
            return functional_call(self, weights, (rows, objective, noise)).loss.mean()

        return flat.numpy_too(variational_objective, rows), flat.numpy_too(flat.gradient(variational_objective), rows)

    def pack_weights(self) -> Tensor:
        """Pack all parameters into one flat vector: inference weights v, then generative weights w."""
        return flat.pack(self)

    def unpack_weights(self, params: Tensor) -> tuple[flat.Weights, flat.Weights]:
        """Unpack a flat vector into (inference weights, generative weights), by name.

        Raises:
            ValueError: If the vector has the wrong length.
        """
        weights = flat.unpack(self, params)
        inference = {name: value for name, value in weights.items() if name.startswith("inference.")}
        return inference, {name: value for name, value in weights.items() if name not in inference}

    # ---- Lightning

    def forward(
        self, y: Tensor, objective: Objective | None = None, noise: torch.Generator | None = None, epoch: float = DONE
    ) -> Values:
        """The objective per row of ``y``, after so many epochs of training; in training mode a step of it."""
        with during(Step(noise), self._active):
            return (objective or self.objective)(self, y, noise, epoch)

    def configure_optimizers(self) -> VectorAdam:
        """Make the optimiser."""
        return self._fit.optimizer()

    def training_step(self, stretch: Stretch, batch_idx: int) -> None:
        """Take the steps of a stretch."""
        self._fit.descend(stretch)

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._fit.tend_gradient()

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # in on_train_epoch_end it would come after the callbacks that read it
            self._fit.log("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in a batch of validation rows."""
        self._fit.validate(batch, batch_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        self._fit.log("valid")

    # ---- helpers

    def _rows(self, y: ArrayLike | Tensor, checked: Callable[[Any], Tensor]) -> Tensor | Mapped:
        """Checked rows (N, D): a tensor, or, if that would be too large, the memory-mapped array as it is."""
        if not isinstance(y, np.memmap) or y.nbytes <= self.training_settings.memory_gib * 2**30:
            return checked(y)
        for first in range(0, len(y), CHECKED):
            try:
                checked(y[first : first + CHECKED])
            except ValueError as error:
                raise ValueError(f"{error}, counted from row {first:,} on") from None
        return y

    def _refuse_batch_norm(self) -> None:
        """Refuse batch norm where it would depend on a process's share of a batch, or has no statistics of an average."""
        settings = self.training_settings
        if not any(isinstance(layer, BatchNorm) for layer in self._active):
            return
        if settings.devices > 1:
            raise ValueError(
                f"devices must be 1 with norm 'batch', which needs whole batches; got {settings.devices}: set norm to 'layer'"
            )
        if settings.ema_decay is not None:
            raise ValueError(
                "ema_decay must be None with norm 'batch', whose running statistics are not of averaged weights; got "
                f"{settings.ema_decay}: set norm to 'layer'"
            )

    @torch.no_grad()
    def _initialize(self, rows: Tensor | Mapped) -> None:
        """Let prior and output begin where the training rows are, once: what is learned stays when `fit` goes on."""
        starts = [self.prior.initialize] if hasattr(self.prior, "initialize") else []
        starts += [self.generative.initialize] if self.output_bias == "data" else []
        if not self.initialized and starts:
            order = torch.randperm(len(rows), generator=generator(self.training_settings.seed, "first rows"))
            chosen = order[:FIRST_ROWS]
            first = rows[chosen] if isinstance(rows, Tensor) else torch.from_numpy(native(rows[chosen.numpy()]))
            for start in starts:
                start(first.to(self.device, self.dtype))
        self.initialized = True

    def _probabilities(self, y: ArrayLike | Tensor) -> Tensor:
        rows = self._matrix(y, "y")
        if not ((rows >= 0) & (rows <= 1)).all():
            raise ValueError(f"y must be probabilities, from 0 to 1, with binarize=True; got {rows.min():g} to {rows.max():g}")
        self.as_rows((rows > 0.5).to(rows.dtype))
        return rows

    def _fixed_variance(self, y_var: float | None) -> flat.Weights:
        if y_var is None:
            return {}
        if not isinstance(self.generative.likelihood, likelihoods.Gaussian):
            raise ValueError(f"y_var needs the likelihood 'gaussian'; this one is {self.card.likelihood['name']!r}")
        if not y_var > 0:
            raise ValueError(f"y_var must be greater than 0; got {y_var}")
        return {"generative.likelihood.variance": torch.tensor(y_var, dtype=self.dtype, device=self.device)}
