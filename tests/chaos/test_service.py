"""The supervisor does what systemd would: starts again who has ended, complains of who ended unasked, ends everybody by id."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.journal import Journal
from tests.chaos.service import Part, Service, Supervisor
from tests.chaos.waiting import until
from tests.support.patience import WITHIN_S
from tests.support.procs import children, python, state

SLEEPER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(Journal(tmp_path / "journal.jsonl"), tmp_path) as made:
        yield made
    made.journal.close()


def up(service: Service) -> bool:
    return service.child is not None and service.child.running and "up" in service.child.output()


def begun(supervisor: Supervisor, program: str) -> Service:
    service = supervisor.add(Service("one", "kind", python("-c", program)))
    supervisor.start()
    return service


def test_who_is_killed_runs_again_and_nobody_complains(supervisor: Supervisor) -> None:
    service = begun(supervisor, SLEEPER)
    for n in (1, 2, 3):
        assert until(lambda: up(service), WITHIN_S)
        assert supervisor.send("one", signal.SIGKILL)
        assert until(lambda n=n: service.starts == n + 1, WITHIN_S)  # type: ignore[misc]
    assert supervisor.complaints == []


def test_who_ends_when_asked_runs_again_too(supervisor: Supervisor) -> None:
    service = begun(supervisor, SLEEPER)
    assert until(lambda: up(service), WITHIN_S)
    assert supervisor.send("one", signal.SIGTERM)
    assert until(lambda: service.starts == 2, WITHIN_S)
    assert supervisor.complaints == []


def test_who_ends_by_itself_is_a_complaint_with_its_last_words(supervisor: Supervisor) -> None:
    service = begun(supervisor, "raise SystemExit('it was the disk')")
    assert until(lambda: service.starts >= 2, WITHIN_S)
    assert "ended by itself with 1" in supervisor.complaints[0]
    assert "it was the disk" in supervisor.complaints[0]


def test_who_is_stopped_is_not_asked_to_end_and_can_be_killed(supervisor: Supervisor) -> None:
    service = begun(supervisor, SLEEPER)
    assert until(lambda: up(service), WITHIN_S)
    assert supervisor.send("one", signal.SIGSTOP)
    assert not supervisor.running("one")
    assert not supervisor.send("one", signal.SIGTERM)
    assert supervisor.send("one", signal.SIGCONT)
    assert supervisor.running("one")
    assert supervisor.send("one", signal.SIGSTOP)
    assert supervisor.send("one", signal.SIGKILL)
    assert until(lambda: service.starts == 2, WITHIN_S)


def test_who_is_held_does_not_run_until_it_is_released(supervisor: Supervisor) -> None:
    service = begun(supervisor, SLEEPER)
    assert until(lambda: up(service), WITHIN_S)
    supervisor.hold("one")
    assert service.child is None
    assert not until(lambda: service.starts > 1, 0.5)
    supervisor.release("one")
    assert until(lambda: up(service), WITHIN_S)
    assert supervisor.complaints == []


def test_who_is_retired_stays_away_and_its_log_is_kept(supervisor: Supervisor, tmp_path: Path) -> None:
    service = begun(supervisor, SLEEPER)
    assert until(lambda: up(service), WITHIN_S)
    supervisor.retire("one")
    assert service.child is None
    assert not until(lambda: service.starts > 1, 0.5)
    assert (tmp_path / "one.log").read_text() == "up\n"


def fail(folder: Path) -> None:
    """A test that fails while a process runs."""
    journal = Journal(folder / "j.jsonl")
    try:
        with Supervisor(journal, folder) as supervisor:
            service = begun(supervisor, SLEEPER)
            assert until(lambda: up(service), WITHIN_S)
            raise RuntimeError("as it happens")
    finally:
        journal.close()


def test_nobody_is_left_when_a_run_fails(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(RuntimeError, match="as it happens"):
        fail(tmp_path)
    assert children() == before


SEVERAL = """
import signal, subprocess, sys
below = [subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) for _ in range(2)]
signal.signal(signal.SIGINT, lambda *_: ([one.kill() for one in below], [one.wait() for one in below], sys.exit(0)))
print("up", flush=True)
signal.pause()
"""


def test_a_server_of_several_processes_is_killed_as_one_and_starts_when_the_last_has_ended(supervisor: Supervisor) -> None:
    service = supervisor.add(Service("one", "kind", python("-c", SEVERAL), whole=True, ask=signal.SIGINT))
    supervisor.start()
    assert until(lambda: up(service), WITHIN_S)
    assert service.child is not None
    below = list(children(service.child.pid))
    assert len(below) == 2
    assert supervisor.send("one", signal.SIGKILL)
    assert until(lambda: service.starts == 2 and up(service), WITHIN_S)
    assert all(state(pid) in ("Z", "") for pid in below)
    assert supervisor.send("one", signal.SIGTERM)
    assert until(lambda: service.starts == 3, WITHIN_S)
    assert supervisor.complaints == []


OWNER = """
import subprocess, sys
print("up", flush=True)
while True:
    subprocess.run([sys.executable, "-c", "import signal; signal.pause()", "the-part"])
