"""What is seen of each node, kept from look to look, and made anew only where something that it is made of has changed.

Nobody tells this book of a change, so no change can be forgotten: all that a node's rows are made of is put beside what they were made of
the last time, which costs little, and is one thing to get right. What depends on the clock alone is reckoned at every look. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hub.core import HubCore
from hub.registry import Node
from hub.store.port import StreamCounts
from hub.views import BalanceRow, CustodyRow, FleetRow, accounted
from protocols.chains import Chain, RunKind
from protocols.device_index import Summary
from protocols.messages import Heartbeat, RunStated, StreamQueue
from protocols.streams import StreamKey
from protocols.sync.handover import lacking, records_lacking
from protocols.sync.intervals import Intervals
from protocols.trust import fingerprint

Left = Callable[[str], int | None]
"""when a node's line was said to have ended; None: it was not, or it came back"""
Heard = tuple[Heartbeat, int]
"""a node's last heartbeat, and when it came"""
Beats = Mapping[str, Heard]


# ------------------------------------------------------------------ one stream


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """A stream by the hub's ledger and its author's last heartbeat. All are numbers of facts but `missing_bytes`.

    `head`: the highest seq anybody named. `held`: seqs that are here, with data or record. `twins`: facts beyond the first at their seq,
    branches of a fork. `missing`: seqs up to the head that are not here. `unstored`: held here, and not in the store by its own word.
    """

    head: int
    held: int
    twins: int
    missing: int
    missing_bytes: int
    unstored: int
    settled: int


def stream_seen(core: HubCore, key: StreamKey, queue: StreamQueue | None) -> StreamSeen:
    """Look at one stream. `queue` is what its author last said of it."""
    stream = core.ledger.log.get(key)
    said = queue.head[0] if queue is not None else 0
    if stream is None:
        return StreamSeen(said, 0, 0, said, queue.queued_bytes if queue is not None else 0, 0, 0)
    runs, stated = stream.chain.runs, core.stated(key)
    if _all_stored(stream.chain, stated):
        held = runs[0].last - runs[0].first + 1
        head = max(said, runs[0].last)
        return StreamSeen(head, held, 0, head - held, _share(queue, head - held), 0, held)
    here = Intervals(sorted((r.first, r.last) for r in runs))
    data = [(r.first, r.last) for r in runs if r.kind is RunKind.DATA]
    head = max(said, max((r.last for r in runs), default=0))
    held = _size(here)
    missing = head - held
    unstored = sum(g.last - g.first + 1 for g in lacking(stream.chain, stated))
    unstored += sum(r.last - r.first + 1 for r in records_lacking(stream.chain, stated))
    twins = sum(last - first + 1 for first, last in data) - _size(Intervals(sorted(data)))
    return StreamSeen(head, held, twins, missing, _share(queue, missing), unstored, held + twins - unstored)


def _all_stored(chain: Chain, stated: Sequence[RunStated]) -> bool:
    """The common case, told at a glance: one stretch of facts, and the store states the very same."""
    if len(chain.runs) != 1 or len(stated) != 1:
        return False
    ours, theirs = chain.runs[0], stated[0]
    same = (ours.first, ours.last, ours.h_last) == (theirs.first, theirs.last, theirs.h_last)
    return same and ours.kind is RunKind.DATA and theirs.kind is RunKind.DATA


def _size(intervals: Intervals) -> int:
    return sum(last - first + 1 for first, last in intervals)


def _share(queue: StreamQueue | None, missing: int) -> int:
    """Bytes of the facts that are not here, by their share of what the node had not settled."""
    if queue is None or not queue.queued or not missing:
        return 0
    return queue.queued_bytes * min(missing, queue.queued) // queue.queued


def streams_of(core: HubCore, node: str, beat: Heartbeat | None) -> dict[StreamKey, StreamSeen]:
    """A node's streams, those of which only its heartbeat tells among them."""
    queues = {StreamKey(node, q.epoch, q.cls): q for q in beat.streams} if beat is not None else {}
    keys = dict.fromkeys([*(s.key for s in core.ledger.log.of_node(node) if core.serving.counts(s.key)), *queues])
    return {key: stream_seen(core, key, queues.get(key)) for key in keys}


# ------------------------------------------------------------------ one node


@dataclass(slots=True)
class Entry:
    """What was found of a node. `facts`: of its row, all but what `now` changes, None of one that is not admitted; `oldest_ms`: of its
    facts that are not settled, by its clock; `row`: as it was shown last."""

    made_of: list[Any]
    balance: BalanceRow
    facts: dict[str, Any] | None
    oldest_ms: int | None
    row: FleetRow | None = None


