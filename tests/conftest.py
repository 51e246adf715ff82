"""House rules of every test run: replayable random input, no network beyond loopback, no child left behind, no silent skip.

HYPOTHESIS_PROFILE=quick|default|ci chooses how many examples; under CI=true the default is `ci`. Each run draws a seed and prints it;
`pytest --hypothesis-seed=N` replays it.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.support import guards, needs
from tests.support.forks import Forge
from tests.support.order import long_first
from tests.support.source import ROOT

COMPILED: Final = "PYTHONPYCACHEPREFIX"
if sys.dont_write_bytecode and COMPILED not in os.environ:
    # No file is wanted beside its source here. Without any, each of the hundreds of processes that tests start compiles everything anew,
    # which is more than half of its start: so what is compiled lies in a folder of its own.
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.fspath(ROOT / "build" / "compiled")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ[COMPILED] = sys.pycache_prefix

settings.register_profile("quick", max_examples=20, deadline=None, print_blob=True)
settings.register_profile("default", max_examples=80, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

COLLECTED: Final = (100_000, 20, 50)
"""how rarely garbage is looked for, as in the processes of the product (`hub.loop`)"""

guards.install_network_guard()


def _profile() -> str:
    return os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if needs.in_ci() else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before Hypothesis' own plugin reads the seed: draw one unless it was given."""
    settings.load_profile(_profile())
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests and all that they import stay to the end: the collector of garbage need not look at them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See `tests.support.order`; where there are no workers, the list stays as it is."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = [items[n] for n in long_first([item.nodeid for item in items], workers)]


def pytest_report_header(config: pytest.Config) -> str:
    return _replay(config)


def _replay(config: pytest.Config) -> str:
    return f"property tests: profile {_profile()}, replay with --hypothesis-seed={config.getoption('--hypothesis-seed')}"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes may be made when tests are collected (a gzip header carries the time); workers must agree on the names of all tests."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        action, reason = needs.verdict(mark.args[0])
        if action == "skip":
            pytest.skip(reason)
        if action == "fail":
            pytest.fail(reason, pytrace=False)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A skip is told once more, where nobody can miss it; a failure comes with the seed (the header is not shown with -q)."""
    if terminalreporter.stats.get("failed"):
        terminalreporter.line(_replay(config))
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)})
    if reasons:
        terminalreporter.section("NOT RUN", sep="!", yellow=True, bold=True)
        for reason in reasons:
            terminalreporter.line(reason)


@pytest.fixture(autouse=True)
def _no_network_beyond_loopback(request: pytest.FixtureRequest) -> Iterator[None]:
    guards.reached.clear()
    yield
    if guards.reached and request.node.get_closest_marker("outside_network") is None:
        pytest.fail(f"reached beyond loopback: {'; '.join(guards.reached)}", pytrace=False)


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    """A command run in this process sends all logs to a stream that is closed with its test; later threads would write there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """What processes are copied from, where a test asks for `copies`."""
    with Forge() as made:
        yield made


@pytest.fixture
def copies(forge: Forge) -> Iterator[None]:
    """Hubs and edges begin as copies: see `tests.support.forks`."""
    with forge.lent():
        yield


@pytest.fixture(autouse=True)
def _no_child_left_behind() -> Iterator[None]:
    """Set up before a test's own fixtures and torn down after them; children of wider fixtures were there before."""
    before = guards.present()
    yield
    left = guards.left_behind(before)
    guards.end_all(left)
    if left:
        pytest.fail(f"child processes left behind: {left}", pytrace=False)
