"""Child processes of tests: started with a log, awaited with a deadline, ended by their own id, never by name.

    with started([sys.executable, "-m", "hub.cli", "run", …]) as hub:
        hub.wait_until(lambda: listening(port))
        …

Nothing sleeps: waiting is `Popen.wait` with a short timeout, so a child that dies ends the wait at once, with its log in the error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.forks import Copy, copied
from tests.support.patience import END_S, WITHIN_S
from tests.support.ports import listening

STEP_S: Final = 0.02
_LOG_TAIL_CHARS: Final = 4_000


class ChildError(AssertionError):
    """A child died, or was not ready in time; the text holds the end of its log."""


class Child:
    """One running child and its log file (standard output and error together)."""

    def __init__(self, args: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.args = [os.fspath(arg) for arg in args]
        handle, name = tempfile.mkstemp(prefix="longshore-child-", suffix=".log")
        self.log = Path(name)
        whole = {**os.environ, **(env or {})}
        with os.fdopen(handle, "wb") as out:
            self.process: subprocess.Popen[bytes] | Copy = copied(self.args, whole, cwd, self.log) or subprocess.Popen(
                self.args, env=whole, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], *, within_s: float = WITHIN_S, what: str = "ready") -> None:
        """Until `ready()` is true; ChildError when the child ends first or the deadline passes."""
        deadline = time.monotonic() + within_s
        while not ready():
            if self.ended_within(STEP_S):
                raise ChildError(f"{self._named()} ended with {self.process.returncode} before it was {what}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ChildError(f"{self._named()} was not {what} within {within_s} s:\n{self._tail()}")

    def wait_port(self, port: int, *, within_s: float = WITHIN_S) -> None:
        """Until something accepts connections on a loopback port."""
        self.wait_until(lambda: listening(port), within_s=within_s, what=f"listening on port {port}")

    def wait_http(self, url: str, *, within_s: float = WITHIN_S) -> None:
        """Until GET of a loopback URL answers 2xx."""
        self.wait_until(lambda: http_ok(url), within_s=within_s, what=f"answering at {url}")

    def ended_within(self, seconds: float) -> bool:
        """Whether it has ended by then; returns at once when it has."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL: a crash, as far as it is concerned. Those that it had started end by themselves, and are awaited, as systemd does:
        they may hold the data, which a copy (`tests.support.forks`) would want at once."""
        below: dict[int, str] = {}
        if self.running:
            self.process.send_signal(signal.SIGSTOP)  # so that it makes no further ones meanwhile
            below = children(self.pid)
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(END_S)
        deadline, pause = time.monotonic() + END_S, threading.Event()
        while any(state(pid) not in ("Z", "") for pid in below):
            if time.monotonic() > deadline:
                raise ChildError(f"{self._named()} was killed, and after {END_S} s there still is of its own: {below}")
            pause.wait(STEP_S)

    def end(self, within_s: float = END_S) -> int:
        """Ask it to end (SIGTERM), insist after `within_s`; returns its exit code (negative: the signal)."""
        if self.running:
            self.process.terminate()
            if not self.ended_within(within_s):
                self.kill()
        return self.process.wait(END_S)

    def discard(self) -> None:
        """End it however it stands, and remove its log."""
        self.end()
        self.log.unlink(missing_ok=True)

    def _named(self) -> str:
        return f"`{' '.join(self.args[:4])}` (process {self.pid})"

    def _tail(self) -> str:
        return self.output()[-_LOG_TAIL_CHARS:] or "(it said nothing)"


@contextmanager
def started(args: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[Child]:
    """A child for the length of a `with` block."""
    child = Child(args, env=env, cwd=cwd)
    try:
        yield child
    finally:
        child.discard()


def python(*args: str | os.PathLike[str]) -> list[str]:
    """Arguments that run this very interpreter, as a user would run it."""
    return [sys.executable, *(os.fspath(arg) for arg in args)]


def ran(args: Sequence[str | os.PathLike[str]], within_s: float = WITHIN_S) -> tuple[int, str]:
    """A command to its end: how it ended, and what it printed. Errors: subprocess.TimeoutExpired."""
    with started(args) as child:
        return child.process.wait(within_s), child.output()


def http_ok(url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether GET answers 2xx; loopback only (tests reach nothing else)."""
    if not url.startswith(("http://127.0.0.1:", "http://localhost:")):
        raise ValueError(f"{url}: tests speak to loopback only")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # scheme checked above
            return 200 <= int(answer.status) < 300
    except (urllib.error.URLError, OSError):
        return False


def children(pid: int | None = None) -> dict[int, str]:
    """Living direct children of a process (default: this one) as {pid: command line}; empty where the system has no /proc."""
    found: dict[int, str] = {}
    tasks = f"/proc/{pid or os.getpid()}/task"
    try:
        threads = sorted(os.listdir(tasks))
    except OSError:
        return found
    for thread in threads:
        for child in _read(f"{tasks}/{thread}/children").split():
            if state(int(child)) not in ("Z", ""):
                found[int(child)] = _read(f"/proc/{child}/cmdline").replace("\0", " ").strip()
    return found


def state(pid: int) -> str:
    """The one-letter state of a process; "" when it is gone, "Z" when only nobody has waited for it yet."""
    stat = _read(f"/proc/{pid}/stat")
    return stat.rpartition(")")[2].split()[0] if stat else ""


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