class Book:
    """See the module. Belongs to one core."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        """as of the last look"""
        self.cards: dict[str, tuple[Node, dict[str, Any]]] = {}
        """of admitted nodes, as they were shown last"""


class Glance:
    """One look at one moment: every node is looked at once, by way of the book. `counts`: what the store says, by stream."""

    def __init__(self, core: HubCore, book: Book, beats: Beats, counts: Mapping[StreamKey, StreamCounts] | None = None) -> None:
        self._core, self._book, self._beats = core, book, beats
        self._before, self.entries = book.entries, dict[str, Entry]()
        self._carried = _carried(beats)
        self._refused = core.registry.refused_by_node()
        self._told = core.ledger.devices.index().summaries()
        self.stored: dict[str, list[StreamCounts]] = {}
        for key, count in (counts or {}).items():
            self.stored.setdefault(key.node, []).append(count)

    def entry(self, name: str) -> Entry:
        """What is seen of a node."""
        found = self.entries.get(name)
        if found is None:
            node, heard, mine = self._core.registry.get(name), self._beats.get(name), self.stored.get(name, ())
            carried, refused, told = self._carried.get(name, 0), self._refused.get(name, 0), self._told.get(name)
            made_of = [node, heard, carried, refused, told, self._core.seen_ms(name), *mine, *_made_of(self._core, name)]
            found = self._before.get(name)
            if found is None or found.made_of != made_of:
                found = _entry(made_of, self._core, name, node, heard, mine, carried, refused, told)
            self.entries[name] = found
        return found

    def row(self, name: str, now_ms: int, left: Left, offline_after_ms: int) -> FleetRow | None:
        """A node's row, as of now."""
        entry = self.entry(name)
        if entry.facts is None:
            return None
        seen_ms, gone_ms = entry.facts["last_seen_ms"], left(name)
        online = seen_ms is not None and now_ms - seen_ms < offline_after_ms and (gone_ms is None or seen_ms > gone_ms)
        oldest_age_ms = _age(self._beats[name], entry.oldest_ms, now_ms) if entry.oldest_ms is not None else None
        row = entry.row
        if row is None or (row.online, row.oldest_age_ms) != (online, oldest_age_ms):
            row = entry.row = FleetRow(**entry.facts, online=online, oldest_age_ms=oldest_age_ms)
        return row

    def waiting_row(self, name: str, frames: int) -> FleetRow:
        """Of a node that waits for its admission."""
        told = self._told.get(name)
        row = FleetRow(name, "", "", "", "", False, None, waiting=frames, admitted=False)
        return row if told is None else replace(row, devices=told.devices, telemetry_ms=told.heard_ms, told=told)

    def nodes(self, shown: Callable[[Node], dict[str, Any]]) -> list[dict[str, Any]]:
        """Every admitted node as it is `shown`, by name."""
        before, cards = self._book.cards, dict[str, tuple[Node, dict[str, Any]]]()
        for node in self._core.registry.all():
            card = before.get(node.address.node)
            cards[node.address.node] = card if card is not None and card[0] is node else (node, shown(node))
        self._book.cards = cards
        return [card for _, card in cards.values()]

    def done(self) -> None:
        """The next look goes on from this one; who was not looked at is forgotten."""
        self._book.entries = self.entries


def _made_of(core: HubCore, name: str) -> list[Any]:
    """All that ledger and store say of a node's streams. What a stream holds is changed in place, so it is copied here."""
    stated, counts, out = core.handing.stated, core.serving.counts, list[Any]()
    for stream in core.ledger.log.of_node(name):
        chain = stream.chain
        out += stream.sid, counts(stream.key), stated.get(stream.key), chain.fork_point
        for run in chain.runs:
            out += run.first, run.h_before, run.last, run.h_last, run.kind
    return out


def _age(heard: Heard, oldest_ms: int, now_ms: int) -> int:
    """By the node's own clock until it spoke, by the hub's since: a wrong clock does not make an age."""
    beat, beat_ms = heard
    return max(0, beat.now_ms - oldest_ms) + max(0, now_ms - beat_ms)


def _entry(
    made_of: list[Any],
    core: HubCore,
    name: str,
    node: Node | None,
    heard: Heard | None,
    mine: Sequence[StreamCounts],
    carried: int,
    refused: int,
    told: Summary | None,
) -> Entry:
    streams = streams_of(core, name, heard[0] if heard is not None else None)
    unsettled = _unsettled(core, name, heard[0] if heard is not None else None)
    facts = _facts(core, node, heard, streams, unsettled, refused, told) if node is not None else None
    oldest = min((q.oldest_ms for q in unsettled if q.oldest_ms is not None), default=None)
    return Entry(made_of, _balance_of(core, name, heard, streams, mine, carried), facts, oldest)


