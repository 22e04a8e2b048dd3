"""Inputs that change while a stage runs, what DVC records wrongly, and what a stage leaves when it fails."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock

from pipeline import check, clean, summary
from pipeline.base.command import run
from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml, to_yaml
from pipeline.dvc.formats import md5
from pipeline.experiment.records import current_records, declared, digest, load_lock, load_record, lock_of
from pipeline.experiment.saved import saved_folder
from pipeline.stages import evaluate, job, prepare, train
from pipeline.stages.job import misrecorded
from tests.workspace import ROOT, write_params, write_pipeline, write_table


def start(workspace: Path) -> None:
    """A repository whose training depends on a file of code, with its data prepared."""
    write_table(workspace)
    write_params(workspace)
    (workspace / "code.py").write_text("1")
    write_pipeline(workspace, code=["code.py"])
    prepare.main()


def edit_params(workspace: Path) -> None:
    write_params(workspace, **{"train.learning_rate": 0.5})


def edit_code(workspace: Path) -> None:
    (workspace / "code.py").write_text("2")


def edit_data(workspace: Path) -> None:
    with (workspace / "data/prepared/schema.json").open("a") as file:
        file.write(" ")


@pytest.mark.parametrize(
    ("edit", "named"), [(edit_params, "params.yaml: train"), (edit_code, "code.py"), (edit_data, "data/prepared")]
)
def test_inputs_that_change_meanwhile_end_the_stage(
    edit: Any, named: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(workspace)
    monkeypatch.setattr("pipeline.stages.train.learning_curves", lambda *_: edit(workspace))
    monkeypatch.setattr(sys, "argv", ["train"])
    assert run("train", "", train.main) == 1
    message = capsys.readouterr().err
    assert f"{named} changed while the stage ran" in message
    assert "nothing was written" in message
    assert not (workspace / "results/train").exists()
    assert not (workspace / "models").exists()


def test_code_that_was_edited_while_the_process_loaded_it_ends_the_stage(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be recorded as new, and is old in this process."""
    start(workspace)
    code = ModuleType("code_of_the_stage")
    code.__file__ = str(workspace / "code.py")
    monkeypatch.setitem(sys.modules, "code_of_the_stage", code)
    edited = (workspace / "code.py").stat().st_mtime
    monkeypatch.setattr(job, "STARTED", edited - 1)
    with pytest.raises(InputError, match=r"code.py changed while the stage started, so it may run the old code"):
        train.main()
    assert not (workspace / "models").exists()
    monkeypatch.setattr(job, "STARTED", edited + 1)
    train.main()


def make_package(workspace: Path) -> Path:
    """The training depends on a folder of code, too."""
    start(workspace)
    package = workspace / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write_pipeline(workspace, code=["package"])
    for command in (["git", "init", "-q"], ["git", "add", "package"]):
        subprocess.run(command, cwd=workspace, check=True)
    prepare.main()
    return package


