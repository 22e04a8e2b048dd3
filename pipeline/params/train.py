"""``train`` in params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.params.model import Model
from pipeline.params.section import Common, Section, choice
from vae.registry import OBJECTIVES, SCHEDULES


class Train(Section):
    """``train``: how it is fitted."""

    objective: choice(OBJECTIVES)  # type: ignore[valid-type]
    max_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    schedule: Literal[SCHEDULES] = "constant"  # type: ignore[valid-type]
    adam_epsilon: float = Field(1e-8, gt=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    patience: int | None = Field(None, ge=1)
    gradient_clip_norm: float | None = Field(None, gt=0)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: int = Field(1, ge=1)
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    hide: float | None = Field(None, ge=0, le=1)
    memory_gib: float = Field(4.0, gt=0)
    deterministic: bool = True


class TrainParams(Common):
    """What the stage train reads of params.yaml."""

    model: Model
    train: Train
