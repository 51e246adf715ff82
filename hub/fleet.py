"""What the hub knows of its nodes, and whether the balance closes: counted from heartbeats, the ledger's runs and the store's rows.

Pure. The three sources are independent: what nodes say they have, what this hub's ledger holds, and what the central store counts in its
log. `balanced` compares them and is never made true by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hub.alarms import imbalances
from hub.core import HubCore
from hub.quarantine_rows import rows
from hub.registry import Node
from hub.store.port import CentralStore, StreamCounts
from hub.times import Shifts
from hub.views import Balance, BalanceRow, CustodyRow, FleetRow
from protocols.chains import RunKind
from protocols.errors import LedgerError
from protocols.limits import REFUSED_KEPT
from protocols.messages import Heartbeat, StreamQueue
from protocols.streams import StreamKey
from protocols.sync.handover import lacking, records_lacking
from protocols.sync.intervals import Intervals
from protocols.trust import EDGE, PHONE, fingerprint

Left = Callable[[str], int | None]
"""when a node's line was said to have ended; None: it was not, or it came back"""


STARTING: Final = "the hub has just started"
NOT_ASKED: Final = "the central store has not said yet what it holds"
NO_STORE: Final = "the central store does not answer"
TAKING_BACK: Final = "the hub takes back from the central store what it lost"
_NAMED: Final = 5


def _empty() -> Balance:
    row = _row("", 0, 0, 0, 0, {}, None)
    return {"asOfMs": 0, "fleet": {**row, "balanced": None, "unknown": STARTING}, "nodes": []}


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at everything, at one moment (`at_ms`) between two turns of the hub's loop."""

    at_ms: int = 0
    fleet: list[FleetRow] = field(default_factory=list)
    balance: Balance = field(default_factory=_empty)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    shifts: Shifts = field(default_factory=dict)
    ledger_bytes: int = 0
    budget_bytes: int = 0
    freed: int = 0
    """facts freed of the ledger since this core was opened; `taken_back`: places that became holes again, as the store went back"""
    taken_back: int = 0
    findings: list[str] = field(default_factory=list)
    """what an operator should know, though nothing keeps the hub from working"""
    gaps: dict[str, Any] = field(default_factory=lambda: {"open": [], "beyond": [], "closed": [], "holes": 0, "facts": 0})
    backup_ms: int | None = None
    """when the newest complete backup of the store was begun"""


def look(core: HubCore, store: CentralStore | None, now_ms: int, left: Left, offline_after_ms: int, *, taking_back: bool = False) -> Seen:
    """See `Seen`. Until the store has spoken, without it, and while what this hub lost comes back from it (`taking_back`), the balance says
    what it can, and that it is not known: half of it would be a false alarm. Errors: LedgerError, of the ledger."""
    beats = {name: heard for name, heard in core.registry.beats().items() if core.serving.to(name)}
    counts: dict[StreamKey, StreamCounts] | None = None
    if store is not None:
        try:
            counts = {c.stream: c for c in store.counts() if core.serving.counts(c.stream)}
        except LedgerError:
            counts = None
    sheet = balance(core, beats, counts, now_ms, taking_back=taking_back)
    sheet["alarms"] = _alarms(core, sheet, beats, counts or {})
    return Seen(
        now_ms,
        fleet_rows(core, beats, now_ms, left, offline_after_ms),
        sheet,
        [node_json(node) for node in core.registry.all()],
        [_kept(row) for row in core.registry.refused(REFUSED_KEPT)],
        rows(core.ledger, REFUSED_KEPT),
        core.registry.counters(),
        dict(core.registry.shifts),
        core.ledger.db.file_bytes(),
        core.settings.budget_bytes,
        core.freeing.freed,
        core.freeing.taken_back,
        [*sheet.get("alarms", []), *_findings(core, counts or {})],
        core.gaps.seen(beats, now_ms),
        core.backup_ms,
    )


def look_at_nodes(core: HubCore, before: Seen) -> Seen:
    """What needs no word of the store: who admits a node sees it at once, also while the store is at work. Errors: LedgerError."""
    nodes = [node_json(node) for node in core.registry.all()]
    refused = [_kept(row) for row in core.registry.refused(REFUSED_KEPT)]
    return replace(before, nodes=nodes, refused=refused, quarantined=rows(core.ledger, REFUSED_KEPT), shifts=dict(core.registry.shifts))