def test_code_in_a_folder_that_was_edited_while_the_process_loaded_it_ends_the_stage(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ModuleType("code_of_the_stage")
    code.__file__ = str(make_package(workspace) / "__init__.py")
    monkeypatch.setitem(sys.modules, "code_of_the_stage", code)
    monkeypatch.setattr(job, "STARTED", Path(code.__file__).stat().st_mtime - 1)
    with pytest.raises(InputError, match=r"package/__init__.py changed while the stage started"):
        train.main()


def test_a_file_beside_the_code_that_git_does_not_track_is_refused(workspace: Path) -> None:
    """But what Python compiles is no input: its bytes are another's in every clone."""
    package = make_package(workspace)
    before = declared()["train"].deps["package"]
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    assert declared()["train"].deps["package"] == before
    train.main()
    (package / "notes.txt").write_text("mine")
    assert declared()["train"].deps["package"] != before
    with pytest.raises(InputError, match=r"package/notes.txt is beside code .* `git add` it, or move it out of package/"):
        train.main()
    subprocess.run(["git", "add", "package"], cwd=workspace, check=True)
    train.main()


def test_an_edit_of_what_a_stage_does_not_depend_on_is_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(workspace)
    change = {"evaluate.samples": 70}
    monkeypatch.setattr("pipeline.stages.train.learning_curves", lambda *_: write_params(workspace, **change))
    train.main()
    assert "train" in current_records()


def locked(workspace: Path) -> None:
    """Write the dvc.lock that DVC would write now: from what the files are."""
    records = {}
    for name, record in declared().items():
        if found := load_record(name):
            records[name] = type(record)(record.cmd, record.params, record.deps, record.outs, found.files)
    entries = from_yaml(lock_of(records).decode())
    for entry in entries["stages"].values():
        for out in entry["outs"]:
            out["md5"] = md5(Path(out["path"]))
    (workspace / "dvc.lock").write_bytes(to_yaml(entries))


def test_an_edit_between_a_stages_end_and_dvcs_look_is_found(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(workspace)
    train.main()
    locked(workspace)
    assert misrecorded(load_lock()) == {}
    evaluate.main()
    edit_code(workspace)
    locked(workspace)
    assert misrecorded(load_lock())["train"] == ["code.py"]
    with pytest.raises(InputError, match=r"dvc.lock says that prepare ran with another code.py.*`make repro` forgets"):
        evaluate.main()


def test_a_saved_state_stays_until_the_outputs_that_replace_it_are_there(workspace: Path) -> None:
    """A fresh clone's dvc.lock names outputs that nobody has pulled: what was computed since is all there is."""
    start(workspace)
    train.main()
    locked(workspace)
    state = saved_folder(workspace, "train", digest(declared()["train"].inputs), "machine")
    state.mkdir(parents=True)
    weights = workspace / "models/model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    prepare.main()
    assert state.exists()
    weights.write_bytes(content)
    prepare.main()
    assert not state.exists()


def test_the_summary_says_where_a_machine_gives_other_bytes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(workspace)
    train.main()
    evaluate.main()
    locked(workspace)
    lock = workspace / "dvc.lock"
    ours = from_yaml(lock.read_text())
    theirs = from_yaml(lock.read_text())
    theirs["stages"]["train"]["outs"][0]["md5"] = "0" * 32
    lock.write_bytes(to_yaml(theirs))
    for command in (
        ("init", "-q"),
        ("add", "dvc.lock"),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "theirs"),
    ):
        subprocess.run(["git", *command], check=True)
    lock.write_bytes(to_yaml(ours))
    capsys.readouterr()
    summary.main()
    said = " ".join(capsys.readouterr().out.split())
    assert f"same inputs as the commit's, other bytes: {theirs['stages']['train']['outs'][0]['path']}" in said
    assert "threads 1" in said
    assert f"cpu_capability {torch.backends.cpu.get_cpu_capability()}" in said


def test_make_clean_offers_what_is_left(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held, free, empty = (saved_folder(workspace, "train", digest(name), "machine") for name in "abc")
    for folder in (held, free, empty):
        folder.mkdir(parents=True)
    for folder in (held, free):
        (folder / "training.state").write_bytes(b"0" * 2**20)
    clean.main(clean.parser().parse_args([]))
    said = capsys.readouterr().out
    assert said.count("saved state of an unfinished stage: train-") == 2
    assert "1.0 MiB, 0 days old" in said
    assert "kept; `make clean YES=1` removes them" in said
    assert held.exists()
    assert free.exists()
    with FileLock(held / "lock"):
        clean.main(clean.parser().parse_args(["--yes"]))
    assert f"removed 1; a process still uses {held.name}" in capsys.readouterr().out
    assert held.exists()
    assert not free.exists()


def test_what_dvc_recorded_wrongly_is_forgotten(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `make repro` does: out of dvc.lock, out of the run-cache, and the stage runs again."""
    start(workspace)
    train.main()
    locked(workspace)
    edit_code(workspace)
    locked(workspace)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    cached = workspace / ".dvc/cache/runs/ab/abc"
    cached.mkdir(parents=True)
    entries = from_yaml((workspace / "dvc.lock").read_text())["stages"]
    (cached / "poisoned").write_text(json.dumps(entries["train"]))
    (cached / "sound").write_text(json.dumps(entries["train"] | {"cmd": "another"}))
    check.main()
    assert load_lock() == {}
    assert [path.name for path in cached.iterdir()] == ["sound"]
    assert "train runs again: code.py changed as it ended" in capsys.readouterr().out


def test_a_full_disk_is_named_and_nothing_is_half_written(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(workspace)
    train.main()
    before = {path: path.read_bytes() for path in (workspace / "models").iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.stages.train.learning_curves", full)
    monkeypatch.setattr(sys, "argv", ["train"])
    assert run("train", "", train.main) == 1
    assert "No space left on device; free some space and run again" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (workspace / "models").iterdir()} == before
    assert not list(workspace.rglob("*.partial"))


def test_a_force_flag_of_dvc_is_seen(tmp_path: Path) -> None:
    """The process above is called dvc and has the flag."""
    dvc = tmp_path / "dvc"
    dvc.write_text(
        "import subprocess, sys\n"
        "code = 'from pipeline.base.processes import is_forced; print(is_forced())'\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)\n"
    )
    for options, forced in (
        (["repro"], False),
        (["repro", "-f"], True),
        (["repro", "--force", "train"], True),
        (["exp", "run", "-fs", "train"], True),
        (["exp", "run", "-S", "a.f=1"], False),
    ):
        command = [sys.executable, str(dvc), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.stdout.strip() == str(forced), options


def test_yaml_tags_and_missing_pipelines_are_refused(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    (workspace / "dvc.yaml").unlink()
    with pytest.raises(InputError, match=r"dvc.yaml is missing here; run from the repository's root"):
        prepare.main()
    (workspace / "params.yaml").write_text("seed: !!python/object/apply:os.system ['touch it_ran']\n")
    with pytest.raises(InputError):
        prepare.main()
    assert not (workspace / "it_ran").exists()
