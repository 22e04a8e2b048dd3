"""Check params.yaml and that its data file is there, before anything runs; forget what DVC has recorded wrongly."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.base.command import run
from pipeline.base.files import from_yaml, to_yaml, write_whole
from pipeline.dvc.formats import LOCK_FILE
from pipeline.history.states import Cache
from pipeline.params.whole import load_params
from pipeline.reading.formats import check_files
from pipeline.record.records import lock_records, locked_record, record_path
from pipeline.stages.job import misrecorded


def main() -> None:
    """Run the check."""
    check_files(load_params().data)
    if LOCK_FILE.is_file():
        _forget_misrecorded()


def _forget_misrecorded() -> None:
    """Take stages out of dvc.lock and the run-cache whose inputs were edited between their end and DVC's look at them."""
    content = from_yaml(LOCK_FILE.read_text(encoding="utf-8"))
    locked = lock_records(content)
    for stage, changed in misrecorded(locked).items():
        entry = content["stages"].pop(stage)
        write_whole(LOCK_FILE, to_yaml(content, in_order=True))
        for path in Cache.of(Path.cwd()).runs():
            if locked_record(from_yaml(path.read_text(encoding="utf-8"))) == locked_record(entry):
                path.unlink()
        record_path(stage).unlink(missing_ok=True)
        print(f"{stage} runs again: {', '.join(changed)} changed as it ended, and DVC recorded it as the stage's input")


if __name__ == "__main__":
    sys.exit(run("check", __doc__, main))
