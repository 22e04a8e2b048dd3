"""Check params.yaml and that its data file is there, before anything runs; forget what DVC has recorded wrongly."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.base.command import run
from pipeline.base.files import from_yaml, to_yaml, write_whole
from pipeline.dvc.formats import LOCK_FILE, StageEntry
from pipeline.dvc.repository import Cache
from pipeline.experiment.records import lock_records, record_path
from pipeline.params.whole import load_params
from pipeline.reading.formats import check_files
from pipeline.stages.job import misrecorded


def main() -> None:
    """Check, and take stages out of dvc.lock and the run-cache whose inputs were edited between their end and DVC's look."""
    check_files(load_params().data)
    content = from_yaml(LOCK_FILE.read_text(encoding="utf-8")) if LOCK_FILE.is_file() else {}
    for stage, changed in misrecorded(lock_records(content)).items():
        entry = StageEntry.locked(content["stages"].pop(stage))
        write_whole(LOCK_FILE, to_yaml(content, in_order=True))
        for path, other in Cache.at(Path.cwd()).entries():
            if other == entry:
                path.unlink()
        record_path(stage).unlink(missing_ok=True)
        print(f"{stage} runs again: {', '.join(changed)} changed as it ended, and DVC recorded it as the stage's input")


if __name__ == "__main__":
    sys.exit(run("check", __doc__, main))
