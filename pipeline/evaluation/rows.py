"""Prepared rows of which there may be millions: those that a model is asked about, read when it is."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline.tables.statistics import Array
from vae.model.latent_model import LatentModel


class PreparedRows:
    """Rows on disk, of which some are read at a time.

    Args:
        vae: The model, for which they are.
        array: The rows, (N, D), memory-mapped.
    """

    def __init__(self, vae: LatentModel, array: Array) -> None:
        self._vae, self._array = vae, array

    def __len__(self) -> int:
        """N."""
        return len(self._array)

    def __getitem__(self, places: Tensor) -> Tensor:
        """The rows at positions (n,), as `LatentModel.as_rows` takes them.

        Raises:
            ValueError: If a value is not one that the likelihood is for.
        """
        return self._vae.as_rows(np.asarray(self._array[places.cpu().numpy()]))
