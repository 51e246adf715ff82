"""The real engines beside the benchmarks: Mosquitto, Kafka and PostgreSQL, each its own process on a free port, ended by its id.

Their data lie on a disk below `FOLDER`, never in memory; fsync is on wherever an engine can be asked for it. `missing` says what is not
here, and how it comes; a benchmark that needs it says so loudly and gives no figure.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path
from typing import Final

from deploy.demo.parts import free_port

SCRIPT: Final = Path(__file__).parents[1] / "dev" / "kafka.sh"
SHIPPED: Final = Path(__file__).parents[1] / "mosquitto" / "mosquitto.conf"
FOLDER: Final = Path("/var/tmp")
"""on a disk on every system, and a user of its own may enter it (PostgreSQL refuses to run as root)"""
START_S: Final = 90.0
HUB_USER: Final = "hub"
PG_USER: Final = "longshore"
PG_SETTINGS: Final = (
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60", "fsync=on", "shared_buffers=512MB",
    "max_wal_size=4GB", "wal_compression=off",
)  # fmt: skip
"""as an operator would set a small server; everything that makes it durable is on"""
_NOT_PLAIN: Final = ("listener", "certfile", "keyfile", "tls_version", "password_file", "acl_file", "persistence_location")


# ------------------------------------------------------------------ what is here


def missing(*names: str) -> list[str]:
    """Of "mosquitto", "kafka", "postgres": those that are not here, each with the command that brings it."""
    looks: dict[str, tuple[Callable[[], object], str]] = {
        "mosquitto": (mosquitto_program, "apt-get install mosquitto"),
        "kafka": (_kafka_comes, "apt-get install default-jre-headless maven"),
        "postgres": (postgres_programs, "apt-get install postgresql"),
    }
    return [f"{name} ({looks[name][1]})" for name in names if not looks[name][0]()]


def skipped(*names: str) -> bool:
    """Whether something is missing; then it is said."""
    gone = missing(*names)
    if gone:
        print(f"  !! SKIPPED, missing: {', '.join(gone)}", file=sys.stderr, flush=True)
    return bool(gone)


def mosquitto_program() -> str | None:
    """Debian keeps it where not every PATH points."""
    return shutil.which("mosquitto") or next(
        (p for p in ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto") if os.access(p, os.X_OK)), None
    )


@cache
def _kafka_comes() -> bool:
    return shutil.which("java") is not None and subprocess.run([SCRIPT, "fetch"], capture_output=True, check=False).returncode == 0


def postgres_programs() -> Path | None:
    """The newest that Debian has, or the folder of the one on the PATH."""
    found = sorted(glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda p: int(Path(p).parts[-3]) if Path(p).parts[-3].isdigit() else 0)
    program = found[-1] if found else shutil.which("postgres")
    return Path(program).parent if program else None


# ------------------------------------------------------------------ processes


@contextmanager
def running(
    args: Sequence[str | os.PathLike[str]], log: Path, *, port: int | None = None, cwd: Path | None = None, end: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of the block; returns once it listens on `port`. `end`: the signal that ends it without waiting for
    others. Errors: RuntimeError with its last words."""
    with log.open("wb") as out:
        process = subprocess.Popen([os.fspath(a) for a in args], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd)
    try:
        if port is not None:
            _wait(process, port, log)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"an engine did not start: {log.read_text(errors='replace')[-400:]}")


