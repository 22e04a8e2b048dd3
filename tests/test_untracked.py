"""Data that neither git nor DVC keeps: who says so, and that the command that is named mends it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import check, inspect, summary
from pipeline.base.errors import InputError
from pipeline.dvc.formats import untracked_note
from pipeline.params.data import Data
from pipeline.stages import prepare
from pipeline.stages.prepare import refuse_absent
from tests.clones import Repository
from tests.workspace import write_params, write_table

FILE = Path("data/raw/table.csv")


@pytest.fixture
def repository(workspace: Path) -> Repository:
    """With git and DVC, whose data nobody keeps."""
    made = Repository(workspace)
    made.run("git", "init", "-q")
    made.run("dvc", "init", "-q")
    made.commit("start")
    write_table(workspace)
    return made


def commands(note: str | None) -> list[str]:
    """Those that a note names to mend it."""
    assert note is not None
    return re.findall("`(.*?)`", note.partition("do not have it: ")[2])


def test_data_is_kept_by_git_or_by_dvc(repository: Repository) -> None:
    by_git, by_dvc = commands(untracked_note(FILE))
    assert (by_git, by_dvc) == (f"git add {FILE}", f"dvc add {FILE} && git add {FILE}.dvc")
    repository.run("sh", "-c", by_git)
    assert untracked_note(FILE) is None
    repository.run("git", "rm", "-q", "--cached", str(FILE))
    repository.run("sh", "-c", f"dvc add -q {FILE}")
    (pointer,) = commands(untracked_note(FILE))  # a pointer that git does not know is no use to another checkout
    assert pointer == f"git add {FILE}.dvc"
    repository.run("sh", "-c", pointer)
    assert untracked_note(FILE) is None


def test_what_git_ignores_is_for_dvc(repository: Repository) -> None:
    Path(".gitignore").write_text("/data/\n")
    assert commands(untracked_note(FILE)) == [f"dvc add {FILE} && git add {FILE}.dvc"]


def test_folders(repository: Repository) -> None:
    """Of which one file that nobody keeps is enough; what a stage of DVC's makes is kept."""
    folder = FILE.parent
    repository.run("git", "add", str(folder))
    assert untracked_note(folder) is None
    write_table(Path(), name="more.csv")
    assert commands(untracked_note(folder))[0] == f"git add {folder}"
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n    - path: {folder}\n")
    assert untracked_note(folder) is None
    Path("dvc.lock").unlink()
    Path(f"{folder}.dvc").write_text("outs:\n- path: raw\n")
    repository.run("git", "add", f"{folder}.dvc")
    assert untracked_note(folder / "more.csv") is None


def test_without_git_nothing_is_said(workspace: Path) -> None:
    write_table(workspace)
    assert untracked_note(FILE) is None


NAMES = st.text(st.sampled_from("ab é'\"$()[]*?&;#{}^!~-"), min_size=1, max_size=8).map(lambda name: f"{name}.csv")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
def test_the_command_mends_files_of_any_name(repository: Repository, name: str) -> None:
    path = Path("data/raw", name)
    path.write_text("a\n1\n")
    try:
        subprocess.run(["sh", "-c", commands(untracked_note(path))[0]], check=True)
        assert untracked_note(path) is None
        assert untracked_note(FILE) is not None
    finally:
        subprocess.run(["git", "rm", "-q", "--cached", "--ignore-unmatch", "--", f":(literal){path}"], check=True)
        path.unlink()


def test_make_data_the_check_and_the_summary_say_it(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "foretell", lambda params: None)
    write_params(Path())
    note = untracked_note(FILE)
    inspect.main(inspect.parser().parse_args([str(FILE)]))
    assert f"{note}\n" in capsys.readouterr().out
    check.main()
    assert f"note: {note}\n" in capsys.readouterr().out
    prepare.main()
    assert [f"[bold]not kept[/bold]: {note}"] == [*summary.untracked({})]
    repository.run("git", "add", str(FILE))
    capsys.readouterr()
    inspect.main(inspect.parser().parse_args([str(FILE)]))
    check.main()
    assert "neither git nor DVC" not in capsys.readouterr().out
    assert [*summary.untracked({})] == []


def test_a_copy_without_the_data_says_what_keeps_it(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data.model_validate({"path": str(FILE), "fractions": {"train": 0.6, "valid": 0.2, "test": 0.2}})
    copy = repository.clone(repository.folder.parent / "copy")
    monkeypatch.chdir(copy.folder)  # as DVC_ROOT says, of the repository of before
    with pytest.raises(InputError, match=rf"{FILE} is in neither git nor DVC.*`git add {FILE}`.*then queue it again"):
        refuse_absent(data)
    repository.run("git", "add", str(FILE))
    refuse_absent(data)  # whatever the reason, it is another
