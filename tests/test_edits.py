"""What an edit of the code makes DVC run again: asked of DVC, in a workspace in which everything has run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.clones import first_run

Edit = Callable[[str], str]  # from the text of a file, empty where there is none, to that after the edit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a clone in which all stages have run."""
    return Path(shutil.copytree(first_run(tmp_path_factory), tmp_path_factory.mktemp("edits") / "clone", symlinks=True))


@pytest.fixture
def clone(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy, as the working directory."""
    monkeypatch.chdir(finished)
    return finished


def with_line(line: str) -> Edit:
    """Adds a line at the end."""
    return lambda text: f"{text}{line}\n"


def with_other(pattern: str, replacement: str) -> Edit:
    """Replaces what fits the pattern first."""

    def edit(text: str) -> str:
        edited = re.sub(pattern, replacement, text, count=1)
        assert edited != text, f"no {pattern} to edit; let this test edit something else"
        return edited

    return edit


A_DEFAULT = with_other(r"(Field\()(\d)", r"\g<1>1\2")
EDITS: dict[str, tuple[dict[str, Edit], set[str]]] = {
    "nothing": ({}, set()),
    "a default of data": ({"pipeline/params/data.py": with_other('"units of the data"', '"units"')}, {"prepare"}),
    "a default of evaluate": ({"pipeline/params/evaluate.py": A_DEFAULT}, {"evaluate"}),
    "a range of generate": ({"pipeline/params/generate.py": with_other("ge=1", "ge=2")}, {"generate"}),
    "a likelihood more": (
        {
            "vae/likelihoods/toy.py": with_line("class Toy: ..."),
            "vae/options/registry.py": with_line('LIKELIHOODS["toy"] = Entry("Toy")'),
        },
        {"train", "evaluate", "generate"},
    ),
    "an estimator more": ({"vae/evidence/toy.py": with_line("def toy(): ...")}, {"evaluate"}),
    "an objective": ({"vae/objectives/elbo.py": with_line("SAMPLES = 2")}, {"train"}),
    "a comment in tracking": ({"pipeline/tracking/view.py": with_line("# a thought")}, set()),
    "a command": ({"pipeline/summary.py": with_line("WIDTH = 80")}, set()),
    "a format more": ({"pipeline/reading/formats/toy.py": with_line("class Toy: ...")}, {"prepare"}),
    "its entry": ({"pipeline/reading/formats/__init__.py": with_line("READERS = READERS[1:]")}, {"prepare"}),
}


@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_runs_again_what_it_concerns_and_nothing_more(edited: str, clone: Path) -> None:
    """By itself; what follows from the outputs of the stages that run again is another matter."""
    edits, stages = EDITS[edited]
    before = {file: (clone / file).read_text() if (clone / file).exists() else None for file in edits}
    after = {file: edit(before[file] or "") for file, edit in edits.items()}
    for file, text in after.items():
        (clone / file).write_text(text)
    with Repo(str(clone)) as repo:
        status = repo.status()
    for file, was in before.items():
        (clone / file).unlink() if was is None else (clone / file).write_text(was)
    assert {stage for stage, changes in status.items() if any("changed deps" in change for change in changes)} == stages
