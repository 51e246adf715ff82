"""Small sabotages of the production classes: mistakes that anybody could make in an afternoon. `planted.py` says how each is caught."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import hub.store.batch
import hub.store.view
import protocols.orderbook
import protocols.sync.receiver
import protocols.sync.uplink
from edge_agent.core import EdgeCore
from hub.core import HubCore
from hub.handing import Handing
from hub.store.port import StoreFact
from protocols.chains import Chain, Run, RunKind
from protocols.fact import FactRow, genesis
from protocols.ledger import Appended, Ledger
from protocols.merge import Ancestry, Head
from protocols.messages import RunStated
from protocols.orderbook import OrderBook
from protocols.streams import Stream
from protocols.sync.intervals import Intervals
from protocols.sync.receiver import Receiver, StoreSays, rooted_points
from protocols.sync.uplink import Uplink
from tests.sim.edgeproc import EdgeProc
from tests.sim.hubproc import HubProc

Patch = AbstractContextManager[None]


@contextmanager
def swapped(owner: Any, name: str, value: object) -> Iterator[None]:
    """An attribute with another value for a while."""
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


# ---------------------------------------------------------------- what is told before it is true


def ack_before_commit() -> Patch:
    return swapped(HubProc, "early_effects", True)


def send_before_commit() -> Patch:
    return swapped(EdgeProc, "early_effects", True)


@contextmanager
def key_outside_the_transaction() -> Iterator[None]:
    """The answer to a request is remembered in memory, which a rollback does not reach."""
    memory: dict[tuple[int, str], tuple[bytes, Appended]] = {}

    def remember(self: Ledger, key: str, content: bytes, fact: Any) -> None:
        memory[id(self.db), key] = content, Appended(self.log.by_sid(fact.sid).key, fact.seq, fact.h, True)

    def answered(self: Ledger, key: str, content: bytes) -> Appended | None:
        return memory.get((id(self.db), key), (b"", None))[1]

    with swapped(Ledger, "_remember", remember), swapped(Ledger, "_answered", answered):
        yield


def key_forgotten() -> Patch:
    return swapped(Ledger, "_answered", lambda self, key, content: None)


def prefix_skips_a_hole() -> Patch:
    def bounded(chain: Chain, extra: Sequence[RunStated]) -> tuple[RunStated, ...]:
        top = chain.top()
        return (RunStated(1, chain.genesis, top.last, top.h_last),) if top is not None else ()

    return swapped(protocols.sync.receiver, "_bounded", bounded)


def settled_from_hand_over() -> Patch:
    """What the hub handed over counts, not what the store says."""

    def says(self: HubCore, key: Any, runs: Sequence[RunStated], statement: Any) -> StoreSays:
        own = [RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in self.ledger.log.open(key).chain.runs]
        points = rooted_points(own, genesis(*key))
        return StoreSays(points, points)

    return swapped(HubCore, "_says", says)


# ---------------------------------------------------------------- identity and forks


def identity_without_hash() -> Patch:
    """What has the same (node, epoch, seq) is taken for a duplicate."""

    def new_groups(self: Ledger, stream: Stream, first: int, h_before: bytes, hashes: Sequence[bytes]) -> list[tuple[int, int]]:
        self.log.flush()
        held = Intervals((r.first, r.last) for r in stream.chain.data())
        return [(a - first, b - first + 1) for a, b in held.missing(first, first + len(hashes) - 1)]

    return swapped(Ledger, "_new_groups", new_groups)


def no_new_epoch() -> Patch:
    return swapped(Ledger, "start_new_epoch", lambda self, now_ms: self.own())


def point_by_seq() -> Patch:
    return swapped(Uplink, "_mine", lambda self, stream, seq, h: seq <= stream.head[0])


@contextmanager
def no_fold_after_fork() -> Iterator[None]:
    """Forks are noted, and no order is folded again: neither when one is found nor when more facts of its author come."""
    with swapped(OrderBook, "fold_again", lambda self, sid, above: []), swapped(OrderBook, "_forked", lambda self, sid: False):
        yield


# ---------------------------------------------------------------- what is believed


def other_incarnation() -> Patch:
    real = Uplink.on_receipt

    def on_receipt(self: Uplink, r: Any, now: int) -> Any:
        return real(self, replace(r, incarnation=self.incarnation or r.incarnation), now)

    return swapped(Uplink, "on_receipt", on_receipt)


def same_incarnation() -> Patch:
    """A hub that starts again calls itself what it was called before."""
    real = Receiver.__init__

    def init(self: Receiver, ledger: Ledger, incarnation: bytes, *, credit: int = 10_000) -> None:
        real(self, ledger, b"unchange", credit=credit)

    return swapped(Receiver, "__init__", init)


def any_nonce() -> Patch:
    real = Uplink.on_answer

    def on_answer(self: Uplink, a: Any, now: int) -> Any:
        self._nonce = a.nonce
        return real(self, a, now)

    return swapped(Uplink, "on_answer", on_answer)


def refused_is_received() -> Patch:
    real = Uplink.on_refused

    def on_refused(self: Uplink, r: Any, now: int) -> None:
        flight = self._flights.get(r.digest)
        real(self, r, now)
        if flight is not None:
            self._progress[flight.sid].received.add(flight.first, flight.last)

    return swapped(Uplink, "on_refused", on_refused)


def named_streams_only() -> Patch:
    real = Receiver.answer

    def answer(self: Receiver, node: str, hello: Any, now_ms: int) -> Any:
        named = [(s.epoch, s.cls) for s in hello.streams]
        whole = real(self, node, hello, now_ms)
        return replace(whole, streams=tuple(s for s in whole.streams if (s.epoch, s.cls) in named))

    return swapped(Receiver, "answer", answer)


def frames_unverified() -> Patch:
    return swapped(HubCore, "_believe", lambda self, author, envelope: None)


def receipts_unverified() -> Patch:
    real = EdgeCore._open

    def open_(self: EdgeCore, payload: bytes) -> object:
        with swapped_slot(self, "_verify", lambda public, signature, data: None):
            return real(self, payload)

    return swapped(EdgeCore, "_open", open_)


swapped_slot = swapped


# ---------------------------------------------------------------- freeing


def free_on_received() -> Patch:
    def freeable(self: Uplink, stream: Stream) -> int:
        progress = self._progress.get(stream.sid)
        return progress.received.prefix() if progress is not None else 0

    return swapped(Uplink, "freeable", freeable)


def free_without_backups() -> Patch:
    real = HubCore._says

    def says(self: HubCore, key: Any, runs: Sequence[RunStated], statement: Any) -> StoreSays:
        return real(self, key, runs, replace(statement, backed_up=None))

    return swapped(HubCore, "_says", says)


def record_frees() -> Patch:
    def says(self: HubCore, key: Any, runs: Sequence[RunStated], statement: Any) -> StoreSays:
        points = rooted_points(runs, genesis(*key))
        return StoreSays(points, points)

    return swapped(HubCore, "_says", says)


# ---------------------------------------------------------------- holes, records, hand-over


def record_beats_data() -> Patch:
    """What an author has once signed as lost is not taken any more."""
    real = Ledger._new_groups

    def new_groups(self: Ledger, stream: Stream, first: int, h_before: bytes, hashes: Sequence[bytes]) -> list[tuple[int, int]]:
        closed = Intervals((r.first, r.last) for r in stream.chain.runs if r.kind is not RunKind.DATA)
        groups = real(self, stream, first, h_before, hashes)
        return [(lo - first, hi - first + 1) for a, b in groups for lo, hi in closed.missing(first + a, first + b - 1)]

    return swapped(Ledger, "_new_groups", new_groups)


def poison_stays_at_the_hub() -> Patch:
    real = Handing.facts

    def facts(self: Handing, stream: Stream, run: Any, first: int, last: int) -> Iterator[StoreFact]:
        return (f for f in real(self, stream, run, first, last) if not f.quarantined)

    return swapped(Handing, "facts", facts)


def store_never_asked_back() -> Patch:
    real = HubCore.take_statement

    def take_statement(self: HubCore, statement: Any, *, whole: bool, now_ms: int) -> list[Any]:
        real(self, statement, whole=whole, now_ms=now_ms)
        return []

    return swapped(HubCore, "take_statement", take_statement)


def branch_end_only() -> Patch:
    """Receipts speak of the ends of runs only: an author whose branch leaves inside one never learns that it gets on."""
    return swapped(Receiver, "_inside", lambda self, stream, ends: [])


def settled_ends_only() -> Patch:
    """An answer names settled ends of runs only: an author whose branch ends inside one never learns that it is settled."""
    return swapped(Receiver, "_reached", lambda self, stream, hello, points: ())


def fork_below_freed() -> Patch:
    """What was freed is taken for one's own past, whoever wrote it."""
    return swapped(protocols.sync.uplink, "foreign", lambda strange, mine, freed_seq: any(run.last > freed_seq for run in strange))


