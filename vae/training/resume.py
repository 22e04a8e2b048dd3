"""The best epoch, and the state from which an interrupted fit goes on as if nothing had happened.

All randomness is a function of (seed, step) or (seed, epoch), so weights, optimiser, epoch and what callbacks remember are the
whole state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor, nn
from typing_extensions import override

from vae.training.fast.vector import length

State = dict[str, Any]


class Snapshots(Protocol):
    """Where the state of a fit is kept; what it holds is tensors, numbers, strings, lists and dictionaries."""

    def load(self, check: Callable[[State], None]) -> State | None:
        """The newest state that ``check`` lets pass (it raises ValueError for others), or None."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, state: State) -> None:
        """Keep this state."""


class BestEpoch(Callback):
    """Keeps the weights of the epoch with the best validation bound, and puts them into the model when training ends.

    Without validation the last epoch's stay.
    """

    def __init__(self) -> None:
        self.bound = float("-inf")
        self.weights: dict[str, Tensor] = {}

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        bound = trainer.callback_metrics.get("valid/bound")
        if bound is not None and bound.item() > self.bound:
            self.bound = bound.item()
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.restore(pl_module)

    def restore(self, module: pl.LightningModule) -> None:
        """Put the best weights into ``module``."""
        if self.weights:
            module.load_state_dict(self.weights)

    @override
    def state_dict(self) -> State:
        return {"bound": self.bound, "weights": self.weights}

    @override
    def load_state_dict(self, state_dict: State) -> None:
        self.bound, self.weights = state_dict["bound"], state_dict["weights"]


class Bridge(CheckpointIO):
    """Where Lightning's Trainer writes and reads its checkpoints: the snapshots."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self.finished = False
        self.state: State | None = None

    @override
    def save_checkpoint(self, checkpoint: State, path: Any, storage_options: Any = None) -> None:
        self._snapshots.save({**checkpoint, "finished": self.finished})

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> State:
        assert self.state is not None
        return dict(self.state)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        raise NotImplementedError("states are removed by whoever keeps them")


class Saving(Checkpoint):
    """Saves the state when an epoch ends, if it is due, and after the last. Lightning calls it after other callbacks."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self.bridge = Bridge(snapshots)

    def load(self, vae: nn.Module, best: BestEpoch) -> State | None:
        """The state to go on from, if there is one of this very model."""
        self.bridge.state = self._snapshots.load(lambda state: _check(vae, best, state))
        return self.bridge.state

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bridge.finished = is_last_epoch(trainer)
        if trainer.strategy.broadcast(self.bridge.finished or self._snapshots.due()):
            trainer.save_checkpoint("state", weights_only=False)


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether a fit is over with the epoch that ends."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs


def _check(vae: nn.Module, best: BestEpoch, state: State) -> None:
    """Refuse a state whose tensors are not this model's.

    Raises:
        ValueError: Naming the first thing that differs.
    """
    try:
        _same("weight", vae.state_dict(), state["state_dict"])
        kept = state["callbacks"][best.state_key]["weights"]
        _same("best weight", vae.state_dict() if kept else {}, kept)
        moments, vector = state["optimizer_states"][0]["state"][0], next(vae.parameters()).new_zeros(length(vae))
        expected = {"exp_avg": vector, "exp_avg_sq": vector, "step": torch.zeros((), dtype=moments["step"].dtype)}
        _same("optimiser state", expected, moments)
        if not isinstance(state["finished"], bool):
            raise ValueError(f"'finished' should be true or false but is {state['finished']!r}")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks {error}") from error


def _same(what: str, expected: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    for name in sorted({*expected, *saved}):
        here, there = _kind(expected.get(name)), _kind(saved.get(name))
        if here != there:
            raise ValueError(f"{what} {name!r} should be {here} but is {there}")


def _kind(tensor: Tensor | None) -> str:
    if not isinstance(tensor, torch.Tensor):
        return "absent"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
