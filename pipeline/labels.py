"""What people call the entries of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def baseline_label(name: str, entry: Mapping[str, Any]) -> str:
    """A baseline by its name and its entry."""
    return f"mixture of {entry['components']}" if name == "mixture" else f"single {name.capitalize()}"