def _alarms(
    core: HubCore, sheet: Balance, beats: Mapping[str, tuple[Heartbeat, int]], counts: Mapping[StreamKey, StreamCounts]
) -> list[str]:
    """An imbalance has a name. Which stream it is, is only looked for where there is one."""
    return imbalances(sheet, off_streams(core, beats, counts)) if any(row["balanced"] is False for row in sheet["nodes"]) else []


def _findings(core: HubCore, counts: Mapping[StreamKey, StreamCounts]) -> list[str]:
    """Streams whose nodes are not admitted: hub.db was lost, or came back from an old backup, and those nodes cannot enter any more."""
    mine, known = core.identity.node, core.registry.get
    keys = dict.fromkeys([*counts, *(s.key for s in core.ledger.log.all())])
    strange = [key for key in keys if key.node != mine and known(key.node) is None]
    if not strange:
        return []
    names = sorted({key.node for key in strange})
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    lacks = "lacks these nodes" if core.registry.all() else "is empty"
    holds = f"{len(strange)} {'stream' if len(strange) == 1 else 'streams'}"
    return [f"the registry {lacks}, but the central store holds {holds} of {shown}: add the nodes again, or restore hub.db"]


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
    runs = stream.chain.runs
    here = Intervals(sorted((r.first, r.last) for r in runs))
    data = [(r.first, r.last) for r in runs if r.kind is RunKind.DATA]
    head = max(said, max((r.last for r in runs), default=0))
    held = _size(here)
    missing = head - held
    stated = core.stated(key)
    unstored = sum(g.last - g.first + 1 for g in lacking(stream.chain, stated))
    unstored += sum(r.last - r.first + 1 for r in records_lacking(stream.chain, stated))
    twins = sum(last - first + 1 for first, last in data) - _size(Intervals(sorted(data)))
    return StreamSeen(head, held, twins, missing, _share(queue, missing), unstored, held + twins - unstored)


def off_streams(
    core: HubCore, beats: Mapping[str, tuple[Heartbeat, int]], counts: Mapping[StreamKey, StreamCounts]
) -> dict[StreamKey, tuple[int, int]]:
    """Streams whose facts are not all accounted for: (captured, accounted for)."""
    out = {}
    for node in dict.fromkeys([*(key.node for key in counts), *_nodes_of_ledger(core)]):
        for key, s in _streams_of(core, node, beats[node][0] if node in beats else None).items():
            c = counts.get(key)
            found = c.facts + c.quarantined + sum(c.records.values()) if c is not None else 0
            if s.head + s.twins != found + s.missing + s.unstored:
                out[key] = (s.head + s.twins, found + s.missing + s.unstored)
    return out


def _nodes_of_ledger(core: HubCore) -> list[str]:
    """Authors of facts in the ledger, as far as this worker answers for them."""
    return [
        name for name in dict.fromkeys(s.key.node for s in core.ledger.log.all()) if name == core.identity.node or core.serving.to(name)
    ]


def _size(intervals: Intervals) -> int:
    return sum(last - first + 1 for first, last in intervals)


def _share(queue: StreamQueue | None, missing: int) -> int:
    """Bytes of the facts that are not here, by their share of what the node had not settled."""
    if queue is None or not queue.queued or not missing:
        return 0
    return queue.queued_bytes * min(missing, queue.queued) // queue.queued


def _streams_of(core: HubCore, node: str, beat: Heartbeat | None) -> dict[StreamKey, StreamSeen]:
    queues = {StreamKey(node, q.epoch, q.cls): q for q in beat.streams} if beat is not None else {}
    keys = dict.fromkeys([*(s.key for s in core.ledger.log.of_node(node) if core.serving.counts(s.key)), *queues])
    return {key: stream_seen(core, key, queues.get(key)) for key in keys}


# ------------------------------------------------------------------ the fleet


def fleet_rows(core: HubCore, beats: Mapping[str, tuple[Heartbeat, int]], now_ms: int, left: Left, offline_after_ms: int) -> list[FleetRow]:
    """A row per node, admitted or waiting."""
    devices = core.ledger.devices.index().summaries()
    refused, waiting = core.registry.refused_by_node(), core.registry.waiting_frames()
    rows = [
        _fleet_row(core, node, beats.get(node.address.node), now_ms, left, offline_after_ms, refused.get(node.address.node, 0))
        for node in core.registry.all()
        if core.serving.to(node.address.node)
    ]
    rows += [FleetRow(name, "", "", "", "", False, None, waiting=frames, admitted=False) for name, frames in waiting.items()]
    told = [
        replace(row, devices=heard.devices, telemetry_ms=heard.heard_ms, told=heard) if (heard := devices.get(row.node)) else row
        for row in rows
    ]
    return sorted(told, key=lambda row: row.node)


