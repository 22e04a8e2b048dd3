"""Results of long computations, saved as they come, so that an evaluation that was killed goes on where it was."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch

from pipeline.experiment.saved import Saved
from vae.evidence import Annealing, Bounds, Estimate, Exact, Gap, Imputation, Latents, LowerBound, MeanWithError

KINDS = {
    kind.__name__: kind for kind in (Annealing, LowerBound, Bounds, Estimate, Exact, Gap, Imputation, Latents, MeanWithError)
}

T = TypeVar("T")


class Pieces:
    """Each piece is computed once, over all starts of the stage; what is not saved yet is, when a ``with`` block ends early.

    Pieces are pure functions of the stage's inputs, so a name is enough to know them by, if each has its own.

    Raises:
        ValueError: If two pieces of one start have the same name.
    """

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self._done: dict[str, Any] = {}
        self._new: dict[str, Any] = {}
        self._named = set[str]()
        self._files = 0
        while (content := saved.load(self._file())) is not None:
            self._done |= content
            self._files += 1

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.save()

    def __len__(self) -> int:
        """How many pieces an earlier start has left."""
        return len(self._done)

    def __contains__(self, name: str) -> bool:
        """Whether an earlier start has computed this piece."""
        return name in self._done

    def found(self, name: str) -> Any:
        """The piece of this name, as an earlier start computed it."""
        self._name(name)
        return decoded(self._done[name])

    def kept(self, name: str, value: T) -> T:
        """A piece that was computed now, kept for another start."""
        self._name(name)
        self._new[name] = encoded(value)
        if self._saved.due():
            self.save()
        return value

    def save(self) -> None:
        """Save what is new."""
        if self._new:
            self._saved.save(self._file(), self._new)
            self._new = {}
            self._files += 1

    def _name(self, name: str) -> None:
        if name in self._named:
            raise ValueError(f"two pieces are called {name!r}, so that another start would take one for the other")
        self._named.add(name)

    def _file(self) -> str:
        return f"pieces{self._files}"


def encoded(value: Any) -> Any:
    """A result as dictionaries, lists, tensors and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: encoded(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, "fields": content}
    if isinstance(value, tuple):
        return {"kind": "tuple", "items": [encoded(item) for item in value]}
    if isinstance(value, torch.Tensor):
        return value.cpu()
    return value


def decoded(value: Any) -> Any:
    """The result that `encoded` made a dictionary of."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "tuple":
        return tuple(decoded(item) for item in value["items"])
    if kind is not None:
        return KINDS[kind](**{name: decoded(item) for name, item in value["fields"].items()})
    return value
