"""``train`` in params.yaml."""

from __future__ import annotations

from pydantic import Field

from pipeline.params.model import Model
from pipeline.params.section import Common, choice, section
from vae.settings import OBJECTIVES, Training

SETTINGS = section(
    Training,
    required=["max_epochs", "batch_size", "learning_rate"],
    left_open=["hide"],
    without=["binarize", "seed", "threads", "progress"],
    objective=(choice(OBJECTIVES), ...),
)


class Train(SETTINGS):  # type: ignore[misc, valid-type]
    """``train``: how the model is fitted."""


class TrainParams(Common):
    """What the stage train reads of params.yaml."""

    threads: int | None = Field(ge=1, le=1024)
    model: Model
    train: Train

    @property
    def threads_used(self) -> int | None:
        """CPU threads of the stage's process; None where the size of its work decides."""
        return self.threads