"""


def test_a_part_is_hit_alone_and_its_service_starts_it_again(supervisor: Supervisor) -> None:
    service = supervisor.add(Service("one", "kind", python("-c", OWNER)))
    supervisor.add_part(Part("one/part", "part", "one", "the-part"))
    assert not supervisor.send("one/part", signal.SIGKILL)
    supervisor.start()
    seen = [part_of(service)]
    assert supervisor.send("one/part", signal.SIGKILL)
    assert until(lambda: state(seen[0]) in ("Z", ""), WITHIN_S)
    seen.append(part_of(service))
    assert supervisor.send("one/part", signal.SIGSTOP)
    assert until(lambda: state(seen[1]) == "T", WITHIN_S)
    assert not supervisor.send("one/part", signal.SIGTERM)
    assert supervisor.send("one/part", signal.SIGCONT)
    assert until(lambda: state(seen[1]) == "S", WITHIN_S)
    assert (service.starts, supervisor.complaints, supervisor.kind("one/part")) == (1, [], "part")


def test_a_stopped_part_is_not_left_when_its_service_is_killed_and_a_stopped_service_goes_on_first(
    supervisor: Supervisor,
) -> None:
    service = supervisor.add(Service("one", "kind", python("-c", OWNER)))
    supervisor.add_part(Part("one/part", "part", "one", "the-part"))
    supervisor.start()
    part = part_of(service)
    assert supervisor.send("one", signal.SIGSTOP)
    assert supervisor.send("one/part", signal.SIGSTOP)
    assert not service.stopped
    assert until(lambda: state(part) == "T", WITHIN_S)
    assert supervisor.send("one", signal.SIGKILL)
    assert until(lambda: service.starts == 2 and state(part) in ("Z", ""), WITHIN_S)


def part_of(service: Service) -> int:
    """The id of the process that OWNER started."""
    assert until(lambda: service.child is not None and bool(children(service.child.pid)), WITHIN_S)
    assert service.child is not None
    return next(iter(children(service.child.pid)))


HELPED = """
import signal, subprocess, sys
late = "import sys, threading; sys.stdin.read(); threading.Event().wait(0.6)"
below = subprocess.Popen([sys.executable, "-c", late], stdin=subprocess.PIPE)
print("up", flush=True)
signal.pause()
"""


def test_who_is_killed_starts_when_those_he_had_started_have_ended_by_themselves(supervisor: Supervisor) -> None:
    service = begun(supervisor, HELPED)
    assert until(lambda: up(service), WITHIN_S)
    assert service.child is not None
    (below,) = children(service.child.pid)
    assert supervisor.send("one", signal.SIGKILL)
    assert state(below) not in ("Z", ""), "nobody kills it"
    assert until(lambda: service.starts == 2, WITHIN_S)
    assert state(below) in ("Z", ""), "it may hold the data"
    assert until(lambda: up(service), WITHIN_S)
    supervisor.hold("one")
    assert service.over
