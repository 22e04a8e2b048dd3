"""The error that a user can mend, and what is said of others."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Something in the user's data, params or files is not as it must be; the message says what, where and the remedy."""


def reason(error: BaseException) -> str:
    """The first line of an error, without credentials."""
    lines = str(error).splitlines()
    said = re.sub(r"//[^/\s]*@", "//***@", f"{type(error).__name__}: {lines[0] if lines else ''}")
    return re.sub(r"(?i)\b(password|passwd|token|secret|sslkey|key)=[^&\s'\"]+", r"\1=***", said)[:300]
