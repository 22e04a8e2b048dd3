"""What a killed DVC leaves behind, made by killing it, and what recover does about it."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path

import psutil
import pytest

from pipeline import recover
from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from tests.clones import IDENTITY, Repository
from tests.workspace import ROOT

STAGE = """
import os, pathlib, time
root = pathlib.Path(os.environ["DVC_ROOT"])
(root / "started").touch()
deadline = time.monotonic() + 120
while not (root / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
pathlib.Path("out").write_text(pathlib.Path("params.yaml").read_text())
"""
PIPELINE = {"stages": {"wait": {"cmd": "python stage.py", "params": ["a", "b", "c"], "outs": ["out"]}}}
PARAMS = "a: 0\nb: {c: [1, 2], d: null, e: some words}\nc: {name: x, k: 1}\n"
# dvc that kills itself where it comes to a function
DYING = """
import os, sys
from importlib import import_module
import dvc.cli
module, owner, function = sys.argv.pop(1).split(":")
die = lambda *arguments, **options: os.kill(os.getpid(), 9)
sys.argv[0] = "/usr/bin/dvc"
setattr(getattr(import_module(module), owner), function, property(die) if function == "celery" else die)
dvc.cli.main(sys.argv[1:])
"""
QUEUES = "dvc.repo.experiments.queue"


class Pipeline(Repository):
    """A repository with one stage, which waits until there is a file `go`."""

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A command in a process group of its own, once its stage runs."""
        process = self.spawn(*command)
        wait_for((self.folder / "started").exists)
        return process

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        (self.folder / "started").unlink(missing_ok=True)
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self.folder, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)

    def die(self, where: str, *arguments: str) -> None:
        """A dvc that is killed by SIGKILL where it comes to MODULE:CLASS:FUNCTION."""
        assert self.spawn(sys.executable, "-c", DYING, f"{QUEUES}.{where}", *arguments).wait() == -signal.SIGKILL

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if cwd(process).is_relative_to(self.folder)]

    def recover(self) -> str:
        """What recover says."""
        said = io.StringIO()
        with chdir(self.folder), redirect_stdout(said):
            recover.main()
        return said.getvalue()

    def go(self) -> None:
        (self.folder / "go").touch()


def cwd(process: psutil.Process) -> Path:
    with suppress(psutil.Error):
        return Path(process.cwd())
    return Path("/")


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def commands(output: str) -> list[str]:
    """The commands that a message names."""
    return re.findall("`([^`]*)`", output)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Repository(tmp_path_factory.mktemp("template"))
    made.run("git", "init", "-q", "-b", "topic")
    made.run("dvc", "init", "-q")
    shutil.copy(ROOT / ".dvc/config", made.folder / ".dvc/config")
    for name, content in {"stage.py": STAGE, "dvc.yaml": json.dumps(PIPELINE), "params.yaml": PARAMS, "go": ""}.items():
        (made.folder / name).write_text(content)
    (made.folder / ".gitignore").write_text("/go\n/started\n/out\n")
    made.run("dvc", "repro", "-q")
    made.commit("start")
    (made.folder / "go").unlink()
    for name, value in zip(IDENTITY[1::2], IDENTITY[1::2], strict=True):
        made.run("git", "config", name.split("=")[0], value.split("=")[1])
    return made.folder


