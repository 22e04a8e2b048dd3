"""States travel: pushed to a remote, a colleague's clone has the same bytes and executes nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML
from typing_extensions import override

from tests.clones import Repository, finished, on_server
from tests.services import no_ssh_server, ssh_server
from tests.workspace import ROOT


class Origin(NamedTuple):
    """A repository whose states are committed and cached, and the files of each commit."""

    repository: Repository
    outputs: dict[str, Mapping[str, bytes]]

    def note(self) -> str:
        """The commit that is checked out, whose files are noted."""
        commit = self.repository.run("git", "rev-parse", "HEAD").strip()
        self.outputs[commit] = self.repository.outputs()
        return commit


class States(NamedTuple):
    """Two commits of an origin; the newer one is an experiment on the older one too."""

    older: str
    newer: str


class Remote(NamedTuple):
    """A place for DVC's cache, empty at first, and the settings that lead there."""

    path: Path
    url: str
    settings: Mapping[str, Any]

    def serve(self, repository: Repository) -> None:
        """Make it the default remote of a clone: in a file that git ignores, as it names this machine's paths."""
        repository.run("dvc", "remote", "add", "--local", "--force", "--default", "storage", self.url)
        for option, value in self.settings.items():
            repository.run("dvc", "remote", "modify", "--local", "storage", option, str(value))


EXPERIMENT = "brave-otter"
pytestmark = pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy deprecates


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    return Origin(finished(tmp_path_factory.mktemp("origin") / "origin", tmp_path_factory), {})


@pytest.fixture(scope="module")
def states(origin: Origin) -> States:
    older = origin.note()
    origin.repository.run("dvc", "exp", "run", "-S", "evaluate.samples=70", "--name", EXPERIMENT)
    origin.repository.commit("more samples")
    newer = origin.note()
    assert origin.outputs[older] != origin.outputs[newer]
    return States(older, newer)


@pytest.fixture
def folder(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "storage", str(tmp_path / "storage"), {})


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Remote]:
    if reason := no_ssh_server():
        pytest.skip(reason)
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh") as server:
        yield Remote(tmp_path / "storage", server.url(tmp_path / "storage"), {"keyfile": server.key})


def colleague(origin: Origin, remote: Remote, tmp_path: Path) -> Repository:
    """A clone that has fetched nothing from the remote yet, and so would have to begin at the beginning."""
    made = origin.repository.clone(tmp_path / "colleague")
    remote.serve(made)
    assert made.repro("--dry", "prepare") == ["prepare"]
    return made


def assert_shown(repository: Repository, origin: Origin) -> None:
    """On a machine with an empty store, publishing gives the run of the state that is checked out, complete."""
    assert "complete" in repository.publish()
    (found,) = repository.shown().comparable().items()
    assert found in origin.repository.shown().comparable().items()


def assert_same(repository: Repository, origin: Origin, commit: str) -> None:
    """Every file of the state is there, byte for byte, and reproducing it executes nothing and changes nothing."""
    assert repository.outputs() == origin.outputs[commit]
    assert repository.repro() == []
    assert repository.run("git", "status", "--porcelain") == ""
    assert repository.outputs() == origin.outputs[commit]


@pytest.mark.parametrize(
    ("kind", "store"),
    [
        pytest.param("folder", "sqlite", marks=pytest.mark.slow),
        pytest.param("ssh", "sqlite", marks=pytest.mark.slow),
        pytest.param("folder", "postgresql", marks=pytest.mark.slow),
    ],
)
def test_a_colleague_executes_nothing(
    kind: str, store: str, origin: Origin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote: Remote = request.getfixturevalue(kind)
    remote.serve(origin.repository)
    origin.repository.run("dvc", "push", "--run-cache")
    assert any(remote.path.rglob("*"))
    clone = colleague(origin, remote, tmp_path)
    clone.run("dvc", "pull", "--run-cache")
    assert_same(clone, origin, origin.note())
    if store == "postgresql":
        clone.environment |= on_server(request.getfixturevalue("tracking_uri"))
    assert_shown(clone, origin)
    (clone.folder / "dvc.lock").unlink()
    assert clone.repro("prepare") == []  # the run-cache has come too, and knows this stage without the lock


@pytest.mark.slow
def test_older_states_travel_with_all_commits(origin: Origin, states: States, folder: Remote, tmp_path: Path) -> None:
    folder.serve(origin.repository)
    origin.repository.run("dvc", "push", "--all-commits")
    clone = colleague(origin, folder, tmp_path)
    clone.run("git", "checkout", "-q", states.older)
    clone.run("dvc", "pull")
    assert_same(clone, origin, states.older)


@pytest.mark.slow
def test_older_states_do_not_travel_with_the_run_cache_alone(
    origin: Origin, states: States, folder: Remote, tmp_path: Path
) -> None:
    folder.serve(origin.repository)
    origin.repository.run("dvc", "push", "--run-cache")
    clone = colleague(origin, folder, tmp_path)
    clone.run("git", "checkout", "-q", states.older)
    assert "results/evaluate/examples.parquet" in clone.run("dvc", "pull", "--run-cache", expect=1)


@pytest.mark.slow
def test_an_experiment_travels(origin: Origin, states: States, folder: Remote, tmp_path: Path) -> None:
    """Through a git server: an experiment is a reference of git's, and files in DVC's remote."""
    folder.serve(origin.repository)
    hub = tmp_path / "hub.git"
    origin.repository.run("git", "clone", "-q", "--bare", str(origin.repository.folder), str(hub))
    origin.repository.run("dvc", "exp", "push", str(hub), EXPERIMENT)
    clone = colleague(origin, folder, tmp_path)
    clone.run("git", "checkout", "-q", states.older)
    clone.run("dvc", "exp", "pull", str(hub), EXPERIMENT)
    clone.run("dvc", "exp", "apply", EXPERIMENT)
    clone.run("dvc", "pull")
    assert clone.outputs() == origin.outputs[states.newer]
    assert clone.repro() == []


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"


def outputs_of(file: Path) -> Any:
    return YAML(typ="safe").load(file)["outs"]


def test_the_imports_of_mnist_download_their_files(site: tuple[Path, str], tmp_path: Path) -> None:
    """As shipped, but for the address and what lies there; the record of a file of the named md5 stays as it was."""
    repository = Repository(tmp_path / "repository")
    raw = repository.folder / "data/raw/mnist"
    raw.mkdir(parents=True)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        repository.run(*command)
    named = set()
    for shipped in (ROOT / "presets/mnist").glob("*.dvc"):
        (output,) = outputs_of(shipped)
        content = output["path"].encode()
        (site[0] / output["path"]).write_bytes(content)
        text = shipped.read_text().replace(f"{MNIST}/{output['path']}", f"{site[1]}/{output['path']}")
        text = text.replace(output["md5"], hashlib.md5(content, usedforsecurity=False).hexdigest())
        (raw / shipped.name).write_text(text.replace(str(output["size"]), str(len(content))))
        before = outputs_of(raw / shipped.name)
        repository.run("dvc", "update", f"data/raw/mnist/{shipped.name}")
        assert (raw / output["path"]).read_bytes() == content
        assert outputs_of(raw / shipped.name) == before
        named.add(output["path"])
    assert set(YAML(typ="safe").load(ROOT / "presets/mnist.yaml")["data"]["files"].values()) - {None} == named