def record_without_its_hash() -> Patch:
    """A record's lower end gives way to another branch's data, and its hash does not."""

    def close(self: Chain, first: int, h_before: bytes, last: int, h_last: bytes, kind: RunKind) -> bool:
        lowest = next((lo for lo, hi, h in self.holes() if (hi, h) == (last, h_last)), None)
        if lowest is None:
            return False
        self.runs.append(Run(max(first, lowest), h_before, last, h_last, kind))
        self._sort()
        return True

    return swapped(Chain, "close", close)


# ---------------------------------------------------------------- the fold


def arrival_order() -> Patch:
    def admit(heads: Sequence[Head], fact: Head, ancestry: Ancestry) -> tuple[Head, ...]:
        return (fact,)

    return swapped(protocols.orderbook, "admit", admit)


def arrival_order_in_the_store() -> Patch:
    return swapped(hub.store.view.ViewBook, "_saw_all", lambda self, order, head: True)


@contextmanager
def clock_order() -> Iterator[None]:
    """The fact with the latest clock is the state."""
    clocks: dict[tuple[int, int, bytes], int] = {}
    real = OrderBook.as_head

    def as_head(self: OrderBook, sid: int, seq: int, h: bytes, fact: FactRow) -> Head:
        clocks[sid, seq, h] = fact.recorded_ms
        return real(self, sid, seq, h, fact)

    def admit(heads: Sequence[Head], fact: Head, ancestry: Ancestry) -> tuple[Head, ...]:
        return (max([*heads, fact], key=lambda f: clocks.get(f[:3], 0)),)

    with swapped(OrderBook, "as_head", as_head), swapped(protocols.orderbook, "admit", admit):
        yield


def context_dropped() -> Patch:
    return swapped(OrderBook, "seen", lambda self, order, own_sid: ())


def folded_twice() -> Patch:
    """The store counts what it already has."""
    return swapped(hub.store.batch.Batch, "_unknown", lambda self, stream, group, facts: [group])
