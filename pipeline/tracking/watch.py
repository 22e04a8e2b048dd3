"""Calls of MLflow that say how long they take, as one to a store that is away may never return."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Watch:
    """Since when a call of MLflow has been under way, for somebody in another thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self.calls = 0  # that have returned

    @contextmanager
    def call(self) -> Iterator[None]:
        """While a call is under way."""
        self._since = time.monotonic()
        yield
        self._since = None
        self.calls += 1

    @property
    def seconds(self) -> float:
        """How long the call has taken that is under way; 0 where none is."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


class Watched:
    """A client whose calls are watched."""

    def __init__(self, client: Any, watch: Watch) -> None:
        self._client, self._watch = client, watch

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._watch.call():
                return method(*args, **kwargs)

        return call
