"""How the latent dimensions are used, at the end of each epoch of training."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from vae.distributions.latent import LatentDistribution
from vae.distributions.noise import generator
from vae.model.latent_model import LatentModel
from vae.model.rows import native
from vae.model.usage import ACTIVE, kl_by_dimension, mean_variance
from vae.settings import Training
from vae.training.collapse import REMEDY, is_collapsed
from vae.training.rows.mapped import Mapped

ROWS, ROWS_OF_FLOWS = 500, 64  # at most
PAIRS = 2  # of opposite draws, by which a flow's mean is found: its own 256 draws would take a tenth of an epoch
PATIENCE = 10  # epochs in a row of a collapse before it is told: a model's first epochs may be one
DIGITS = 5  # of the numbers that are kept


class Diagnosis(Callback):
    """Records active units and the KL of each latent dimension as epochs end, of the same rows; tells once of a collapse.

    The rows are the first `ROWS` validation rows, or training rows without validation.

    Args:
        vae: The model.
        y: Training rows, shape (N, D).
        validation: Rows of shape (M, D), or None.
        training: Says whether training rows are probabilities, of which zeros and ones are drawn, once.

    Attributes:
        rows: A row per epoch: epoch, and for each dimension k from 1 on kl_k, the mean of KL(q(z_k|y) || p(z_k)) in nats, or
            mean_variance_k, the variance of E_q[z_k] over rows, where q or the prior does not factorise over dimensions.
    """

    def __init__(self, vae: LatentModel, y: Tensor | Mapped, validation: Tensor | Mapped | None, training: Training) -> None:
        self.rows: list[dict[str, float]] = []
        self._vae = vae
        self._split = "train" if validation is None else "valid"
        first = (y if validation is None else validation)[:ROWS]
        self._watched = first.clone() if isinstance(first, Tensor) else torch.from_numpy(native(first).copy())
        if validation is None and training.binarize:
            noise = generator(training.seed, "diagnosis", device=self._watched.device)
            self._watched = torch.bernoulli(self._watched, generator=noise)
        self._collapsed, self._told = 0, False

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        variance, kl = usage(self._vae, self._watched)
        active = (variance > ACTIVE).sum()
        name, values = ("mean_variance", variance) if kl is None else ("kl", kl)
        columns = {f"{name}_{k}": float(f"{value:.{DIGITS}g}") for k, value in enumerate(values.tolist(), start=1)}
        self.rows.append({"epoch": trainer.current_epoch, **columns})
        pl_module.log(f"{self._split}/active_units", active.float(), on_epoch=True, batch_size=1, sync_dist=True)
        self._collapsed = self._collapsed + 1 if is_collapsed(int(active), len(variance)) else 0
        if self._collapsed == PATIENCE and not self._told:
            self._told = True
            if trainer.is_global_zero:
                said = f"hardly a latent dimension has been in use for {PATIENCE} epochs (posterior collapse)"
                print(f"warning: {said}; {REMEDY}", file=sys.stderr, flush=True)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "collapsed": self._collapsed, "told": self._told}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._collapsed, self._told = state_dict["collapsed"], state_dict["told"]


def latest_row(trainer: pl.Trainer) -> dict[str, float]:
    """The row of `Diagnosis` for the epoch that ends."""
    (diagnosis,) = (callback for callback in trainer.callbacks if isinstance(callback, Diagnosis))  # type: ignore[attr-defined]
    return diagnosis.rows[-1]


@torch.no_grad()
def usage(vae: LatentModel, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """The variance of the posterior mean over rows y (N, D), and the mean KL in nats where it is defined, by dimension, (K,).

    The model is in eval mode meanwhile. Of a flow posterior `ROWS_OF_FLOWS` rows are taken, and their means are over a few
    draws that are the same for all rows: where q(z|y) is the same for all rows, so are these means.
    """
    training = vae.training
    vae.eval()
    normal = vae.inference.posterior.normal
    q = vae.inference((y if normal else y[:ROWS_OF_FLOWS]).to(vae.device, vae.dtype))
    kl = kl_by_dimension(q, vae.prior())
    mean = q.mean if normal else _mean_of_draws(q, vae.card.latent_size)
    vae.train(training)
    return mean_variance(mean.double()), None if kl is None else kl.double().mean(dim=0)


def _mean_of_draws(q: LatentDistribution, K: int) -> Tensor:
    half = torch.randn(PAIRS, 1, K, generator=generator(0, "diagnosis"))
    noise = torch.cat([half, -half]).to(q.extent[0])
    return q.transform(noise.expand(-1, *q.batch_shape, K)).mean(dim=0)
