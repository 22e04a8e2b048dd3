"""What pipeline/dvc knows of DVC's own formats is what the pinned DVC makes of them: an upgrade fails here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dvc.dvcfile import load_file
from dvc.repo import Repo

from pipeline.base.files import from_yaml
from pipeline.dvc.formats import LOCK_FILE, PIPELINE_FILE, Entry, content_md5, folder_md5, is_whole_lock, lock_file, md5
from pipeline.params.file import PARAMS_FILE
from tests.clones import Repository
from tests.workspace import ROOT

PIPELINE = {
    "stages": {
        "copy": {
            "cmd": "cp -r ${data.path} out && cp -r ${data.path} plain && echo {} > metrics.json && echo a > plots.csv",
            "params": ["seed", "data"],
            "deps": ["${data.path}", "code.py"],
            "outs": ["plain", "out"],
            "metrics": [{"metrics.json": {"cache": False}}],
            "plots": ["plots.csv"],
        }
    }
}
PARAMS = {"seed": 3, "data": {"path": "raw", "fractions": [0.5, 1e-5], "text": "é: x", "nothing": None}}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of DVC's in which one stage has run, whose data are a folder."""
    made = Repository(tmp_path_factory.mktemp("repository"))
    (made.folder / "raw/deeper/__pycache__").mkdir(parents=True)
    (made.folder / "raw/data.csv").write_text("a\n1\n")
    (made.folder / "raw/deeper/é b.csv").write_text("a\n2\n")
    (made.folder / "raw/deeper.csv").write_text("")
    (made.folder / "raw/deeper/__pycache__/code.pyc").write_text("compiled")
    (made.folder / "code.py").write_text("pass\n")
    for name, content in {PIPELINE_FILE: PIPELINE, PARAMS_FILE: PARAMS}.items():
        (made.folder / name).write_text(json.dumps(content))
    made.run("git", "init", "-q")
    made.run("dvc", "init", "-q")
    (made.folder / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    made.run("dvc", "repro", "-q")
    return made


@pytest.fixture
def workspace(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.chdir(repository.folder)
    return repository


def locked() -> Entry:
    return Entry.locked(from_yaml(LOCK_FILE.read_text())["stages"]["copy"])


def test_a_stage_is_declared_as_dvc_reads_it(workspace: Repository) -> None:
    declared = Entry.declared(PIPELINE["stages"]["copy"], PARAMS)
    assert (declared.cmd, declared.params) == (locked().cmd, locked().params)
    assert (list(declared.deps), list(declared.outs)) == (list(locked().deps), list(locked().outs))
    assert locked().params == PARAMS


def test_the_projects_stages_are_declared_as_dvc_reads_them() -> None:
    params = from_yaml((ROOT / PARAMS_FILE).read_text())
    stages = from_yaml((ROOT / PIPELINE_FILE).read_text())["stages"]
    with Repo(str(ROOT)) as repo:
        for stage in load_file(repo, str(ROOT / PIPELINE_FILE)).stages.values():
            declared = Entry.declared(stages[stage.name], params)
            inputs = {dep.def_path for dep in stage.deps if dep.def_path != str(PARAMS_FILE)}
            assert (declared.cmd, set(declared.deps)) == (stage.cmd, inputs)
            assert set(declared.outs) == {out.def_path for out in stage.outs}
            assert set(declared.params) == {name for dep in stage.params for name in dep.params}


def test_files_and_folders_have_the_md5_that_dvc_records(workspace: Repository) -> None:
    files = locked().deps | locked().outs
    assert {path: md5(Path(path)) for path in files} == files
    parts = {path.relative_to("raw").as_posix(): md5(path) for path in Path("raw").rglob("*.csv")}
    assert folder_md5(parts) == files["raw"]
    assert content_md5(b"pass\n") == files["code.py"]


def test_dvc_takes_a_lock_that_is_written_here(workspace: Repository) -> None:
    """It finds nothing to do, and checks out by it."""
    before = LOCK_FILE.read_bytes()
    LOCK_FILE.write_bytes(lock_file({"copy": locked()}))
    with Repo() as repo:
        assert repo.status() == {}
    Path("out/data.csv").unlink()
    workspace.run("dvc", "checkout", "-q")
    assert Path("out/data.csv").read_text() == "a\n1\n"
    assert is_whole_lock(LOCK_FILE.read_text())
    assert is_whole_lock(before.decode())
    LOCK_FILE.write_bytes(before)