def _fleet_row(
    core: HubCore, node: Node, heard: tuple[Heartbeat, int] | None, now_ms: int, left: Left, offline_after_ms: int, refused: int
) -> FleetRow:
    name, place = node.address.node, node.address
    beat, beat_ms = heard if heard is not None else (None, None)
    streams = _streams_of(core, name, beat)
    said_ms = core.seen_ms(name)
    seen_ms = max((ms for ms in (said_ms, beat_ms) if ms is not None), default=None)
    gone_ms = left(name)
    online = seen_ms is not None and now_ms - seen_ms < offline_after_ms and (gone_ms is None or seen_ms > gone_ms)
    known = [s for s in (core.ledger.log.get(key) for key in streams) if s is not None]
    return FleetRow(
        name, place.org, place.region, place.site, fingerprint(node.public_key), online, seen_ms,
        skew_ms=_skew(beat, beat_ms), clock=beat.clock.quality if beat is not None and beat.clock is not None else None,
        head=sum(s.head for s in streams.values()) if beat is not None else None,
        received=sum(s.held + s.twins for s in streams.values()),
        missing=sum(s.missing for s in streams.values()) if beat is not None else None,
        missing_bytes=sum(s.missing_bytes for s in streams.values()) if beat is not None else None,
        oldest_age_ms=_oldest_age(core, name, beat, beat_ms, now_ms),
        settled=sum(s.settled for s in streams.values()),
        queued_bytes=_queued_bytes(core, name, beat),
        refused=refused,
        version=beat.version if beat is not None else "",
        disk_free_bytes=beat.disk_free_bytes if beat is not None else None,
        incarnations=max(1, len({key.epoch: None for key in streams})),
        forked=any(s.chain.fork_point is not None for s in known),
        holes=sum(len(s.chain.holes()) for s in known),
    )  # fmt: skip


def _skew(beat: Heartbeat | None, beat_ms: int | None) -> int | None:
    """Its wall clock minus the hub's: as it measured that itself, or as its heartbeat said the time when it came."""
    if beat is None or beat_ms is None:
        return None
    measured = beat.clock.offset_ms if beat.clock is not None else None
    return beat.now_ms - beat_ms if measured is None else measured


def _unsettled(core: HubCore, node: str, beat: Heartbeat | None) -> list[StreamQueue]:
    """What a node last called unsettled, without the streams of which the store holds the head by now."""
    if beat is None:
        return []
    return [
        q for q in beat.streams if q.queued and not any((r.last, r.h_last) == q.head for r in core.stated(StreamKey(node, q.epoch, q.cls)))
    ]


def _oldest_age(core: HubCore, node: str, beat: Heartbeat | None, beat_ms: int | None, now_ms: int) -> int | None:
    """By the node's own clock until it spoke, by the hub's since: a wrong clock does not make an age."""
    oldest = [q.oldest_ms for q in _unsettled(core, node, beat) if q.oldest_ms is not None]
    if beat is None or beat_ms is None or not oldest:
        return None
    return max(0, beat.now_ms - min(oldest)) + max(0, now_ms - beat_ms)


def _queued_bytes(core: HubCore, node: str, beat: Heartbeat | None) -> int | None:
    return None if beat is None else sum(q.queued_bytes for q in _unsettled(core, node, beat))


# ------------------------------------------------------------------ the balance


def balance(
    core: HubCore,
    beats: Mapping[str, tuple[Heartbeat, int]],
    counts: Mapping[StreamKey, StreamCounts] | None,
    now_ms: int,
    *,
    taking_back: bool = False,
) -> Balance:
    """captured = settled + queued + in custody + quarantined + evicted, per node (this hub among them) and in all."""
    names = dict.fromkeys([*_nodes_of_ledger(core), *core.serving.those(n.address.node for n in core.registry.all()), core.identity.node])
    stored: dict[str, list[StreamCounts]] = {}
    for key, count in (counts or {}).items():
        stored.setdefault(key.node, []).append(count)
    names |= dict.fromkeys(stored)
    carried = _carried(beats)
    nodes = [_balance_of(core, name, beats.get(name), stored.get(name, ()), carried.get(name, 0)) for name in sorted(names)]
    fleet, why = _sum(nodes), _unknown(core, counts, taking_back)
    if why:
        for row in (fleet, *nodes):
            row["balanced"], row["unknown"] = None, why
    return {"asOfMs": now_ms, "fleet": fleet, "nodes": nodes}


