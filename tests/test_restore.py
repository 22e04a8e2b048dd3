"""From a run back to its state, in a folder beside the repository, whose working directory stays as it is."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import publish, restore
from pipeline.base.errors import InputError
from pipeline.experiment import identity
from pipeline.history.states import git_states
from pipeline.history.verify import verify
from pipeline.stages import evaluate, generate, prepare, train
from tests.clones import IDENTITY, Repository, finished
from tests.mlflow_store import MEASURED
from tests.workspace import ROOT, table, write_params, write_table

pytestmark = pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy and others deprecate

SETTINGS = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")
METRICS = "results/evaluate/metrics.json"
HIDDEN = (".git/", ".dvc/", ".evidence/", "mlartifacts/")


class Runs(NamedTuple):
    """A repository with four runs, the newest of which is in the working directory, beside work that is not committed."""

    repository: Repository
    clean: Run  # of a commit; its dvc.lock was not committed
    committed: Run  # of a commit, which the next one completes with its dvc.lock
    dirty: Run  # data was not committed, and is too large for a patch
    newest: Run  # nor were params
    outputs: Mapping[str, Mapping[str, bytes]]  # by run id

    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.repository.folder / 'mlflow.db'}")

    def assert_restored(self, folder: Path, run: Run) -> None:
        """All outputs are there, byte for byte, and DVC has nothing to do."""
        assert outputs(Repository(folder)) == self.outputs[run.info.run_id]
        with Repo(str(folder)) as repo:
            assert repo.status() == {}

    def assert_refused(self, run: Run | str, into: Path, message: str) -> None:
        """A restore that fails leaves nothing behind."""
        with pytest.raises(InputError, match=message):
            restore_to(into, run)
        assert not into.exists()
        assert worktrees(self.repository) == [str(self.repository.folder)]


@pytest.fixture(scope="module", autouse=True)
def _tracked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EVIDENCE_TRACKING", raising=False)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The stages run in this process, which takes seconds, and DVC records what they made."""
    folder = tmp_path_factory.mktemp("runs") / "repository"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(identity, "LARGEST_PATCH", 3000)
        yield four_runs(Repository(folder))


def four_runs(made: Repository) -> Runs:
    for name in SETTINGS:
        (made.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, made.folder / name)
    (made.folder / "notes.txt").write_text("as committed")
    write_table(made.folder)
    write_params(made.folder)
    made.run("git", "init", "-q")
    made.commit("start")
    made_by = run_stages(made, prepare.main, train.main, evaluate.main, generate.main)
    made.set("evaluate.samples", 55)
    made.run("git", "add", "params.yaml")
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "more samples")
    made_by |= run_stages(made, evaluate.main)
    made.commit("the results of more samples")
    write_table(made.folder, table(rows=70))
    made_by |= run_stages(made, prepare.main, train.main, evaluate.main, generate.main)
    made.set("generate.samples", 30)
    made_by |= run_stages(made, generate.main)
    (made.folder / "notes.txt").write_text("not committed")
    (made.folder / "new.txt").write_text("not even known to git")
    clean, committed, dirty, newest = made.runs()
    return Runs(made, clean, committed, dirty, newest, made_by)


def run_stages(repository: Repository, *stages: Callable[[], None]) -> dict[str, dict[str, bytes]]:
    for stage in stages:
        stage()
    with Repo(str(repository.folder)) as repo:
        repo.commit(force=True)
    return {repository.runs()[-1].info.run_id: outputs(repository)}


def outputs(repository: Repository) -> dict[str, bytes]:
    """The files that stages make, and not DVC's list of them for git."""
    return {name: body for name, body in repository.outputs().items() if not name.endswith(".gitignore")}


@pytest.fixture
def into(runs: Runs, tmp_path: Path) -> Iterator[Path]:
    """A folder to restore to, which is given back."""
    before = work(runs.repository)
    yield tmp_path / "restored"
    if (tmp_path / "restored" / ".git").exists():
        runs.repository.run("git", "worktree", "remove", "--force", str(tmp_path / "restored"))
    assert work(runs.repository) == before, "restoring has touched the working directory"


def restore_to(folder: Path, run: Run | str, *options: str) -> None:
    name = run if isinstance(run, str) else run.info.run_id
    restore.main(restore.parser().parse_args([name, "--into", str(folder), *options]))


def work(repository: Repository) -> dict[str, bytes]:
    """The user's files, and what git says of them."""
    files = [path for path in repository.folder.rglob("*") if path.is_file() and "mlflow.db" not in path.name]
    names = {str(path.relative_to(repository.folder)): path for path in files}
    seen = {name: path.read_bytes() for name, path in names.items() if not name.startswith(HIDDEN)}
    return seen | {"git status": repository.run("git", "status", "--porcelain=v2", "--branch").encode()}


