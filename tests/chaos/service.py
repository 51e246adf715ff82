"""Processes under a supervisor that does what systemd does with `Restart=always`, and nothing else: who has ended is started again.

    with Supervisor(journal) as supervisor:
        hub = supervisor.add(Service("hub", "hub", [...], ready=lambda: …))
        supervisor.start()
        hub.send(signal.SIGKILL)

A process that ends without having been asked to, or that does not end when asked, is a complaint. All are ended by their ids, whatever
happens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.journal import Journal
from tests.chaos.waiting import until
from tests.support.patience import END_S
from tests.support.procs import Child, children, state

RESTART_S: Final = 0.1
"""systemd's default RestartSec"""
TERM_S: Final = END_S
"""how long a process may take to end when asked"""
TEND_S: Final = 0.02
LOG_CHARS: Final = 400_000
CLEAN: Final = (0, -signal.SIGTERM)
"""asked to end: by itself, or (while it had not set itself up yet) by the signal"""


@dataclass(eq=False)
class Service:
    """One process that is to run. `ready` says whether it serves."""

    name: str
    kind: str
    args: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    child: Child | None = None
    starts: int = 0
    log: str = ""
    stopped: bool = False
    asked: int = 0
    """the signal it was last sent, since its start, after which it may end"""
    asked_s: float = 0.0
    due_s: float = 0.0
    retired: bool = False
    held: bool = False
    """not to be started for now: its operator works on its files"""
    cwd: Path | None = None
    ask: signal.Signals = signal.SIGTERM
    """what it is sent when it is asked to end"""
    clean: Sequence[int] = CLEAN
    """codes with which it may end then"""
    whole: bool = False
    """a server of several processes: it is killed, stopped and continued as a control group is, and starts when the last of it has ended"""
    group: Sequence[int] = ()
    """the processes that it had started when it was killed; those of such a server were killed with it, others end by themselves"""

    def hit(self, number: signal.Signals) -> None:
        """To its process, or to all of them."""
        assert self.child is not None
        if number == signal.SIGTERM or not (self.whole or number == signal.SIGKILL):
            os.kill(self.child.pid, self.ask if number == signal.SIGTERM else number)
            return
        os.kill(self.child.pid, signal.SIGSTOP)  # so that it makes no further ones meanwhile
        below = tuple(children(self.child.pid))
        for pid in (*(below if self.whole else ()), self.child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.group = below if number == signal.SIGKILL else ()

    @property
    def over(self) -> bool:
        """Whether all that its last process had started has ended: it may hold the data until then."""
        return all(state(pid) in ("Z", "") for pid in self.group)


@dataclass(eq=False)
class Part:
    """A process that a service starts beside itself, and starts again when it has ended: nobody else does."""

    name: str
    kind: str
    of: str
    """its service"""
    command: str
    """stands in its command line"""
    stopped: int = 0
    """its id while it is stopped"""


class Supervisor:
    """See the module."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal, self.folder = journal, folder
        self.services: dict[str, Service] = {}
        self.parts: dict[str, Part] = {}
        self.complaints: list[str] = []
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, service: Service) -> Service:
        """One more to be run."""
        self.services[service.name] = service
        return service

    def add_part(self, part: Part) -> None:
        """A process of a service's own, so that it can be hit alone."""
        self.parts[part.name] = part

    def kind(self, name: str) -> str:
        """Of a service or a part."""
        return self.parts[name].kind if name in self.parts else self.services[name].kind

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def start(self) -> None:
        """Start everything, in the order in which it was added, and keep it running. Idempotent; more may be added."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._tend_all, name="supervisor", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ what systemd does

    def _tend_all(self) -> None:
        while not self._end.wait(TEND_S):
            for service in list(self.services.values()):
                with self._lock:
                    if not self._end.is_set():
                        self._tend(service)

    def _tend(self, service: Service) -> None:
        now_s = time.monotonic()
        if service.child is None:
            if now_s >= service.due_s and not (service.retired or service.held) and service.over:
                service.child, service.group = Child(service.args, env=service.env, cwd=service.cwd), ()
                service.starts += 1
                service.stopped, service.asked = False, 0
                self.journal.write("started", who=service.name, pid=service.child.pid)
        elif not service.child.running:
            self._note_end(service, service.child)
        elif service.asked == signal.SIGTERM and not service.stopped and now_s - service.asked_s > TERM_S:
            self.complain(f"{service.name} did not end within {TERM_S} s of SIGTERM")
            service.asked = signal.SIGKILL
            service.hit(signal.SIGKILL)

    def _note_end(self, service: Service, child: Child) -> None:
        code = child.process.returncode
        self.journal.write("ended", who=service.name, pid=child.pid, code=code)
        said = child.output()
        service.log = (service.log + said)[-LOG_CHARS:]
        (self.folder / f"{service.name}.log").write_text(service.log, "utf-8")
        child.discard()
        service.child, service.due_s = None, time.monotonic() + RESTART_S
        self._end_what_is_left(service)
        if service.asked == signal.SIGKILL:
            return
        if service.asked == 0:
            self.complain(f"{service.name} ended by itself with {code}: {said[-600:]}")
        elif code not in service.clean:
            self.complain(f"{service.name} ended with {code} when asked to end: {said[-600:]}")

    def _end_what_is_left(self, service: Service) -> None:
        """A part ends by itself after its service; one that is stopped cannot, and is killed as the rest of a control group is."""
        for part in self.parts.values():
            if part.of == service.name and part.stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(part.stopped, signal.SIGKILL)
                part.stopped = 0

    # ------------------------------------------------------------ what others do

    def send(self, name: str, number: signal.Signals) -> bool:
        """A signal to the process of a service or part; False when there is none now, or when it is stopped and this would have to wait."""
        with self._lock:
            if name in self.parts:
                return self._send_part(self.parts[name], number)
            service = self.services[name]
            child = service.child
            if child is None or not child.running or (service.stopped and number in (signal.SIGTERM, signal.SIGSTOP)):
                return False
            if number in (signal.SIGKILL, signal.SIGTERM):
                service.asked, service.asked_s = max(service.asked, number, key=_force), time.monotonic()
            service.hit(number)
            if number in (signal.SIGSTOP, signal.SIGCONT):
                service.stopped = number == signal.SIGSTOP
                service.asked_s = time.monotonic()
            return True

    def _send_part(self, part: Part, number: signal.Signals) -> bool:
        service = self.services[part.of]
        if service.child is None or not service.child.running:
            return False
        if service.stopped:  # who is stopped starts nobody again
            self.send(part.of, signal.SIGCONT)
        pid = part.stopped or next((pid for pid, line in children(service.child.pid).items() if part.command in line), 0)
        if not pid or (part.stopped and number in (signal.SIGTERM, signal.SIGSTOP)):
            return False
        part.stopped = pid if number == signal.SIGSTOP else 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def hold(self, name: str) -> None:
        """End a service (SIGKILL: what is put back need not have been closed well) and do not start it before `release`."""
        service = self.services[name]
        with self._lock:
            service.held = True
        self.send(name, signal.SIGKILL)
        self._await_end(service)

    def release(self, name: str) -> None:
        """It may run again."""
        with self._lock:
            self.services[name].held = False

    def running(self, name: str) -> bool:
        """Whether it has a process that is not stopped."""
        service = self.services[name]
        return service.child is not None and service.child.running and not service.stopped

    def complain(self, what: str) -> None:
        """For the verdict, and the journal."""
        self.complaints.append(what)
        self.journal.write("complaint", text=what)

    # ------------------------------------------------------------ the end

    def retire(self, *names: str) -> None:
        """Ask these to end and do not start them again; returns when they have ended."""
        for name in names:
            with self._lock:
                self.services[name].retired = True
            self.send(name, signal.SIGTERM)
        for name in names:
            self._await_end(self.services[name])

    def _await_end(self, service: Service) -> None:
        child = service.child
        if child is not None:
            child.ended_within(TERM_S)
        with self._lock:
            self._tend(service)
            if service.child is not None:
                self._tend(service)
        until(lambda: service.over, TERM_S)

    def end_all(self) -> None:
        """Whatever still runs is killed, by its id. Idempotent."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        for service in self.services.values():
            if service.child is not None:
                if service.child.running:
                    service.hit(signal.SIGKILL)
                for pid in service.group:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                service.child.kill()
                (self.folder / f"{service.name}.log").write_text(service.log + service.child.output(), "utf-8")
                service.child.discard()
                service.child = None


def _force(number: int) -> int:
    return {0: 0, signal.SIGTERM: 1, signal.SIGKILL: 2}[number]