@contextmanager
def folder() -> Iterator[Path]:
    """For the data of one run."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="longshore-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


# ------------------------------------------------------------------ Kafka


@dataclass(frozen=True, slots=True)
class Broker:
    """A process that listens on loopback."""

    pid: int
    port: int

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def kafka(root: Path) -> Iterator[Broker]:
    """One broker in KRaft mode, by the script that people use, too."""
    data, port, controller = root / "kafka", free_port(), free_port()
    data.mkdir()
    with running([SCRIPT, "run", data, str(port), str(controller)], data / "log", port=port) as process:
        yield Broker(process.pid, port)


# ------------------------------------------------------------------ Mosquitto


@contextmanager
def mosquitto(root: Path, port: int, passwords: Path | None, acl: Path | None, extra: Sequence[str] = ()) -> Iterator[Broker]:
    """As it is shipped here (`deploy/mosquitto`), persistent, but without TLS on loopback. Without `passwords`: anybody may come."""
    data, program = root / "mosquitto", mosquitto_program()
    assert program is not None
    data.mkdir(exist_ok=True)
    lines = [*([] if os.geteuid() else ["user root"]), f"listener {port} 127.0.0.1"]  # first: what is said of no listener opens port 1883
    for line in SHIPPED.read_text().splitlines():
        if line.split(" ")[0] not in _NOT_PLAIN and not (passwords is None and line.startswith("allow_anonymous")):
            lines.append(line)
    lines += [f"password_file {passwords}", f"acl_file {acl}"] if passwords is not None else ["allow_anonymous true"]
    lines += [f"persistence_location {data}/", *extra]
    (data / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    with running([program, "-c", data / "mosquitto.conf"], data / "log", port=port) as process:
        yield Broker(process.pid, port)


# ------------------------------------------------------------------ PostgreSQL


@dataclass(frozen=True, slots=True)
class Postgres:
    """A cluster. `ask` goes by psql as the administrator: nothing of ours is between the figure and the database."""

    pid: int
    port: int
    folder: Path
    password_file: Path

    def dsn(self, database: str) -> str:
        """For the product, without the password."""
        return f"host=127.0.0.1 port={self.port} user={PG_USER} dbname={database}"

    def make(self, database: str) -> str:
        """A new empty database of the ordinary user's. Returns its dsn."""
        self.ask("postgres", f'CREATE DATABASE "{database}" OWNER {PG_USER}')
        return self.dsn(database)

    def ask(self, database: str, sql: str) -> list[list[str]]:
        """The rows of a statement, as texts."""
        programs = postgres_programs()
        assert programs is not None
        args = [str(programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "admin", "-d", database, "-X", "-q", "-A", "-t"]
        env = {**os.environ, "PGPASSWORD": self.password_file.read_text()}
        done = subprocess.run(
            [*args, "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", sql], capture_output=True, text=True, check=False, env=env, cwd=self.folder
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()[-400:]}")
        return [line.split("\t") for line in done.stdout.splitlines() if line]


@contextmanager
def postgres(root: Path) -> Iterator[Postgres]:
    """Debian's programs on loopback, with a password made for the run."""
    data, port, programs = root / "postgres", free_port(), postgres_programs()
    assert programs is not None
    data.mkdir()
    secret, own = data / "secret", root / "db.password"
    secret.write_text(secrets.token_hex(12))
    own.write_text(secret.read_text())
    own.chmod(0o600)
    for path in (data, secret):
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")
    words = ["initdb", "-D", "cluster", "-U", "admin", "--pwfile", "secret", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([*_as_user(), str(programs / words[0]), *words[1:]], cwd=data, check=True, capture_output=True)
    options = [part for setting in PG_SETTINGS for part in ("-c", setting)]
    args = [*_as_user(), str(programs / "postgres"), "-D", str(data / "cluster"), "-p", str(port), *options]
    log = data / "log"
    log.touch()
    with running(args, log, port=port, cwd=data, end=signal.SIGINT) as process:
        server = Postgres(process.pid, port, root, own)
        _answers(server, process)
        server.ask("postgres", f"CREATE ROLE {PG_USER} LOGIN PASSWORD '{own.read_text()}'")
        yield server


def _answers(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    """It listens some time before it lets anybody in."""
    for _ in range(400):
        try:
            server.ask("postgres", "SELECT 1")
        except RuntimeError:
            if process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("PostgreSQL lets nobody in")


def _as_user() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] if os.geteuid() == 0 else []


# ------------------------------------------------------------------ what they cost


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, with those of its children, living and gone."""
    ticks = os.sysconf("SC_CLK_TCK")
    own = _stat(pid)
    return sum(own) / ticks + sum(cpu_s(child) for child in _children(pid)) if own else 0.0


def _stat(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            found += [int(n) for n in Path(listing).read_text().split()]
    return found


def rss_mb(pid: int) -> float:
    """Resident size of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
