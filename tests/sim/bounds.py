"""I7: what a machine keeps in memory and in files stays within bounds, however long it is cut off and however much waits."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any

from protocols.codec import unpack
from protocols.custody_spans import CACHED_SPANS
from protocols.orderbook import CACHED_ORDERS
from protocols.sqlite import Db

if TYPE_CHECKING:
    from tests.sim.edgeproc import EdgeProc
    from tests.sim.hubproc import HubProc
    from tests.sim.world import World

OURS = ("protocols.", "hub.", "edge_agent.")
THINGS_ALWAYS = 400
THINGS_PER_STREAM = 80
"""a stream, what is believed of it, and its statement"""
THINGS_PER_RUN = 14
THINGS_UNDER_WAY = 12
"""for each fact of an edge's window"""
THINGS_PER_READ = 7
"""a fact that a hub has read and the store has not: its place with two numbers, and a pair of two records; beside what it says"""
READ_FROM = 11
"""of a row: details, context and what came later are kept as they are read, all before in one record"""
PAGE_BYTES = 4_096
FILE_ALWAYS_BYTES = 300 * PAGE_BYTES
FILE_PER_FACT_BYTES = 2_500
"""of a fact in the log, its order, its key and the indexes; in small worlds each takes a page of its own now and then"""
ONE_TURN_BYTES = 40 * PAGE_BYTES
"""by which a ledger may exceed its budget: what one transaction wrote that began below it"""


def things(root: object, leave: tuple[str, ...] = ()) -> int:
    """Elements in all containers that can be reached from an object of the product, without its database."""
    seen: dict[int, object] = {}
    stack: list[Any] = [root]
    count = 0
    while stack:
        thing = stack.pop()
        if _KINDS[type(thing)][0] or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, dict):
            count += len(thing)
            stack += [*thing.values(), *(key for key in thing if isinstance(key, tuple))]
        elif isinstance(thing, list | tuple | set | frozenset):
            count += 1 if hasattr(thing, "_fields") else len(thing)  # a record is one thing, whether it is a tuple or a dataclass
            stack += thing
        elif type(thing).__module__.startswith(OURS):
            stack += [value for name, value in _attributes(thing) if name not in leave]
    return count


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    for name in _KINDS[type(thing)][1]:
        if hasattr(thing, name):
            yield name, getattr(thing, name)
    yield from getattr(thing, "__dict__", {}).items()


class _Kinds(dict[type, tuple[bool, tuple[str, ...]]]):
    """Of each class: do its instances count as no thing of their own, and which slots have they?"""

    def __missing__(self, kind: type) -> tuple[bool, tuple[str, ...]]:
        slots = tuple(name for each in kind.__mro__ for name in getattr(each, "__slots__", ()))
        self[kind] = issubclass(kind, (str, bytes, int, float, Db, Random, type, type(None))), slots
        return self[kind]


_KINDS = _Kinds()


def exceeded(world: World) -> Iterator[str]:
    """Every bound that a live machine exceeds."""
    for edge in world.edges:
        if edge.alive:
            yield from _edge(edge)
    for hub in world.hubs:
        if hub.alive:
            yield from _hub(hub)
    facts, pages = len(world.check.truth.facts), FILE_ALWAYS_BYTES
    for disk in world.disks():
        if disk.db.file_bytes() > pages + FILE_PER_FACT_BYTES * facts:
            yield f"I7 the file of {disk.name} has {disk.db.file_bytes()} bytes for {facts} facts"


def _edge(edge: EdgeProc) -> Iterator[str]:
    core, settings = edge.core, edge.core.settings
    window = settings.uplink.window_facts
    flights = sum(last - first + 1 for _, first, last in core.uplink.streams_under_way())
    if flights > window + settings.uplink.frame_facts:
        yield f"I7 {edge.name} has {flights} facts under way, its window is {window}"
    carried = len(core.relay._flights)
    if carried > settings.relay.window_payloads:
        yield f"I7 {edge.name} has {carried} payloads of others under way, at most {settings.relay.window_payloads}"
    spans = sum(len(stream.kept) for stream in core.relay.custody._spans._streams.values())
    if spans > CACHED_SPANS:
        yield f"I7 {edge.name} keeps {spans} spans in memory, at most {CACHED_SPANS}"
    yield from _memory(core, edge.name, THINGS_UNDER_WAY * window)
    if edge.disk.db.file_bytes() > settings.budget_bytes + ONE_TURN_BYTES:
        yield f"I7 the file of {edge.name} has {edge.disk.db.file_bytes()} bytes, its budget is {settings.budget_bytes}"


def _hub(hub: HubProc) -> Iterator[str]:
    core = hub.core
    rows = [unpack(row.row, max_bytes=1_000_000) for row, _ in core.handing._read.values()]
    yield from _memory(core, hub.name, sum(THINGS_PER_READ + _elements(row[READ_FROM:]) for row in rows if isinstance(row, list)))


def _elements(value: object) -> int:
    """Of everything that a part of a row holds."""
    if isinstance(value, dict):
        return len(value) + sum(map(_elements, value.values()))
    return len(value) + sum(map(_elements, value)) if isinstance(value, list) else 0


def _memory(core: Any, who: str, under_way: int) -> Iterator[str]:
    """`under_way`: things that facts on their way may take."""
    streams = core.ledger.log.all()
    runs = sum(len(stream.chain.runs) for stream in streams)
    most = THINGS_ALWAYS + THINGS_PER_STREAM * len(streams) + THINGS_PER_RUN * runs + under_way
    cached = core.ledger.book._orders
    leave = ("_orders", "_dirty", "policies", "relay", "_spans")  # what it carries has bounds of its own
    found = things(core, leave)  # a table of policies is as large as its file, whatever happens
    if found > most:
        yield f"I7 {who} keeps {found} things in memory for {len(streams)} streams, {runs} runs and {under_way} under way: at most {most}"
    if len(cached) > CACHED_ORDERS:
        yield f"I7 {who} keeps {len(cached)} orders in memory"
