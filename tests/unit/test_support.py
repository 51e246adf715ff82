"""The guards and helpers of the tests themselves: a guard that cannot fail guards nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import guards, needs, procs
from tests.support.order import long_first
from tests.support.ports import _first_outgoing, free_port, listening

HERE: tuple[str, ...] = ("-c", "import time; time.sleep(60)")
"""A child that would outlive the test."""


# --- network


@pytest.mark.outside_network
@pytest.mark.parametrize("call", ["connect", "connect_ex", "sendto"])
def test_a_call_beyond_loopback_is_refused_and_remembered(call: str) -> None:
    kind = socket.SOCK_DGRAM if call == "sendto" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(0.01)
        args = (b"x", ("192.0.2.1", 9)) if call == "sendto" else (("192.0.2.1", 9),)
        with pytest.raises(guards.ReachedOut, match="loopback"):
            getattr(sock, call)(*args)
    assert len(guards.reached) == 1


@pytest.mark.outside_network
def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(guards.ReachedOut, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
    assert guards.reached


def test_loopback_is_free() -> None:
    port = free_port()
    assert not listening(port)
    assert port < _first_outgoing(), "an outgoing connection could take it before its server does"
    with socket.create_server(("127.0.0.1", port)):
        assert listening(port)
    assert guards.reached == []


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 1), ("127.9.9.9", 1), ("::1", 1, 0, 0), ("localhost", 1), (b"localhost", 1), "/run/a.sock", ("", 1)]
)
def test_what_stays_on_this_machine(address: object) -> None:
    assert guards.is_loopback(address)


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 1), ("10.0.0.1", 1), ("fe80::1%eth0", 1, 0, 0), ("example.com", 1), ("localhost.example.com", 1)]
)
def test_what_leaves_it(address: object) -> None:
    assert not guards.is_loopback(address)


# --- children


def test_a_child_left_behind_is_seen_and_ended() -> None:
    before = guards.present()
    child = subprocess.Popen(procs.python(*HERE))
    left = guards.left_behind(before)
    assert list(left) == [child.pid]
    guards.end_all(left)
    assert guards.left_behind(before) == {}
    child.wait()


def test_a_started_child_ends_with_its_block_and_takes_its_log_along() -> None:
    with procs.started(procs.python(*HERE)) as child:
        assert child.running
        assert child.pid in procs.children()
    assert not child.running
    assert child.process.returncode == -15
    assert not child.log.exists()


def test_a_port_is_awaited() -> None:
    port = free_port()
    script = f"import socket; s = socket.create_server(('127.0.0.1', {port}))\nwhile True: s.accept()"
    with procs.started(procs.python("-c", script)) as child:
        child.wait_port(port)
        assert listening(port)


def test_a_health_page_is_awaited(tmp_path: Path) -> None:
    port = free_port()
    with procs.started(procs.python("-m", "http.server", str(port), "--bind", "127.0.0.1"), cwd=tmp_path) as child:
        child.wait_http(f"http://127.0.0.1:{port}/")
        assert not procs.http_ok(f"http://127.0.0.1:{port}/not-there")


def test_a_child_that_dies_ends_the_wait_with_its_last_words() -> None:
    with (
        procs.started(procs.python("-c", "raise SystemExit('no such setting')")) as child,
        pytest.raises(procs.ChildError, match="no such setting"),
    ):
        child.wait_until(lambda: False)


def test_a_child_that_is_never_ready_meets_a_deadline() -> None:
    with procs.started(procs.python(*HERE)) as child, pytest.raises(procs.ChildError, match=r"not ready within 0\.1 s"):
        child.wait_until(lambda: False, within_s=0.1)


def test_a_deaf_child_is_killed() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with procs.started(procs.python("-c", script)) as child:
        child.wait_until(lambda: "up" in child.output())
        assert child.end(within_s=0.1) == -9


def test_who_is_killed_is_gone_when_those_it_had_started_are() -> None:
    late = "import sys, threading; sys.stdin.read(); threading.Event().wait(0.4)"
    script = f"import subprocess, sys\nbelow = subprocess.Popen([sys.executable, '-c', {late!r}], stdin=subprocess.PIPE)\nbelow.wait()"
    with procs.started(procs.python("-c", script)) as child:
        child.wait_until(lambda: bool(procs.children(child.pid)))
        (below,) = procs.children(child.pid)
        child.kill()
        assert procs.state(below) in ("Z", ""), "it may hold the data"


def test_only_loopback_is_asked_for_health() -> None:
    with pytest.raises(ValueError, match="loopback"):
        procs.http_ok("http://example.com/")


def test_a_free_port_is_given_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)


# --- missing parts

GONE = {"mosquitto": needs.Part(("no-such-program",), ("/no/such/place",), "apt-get install mosquitto")}
THERE = {"python": needs.Part(("no-such-program",), (sys.executable,), "")}


def test_a_missing_part_skips_and_names_the_command() -> None:
    action, reason = needs.verdict("mosquitto", parts=GONE, environ={})
    assert action == "skip"
    assert "apt-get install mosquitto" in reason


@pytest.mark.parametrize("ci", ["true", "True", "1"])
def test_a_missing_part_fails_where_nobody_reads_skips(ci: str) -> None:
    assert needs.verdict("mosquitto", parts=GONE, environ={"CI": ci})[0] == "fail"


def test_a_part_is_found_where_path_does_not_point() -> None:
    assert needs.find("python", THERE) == sys.executable
    assert needs.verdict("python", parts=THERE, environ={"CI": "true"}) == ("run", "")


def test_an_unknown_part_is_refused_at_once() -> None:
    with pytest.raises(KeyError, match=r"known: .*mosquitto"):
        needs.needs("teapot")


# --- the hooks of conftest.py, in a run of their own

BAD_TESTS = """
import socket, subprocess, sys
import pytest
from tests.support.needs import PARTS, Part, needs

