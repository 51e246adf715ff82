"""The shape that makes the rest possible: which folder knows which, which module owns which library, pure cores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.source import ROOT, Source, imports, impurities, sources, top, uncollected, wrong_arrows, wrong_owners

ARROWS: Final = {
    "protocols": (),
    "models": ("protocols",),
    "edge_agent": ("protocols", "models"),
    "mobile": ("protocols", "models", "edge_agent"),
    "hub": ("protocols", "models"),
    "deploy": ("protocols", "models", "edge_agent", "mobile", "hub"),
    "tests": ("protocols", "models", "edge_agent", "mobile", "hub", "deploy"),
}
PRODUCT: Final = ("protocols", "models", "edge_agent", "hub", "mobile")

OWNERS: Final = {
    "msgpack": "protocols/codec.py",
    "yaml": "protocols/yaml_text.py",
    "apsw": "protocols/sqlite.py",
    "psycopg": "hub/store/pg.py",
    "sqlite3": "protocols/sqlite.py",
    "cryptography": "protocols/trust.py",
    "paho": "protocols/transport/mqtt.py",
    "amqtt": "hub/broker.py",
    "aiokafka": "hub/kafka.py",
    "httpx": "protocols/transport/http.py",
}
"""One library, one module: to change a library is to change one file."""

PURE: Final = (
    "protocols/**",
    "edge_agent/core.py",
    "edge_agent/budget.py",
    "edge_agent/freeing.py",
    "edge_agent/relay.py",
    "edge_agent/peers.py",
    "edge_agent/handout.py",
    "edge_agent/rules.py",
    "hub/core.py",
    "hub/bridging.py",
    "hub/bridge_records.py",
    "hub/bridge_topics.py",
    "hub/partitioning.py",
    "hub/fleet.py",
    "hub/leasing.py",
    "hub/store/fold.py",
    "hub/store/orders.py",
    "hub/store/pg_rows.py",
    "hub/store/reading.py",
    "hub/store/statement.py",
)
SHELLS: Final = (
    "protocols/transport/**",
    "protocols/sqlite.py",
    "protocols/supervision.py",
    "protocols/trace_log.py",
    "protocols/trust.py",
)
"""Inside `protocols/`, what touches sockets, files or chance."""

CLOCKS_AND_CHANCE: Final = ("time", "random", "secrets", "uuid")
THREADS: Final = ("threading", "multiprocessing", "subprocess", "asyncio", "concurrent", "select", "selectors")
NETWORK_AND_LOGS: Final = ("socket", "ssl", "http", "urllib", "httpx", "logging", "tempfile")
FORBIDDEN: Final[dict[str, tuple[str, ...]]] = dict.fromkeys((*CLOCKS_AND_CHANCE, *THREADS, *NETWORK_AND_LOGS), ()) | {
    "random": ("Random",),
    "urllib": ("quote", "unquote", "urlsplit"),
}
"""Modules a core does not import, with the names in them that are fine: a generator that is passed in has a type."""
CALLS: Final = (
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "os.urandom",
    "os.environ",
    "os.getpid",
    "print",
    "input",
)

EAGER: Final = ("pydantic", "fastapi", "starlette")
"""Never where a node decides: they cost memory and start-up time, and belong to the shells around HTTP."""


@pytest.fixture(autouse=True, scope="module")
def _trees_are_no_garbage() -> Iterator[None]:
    with uncollected():
        yield


def pure_sources() -> list[Source]:
    return [source for source in sources(*PRODUCT) if source.matches(PURE) and not source.matches(SHELLS)]


def test_imports_follow_the_arrows() -> None:
    assert [line for source in sources() for line in wrong_arrows(source, ARROWS)] == []


def test_each_library_is_imported_by_the_one_module_that_owns_it() -> None:
    assert [line for source in sources(*PRODUCT) for line in wrong_owners(source, OWNERS)] == []


def test_cores_have_no_clock_socket_thread_log_or_chance_of_their_own() -> None:
    assert [line for source in pure_sources() for line in impurities(source, FORBIDDEN, CALLS)] == []


def test_cores_do_without_the_libraries_of_the_http_shells() -> None:
    cores = [*pure_sources(), *(source for source in sources("edge_agent") if source.matches(("edge_agent/ledger.py",)))]
    assert [f"{where} imports {module}" for source in cores for where, module in imports(source) if top(module) in EAGER] == []


def test_the_rules_are_about_files_that_exist() -> None:
    """A renamed core would otherwise slip out of its rule unseen."""
    expected = [*OWNERS.values(), "edge_agent/core.py", "hub/core.py", "protocols/sqlite.py", "protocols/trust.py"]
    assert [path for path in dict.fromkeys(expected) if not (ROOT / path).is_file()] == []
    assert len(pure_sources()) > 10


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("protocols/event.py", "import models"),
        ("protocols/event.py", "from edge_agent.core import EdgeCore"),
        ("models/cli.py", "def f():\n    from hub import core"),
        ("hub/core.py", "import edge_agent.api"),
        ("edge_agent/core.py", "import mobile"),
        ("edge_agent/core.py", "from tests.support import ports"),
        ("deploy/demo.py", "import tests.sim"),
    ],
)
def test_a_wrong_arrow_is_found(path: str, text: str) -> None:
    assert len(wrong_arrows(Source(path, text), ARROWS)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("models/cli.py", "from protocols.event import OrderEvent"),
        ("hub/core.py", "import hub.views, json"),
        ("tests/unit/test_x.py", "import hub, mobile, deploy"),
    ],
)
def test_a_right_arrow_passes(path: str, text: str) -> None:
    assert wrong_arrows(Source(path, text), ARROWS) == []


@pytest.mark.parametrize(
    ("path", "text", "complaints"),
    [
        ("hub/views.py", "import sqlite3", 1),
        ("hub/views.py", "from msgpack import packb", 1),
        ("edge_agent/api.py", "import apsw.ext\nimport cryptography.hazmat", 2),
        ("protocols/codec.py", "import msgpack", 0),
        ("hub/broker.py", "from amqtt.broker import Broker", 0),
    ],
)
def test_a_library_outside_its_module_is_found(path: str, text: str, complaints: int) -> None:
    assert len(wrong_owners(Source(path, text), OWNERS)) == complaints


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "def f():\n    import time as clock",
        "from time import monotonic",
        "import socket",
        "import asyncio.events",
        "from threading import Lock",
        "import logging",
        "import uuid",
        "import secrets",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.now(datetime.UTC)",
        "import datetime\nx = datetime.date.today()",
        "import random\nx = random.random()",
        "from random import choice",
        "import os\nx = os.urandom(8)",
        "import os\nx = os.environ['A']",
        "print('here')",
    ],
)
def test_a_world_of_its_own_is_found_in_a_core(text: str) -> None:
    assert len(impurities(Source("hub/core.py", text), FORBIDDEN, CALLS)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import random\ndef jitter(chance: random.Random) -> float:\n    return chance.random()",
        "from random import Random\nx = Random(7).randrange(3)",
        "from datetime import UTC, datetime\nx = datetime.fromtimestamp(0, UTC)",
        "import os\nx = os.path.join('a', 'b')",
        "def settle(now: int, time: int) -> int:\n    return now + time",
    ],
)
def test_what_is_passed_in_is_no_impurity(text: str) -> None:
    assert impurities(Source("hub/core.py", text), FORBIDDEN, CALLS) == []


def test_the_lists_of_cores_and_shells_are_told_apart() -> None:
    assert Source("protocols/sync/uplink.py", "").matches(PURE)
    assert Source("protocols/transport/mqtt.py", "").matches(SHELLS)
    assert Source("hub/core.py", "").matches(PURE)
    assert not Source("hub/store/core.py", "").matches(PURE)
    assert not Source("edge_agent/runtime.py", "").matches(PURE)
