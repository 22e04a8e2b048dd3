"""The servers of tests/services.py do what they say, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from mlflow import MlflowClient
from sqlalchemy import create_engine

from tests import services
from tests.guard import is_alive
from tests.services import (
    HOST,
    Mode,
    SshServer,
    bad_server,
    no_ssh_server,
    no_tracking_server,
    proxy,
    ssh_server,
    tracking_server,
)
from tests.workspace import ROOT

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own

HEALTH = "/health"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := no_tracking_server():
        pytest.skip(reason)
    with tracking_server(tmp_path_factory.mktemp("tracking")) as uri:
        yield uri


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    if reason := no_ssh_server():
        pytest.skip(reason)
    with ssh_server(tmp_path) as server:
        yield server


def test_the_tracking_server_keeps_runs_and_files(tracking: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking)
    run = client.create_run(client.create_experiment("services"))
    client.log_metric(run.info.run_id, "valid/elbo", -3.5, step=2)
    (tmp_path / "note.txt").write_text("kept")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"), "train")
    (point,) = client.get_metric_history(run.info.run_id, "valid/elbo")
    assert (point.value, point.step) == (-3.5, 2)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    fetched = client.download_artifacts(run.info.run_id, "train/note.txt", str(tmp_path / "fetched"))
    assert Path(fetched).read_text() == "kept"


def test_the_store_is_postgresql(tmp_path: Path) -> None:
    if reason := no_tracking_server():
        pytest.skip(reason)
    with services.database(tmp_path) as uri:
        engine = create_engine(uri)
        with engine.connect() as connection:
            version, address = connection.exec_driver_sql("select version(), inet_server_addr()").one()
        engine.dispose()
    assert version.startswith("PostgreSQL")
    assert address is None  # no port
    assert not Path(uri.partition("host=")[2]).exists()


def address(uri: str) -> tuple[str, int]:
    return HOST, int(uri.rpartition(":")[2])


def test_a_server_that_hangs_accepts_and_is_silent() -> None:
    with bad_server("hang") as uri, pytest.raises(requests.ReadTimeout):
        requests.get(uri, timeout=0.5)


def test_a_server_that_answers_500_does_so_at_once() -> None:
    with bad_server("500") as uri:
        response = requests.post(uri, data=b"x" * 10**6, timeout=5)
    assert response.status_code == 500
    assert response.elapsed.total_seconds() < 1


def test_a_server_that_refuses_does_not_listen() -> None:
    with bad_server("refuse") as uri, pytest.raises(requests.ConnectionError, match="refused"):
        requests.get(uri, timeout=5)


def test_a_server_that_drips_defeats_a_timeout_between_bytes() -> None:
    with bad_server("drip") as uri, socket.create_connection(address(uri), 1) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received, end = b"", time.monotonic() + 2.2
        while time.monotonic() < end:
            received += connection.recv(100)  # raises after a second of silence
    head, _, dripped = received.partition(b"X-Drip: ")
    assert head == b"HTTP/1.1 200 OK\r\n"
    assert 3 <= len(dripped) <= 5


def test_a_proxy_changes_its_mode_while_a_client_is_connected(tracking: str) -> None:
    failures: dict[Mode, type[Exception]] = {
        "hang": requests.ReadTimeout,
        "500": requests.HTTPError,
        "refuse": requests.ConnectionError,
    }
    with proxy(tracking) as server, requests.Session() as session:
        for mode, error in failures.items():
            server.mode = "pass"
            assert session.get(server.uri + HEALTH, timeout=5).text == "OK"
            server.mode = mode
            with pytest.raises(error):
                session.get(server.uri + HEALTH, timeout=0.5).raise_for_status()
        assert server.connections >= len(failures)
        server.mode = "pass"
        assert MlflowClient(server.uri).get_experiment("0").name == "Default"


@pytest.mark.parametrize("mode", ["hang", "drip", "500", "refuse"])
def test_a_mode_takes_hold_of_a_question_that_is_being_answered(mode: Mode) -> None:
    """A server that has read the question, and would answer after a second."""
    with (
        socket.create_server((HOST, 0)) as target,
        proxy(f"http://{HOST}:{target.getsockname()[1]}") as server,
        socket.create_connection(address(server.uri), 5) as client,
    ):
        client.sendall(b"question")
        passed, _ = target.accept()
        with passed:
            assert passed.recv(100) == b"question"
            server.mode = mode
            assert passed.recv(100) == b""  # let go
        client.settimeout(1)
        try:
            answer = client.recv(100)[:12].decode()
        except OSError as error:
            answer = type(error).__name__
    expected = {"hang": "TimeoutError", "drip": "HTTP/1.1 200", "500": "HTTP/1.1 500", "refuse": "ConnectionResetError"}
    assert answer == expected[mode]


def test_a_proxy_bounds_its_connections_and_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "CONNECTIONS", 2)
    monkeypatch.setattr(services, "LIFE", 1.0)
    with proxy("http://127.0.0.1:9", "hang") as server:
        place = address(server.uri)
        with socket.create_connection(place, 5), socket.create_connection(place, 5):
            with socket.create_connection(place, 5) as third:
                assert third.recv(1) == b""
            time.sleep(1.2)
            assert server.over


def test_the_ssh_server_takes_its_key_alone_and_gives_files_alone(ssh: SshServer, tmp_path: Path) -> None:
    options = ["-o", f"UserKnownHostsFile={ssh.known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    options += ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]

    def sftp(key: Path) -> subprocess.CompletedProcess[str]:
        command = ["sftp", *options, "-i", str(key), "-P", str(ssh.port), "-b", "-", f"{ssh.user}@{ssh.host}"]
        return subprocess.run(
            command, input=f"put {ssh.key}.pub {tmp_path}/copy\n", capture_output=True, text=True, check=False
        )

    assert sftp(ssh.key).returncode == 0
    assert (tmp_path / "copy").read_bytes() == Path(f"{ssh.key}.pub").read_bytes()
    assert "Permission denied" in sftp(tmp_path / "host").stderr
    shell = ["ssh", *options, "-i", str(ssh.key), "-p", str(ssh.port), f"{ssh.user}@{ssh.host}", "id"]
    assert "uid=" not in subprocess.run(shell, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout


def test_servers_are_gone_when_the_tests_are_killed(tmp_path: Path) -> None:
    """SIGKILL of the process that started a server, in whose session a child of that server is not."""
    code = (
        "import sys, time; from pathlib import Path; from tests.services import _process; folder = Path(sys.argv[1])\n"
        "with _process('sh', '-c', 'setsid sleep 60 & echo $$ $! > pids.new && mv pids.new pids && wait', end='TERM',"
        " log=folder / 'log', ready=(folder / 'pids').exists): time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tests = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(is_alive, started))
    tests.send_signal(signal.SIGKILL)
    tests.wait(10)
    while any(map(is_alive, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, started))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no such option"),
        services._process("sh", "-c", "echo no such option; exit 3", log=tmp_path / "log", ready=lambda: False, end="TERM"),
    ):
        pass


def test_what_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_postgres", lambda program: None)
    monkeypatch.setattr(services, "_sshd", lambda: None)
    assert "apt-get install postgresql" in str(no_tracking_server())
    assert "apt-get install openssh-server" in str(no_ssh_server())
