"""Servers for tests, on 127.0.0.1, each for the length of a ``with`` block: MLflow on PostgreSQL, OpenSSH, and ailing ones.

No server outlives its block, nor the process that started it, even if that is killed.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import pwd
import random
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Literal
from urllib.parse import urlsplit

from typing_extensions import override

HOST = "127.0.0.1"
PORTS = range(20000, 32000)  # below those that the kernel gives to clients, so that none is taken between choice and use
START = 120  # seconds that a server may take to start
LIFE = 900  # seconds after which an ailing server or a proxy ends by itself
CONNECTIONS = 64  # that a proxy keeps open at once
TICK = 0.05  # seconds until a proxy's connections notice a change
DRIP = 0.5  # seconds between the bytes of one that drips

Mode = Literal["pass", "hang", "drip", "500", "refuse"]


def free_port() -> int:
    """A port that nothing listens on."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise RuntimeError("100 ports are in use")


@contextmanager
def _process(
    *command: str, log: Path, ready: Callable[[], bool], end: str, user: str = "", env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A command that runs within the block, which is entered once ``ready`` is true; ``end`` is the signal that stops it."""
    guarded = [sys.executable, str(Path(__file__).with_name("guard.py")), end, user, *command]
    with log.open("wb") as file:
        guard = subprocess.Popen(
            guarded, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        _wait(guard, ready, log)
        yield
    finally:
        guard.communicate()


def _wait(guard: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START
    while not ready():
        if guard.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{guard.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


# MLflow on PostgreSQL


def no_tracking_server() -> str | None:
    """Why ``tracking_server`` cannot be had here, or None."""
    if _postgres("initdb") is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed: pip install psycopg2-binary"
    return None


def _postgres(program: str) -> str | None:
    """A program of PostgreSQL's: Debian keeps them outside PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[4]))
    return str(found[-1]) if found else shutil.which(program)


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The SQLAlchemy URI of an empty PostgreSQL, for this user alone; its log is in ``folder``.

    It listens on no port, but on a socket in a short-lived folder of its own: the path of a socket must be short, and
    PostgreSQL, which refuses to run as root, must reach it as another user.
    """
    programs = [str(_postgres(name)) for name in ("initdb", "postgres", "pg_isready")]
    user = "postgres" if os.geteuid() == 0 else ""
    with tempfile.TemporaryDirectory(prefix="postgres-") as home:
        if user:
            shutil.chown(home, user, user)

        def ready() -> bool:
            return subprocess.run([programs[2], "-q", "-h", home], check=False).returncode == 0

        with _process("sh", "-c", _DATABASE, home, *programs, log=folder / "postgres.log", ready=ready, end="QUIT", user=user):
            yield f"postgresql+psycopg2://evidence@/postgres?host={home}"


_DATABASE = """
cd "$0" && "$1" -D data -U evidence -A trust -E UTF8 --no-locale --no-sync --no-instructions &&
exec "$2" -D data -c listen_addresses= -c unix_socket_directories="$0" -c fsync=off -c full_page_writes=off \
-c synchronous_commit=off -c autovacuum=off -c max_wal_senders=0 -c wal_level=minimal -c shared_buffers=16MB
"""


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """The URI of an ``mlflow server`` with an empty store; its artifacts and logs are in ``folder``."""
    port = free_port()
    options = {
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--artifacts-destination": str(folder / "artifacts"),
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nothing here needs
    with database(folder) as store:
        options["--backend-store-uri"] = store
        command = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
        with _process(*command, log=folder / "mlflow.log", ready=lambda: _healthy(port), end="KILL", env=env):
            yield f"http://{HOST}:{port}"


def _healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection(HOST, port, timeout=2)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


# OpenSSH


def no_ssh_server() -> str | None:
    """Why ``ssh_server`` cannot be had here, or None."""
    return None if _sshd() and shutil.which("ssh-keygen") else "sshd is not installed: apt-get install openssh-server"


def _sshd() -> str | None:
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]))


@dataclass(frozen=True)
class SshServer:
    """Where an OpenSSH server is, and what opens it: one user, by one key, for files alone."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path

    def url(self, path: Path) -> str:
        """The URL of a folder, for ``dvc remote add``; the key is its option ``keyfile``."""
        return f"ssh://{self.user}@{self.host}:{self.port}{path}"


_SSHD = """
ListenAddress {host}:{port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
AuthenticationMethods publickey
AllowUsers {user}
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
StrictModes no
DisableForwarding yes
PermitTTY no
PermitUserRC no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """An OpenSSH server with keys of its own in ``folder``, which serves the files of this machine to this user."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    user = pwd.getpwuid(os.geteuid()).pw_name
    server = SshServer(HOST, free_port(), user, folder / "user", folder / "known_hosts")
    server.known_hosts.write_text(f"[{HOST}]:{server.port} {(folder / 'host.pub').read_text()}")
    settings = folder / "sshd_config"
    settings.write_text(_SSHD.format(host=HOST, port=server.port, user=server.user, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # empty; sshd insists on it, and only init would make it
    command = (str(_sshd()), "-D", "-e", "-f", str(settings))
    with _process(*command, log=folder / "sshd.log", ready=lambda: _greets(server.port), end="TERM"):
        yield server


def _greets(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 2) as connection:
        return connection.recv(8).startswith(b"SSH-2.0")
    return False


# Servers that ail


@contextmanager
def bad_server(kind: Literal["hang", "drip", "500", "refuse"]) -> Iterator[str]:
    """The URI of a server that never answers, answers a byte at a time for ever, answers 500, or does not listen."""
    if kind == "refuse":
        with socket.socket() as held:  # the port is taken, so that nobody else listens there
            held.bind((HOST, 0))
            yield f"http://{HOST}:{held.getsockname()[1]}"
    else:
        with proxy(f"http://{HOST}:9", kind) as server:
            yield server.uri


@contextmanager
def proxy(target_uri: str, mode: Mode = "pass") -> Iterator[Proxy]:
    """A proxy before the server at ``target_uri``, for the block or 15 minutes."""
    address = urlsplit(target_uri)
    assert address.hostname is not None
    assert address.port is not None
    with Proxy((address.hostname, address.port), mode) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop.set()
            thread.join()


class Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, or treats them as an ailing one would.

    Attributes:
        uri: Where clients find it.
        mode: ``"pass"`` passes on, ``"hang"`` reads and never answers, ``"drip"`` begins a valid answer and goes on by a byte
            every half second, ``"500"`` answers that, ``"refuse"`` closes. A change takes hold at once: connections that were
            passed on are treated as the new mode says, those of other modes are closed.
        connections: How many clients have come.
    """

    request_queue_size = CONNECTIONS

    def __init__(self, target: tuple[str, int], mode: Mode) -> None:
        super().__init__((HOST, 0), _Connection)
        self.target, self.mode, self.connections = target, mode, 0
        self.uri = f"http://{HOST}:{self.server_address[1]}"
        self.timeout = TICK
        self.stop = threading.Event()
        self._end = time.monotonic() + LIFE
        self._places = threading.Semaphore(CONNECTIONS)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.stop.is_set() or time.monotonic() > self._end

    def serve(self) -> None:
        """Serve until it ends."""
        while not self.over:
            self.handle_request()

    @override
    def verify_request(self, request: object, client_address: object) -> bool:
        self.connections += 1
        return self._places.acquire(blocking=False)

    def leave(self) -> None:
        """A connection ends."""
        self._places.release()


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy
    request: socket.socket

    @override
    def handle(self) -> None:
        self.request.settimeout(30)
        with suppress(OSError):  # either side may leave at any time
            if self.server.mode != "pass" or self._pass():
                _TREATMENTS[self.server.mode](self)

    @override
    def finish(self) -> None:
        self.server.leave()

    def _pass(self) -> bool:
        """Pass on until a side leaves, or the mode changes: then true."""
        with socket.create_connection(self.server.target, 5) as other:
            ends = {self.request: other, other: self.request}
            while True:
                ready = select(list(ends), [], [], TICK)[0]
                if not self._still("pass"):
                    return not self.server.over
                for end in ready:
                    if not (data := end.recv(2**16)):
                        return False
                    ends[end].sendall(data)

    def _hang(self) -> None:
        while self._still("hang") and self._listens():
            pass

    def _drip(self) -> None:
        self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        last = time.monotonic()
        while self._still("drip") and self._listens():
            if time.monotonic() > last + DRIP:
                self.request.sendall(b".")
                last += DRIP

    def _fail(self) -> None:
        self.request.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.request.shutdown(socket.SHUT_WR)
        while self._still("500") and self._listens():  # to the end of the question: closing before it would lose the answer
            pass

    def _refuse(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        self.request.close()

    def _still(self, mode: Mode) -> bool:
        return self.server.mode == mode and not self.server.over

    def _listens(self) -> bool:
        """Read and forget what the client sent; whether it is still there."""
        return not select([self.request], [], [], TICK)[0] or self.request.recv(2**16) != b""


_TREATMENTS: Mapping[Mode, Callable[[_Connection], None]] = {
    "pass": lambda connection: None,
    "hang": _Connection._hang,
    "drip": _Connection._drip,
    "500": _Connection._fail,
    "refuse": _Connection._refuse,
}