def _facts(
    core: HubCore,
    node: Node,
    heard: Heard | None,
    streams: Mapping[StreamKey, StreamSeen],
    unsettled: Sequence[StreamQueue],
    refused: int,
    told: Summary | None,
) -> dict[str, Any]:
    """All of a `FleetRow` but what `now` changes: whether it is online, and how old its oldest fact is."""
    name, place = node.address.node, node.address
    beat, beat_ms = heard if heard is not None else (None, None)
    known = [s for s in (core.ledger.log.get(key) for key in streams) if s is not None]
    return {
        "node": name, "org": place.org, "region": place.region, "site": place.site, "fingerprint": fingerprint(node.public_key),
        "last_seen_ms": max((ms for ms in (core.seen_ms(name), beat_ms) if ms is not None), default=None),
        "skew_ms": _skew(heard), "clock": beat.clock.quality if beat is not None and beat.clock is not None else None,
        "head": sum(s.head for s in streams.values()) if beat is not None else None,
        "received": sum(s.held + s.twins for s in streams.values()),
        "missing": sum(s.missing for s in streams.values()) if beat is not None else None,
        "missing_bytes": sum(s.missing_bytes for s in streams.values()) if beat is not None else None,
        "settled": sum(s.settled for s in streams.values()),
        "queued_bytes": None if beat is None else sum(q.queued_bytes for q in unsettled),
        "refused": refused,
        "version": beat.version if beat is not None else "",
        "disk_free_bytes": beat.disk_free_bytes if beat is not None else None,
        "incarnations": max(1, len({key.epoch: None for key in streams})),
        "forked": any(s.chain.fork_point is not None for s in known),
        "holes": sum(len(s.chain.holes()) for s in known),
        "devices": told.devices if told is not None else 0, "telemetry_ms": told.heard_ms if told is not None else None, "told": told,
    }  # fmt: skip


def _skew(heard: Heard | None) -> int | None:
    """Its wall clock minus the hub's: as it measured that itself, or as its heartbeat said the time when it came."""
    if heard is None:
        return None
    beat, beat_ms = heard
    measured = beat.clock.offset_ms if beat.clock is not None else None
    return beat.now_ms - beat_ms if measured is None else measured


def _unsettled(core: HubCore, node: str, beat: Heartbeat | None) -> list[StreamQueue]:
    """What a node last called unsettled, without the streams of which the store holds the head by now."""
    if beat is None:
        return []
    return [
        q for q in beat.streams if q.queued and not any((r.last, r.h_last) == q.head for r in core.stated(StreamKey(node, q.epoch, q.cls)))
    ]


# ------------------------------------------------------------------ its line of the balance


def _carried(beats: Beats) -> dict[str, int]:
    """How many facts of each author relays say that they have in custody. Two relays may have the same ones."""
    found: dict[str, int] = {}
    for beat, _ in beats.values():
        for author, events in beat.custody.by_author if beat.custody is not None else ():
            found[author] = max(found.get(author, 0), events)
    return found


def _balance_of(
    core: HubCore,
    node: str,
    heard: Heard | None,
    streams: Mapping[StreamKey, StreamSeen],
    mine: Sequence[StreamCounts],
    carried: int,
) -> BalanceRow:
    evicted: dict[str, int] = {}
    for count in mine:
        for why, seqs in count.records.items():
            evicted[why] = evicted.get(why, 0) + seqs
    missing = sum(s.missing for s in streams.values())
    said = heard is not None or node == core.identity.node
    row = balance_row(
        node,
        sum(s.head + s.twins for s in streams.values()),
        sum(c.facts for c in mine),
        missing - min(missing, carried) + sum(s.unstored for s in streams.values()),
        sum(c.quarantined for c in mine),
        evicted,
        missing if said else None,
    )
    row["quarantinedResolved"] = sum(c.resolved for c in mine)
    row["inCustody"] = min(missing, carried)  # not here yet, and not with its author alone
    row["custody"] = _custody_of(heard)
    row["balanced"] = row["captured"] == accounted(row)
    return row


def balance_row(
    node: str, captured: int, settled: int, queued: int, quarantined: int, evicted: dict[str, int], not_here_yet: int | None
) -> BalanceRow:
    """With nothing in custody, and not balanced."""
    return {
        "node": node,
        "captured": captured,
        "settled": settled,
        "queued": queued,
        "inCustody": 0,
        "custody": custody_row(0, 0, None),
        "quarantined": quarantined,
        "quarantinedResolved": 0,
        "evicted": evicted,
        "balanced": False,
        "notHereYet": not_here_yet,
    }


def _custody_of(heard: Heard | None) -> CustodyRow:
    """What a node last said that it keeps for others."""
    said = heard[0].custody if heard is not None else None
    return custody_row(said.events, said.bytes, said.oldest_ms) if said is not None else custody_row(0, 0, None)


def custody_row(events: int, size: int, oldest_ms: int | None) -> CustodyRow:
    """As JSON."""
    return {"events": events, "bytes": size, "oldestMs": oldest_ms}
