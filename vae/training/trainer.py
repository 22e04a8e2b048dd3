"""Lightning's Trainer for a fit."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback

from vae.errors import AcceleratorError
from vae.settings import Training
from vae.training.resume import Saving


def trainer_for(training: Training, callbacks: Sequence[Callback], saving: Saving | None, *, validates: bool) -> pl.Trainer:
    """A Trainer that writes no files of its own.

    Raises:
        AcceleratorError: If the accelerator, devices or precision are not available.
    """
    try:
        return pl.Trainer(
            max_epochs=training.max_epochs,
            accelerator=training.accelerator,
            devices=training.devices,
            precision=training.precision,
            deterministic=training.deterministic,
            callbacks=[*callbacks, *filter(None, [saving])],
            plugins=saving.bridge if saving else None,
            enable_checkpointing=saving is not None,
            num_sanity_val_steps=0,
            limit_val_batches=None if validates else 0,
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=training.progress,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise AcceleratorError(
            f"accelerator={training.accelerator!r}, devices={training.devices}, precision={training.precision!r} cannot be "
            f"had on this machine: {error} Set accelerator to 'auto' or 'cpu', or run where there is one."
        ) from error


@contextmanager
def tidy() -> Iterator[None]:
    """Silence Lightning's announcements and a deprecated call of its own; leave torch's global settings as they were."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    deterministic = torch.are_deterministic_algorithms_enabled()  # which the Trainer changes for the whole process
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
            yield
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
