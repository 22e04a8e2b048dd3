"""Offer to remove the saved states of stages that did not end: what they have computed would be computed again."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pipeline.base.command import command
from pipeline.base.environment import main_repository
from pipeline.experiment.saved import leftovers, remove


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    folders = [folder for folder in leftovers(main_repository()) if _size(folder)]
    for folder in folders:
        days = (time.time() - folder.stat().st_mtime) / 86400
        print(f"saved state of an unfinished stage: {folder.name}, {_size(folder) / 2**20:.1f} MiB, {days:.0f} days old")
    if folders and (arguments.yes or _agreed()):
        held = [folder.name for folder in folders if not remove(folder)]
        print(f"removed {len(folders) - len(held)}" + (f"; a process still uses {', '.join(held)}" if held else ""))


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("kept; `make clean YES=1` removes them")
        return False
    return input("remove them? [y/N] ").strip().lower() in ("y", "yes")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name not in ("lock", "holder"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--yes", action="store_true", help="without asking")
    return parser


if __name__ == "__main__":
    sys.exit(command("clean", parser(), main))
