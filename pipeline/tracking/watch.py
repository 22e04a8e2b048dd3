"""Calls of MLflow that say how long they take, as one to a store that is away may never return."""

from __future__ import annotations

import time
from typing import Any


class Watched:
    """A client whose calls are watched from another thread; it has none until it is given one.

    Attributes:
        client: What is called.
        calls: How many calls have returned.
    """

    def __init__(self) -> None:
        self.client: Any = None
        self.calls = 0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds that the call has taken that is under way; 0 where none is."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._since = time.monotonic()
            answer = method(*args, **kwargs)
            self._since = None
            self.calls += 1
            return answer

        return call
