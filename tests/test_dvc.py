"""What pipeline/dvc knows of DVC's own formats is what the pinned DVC makes of them: an upgrade fails here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.dvcfile import load_file
from dvc.repo import Repo
from dvc.repo.experiments import refs
from dvc.repo.experiments.executor.base import ExecutorInfo
from dvc.repo.experiments.stash import ExpStash
from dvc.repo.experiments.utils import get_exp_rwlock
from dvc.rwlock import rwlock

from pipeline.base.files import from_yaml
from pipeline.dvc.formats import LOCK_FILE, PIPELINE_FILE, StageEntry, content_md5, folder_md5, is_whole_lock, lock_file, md5
from pipeline.dvc.repository import Cache, Missing
from pipeline.dvc.unfinished import (
    ARGUMENTS,
    EXEC_HEAD,
    EXEC_MERGE,
    EXPS,
    IN_WORKSPACE,
    INTERNAL,
    RWLOCKS,
    STARTED,
    TMP,
    Unfinished,
    damaged,
    experiments,
    holders,
    living_holders,
    preparing,
    stashed,
)
from pipeline.params.file import PARAMS_FILE
from tests.clones import IDENTITY, Repository
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
FILES = ("data.csv", "deeper.csv", "deeper/é b.csv")
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


def locked() -> StageEntry:
    return StageEntry.locked(from_yaml(LOCK_FILE.read_text())["stages"]["copy"])


def test_a_stage_is_declared_as_dvc_reads_it(workspace: Repository) -> None:
    declared = StageEntry.declared(PIPELINE["stages"]["copy"], PARAMS)
    assert (declared.cmd, declared.params) == (locked().cmd, locked().params)
    assert (list(declared.deps), list(declared.outs)) == (list(locked().deps), list(locked().outs))
    assert locked().params == PARAMS


def test_the_address_of_a_cluster_is_no_input_of_a_stage() -> None:
    """Neither beside the sections nor in data, which DVC compares as a whole."""
    with_address = {"cluster": "tcp://a:1", "workers": 2, "seed": 0, "data": {"path": "a.csv", "cluster": "tcp://a:1"}}
    without = {"seed": 0, "data": {"path": "a.csv"}}
    stages = from_yaml((ROOT / PIPELINE_FILE).read_text())["stages"]
    assert not {"cluster", "workers"} & {name for stage in stages.values() for name in stage["params"]}
    stage = {"cmd": "run", "params": ["seed", "data"]}
    assert StageEntry.declared(stage, with_address) == StageEntry.declared(stage, without)
    given = {name: with_address[name] for name in ("seed", "data")}
    locks = [{"cmd": "run", "params": {str(PARAMS_FILE): params}} for params in (given, without)]
    assert StageEntry.locked(locks[0]) == StageEntry.locked(locks[1])


def test_the_projects_stages_are_declared_as_dvc_reads_them() -> None:
    params = from_yaml((ROOT / PARAMS_FILE).read_text())
    stages = from_yaml((ROOT / PIPELINE_FILE).read_text())["stages"]
    with Repo(str(ROOT)) as repo:
        for stage in load_file(repo, str(ROOT / PIPELINE_FILE)).stages.values():
            declared = StageEntry.declared(stages[stage.name], params)
            inputs = {dep.def_path for dep in stage.deps if dep.def_path != str(PARAMS_FILE)}
            assert (declared.cmd, set(declared.deps)) == (stage.cmd, inputs)
            assert set(declared.outs) == {out.def_path for out in stage.outs}
            assert set(declared.params) == {name for dep in stage.params for name in dep.params}


def test_stages_depend_on_the_formats_alone_which_load_no_dvc() -> None:
    stages = from_yaml((ROOT / PIPELINE_FILE).read_text())["stages"].values()
    room = {dep for stage in stages for dep in stage["deps"] if dep.startswith("pipeline/dvc")}
    assert room == {"pipeline/dvc/__init__.py", "pipeline/dvc/formats.py"}
    code = "import sys, pipeline.stages.job; assert 'dvc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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


def test_the_cache_holds_what_a_stage_made(workspace: Repository) -> None:
    cache = Cache.at(workspace.folder)
    ((path, entry),) = cache.entries()
    assert entry == locked()
    assert cache.content(entry.outs) == {
        "metrics.json": entry.outs["metrics.json"],
        "plots.csv": entry.outs["plots.csv"],
        **{f"{out}/{file}": md5(Path(out) / file) for out in ("out", "plain") for file in FILES},
    }
    assert cache.path(entry.outs["plots.csv"]).read_text() == "a\n"
    assert cache.holds(entry.outs)
    listing = cache.path(entry.outs["out"])
    content = listing.read_bytes()
    for left in (b'[{"relp', None):
        listing.chmod(0o600)
        listing.unlink() if left is None else listing.write_bytes(left)
        assert not cache.holds(entry.outs)
        with pytest.raises(Missing):
            cache.content(entry.outs)
    listing.write_bytes(content)
    (path.parent / "damaged").write_text("cmd: [")
    assert cache.entries() == [(path, entry)]
    (path.parent / "damaged").unlink()


def test_an_rwlock_names_its_holders(workspace: Repository) -> None:
    EXPS.mkdir(exist_ok=True)
    with Repo() as repo:
        command = "/usr/bin/python /usr/bin/dvc repro -f"
        with rwlock(str(TMP), repo.fs, command, ["raw"], ["out", "plain"], False):
            assert holders(RWLOCKS[0]) == {os.getpid(): "dvc repro -f"}
            assert living_holders(RWLOCKS[0]) == set()  # this process is not DVC
        with get_exp_rwlock(repo, writes=["workspace"]):
            assert preparing() == " ".join(sys.argv)
    assert [holders(path) for path in RWLOCKS] == [{}, {}]
    assert preparing() == ""


def test_names_in_git_are_dvcs(workspace: Repository) -> None:
    assert (refs.EXEC_HEAD, refs.EXEC_MERGE, refs.WORKSPACE_STASH) == (EXEC_HEAD, EXEC_MERGE, STARTED)
    namespaces = {*refs.ITER_SKIP_NAMESPACES, *(stash for stash in refs.STASHES if "celery" not in stash)}
    assert {f"{refs.EXPS_NAMESPACE}/{name}" for name in INTERNAL} == namespaces
    workspace.run("git", *IDENTITY, "commit", "-q", "--allow-empty", "-m", ExpStash.format_message("a" * 40, "b" * 40, "mine"))
    commit = workspace.run("git", "rev-parse", "HEAD").strip()
    assert stashed("HEAD") == ("b" * 40, "mine")
    for ref in (str(refs.ExpRefInfo(commit, "brave-otter")), refs.CELERY_STASH, refs.WORKSPACE_STASH, refs.EXEC_MERGE):
        workspace.run("git", "update-ref", ref, commit)
    assert experiments() == experiments("--points-at", commit) == [(commit, "brave-otter")]


def test_folders_of_experiments_are_dvcs(workspace: Repository) -> None:
    with Repo() as repo:
        assert repo.tmp_dir == str(TMP.absolute())
        queue = repo.experiments.workspace_queue
        assert Path(queue.get_infofile_path(queue._EXEC_NAME)).parent == IN_WORKSPACE.absolute()
        assert queue.args_file == str(ARGUMENTS.absolute())
        assert repo.experiments.tempdir_queue._standalone_tmp_dir == str((EXPS / "standalone").absolute())


def test_a_queued_experiment_is_taken_queued_again_and_ended(workspace: Repository) -> None:
    """As by a worker that is killed, and whose message alone moves; tests/test_recover.py kills real ones."""
    workspace.run("git", "add", ".")
    workspace.run("git", *IDENTITY, "commit", "-qm", "start")
    workspace.run("dvc", "exp", "run", "--queue", "-n", "mine", "-S", "seed=4")
    with Repo() as repo:
        unfinished, queue = Unfinished(repo), repo.experiments.celery_queue
        (rev,) = queue.stash.stash_revs
        assert (unfinished.lost(), unfinished.taken()) == ([], [])
        (waiting,) = EXPS.glob("celery/broker/in/*")
        waiting.rename(waiting.parents[1] / "processed" / waiting.name)
        unfinished.drop(rev)
        ((message, entry),) = unfinished.taken()
        assert (entry.stash_rev, entry.name) == (rev, "mine")
        unfinished.queue_again(message, rev)
        assert unfinished.taken() == []
        assert [entry.stash_rev for entry in queue.iter_queued()] == list(queue.stash.stash_revs) == [rev]
        assert queue.stash.stash_revs[rev].name == "mine"
        assert stashed(rev)[1] == "mine"
        (waiting,) = EXPS.glob("celery/broker/in/*")
        assert list(damaged()) == []
        waiting.write_text(waiting.read_text()[:50])
        assert list(damaged()) == [waiting.relative_to(Path())]
        waiting.unlink()
        assert unfinished.lost() == [rev]
        unfinished.drop(rev)
        assert unfinished.lost() == []


def test_a_record_of_an_experiment_is_read_or_named(workspace: Repository) -> None:
    with Repo() as repo:
        unfinished = Unfinished(repo)
        info = ExecutorInfo("url", "base", "tempdir", "/root", ".dvc", name="mine", result_ref="refs/exps/a/b/mine")
        info.dump_json(repo.experiments.tempdir_queue.get_infofile_path("abc"))
        assert dict(unfinished.records()) == {"abc": info}
        (EXPS / "standalone/run/abc/abc.run").write_text('{"git_url": ')
        assert dict(unfinished.records()) == {"abc": EXPS / "standalone/run/abc"}
        unfinished.forget_record("abc")
        assert dict(unfinished.records()) == {}