def _unknown(core: HubCore, counts: Mapping[StreamKey, StreamCounts] | None, taking_back: bool) -> str:
    """Why nobody can say whether it closes; empty: one can."""
    if counts is None:
        return NO_STORE
    if not core.asked_store:
        return NOT_ASKED
    return TAKING_BACK if taking_back else ""


def _carried(beats: Mapping[str, tuple[Heartbeat, int]]) -> dict[str, int]:
    """How many facts of each author relays say that they have in custody. Two relays may have the same ones."""
    found: dict[str, int] = {}
    for beat, _ in beats.values():
        for author, events in beat.custody.by_author if beat.custody is not None else ():
            found[author] = max(found.get(author, 0), events)
    return found


def _balance_of(core: HubCore, node: str, heard: tuple[Heartbeat, int] | None, mine: Sequence[StreamCounts], carried: int) -> BalanceRow:
    streams = _streams_of(core, node, heard[0] if heard is not None else None)
    evicted: dict[str, int] = {}
    for count in mine:
        for why, seqs in count.records.items():
            evicted[why] = evicted.get(why, 0) + seqs
    missing = sum(s.missing for s in streams.values())
    said = heard is not None or node == core.identity.node
    row = _row(
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
    row["balanced"] = row["captured"] == _accounted(row)
    return row


def _row(
    node: str, captured: int, settled: int, queued: int, quarantined: int, evicted: dict[str, int], not_here_yet: int | None
) -> BalanceRow:
    return {
        "node": node,
        "captured": captured,
        "settled": settled,
        "queued": queued,
        "inCustody": 0,
        "custody": _custody(0, 0, None),
        "quarantined": quarantined,
        "quarantinedResolved": 0,
        "evicted": evicted,
        "balanced": False,
        "notHereYet": not_here_yet,
    }


def _custody_of(heard: tuple[Heartbeat, int] | None) -> CustodyRow:
    """What a node last said that it keeps for others."""
    said = heard[0].custody if heard is not None else None
    return _custody(said.events, said.bytes, said.oldest_ms) if said is not None else _custody(0, 0, None)


def _custody(events: int, size: int, oldest_ms: int | None) -> CustodyRow:
    return {"events": events, "bytes": size, "oldestMs": oldest_ms}


def _accounted(row: BalanceRow) -> int:
    return row["settled"] + row["queued"] + row["inCustody"] + row["quarantined"] + sum(row["evicted"].values())


def _sum(rows: list[BalanceRow]) -> BalanceRow:
    evicted: dict[str, int] = {}
    for row in rows:
        for why, seqs in row["evicted"].items():
            evicted[why] = evicted.get(why, 0) + seqs
    total = _row(
        "",
        sum(row["captured"] for row in rows),
        sum(row["settled"] for row in rows),
        sum(row["queued"] for row in rows),
        sum(row["quarantined"] for row in rows),
        evicted,
        sum(row["notHereYet"] or 0 for row in rows),
    )
    total["inCustody"] = sum(row["inCustody"] for row in rows)
    kept = [row["custody"] for row in rows if "custody" in row]
    oldest = [row["oldestMs"] for row in kept if row["oldestMs"] is not None]
    total["custody"] = _custody(sum(row["events"] for row in kept), sum(row["bytes"] for row in kept), min(oldest, default=None))
    total["quarantinedResolved"] = sum(row["quarantinedResolved"] for row in rows)
    total["balanced"] = all(row["balanced"] for row in rows)
    return total


# ------------------------------------------------------------------ lists


def node_json(node: Node) -> dict[str, Any]:
    """An admitted node as people and JSON see it; nothing secret."""
    place = node.address
    return {
        "node": place.node,
        "org": place.org,
        "region": place.region,
        "site": place.site,
        "fingerprint": fingerprint(node.public_key),
        "addedMs": node.added_ms,
        "orgs": list(node.orgs),
        "kind": PHONE if node.staff else EDGE,
        "staff": node.staff or None,
    }


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"digest": row["digest"], "node": row["node"], "reason": row["reason"], "atMs": row["atMs"], "bytes": row["bytes"]}
