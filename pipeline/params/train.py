"""``train`` in params.yaml."""

from __future__ import annotations

from pipeline.params.model import Model
from pipeline.params.section import Common, choice, section
from vae.settings import OBJECTIVES, Training

SETTINGS = section(
    Training,
    required=["max_epochs", "batch_size", "learning_rate"],
    left_open=["hide"],
    without=["binarize", "seed", "progress"],
    objective=(choice(OBJECTIVES), ...),
)


class Train(SETTINGS):  # type: ignore[misc, valid-type]
    """``train``: how the model is fitted."""


class TrainParams(Common):
    """What the stage train reads of params.yaml."""

    model: Model
    train: Train
