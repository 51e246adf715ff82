"""Processes that begin as copies: they are what a start would have made them, and end as any other."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.support import guards
from tests.support.forks import POSSIBLE, Copy, Forge
from tests.support.ports import free_port
from tests.support.procs import Child, http_ok, python, ran, started, state

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not POSSIBLE, reason="needs Linux's pidfd_open")]


@pytest.fixture
def hub(tmp_path: Path, copies: None) -> Path:
    """The folder of a hub that was made by a copy."""
    ports = ("--api-port", str(free_port()), "--broker-port", str(free_port()))
    code, said = ran(python("-m", "hub.cli", "init", tmp_path / "hub", *ports, "--loopback-without-token"))
    assert code == 0, said
    assert "longshore+mqtt://" in said
    return tmp_path / "hub"


def serving(hub: Path, level: str = "info") -> Child:
    """That hub, once it serves."""
    child = Child(python("-m", "hub.cli", "run", "--dir", hub), cwd=hub.parent, env={"LONGSHORE_LOG__LEVEL": level})
    child.wait_until(lambda: "ready: " in child.output())
    assert isinstance(child.process, Copy)
    return child


def test_a_copy_serves_is_stopped_and_killed_by_its_id_and_ends_when_asked(hub: Path) -> None:
    first = serving(hub)
    assert " INFO " in first.output()
    assert http_ok(f"{first.output().partition('ready: ')[2].split()[0]}/readyz")
    assert Path(f"/proc/{first.pid}/cwd").resolve() == hub.parent.resolve()
    first.process.send_signal(signal.SIGSTOP)
    first.wait_until(lambda: state(first.pid) == "T", what="stopped")
    first.process.send_signal(signal.SIGCONT)
    first.wait_until(lambda: state(first.pid) != "T", what="continued")
    first.kill()
    assert first.process.returncode == -signal.SIGKILL
    assert state(first.pid) == "", "nobody has waited for it"
    second = serving(hub, "error")
    assert " INFO " not in second.output(), "it has no environment of its own"
    seen: list[int] = []
    others = [threading.Thread(target=lambda: seen.append(second.process.wait(60))) for _ in range(3)]
    for thread in others:
        thread.start()
    second.wait_until(lambda: all(thread.is_alive() for thread in others))
    assert second.end() == 0
    for thread in others:
        thread.join()
    assert seen == [0, 0, 0], "several wait for it at once"
    first.discard()
    second.discard()


@pytest.mark.usefixtures("copies")
def test_its_exit_code_and_its_last_words_are_its_own(tmp_path: Path) -> None:
    code, said = ran(python("-m", "hub.cli", "run", "--dir", tmp_path / "none"))
    assert code == 3
    assert str(tmp_path / "none") in said
    assert "Traceback" not in said
    code, said = ran(python("-m", "edge_agent.cli", "no-such-command"))
    assert code == 2
    assert "longshore-edge" in said


@pytest.mark.usefixtures("copies")
def test_who_is_told_what_is_read_at_a_start_is_started(tmp_path: Path) -> None:
    args = python("-m", "hub.cli", "run", "--dir", tmp_path / "none")
    with started(args, env={"LD_PRELOAD": ""}) as child:
        assert not isinstance(child.process, Copy)
        assert child.process.wait(60) == 3
    with started(python("-m", "tests.chaos.sabotage", "last-one-wins", "hub.cli", "--help")) as child:
        assert not isinstance(child.process, Copy)
        child.process.wait(60)


def test_a_copy_left_behind_is_seen_and_one_that_its_forge_still_has_ends_with_it(hub: Path) -> None:
    before = guards.present()
    with Forge() as own, own.lent():
        child = serving(hub)
        left = guards.left_behind(before)
        assert [pid for pid in left if pid != child.pid and "hub.broker" not in left[pid]] == []
        assert child.pid in left
        assert own.pid not in left
    assert state(child.pid) == ""
    assert guards.left_behind(before) == {}
    child.log.unlink()