def worktrees(repository: Repository) -> list[str]:
    lines = repository.run("git", "worktree", "list", "--porcelain").splitlines()
    return [line.removeprefix("worktree ") for line in lines if line.startswith("worktree ")]


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """These files are lost meanwhile."""
    for path in paths:
        path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        for path in paths:
            path.with_name(f"{path.name}.away").rename(path)


def artifact(runs: Runs, run: Run, name: str) -> Path:
    return runs.repository.folder / "mlartifacts" / run.info.run_id / "artifacts" / name


def cached(repository: Repository, md5: str) -> Path:
    return repository.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


@pytest.mark.parametrize("which", ["clean", "committed", "dirty", "newest"])
def test_a_run_is_restored_with_its_code_params_data_model_and_results(
    which: str, runs: Runs, into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = getattr(runs, which)
    restore_to(into, run)
    runs.assert_restored(into, run)
    output = capsys.readouterr().out
    kept = {"clean": " with the dvc.lock that the run keeps", "committed": ""}
    source = kept.get(which, " with the changes and the dvc.lock that the run keeps")
    assert re.search(f"restored {run.info.run_name} from commit [0-9a-f]{{12}}{source} into {into}\n", output)
    assert "environment: as the run's" in output
    assert f"cd {into}\n" in output
    assert f"git worktree remove --force {into}\n" in output
    assert not (into / "new.txt").exists()
    status = Repository(into).run("git", "status", "--porcelain")
    assert Repository(into).repro() == []
    assert Repository(into).run("git", "status", "--porcelain") == status


def test_verify_evaluates_again_and_compares_every_metric(
    runs: Runs, into: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    restore_to(into, runs.committed, "--verify")
    points = frozenset(
        (point.key, point.value, point.step)
        for name in runs.committed.data.metrics.keys() - MEASURED
        for point in runs.client().get_metric_history(runs.committed.info.run_id, name)
    )
    found = re.search(r"equal are all (\d+) values of .*metrics.json; all (\d+) of its MLflow run", capsys.readouterr().out)
    assert found is not None
    assert int(found[1]) > 60
    assert int(found[2]) == len(points)
    runs.assert_restored(into, runs.committed)

    def evaluate_otherwise(folder: Path) -> None:
        shutil.copytree(folder / ".evidence" / "restored", folder / "results" / "evaluate")
        metrics = folder / METRICS
        metrics.write_text(re.sub('"least_likely": {\\s+"index": ', "\\g<0>1", metrics.read_text()))

    monkeypatch.setattr("pipeline.history.verify.evaluate", evaluate_otherwise)
    wrong = frozenset((name, value + (name == "test/ladder" and step == 1), step) for name, value, step in points)
    with pytest.raises(InputError, match=r"2 of \d+ metrics differ") as raised:
        verify(into, wrong)
    differences = str(raised.value).splitlines()[1:]
    assert [line.split(":")[0] for line in differences] == ["  least_likely.index", "  MLflow's test/ladder at step 1"]
    runs.assert_restored(into, runs.committed)


def test_by_the_name_of_the_run_or_the_beginning_of_the_digest(runs: Runs, into: Path) -> None:
    digest = runs.committed.data.tags["evidence.digest"]
    for name in (digest[:8], runs.committed.info.run_name):
        restore_to(into, name)
        runs.assert_restored(into, runs.committed)
        runs.repository.run("git", "worktree", "remove", "--force", str(into))
    runs.assert_refused("brave-otter", into, r"no DVC experiment and no run.*brave-otter.*make publish ALL=1")
    runs.assert_refused("no 'such' run", into, "no DVC experiment and no run")
    runs.client().set_tag(runs.dirty.info.run_id, "mlflow.runName", runs.committed.info.run_name)
    runs.assert_refused(runs.committed.info.run_name, into, f"any of 2 experiments.*{runs.dirty.info.run_id}")
    runs.client().set_tag(runs.dirty.info.run_id, "mlflow.runName", runs.dirty.info.run_name)


def test_a_dvc_experiment_is_restored_by_its_name_without_the_store(
    runs: Runs, into: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.repository.run("git", "update-ref", "refs/exps/ab/cdef/brave-otter", "HEAD")
    restore_to(into, "brave-otter")
    runs.assert_restored(into, runs.committed)
    assert f"md5 that run {runs.committed.info.run_id} says" in capsys.readouterr().out
    runs.repository.run("git", "worktree", "remove", "--force", str(into))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    restore_to(into, "brave-otter")
    runs.assert_restored(into, runs.committed)
    shown = capsys.readouterr()
    assert "warning: nothing can be compared with its run" in shown.err
    assert "environment of the run: unknown" in shown.out
    runs.repository.run("git", "update-ref", "-d", "refs/exps/ab/cdef/brave-otter")


def test_a_dirty_run_without_its_patch_is_refused(runs: Runs, into: Path) -> None:
    with away(artifact(runs, runs.dirty, "code.patch")):
        runs.assert_refused(runs.dirty, into, r"changes are missing \(the run's artifact code.patch\); if you have the files")
    with away(artifact(runs, runs.dirty, "dvc.lock")):
        runs.assert_refused(runs.dirty, into, "keeps none, as not all its stages have finished; `dvc repro`")


def test_a_patch_that_does_not_apply_or_leads_outside_is_refused(runs: Runs, into: Path, tmp_path: Path) -> None:
    kept = artifact(runs, runs.dirty, "code.patch")
    base = kept.read_text().splitlines()[0]
    link = (
        "diff --git a/{0} b/{0}\nnew file mode 120000\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+/tmp\n\\ No newline at end\n"
    )
    new = "--- /dev/null\n+++ b/{}\n@@ -0,0 +1 @@\n+planted\n"
    planted = {
        link.format("data/prepared"): "make data/prepared a link",
        new.format("../outside"): "git apply failed: .*invalid path",
        new.format(".git/hooks/post-checkout"): "git apply failed: .*invalid path",
        link.format("a") + new.format("a/planted"): "git apply failed: .*beyond a symbolic link",
        new.format(".dvc/config.local"): "change DVC's settings",
        "--- a/notes.txt\n+++ b/notes.txt\n@@ -1 +1 @@\n-other\n+new\n": "(?s)git apply failed: .*patch does not apply",
    }
    for patch, message in planted.items():
        with away(kept):
            kept.write_text(f"{base}\n{patch}")
            runs.assert_refused(runs.dirty, into, message)
    with away(kept):
        kept.write_text(f"commit {'0' * 40}\n")
        runs.assert_refused(runs.dirty, into, "is not in this repository; `git fetch`")
    assert not (tmp_path / "outside").exists()


def test_a_model_or_experiment_that_is_not_the_runs_is_refused(runs: Runs, into: Path) -> None:
    for run, tag, message in (
        (runs.clean, "model.md5", "the model has the md5 [0-9a-f]{32}, but the run's tag model.md5 says tampered"),
        (runs.committed, "data.md5", "the data has the md5"),
        (runs.clean, "mlflow.source.git.commit", "names another params.yaml: evaluate than the commit"),
    ):
        value = runs.repository.run("git", "rev-parse", "HEAD").strip() if "commit" in tag else "tampered"
        runs.client().set_tag(run.info.run_id, tag, value)
        runs.assert_refused(run, into, message)
        runs.client().set_tag(run.info.run_id, tag, run.data.tags[tag])


def test_an_interrupted_restore_leaves_nothing(runs: Runs, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, *others: object) -> None:
        assert (folder / "params.yaml").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(restore, "fill", interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore_to(into, runs.dirty)
    assert not into.exists()
    assert worktrees(runs.repository) == [str(runs.repository.folder)]


def test_a_folder_that_is_taken_is_left_alone(runs: Runs, into: Path) -> None:
    into.mkdir()
    (into / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is there already; choose another folder with --into.*git worktree remove --force"):
        restore_to(into, runs.committed)
    assert [(path.name, path.read_text()) for path in into.iterdir()] == [("mine.txt", "mine")]
    shutil.rmtree(into)
    restore_to(into, runs.clean)
    shutil.rmtree(into)  # git still knows it
    restore_to(into, runs.clean)
    runs.assert_restored(into, runs.clean)


def test_files_that_are_not_in_the_cache_are_pulled_or_named(runs: Runs, into: Path, tmp_path: Path) -> None:
    repository, model = runs.repository, runs.clean.data.tags["model.md5"]
    settings = repository.folder / ".dvc" / "config.local"
    repository.run("dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "storage"))
    repository.run("dvc", "push", "--all-commits")
    local = settings.read_text()
    with away(cached(repository, model)):
        settings.unlink()
        runs.assert_refused(runs.committed, into, rf"models/model.safetensors \(md5 {model}\): not in .*no remote.*dvc push")
        settings.write_text(local)
        restore_to(into, runs.committed)
        runs.assert_restored(into, runs.committed)
        cached(repository, model).unlink()
    shutil.rmtree(tmp_path / "storage")
    listing = next((repository.folder / ".dvc" / "cache" / "files" / "md5").glob("*/*.dir"))
    with away(listing, cached(repository, model)):
        repository.run("git", "worktree", "remove", "--force", str(into))
        runs.assert_refused(runs.committed, into, "models/model.safetensors|DVC cannot pull")
    settings.unlink()


def test_metrics_that_dvc_does_not_cache_come_from_its_run_cache_or_from_the_run(runs: Runs, into: Path) -> None:
    body = runs.outputs[runs.clean.info.run_id][METRICS]
    kept = artifact(runs, runs.clean, "evaluate/metrics.json")
    in_cache = cached(runs.repository, hashlib.md5(body, usedforsecurity=False).hexdigest())
    for lost in (kept, in_cache):
        with away(lost):
            restore_to(into, runs.clean)
        runs.assert_restored(into, runs.clean)
        runs.repository.run("git", "worktree", "remove", "--force", str(into))
    with away(kept, in_cache):
        runs.assert_refused(runs.clean, into, METRICS)


def test_data_that_no_patch_holds_comes_from_the_working_directory_or_is_named(runs: Runs, into: Path) -> None:
    """That it comes from there is shown above: the patch of the dirty run lacks it."""
    assert len(artifact(runs, runs.dirty, "code.patch").read_text().splitlines()) == 1
    data = runs.repository.folder / "data" / "raw" / "table.csv"
    with away(data):
        md5 = runs.dirty.data.tags["data.md5"]
        runs.assert_refused(runs.dirty, into, rf"data/raw/table.csv \(md5 {md5}\): not in.*Raw data may be put back")


def test_what_differs_in_the_environment_is_said(runs: Runs, into: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.committed.info.run_id
    client, packages = runs.client(), runs.committed.data.tags["machine.packages"]
    client.set_tag(run, "machine.packages", re.sub("torch [^ ,]+", "torch 1.0", packages).replace("matplotlib", "other"))
    client.delete_tag(run, "machine.cpu_capability")
    restore_to(into, runs.committed)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("environment: not that of the run"))
    shown = [line.split(":")[0].strip() for line in lines[start + 1 : start + 5]]
    assert shown == ["cpu_capability", "matplotlib", "other", "torch"]
    assert "cpu_capability: unknown then, " in lines[start + 1]
    assert re.match(r"  torch: 1\.0 then, 2\..* now", lines[start + 4])
    for tag in ("cpu_capability", "packages"):
        client.set_tag(run, f"machine.{tag}", runs.committed.data.tags[f"machine.{tag}"])


def test_a_run_that_was_rebuilt_keeps_the_patch_and_is_found_by_its_old_id(runs: Runs, into: Path) -> None:
    old = runs.newest.info.run_id
    runs.client().log_metric(old, "valid/elbo", -1.0, step=1)
    publish.main(publish.parser().parse_args([]))
    assert old not in [run.info.run_id for run in runs.repository.runs()]
    restore_to(into, old)
    runs.assert_restored(into, runs.newest)


@pytest.mark.slow
def test_an_old_run_after_three_later_experiments(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As the user has it: each command in a process of its own, on the project's own code."""
    folder = tmp_path / "project"
    clone = finished(folder, tmp_path_factory)
    code = folder / "pipeline" / "stages" / "evaluate.py"
    code.write_text(code.read_text().replace('"examples": len(examples)', '"examples": len(examples), "extra": 1'))
    clone.set("evaluate.samples", 70)
    assert clone.repro() == ["evaluate"]
    clone.run("git", "checkout", "-q", "pipeline")
    clone.run("dvc", "exp", "run", "-S", "generate.samples=30", "--name", "brave-otter")
    for samples in (40, 50):
        clone.set("generate.samples", samples)
        assert "generate" in clone.repro()
    before = work(clone)
    _, old, *later = (run.info.run_name for run in clone.runs())
    assert len(later) == 3
    assert "verified: evaluated again, equal are all" in clone.run("python", "-m", "pipeline.restore", old, "--verify")
    restored = Repository(folder.with_name(f"project-{old}"))
    assert '"extra": 1' in (restored.folder / METRICS).read_text()  # which only its own code makes
    assert " M pipeline/stages/evaluate.py" in restored.run("git", "status", "--porcelain")
    assert restored.repro() == []
    assert later[0] == "brave-otter"
    clone.run("python", "-m", "pipeline.restore", "brave-otter")
    assert Repository(folder.with_name("project-brave-otter")).repro() == []
    assert work(clone) == before


def test_states_of_merged_branches_are_found(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged with the other side's dvc.lock kept, and deleted: git's shortened history leaves such a branch out."""
    theirs = runs.repository.clone(tmp_path / "theirs")
    monkeypatch.chdir(theirs.folder)
    before = {state.experiment.digest for state in git_states()}
    theirs.run("git", "checkout", "-q", "-b", "side")
    lock = theirs.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace("samples: 55", "samples: 56"))
    theirs.commit("another state")
    theirs.run("git", "checkout", "-q", "-")
    theirs.run("git", *IDENTITY, "merge", "-q", "-s", "ours", "-m", "merge", "side")
    theirs.run("git", "branch", "-D", "side")
    after = {state.experiment.digest for state in git_states()}
    assert len(after) == len(before) + 1
