"""A PostgreSQL server for tests: Debian's programs, a folder of its own, loopback only, passwords made for the run, fsync on.

    with server() as postgres:
        store = PostgresStore(postgres.server("one"))

It refuses to run as root, so root starts it as the user `postgres`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hub.store.pg import Server
from tests.support.certificates import Certificates
from tests.support.needs import where
from tests.support.patience import WITHIN_S
from tests.support.ports import lasting_port
from tests.support.procs import Child, children, state
from tests.support.source import ROOT

ADMIN: Final = "admin"
USER: Final = "longshore"
READY_S: Final = 3.0
SETTINGS: Final = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=64MB", "max_connections=60", "fsync=on")


class Postgres:
    """One cluster. `stop`, `crash` and `start` on the same data are restarts; `copy` and `put_back` are a cold backup and its restore."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="longshore-pg-"))
        self.port = lasting_port()
        self._bin = Path(where("postgres")).parent
        self._settings = (*SETTINGS, *settings)
        self._child: Child | None = None
        self._user_made = False
        _give_away(self.folder)
        made = _template(self._bin)
        self.password = (made / "secret").read_text()
        self._copy(made / "data", self.data)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def tool(self, name: str, *args: str | os.PathLike[str], password: bool = False) -> str:
        """Run one of its programs as the user it runs as. Returns what it said."""
        env = {**os.environ, "PGPASSWORD": self.password} if password else None
        command: list[str | os.PathLike[str]] = [*_as_user(), os.fspath(self._bin / name), *(os.fspath(arg) for arg in args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder, env=env)
        assert done.returncode == 0, f"{name} failed: {done.stderr[-2_000:]}"
        return done.stdout

    @property
    def reach(self) -> list[str]:
        """How a client program reaches it: `tool("pg_dump", *postgres.reach, …, password=True)`."""
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", ADMIN]

    @property
    def programs(self) -> Path:
        """Where its programs are."""
        return self._bin

    @property
    def command(self) -> list[str]:
        """What runs it, in its folder."""
        options = [part for setting in self._settings for part in ("-c", setting)]
        return [*_as_user(), os.fspath(self._bin / "postgres"), "-D", os.fspath(self.data), "-p", str(self.port), *options]

    def start(self) -> None:
        """Return when it takes connections."""
        self._child = Child(self.command, cwd=self.folder)
        self._child.wait_until(self.ready, what="ready")

    def ready(self) -> bool:
        """Whether it takes connections."""
        return asks_who_comes(self.port)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.running

    def stop(self) -> None:
        """A fast shutdown: transactions under way are rolled back, clients are cut off. Idempotent."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """SIGKILL to the server and all of its processes, as a power cut would end them. Idempotent."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all of its processes where they are (SIGSTOP): it listens, and does not answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        for pid in (self._child.pid, *children(self._child.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if how is signal.SIGKILL and child.running:  # a process that it made after we looked would go on, and hold its memory
            child.process.send_signal(signal.SIGSTOP)
            until(lambda: state(child.pid) in ("T", "t", "Z", "X", ""))
        below = children(child.pid)
        if child.running:
            child.process.send_signal(how)
        if how is signal.SIGKILL:
            for pid in below:
                _kill(pid)
        child.end()
        until(lambda: not any(_lives(pid) for pid in below))
        child.discard()

    def database(self, name: str) -> str:
        """Make an empty database that an ordinary user owns. Returns its dsn, for that user."""
        if not self._user_made:
            self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'")
            self._user_made = True
        self.sql(f'CREATE DATABASE "{name}" OWNER {USER}')
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={name}"

    def server(self, name: str, **more: str) -> Server:
        """Make an empty database. Returns it as a store is told of it."""
        secret = self.folder / "password"
        if not secret.exists():
            secret.write_text(self.password)
            secret.chmod(0o600)
        return Server(self.database(name), str(secret), **more)

    def drop(self, name: str) -> None:
        """End its connections, and delete it."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement by psql; what it answers, one row on a line."""
        return self.tool(
            "psql", *self.reach, "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, password=True
        ).strip()

    def with_tls(self, certificates: Certificates) -> None:
        """Restart it so that it offers TLS."""
        self.stop()
        for name, source in (("server.crt", certificates.cert), ("server.key", certificates.key)):
            target = self.data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            _give_away(target)
        self._settings = (*self._settings, "ssl=on")
        self.start()

    def copy(self, name: str) -> None:
        """A cold backup of all, while it is down."""
        assert not self.running
        self._copy(self.data, self.folder / name)

    def put_back(self, name: str) -> None:
        """Restore a cold backup, while it is down."""
        assert not self.running
        shutil.rmtree(self.data)
        self._copy(self.folder / name, self.data)

    def _copy(self, source: Path, target: Path) -> None:
        subprocess.run(["cp", "-a", source, target], check=True)

    def discard(self) -> None:
        """End it, and delete all that it had."""
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def server(*settings: str) -> Iterator[Postgres]:
    """A server for the length of a `with` block. `settings`: `name=value`."""
    postgres = Postgres(settings)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.discard()


def asks_who_comes(port: int) -> bool:
    """Whether a server there takes connections: it asks who comes, and does not refuse. As `pg_isready`, which is a process each time."""
    wish = struct.pack("!I", 3 << 16) + f"user\0{ADMIN}\0database\0postgres\0\0".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=READY_S) as line:
            line.sendall(struct.pack("!I", 4 + len(wish)) + wish)
            return line.recv(1) == b"R"
    except OSError:
        return False


def _template(programs: Path) -> Path:
    """An empty cluster (`data`) and its administrator's password (`secret`), made by `initdb` once for all runs: a server's data begin as
    a copy of it, which is a tenth of the work. All have one password and system identifier; no test holds two servers for one another."""
    made = ROOT / "build" / f"postgres-{programs.parent.name}"
    made.parent.mkdir(exist_ok=True)
    with open(f"{made}.lock", "w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)  # neighbours wait for one `initdb`
        if not made.exists():
            _initialise(programs, made)
    return made


def _initialise(programs: Path, made: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="longshore-pg-"))
    try:
        _give_away(folder)
        secret, data = folder / "secret", folder / "data"
        secret.write_text(secrets.token_hex(12))
        secret.chmod(0o600)
        _give_away(secret)
        command: list[str | os.PathLike[str]] = [*_as_user(), programs / "initdb", "-D", data, "-U", ADMIN, "--pwfile", secret]
        kind = ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run([*command, *kind], capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, f"initdb failed: {done.stderr[-2_000:]}"
        whole = made.with_suffix(".new")
        shutil.rmtree(whole, ignore_errors=True)
        subprocess.run(["cp", "-a", folder, whole], check=True)
        whole.rename(made)
    finally:
        shutil.rmtree(folder)


def _as_user() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] if os.geteuid() == 0 else []


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def _lives(pid: int) -> bool:
    """Zombies that nobody has waited for yet do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(done: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait for what another process does. Errors: AssertionError."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"it did not come within {within_s} s"
        pause.wait(0.02)
