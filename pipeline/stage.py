"""What every stage does: read its command line and params, set the threads, report errors that the user can mend."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pipeline.errors import InputError


def run(name: str, summary: str, stage: Callable[[], None]) -> int:
    """Run a stage as a command.

    Returns:
        The exit status: 0, or 1 after an error that the user can mend, which is printed without a traceback.
    """
    argparse.ArgumentParser(prog=f"python -m pipeline.{name}", description=summary).parse_args()
    try:
        stage()
    except Exception as error:
        if not isinstance(error, (InputError, *_library_errors())):
            raise
        print(f"error in stage {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stage {name} was interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _library_errors() -> tuple[type[Exception], ...]:
    """The library's own errors about the user's input, if the stage has loaded the library at all."""
    found = (("vae.training", "DivergenceError"), ("vae.training", "AcceleratorError"), ("vae.storage", "ModelFileError"))
    return tuple(getattr(sys.modules[module], name) for module, name in found if module in sys.modules)
