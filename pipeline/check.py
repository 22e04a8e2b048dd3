"""Check params.yaml and that its data file is there, before anything runs; forget what DVC has recorded wrongly.

Then say how long the stages will take, and how much memory.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pipeline.base.command import run
from pipeline.base.files import from_yaml, to_yaml, write_whole
from pipeline.dvc.formats import LOCK_FILE, StageEntry, untracked_note
from pipeline.dvc.repository import Cache
from pipeline.experiment.records import lock_records, record_path
from pipeline.foretelling.due import stages_due
from pipeline.params.file import read, without_dropped
from pipeline.params.whole import Params, load_params
from pipeline.reading.formats import check_files, raw_files
from pipeline.stages.job import misrecorded


def main() -> None:
    """Check, say what is dropped and what DVC cannot queue, forget, and say what the stages will take."""
    params = load_params()
    for dropped in without_dropped(read(), Params)[1]:
        print(f"note: {dropped}")
    check_files(params.data)
    for path, *_ in raw_files(params.data):
        if (note := untracked_note(path)) is not None:
            print(f"note: {note}")
    forget()
    foretell(params)


def forget() -> None:
    """Take stages out of dvc.lock and the run-cache whose inputs were edited between their end and DVC's look."""
    content = from_yaml(LOCK_FILE.read_text(encoding="utf-8")) if LOCK_FILE.is_file() else {}
    for stage, changed in misrecorded(lock_records(content)).items():
        entry = StageEntry.locked(content["stages"].pop(stage))
        write_whole(LOCK_FILE, to_yaml(content, in_order=True))
        for path, other in Cache.at(Path.cwd()).entries():
            if other == entry:
                path.unlink()
        record_path(stage).unlink(missing_ok=True)
        print(f"{stage} runs again: {', '.join(changed)} changed as it ended, and DVC recorded it as the stage's input")


def foretell(params: Params) -> None:
    """Print what the stages will take that are to run; or in a line why that cannot be said, which is no reason to end."""
    begin = time.perf_counter()
    try:
        if not (stages := stages_due()):
            print("no stage has to run: dvc.lock has the results of these inputs")
            return
        from pipeline.foretelling.forecast import forecast, lines  # it loads torch

        expected = forecast(params, stages)
        print(*lines(expected, time.perf_counter() - begin), sep="\n")
    except Exception as error:  # whatever it is, the stages will tell
        print(f"how long `dvc repro` will take cannot be foretold: {' '.join(str(error).split()) or type(error).__name__}")


if __name__ == "__main__":
    sys.exit(run("check", __doc__, main))
