"""Check params.yaml and that its data file is there, before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.params import load_params
from pipeline.readers import check_file
from pipeline.stage import run


def main() -> None:
    """Run the check."""
    check_file(Path(load_params().data.path))


if __name__ == "__main__":
    sys.exit(run("check", __doc__, main))