@pytest.fixture
def repository(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    folder = tmp_path / "repository"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    made = Pipeline(folder)
    yield made
    for process in made.processes():
        with suppress(psutil.Error):
            process.kill()


def test_nothing_is_said_or_done_where_nothing_is_wrong(repository: Pipeline) -> None:
    before = {path: path.read_bytes() for path in repository.folder.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "pipeline.recover"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=repository.folder, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert {path: path.read_bytes() for path in repository.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", ["", '{"write": {"ou', '{"what": {}}', "[]", '{"read": {"out": [{}]}}'])
def test_a_damaged_rwlock_is_removed(repository: Pipeline, content: str) -> None:
    rwlock = repository.folder / ".dvc/tmp/rwlock"
    rwlock.write_text(content)
    assert repository.recover() == "removed .dvc/tmp/rwlock: it was damaged\n"
    assert not rwlock.exists()


@pytest.mark.parametrize("place", [".dvc/tmp", ".dvc/tmp/exps"])
def test_an_rwlock_whose_number_another_program_has_got_is_removed(repository: Pipeline, place: str) -> None:
    rwlock = repository.folder / place / "rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    holder = {"pid": os.getpid(), "cmd": "/usr/bin/dvc repro"}
    rwlock.write_text(json.dumps({"write": {"workspace" if "exps" in place else str(repository.folder / "out"): holder}}))
    command = ["exp", "run"] if "exps" in place else ["repro"]
    repository.go()
    assert "it is being blocked by" in repository.run("dvc", *command, "--force", expect=255)
    assert repository.recover() == f"removed {place}/rwlock: process {os.getpid()} (dvc repro) held it and has ended\n"
    repository.run("dvc", *command, "--force")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_what_a_living_dvc_uses_is_left(
    shell: str, repository: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killing what the message names ends the stage, whether or not the shell that DVC starts it with stays beside it."""
    monkeypatch.setenv("SHELL", shell)
    running = repository.start("dvc", "repro", "--force")
    rwlock, lock = repository.folder / ".dvc/tmp/rwlock", repository.folder / "dvc.lock"
    lock.write_text("")
    held = rwlock.read_text()
    said = (
        f"DVC runs in this repository as process {running.pid} (dvc repro --force): its locks and files are left as they are\n"
    )
    assert repository.recover() == said
    assert (rwlock.read_text(), lock.read_text()) == (held, "")

    other = Pipeline(tmp_path / "other")
    shutil.copytree(repository.folder, other.folder)
    assert other.recover() == said  # it works elsewhere, but the rwlock says that it holds files here
    (other.folder / ".dvc/tmp/rwlock").write_text("")
    assert "removed" in other.recover()

    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    (stage,) = [process for process in repository.processes() if process.cmdline() == ["python", "stage.py"]]
    said = repository.recover()
    assert f"process {stage.pid} (python stage.py) goes on although its DVC was killed" in said
    assert said.count("goes on although") == 1
    assert f"kill {stage.pid}" in commands(said)
    assert f"removed .dvc/tmp/rwlock: process {running.pid} (dvc repro --force) held it and has ended" in said
    stage.terminate()
    wait_for(lambda: not repository.processes())


LOCK = "schema: '2.0'\nstages:\n  wait:\n    cmd: python stage.py\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0" * 50,
        LOCK + "    outs:\n",
        LOCK + "    params:\n      params.yaml:\n",
        LOCK + "    outs:\n    - path: out\n      hash: md5\n",
        "schema: '2.0'\nstages:\n",
        LOCK[:-3],
        f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK}>>>>>>> other\n",
        "[]\n",
        "\xff\n",
    ],
)
def test_a_damaged_lock_is_restored_from_git(repository: Pipeline, content: str) -> None:
    lock = repository.folder / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(content.encode("latin-1"))
    assert repository.recover().startswith("dvc.lock was damaged: restored from git as it is in HEAD")
    assert lock.read_bytes() == whole
    assert repository.run("git", "status", "--porcelain") == ""


def test_a_whole_lock_is_left_and_one_that_git_lacks_is_moved_aside(repository: Pipeline) -> None:
    lock = repository.folder / "dvc.lock"
    lock.write_text(LOCK)
    assert repository.recover() == ""
    assert lock.read_text() == LOCK
    repository.run("git", "rm", "-q", "--cached", "dvc.lock")
    repository.run("git", "commit", "-qm", "no lock")
    lock.write_text("half")
    assert "moved to .dvc/tmp/dvc.lock.damaged" in repository.recover()
    assert not lock.exists()
    assert (repository.folder / ".dvc/tmp/dvc.lock.damaged").read_text() == "half"


def test_locks_of_refs(repository: Pipeline) -> None:
    refs = repository.folder / ".git/refs"
    (refs / "exps/exec").mkdir(parents=True)
    for lock in (refs / "exps/exec/EXEC_HEAD.lock", refs / "exps/stash.lock", refs.parent / "index.lock"):
        lock.touch()
    said = repository.recover()
    assert "removed .git/refs/exps/exec/EXEC_HEAD.lock" in said
    assert not [*refs.glob("**/*.lock")]
    assert commands(said) == ["rm .git/index.lock"]
    assert (refs.parent / "index.lock").exists()


def test_an_experiment_killed_in_the_workspace_is_explained(repository: Pipeline) -> None:
    (repository.folder / "stage.py").write_text(STAGE + "# edited\n")
    kill_group(repository.start("dvc", "exp", "run", "-S", "a=1", "-n", "mine"))
    # as if DVC had written git's index later, which mostly hides that params.yaml has changed, in one digit
    os.utime(repository.folder / ".git/index", (time.time() + 60,) * 2)
    params = (repository.folder / "params.yaml").read_text()
    said = repository.recover()
    assert commands(said)[1:4:2] == ["git checkout topic", "dvc exp run -n mine -S a=1"]
    tree = repository.run("git", "status", "--porcelain", "--branch").splitlines()
    assert tree == ["## HEAD (no branch)", " M params.yaml", " M stage.py"]
    assert (repository.folder / "params.yaml").read_text() == params == PARAMS.replace("a: 0", "a: 1")
    assert commands(repository.recover())[1] == "git checkout topic"

    repository.run("git", "checkout", "-q", "topic")
    assert repository.recover() == ""
    repository.run("git", "checkout", "-q", "topic~0")
    assert repository.recover() == ""  # the user has detached HEAD
    repository.run("git", "checkout", "-q", "topic")
    repository.go()
    assert "Ran experiment(s): mine" in repository.run("dvc", "exp", "run", "-n", "mine", "-S", "a=1")
    assert repository.run("git", "symbolic-ref", "HEAD") == "refs/heads/topic\n"
    assert (repository.folder / "stage.py").read_text().endswith("# edited\n")
    repository.run("git", "checkout", "-q", repository.run("git", "rev-parse", "HEAD").strip())
    assert repository.recover() == ""  # the user has detached HEAD


def test_edits_left_in_the_stash_are_an_error_until_they_are_back(repository: Pipeline) -> None:
    stage, edited = repository.folder / "stage.py", STAGE + "# edited\n"
    stage.write_text(edited)
    repository.die("base:BaseStashQueue:_pack_args", "exp", "run", "-S", "a=1")
    for _ in range(2):
        with pytest.raises(InputError, match="`dvc exp run -S a=1` was killed while it had your uncommitted changes") as error:
            repository.recover()
    remedy = commands(str(error.value))[1]
    assert remedy == "git checkout --force topic && git stash pop"
    repository.run("sh", "-c", remedy)
    assert stage.read_text() == edited
    assert repository.run("git", "status", "--porcelain", "--branch").splitlines() == ["## topic", " M stage.py"]
    assert repository.recover().startswith("removed .dvc/tmp/exps/rwlock")


def test_a_stash_of_the_user_is_none_of_dvc(repository: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository.folder / "stage.py").write_text(STAGE + "# edited\n")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-01-01T00:00:00")
    repository.run("git", "stash")
    repository.die("base:BaseStashQueue:_pack_args", "exp", "run", "-S", "a=1")
    assert commands(repository.recover())[1] == "git checkout topic"


def test_an_experiment_that_never_started_does_not_run_with_the_next(repository: Pipeline) -> None:
    repository.die("workspace:WorkspaceQueue:get", "exp", "run", "-S", "a=1", "-n", "old")
    assert commands(repository.recover()) == ["dvc exp run -n old -S a=1"]
    repository.go()
    assert "Ran experiment(s): new\n" in repository.run("dvc", "exp", "run", "-S", "a=2", "-n", "new")


def test_a_temporary_experiment_that_was_killed_is_cleared_away_and_can_be_repeated(repository: Pipeline) -> None:
    sets = ["b.c=[3]", "b.d=1.5", "b.e=other words", "~c.k", "+c.l=true", "c.name=null"]
    command = ["dvc", "exp", "run", "--temp", "-n", "mine", *[word for change in sets for word in ("-S", change)]]
    running = repository.start(*command)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    (folder,) = repository.folder.glob(".dvc/tmp/exps/standalone/tmp*")
    assert "goes on although its DVC was killed" in repository.recover()
    assert folder.exists()  # the stage still works in it
    for stage in repository.processes():
        stage.kill()
    wait_for(lambda: not repository.processes())
    assert "mine" in repository.run("dvc", "exp", "show", "--csv")

    said = repository.recover()
    assert said.startswith("experiment mine was killed, and its temporary folder is removed")
    assert not folder.exists()
    assert "mine" not in repository.run("dvc", "exp", "show", "--csv")
    (again,) = commands(said)
    assert sorted(shlex.split(again)) == sorted(command)
    repository.go()
    repository.run(*shlex.split(again))
    params = from_yaml(
        repository.run("git", "show", f"{repository.run('git', 'rev-parse', '--glob=refs/exps/*/*').strip()}:params.yaml")
    )
    assert params == {"a": 0, "b": {"c": [3], "d": 1.5, "e": "other words"}, "c": {"name": None, "l": True}}


def test_a_damaged_record_of_an_experiment_is_removed(repository: Pipeline) -> None:
    record = repository.folder / ".dvc/tmp/exps/standalone/run/abc/abc.run"
    record.parent.mkdir(parents=True)
    record.write_text('{"git_url": ')
    repository.run("dvc", "exp", "show", "--csv", expect=1)
    assert repository.recover().startswith("removed .dvc/tmp/exps/standalone/run/abc: the record in it was damaged")
    repository.run("dvc", "exp", "show", "--csv")


def start_queue(repository: Pipeline) -> None:
    repository.run("dvc", "exp", "run", "--queue", "-n", "mine", "-S", "a=1")
    repository.start("dvc", "queue", "start").wait()


@pytest.mark.parametrize("just_begun", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_task_that_a_killed_worker_had_taken_is_queued_again(repository: Pipeline, just_begun: bool) -> None:
    start_queue(repository)
    for process in repository.processes():
        process.kill()
    wait_for(lambda: not repository.processes())
    exps = repository.folder / ".dvc/tmp/exps"
    if just_begun:  # killed before it wrote about the experiment
        shutil.rmtree(exps / "run")
        repository.run("dvc", "exp", "show", expect=255)
    assert commands(repository.recover()) == ["dvc queue start"]
    assert not [*exps.glob("tmp*")]
    assert re.search(r"mine,.*,Queued,.*,1,", repository.run("dvc", "exp", "show", "--csv"))
    if not just_begun:
        repository.go()
        repository.spawn("dvc", "queue", "start").wait()
        wait_for(lambda: [*exps.glob("celery/result/celery-task-meta-*")])
        for process in repository.processes():
            process.kill()
        wait_for(lambda: not repository.processes())
        assert repository.run("dvc", "exp", "list", "--name-only") == "mine\n"
        assert repository.recover() == ""


def test_what_finished_without_its_worker_is_collected(repository: Pipeline) -> None:
    start_queue(repository)
    for process in repository.processes():
        if "queue-worker" in process.cmdline() or "start" in process.cmdline():
            process.kill()
    repository.go()
    wait_for(lambda: not repository.processes())
    assert repository.run("dvc", "exp", "list", "--name-only") == ""
    assert repository.recover().startswith("experiment mine had finished when its DVC was killed")
    assert repository.run("dvc", "exp", "list", "--name-only") == "mine\n"
    assert "Running" not in repository.run("dvc", "exp", "show", "--csv")
    assert repository.recover() == ""


def test_an_experiment_that_never_reached_the_queue_is_named(repository: Pipeline) -> None:
    for name in ("one", "two"):
        repository.run("dvc", "exp", "run", "--queue", "-n", name, "-S", "a=1")
        repository.die("celery:LocalCeleryQueue:celery", "exp", "run", "--queue", "-n", f"lost-{name}", "-S", "a=2")
    lost = [f"dvc exp run --queue -n lost-{name} -S a=2" for name in ("one", "two")]
    assert sorted(commands(repository.recover())) == lost
    assert repository.recover() == ""
    assert repository.run("git", "log", "-g", "--format=%s", "refs/exps/celery/stash").count("lost") == 0
    assert repository.run("dvc", "exp", "show", "--csv").count("Queued") == 2
