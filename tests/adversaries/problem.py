"""A model with rows whose log p(y) is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vae.model.latent_model import LatentModel

Array = NDArray[np.float64]
ROWS = 40  # of a problem, and of its pilot


@dataclass(frozen=True)
class Problem:
    """A model, rows, and what an estimator of log p(y) should say of them.

    Attributes:
        vae: The model, float32.
        y: Test rows, (N, D).
        pilot: Rows for the tuning, as validation rows are.
        log_likelihood: log p(y) of each test row, (N,): closed forms or quadrature, that share no code with `vae.evidence`.
        hidden: Whether the posterior lies where neither q nor the prior nor anything near them reaches: no estimator that
            starts from these can know.
    """

    vae: LatentModel
    y: Tensor
    pilot: Tensor
    log_likelihood: Array
    hidden: bool = False


Kind = Callable[[int], Problem]
