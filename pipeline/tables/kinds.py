"""What a column may be."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["continuous", "count", "binary", "categorical", "ordinal"]
LeftOut = Literal["constant", "identifier", "date"]  # recognised, and left out
LEFT_OUT: tuple[str, ...] = get_args(LeftOut)
KINDS: tuple[str, ...] = get_args(Kind)
AnyKind = Literal[Kind, LeftOut]
CATEGORIES: tuple[Kind, ...] = ("categorical", "ordinal", "binary")  # whose values may be texts