PARTS["mosquitto"] = Part(("no-such-program",), (), "apt-get install mosquitto")

def test_swallows_the_refusal():
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.01)
    except OSError:
        pass

def test_leaves_a_child():
    global child
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

@needs("mosquitto")
def test_needs_a_part():
    pass
"""


def run_bad_tests(folder: Path, ci: str) -> str:
    """The output of a pytest run over BAD_TESTS with this repository's conftest."""
    root = Path(__file__).resolve().parents[2]
    (folder / "conftest.py").write_text((root / "tests" / "conftest.py").read_text("utf-8"), "utf-8")
    (folder / "test_bad.py").write_text(BAD_TESTS, "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(root / "pyproject.toml"),
        "--rootdir",
        str(folder),
        str(folder),
    ]
    with procs.started(command, cwd=root, env={"CI": ci, "HYPOTHESIS_PROFILE": "quick"}) as child:
        assert child.ended_within(60)
        return child.output()


def test_the_hooks_fail_bad_tests_and_skip_loudly(tmp_path: Path) -> None:
    output = run_bad_tests(tmp_path, ci="")
    assert "reached beyond loopback: socket.connect ('192.0.2.1', 9)" in output
    assert "child processes left behind" in output
    assert "!!! NOT RUN !!!" in output
    assert "mosquitto is missing" in output
    assert "2 passed, 1 skipped, 2 errors" in output


def test_under_ci_a_missing_part_fails(tmp_path: Path) -> None:
    output = run_bad_tests(tmp_path, ci="true")
    assert "a missing part is a failure" in output
    assert "1 skipped" not in output


def test_each_worker_begins_with_its_part_of_the_long_tests() -> None:
    long = [f"tests/scenarios/test_x.py::t{n}" for n in range(3)]
    names = [*long[:2], *(f"tests/unit/t{n}" for n in range(8)), "tests/real/test_real.py::t", long[2]]
    order = [names[n] for n in long_first(names, 3)]
    assert sorted(order) == sorted(names)
    assert [order[0], order[1]] == ["tests/real/test_real.py::t", long[2]]
    assert [order[4], order[8]] == long[:2]


def test_tests_that_share_an_engine_are_one_workers() -> None:
    names = [
        *(f"tests/conformance/bus/test_x.py::t{n}" for n in range(3)),
        "tests/chaos/test_chaos.py::t",
        *(f"tests/unit/t{n}" for n in range(6)),
    ]
    order = [names[n] for n in long_first(names, 2)]
    assert sorted(order) == sorted(names)
    assert order[5:8] == names[:3], "not in turns"


@pytest.mark.parametrize("workers", [1, 2, 4, 9])
def test_no_test_is_left_out_or_run_twice_in_any_order(workers: int) -> None:
    names = [f"tests/{folder}/t{n}" for n in range(7) for folder in ("chaos/test_chaos.py", "conformance/bus", "unit")]
    assert sorted(long_first(names, workers)) == list(range(len(names)))
