"""Processes of the product that begin as copies of one that has imported what they import.

    with Forge() as forge, forge.lent():
        Child(python("-m", "hub.cli", "run", …))   # a copy, which runs that module as `python -m` would

Most of what a hub's or an edge's start costs is imports, and a test that kills processes starts dozens. A copy is a process like any other,
with an id, an environment, a log and an exit code of its own; it is only no child of ours. What a start is made of before `main` begins is
shown by tests that do not use this (the commands, the scenarios, the kill test with the hub's own broker).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.source import ROOT

COPIED: Final = ("hub.cli", "edge_agent.cli", "tests.chaos.init")
"""modules that run as copies; a product with a planted mistake is none of them: it plants it before the others are imported"""
IMPORTED: Final = (
    "hub.runtime", "hub.project", "hub.kafka", "hub.broker_apart", "hub.store.postgres", "edge_agent.runtime", "edge_agent.serve",
    "edge_agent.api", "uvloop", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.off", "encodings.idna",
)  # fmt: skip
"""what they import later, in `main`"""
OF_A_START: Final = ("LD_", "PYTHON", "MALLOC", "OPENSSL")
"""how variables begin that are read before `main`: with one of those a process is started anew"""
POSSIBLE: Final = hasattr(os, "pidfd_open")

running: Final[list[Forge]] = []
"""those that have been started; what is looked for at the end of a test is looked for among their copies, too"""
_lent: Final[list[Forge]] = []


class Copy:
    """As much of `subprocess.Popen` as `Child` uses. Methods may be called from any thread."""

    def __init__(self, forge: Forge, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forge, self._lock = forge, threading.Lock()
        self._watch = os.pidfd_open(pid)  # it stays a zombie until we ask how it ended: the id is nobody else's

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._watch)

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self.returncode is None and self._ended(0.0):
            self._ask()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended. Errors: subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not self._ended(timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._ask()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To it, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def _ended(self, within_s: float | None) -> bool:
        look = select.poll()  # which one thread at a time may ask
        look.register(self._watch, select.POLLIN)
        return bool(look.poll(None if within_s is None else 1_000 * within_s))

    def _ask(self) -> None:
        with self._lock:
            if self.returncode is None:
                self.returncode = self._forge.code(self.pid)


class Forge:
    """The process that others are copies of, for the length of a `with` block; it starts when the first is wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def __enter__(self) -> Forge:
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever it still has is killed."""
        if self._process is not None and self._line is not None:
            self._line.close()
            self._process.wait()
            running.remove(self)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """`Child` uses it meanwhile."""
        _lent.append(self)
        try:
            yield
        finally:
            _lent.remove(self)

    @property
    def pid(self) -> int:
        """Of the process itself, once it was started."""
        assert self._process is not None
        return self._process.pid

    def copy(self, args: Sequence[str], env: Mapping[str, str], cwd: Path | None, log: Path) -> Copy:
        """Run `[python, "-m", module, …]` as a copy, with standard output and error in `log`. `env`: all of it."""
        told = {"args": args[2:], "env": dict(env), "cwd": os.fspath(cwd or Path.cwd()), "log": os.fspath(log)}
        return Copy(self, int(self._ask(told)))

    def code(self, pid: int) -> int:
        """How a copy ended (negative: the signal); waits for its end."""
        return int(self._ask({"over": pid}))

    def _ask(self, what: Mapping[str, Any]) -> Any:
        with self._lock:
            line = self._line or self._start()
            line.sendall(json.dumps(what).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                piece = line.recv(100)
                if not piece:
                    raise RuntimeError("the process that others are copies of has ended")
                answer += piece
            return json.loads(answer)

    def _start(self) -> socket.socket:
        self._line, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT, pass_fds=[theirs.fileno()])
        running.append(self)
        return self._line


def copied(args: Sequence[str], env: Mapping[str, str], cwd: Path | None, log: Path) -> Copy | None:
    """A copy, where one is wanted and possible."""
    if not (_lent and POSSIBLE and list(args[:2]) == [sys.executable, "-m"] and args[2] in COPIED):
        return None
    started = [name for name in env if name.startswith(OF_A_START) and env[name] != os.environ.get(name)]
    return None if started else _lent[-1].copy(args, env, cwd, log)


# ------------------------------------------------------------ in that process


def main(fd: int) -> None:
    """Import, and answer wishes until nobody wishes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends us
    gc.disable()
    for name in (*COPIED, *IMPORTED):
        importlib.import_module(name)
    for name in COPIED:  # a copy runs it as `__main__`, as `python -m` does, with none under its own name
        package, _, last = name.rpartition(".")
        delattr(sys.modules[package], last)
        del sys.modules[name]
    gc.freeze()
    gc.enable()
    assert len(os.listdir("/proc/self/task")) == 1, "a copy has one thread only"
    wish = _serve(socket.socket(fileno=fd))
    if wish is not None:
        _become(wish)


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """Returns in copies only, with what they are to be; and None once it is over."""
    living: list[int] = []
    with line, line.makefile("rb") as wishes:
        for text in wishes:
            wish = json.loads(text)
            if "over" in wish:
                answer = os.waitstatus_to_exitcode(os.waitpid(wish["over"], 0)[1])
                living.remove(wish["over"])
            else:
                answer = os.fork()
                if answer == 0:
                    return dict(wish)
                living.append(answer)
            line.sendall(f"{answer}\n".encode())
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return None


def _become(wish: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(wish["log"], os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["env"])
    module, *args = wish["args"]
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
