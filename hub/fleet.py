"""What the hub knows of its nodes, and whether the balance closes: counted from heartbeats, the ledger's runs and the store's rows.

Pure. The three sources are independent: what nodes say they have, what this hub's ledger holds, and what the central store counts in its
log. `balanced` compares them and is never made true by construction. What is said of one node stands in `lookbook`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hub.alarms import imbalances
from hub.core import HubCore
from hub.lookbook import Beats, Book, Glance, Left, balance_row, custody_row, streams_of
from hub.quarantine_rows import rows
from hub.registry import Node
from hub.store.port import CentralStore, StreamCounts, TellsCounts
from hub.times import Shifts
from hub.views import Balance, BalanceRow, FleetRow
from protocols.errors import LedgerError
from protocols.limits import REFUSED_KEPT
from protocols.streams import StreamKey
from protocols.trust import EDGE, PHONE, fingerprint

STARTING: Final = "the hub has just started"
NOT_ASKED: Final = "the central store has not said yet what it holds"
NO_STORE: Final = "the central store does not answer"
TAKING_BACK: Final = "the hub takes back from the central store what it lost"
_NAMED: Final = 5


def _empty() -> Balance:
    row = balance_row("", 0, 0, 0, 0, {}, None)
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


def look(
    core: HubCore,
    store: CentralStore | None,
    now_ms: int,
    left: Left,
    offline_after_ms: int,
    *,
    taking_back: bool = False,
    book: Book | None = None,
) -> Seen:
    """See `Seen`. Until the store has spoken, without it, and while what this hub lost comes back from it (`taking_back`), the balance says
    what it can, and that it is not known: half of it would be a false alarm. `book`: of the last look at this core; without it all is
    made anew. Errors: LedgerError, of the ledger."""
    beats = {name: heard for name, heard in core.registry.beats().items() if core.serving.to(name)}
    counts = _counts(core, store)
    glance = Glance(core, book or Book(), beats, counts)
    sheet = _sheet(glance, core, now_ms, _unknown(core, counts, taking_back))
    sheet["alarms"] = _alarms(core, sheet, beats, counts or {})
    fleet = _rows(glance, core, now_ms, left, offline_after_ms)
    glance.done()
    return Seen(
        now_ms,
        fleet,
        sheet,
        glance.nodes(node_json),
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


def _counts(core: HubCore, store: CentralStore | None) -> dict[StreamKey, StreamCounts] | None:
    """What the store counts of the streams that are counted here; None: it does not answer."""
    if store is None:
        return None
    try:
        said = store.counts_said() if isinstance(store, TellsCounts) else None
        return {c.stream: c for c in (store.counts() if said is None else said) if core.serving.counts(c.stream)}
    except LedgerError:
        return None


def look_at_nodes(core: HubCore, before: Seen) -> Seen:
    """What needs no word of the store: who admits a node sees it at once, also while the store is at work. Errors: LedgerError."""
    nodes = [node_json(node) for node in core.registry.all()]
    refused = [_kept(row) for row in core.registry.refused(REFUSED_KEPT)]
    return replace(before, nodes=nodes, refused=refused, quarantined=rows(core.ledger, REFUSED_KEPT), shifts=dict(core.registry.shifts))


def _alarms(core: HubCore, sheet: Balance, beats: Beats, counts: Mapping[StreamKey, StreamCounts]) -> list[str]:
    """An imbalance has a name. Which stream it is, is only looked for where there is one."""
    return imbalances(sheet, off_streams(core, beats, counts)) if any(row["balanced"] is False for row in sheet["nodes"]) else []


def _findings(core: HubCore, counts: Mapping[StreamKey, StreamCounts]) -> list[str]:
    """Streams whose nodes are not admitted: hub.db was lost, or came back from an old backup, and those nodes cannot enter any more."""
    mine, known = core.identity.node, core.registry.get
    nodes = dict.fromkeys([*(key.node for key in counts), *core.ledger.log.nodes()])
    strangers = dict.fromkeys(sorted(name for name in nodes if name != mine and known(name) is None))
    if not strangers:
        return []
    names = list(strangers)
    strange = [key for key in dict.fromkeys([*counts, *(s.key for s in core.ledger.log.all())]) if key.node in strangers]
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    lacks = "lacks these nodes" if core.registry.all() else "is empty"
    holds = f"{len(strange)} {'stream' if len(strange) == 1 else 'streams'}"
    return [f"the registry {lacks}, but the central store holds {holds} of {shown}: add the nodes again, or restore hub.db"]


# ------------------------------------------------------------------ the fleet


def fleet_rows(core: HubCore, beats: Beats, now_ms: int, left: Left, offline_after_ms: int) -> list[FleetRow]:
    """A row per node, admitted or waiting."""
    return _rows(Glance(core, Book(), beats), core, now_ms, left, offline_after_ms)


def _rows(glance: Glance, core: HubCore, now_ms: int, left: Left, offline_after_ms: int) -> list[FleetRow]:
    names = core.serving.those(node.address.node for node in core.registry.all())
    rows = [row for name in names if (row := glance.row(name, now_ms, left, offline_after_ms)) is not None]
    waiting = [glance.waiting_row(name, frames) for name, frames in core.registry.waiting_frames().items()]
    return sorted([*rows, *waiting], key=lambda row: row.node) if waiting else rows


# ------------------------------------------------------------------ the balance


def balance(
    core: HubCore, beats: Beats, counts: Mapping[StreamKey, StreamCounts] | None, now_ms: int, *, taking_back: bool = False
) -> Balance:
    """captured = settled + queued + in custody + quarantined + evicted, per node (this hub among them) and in all."""
    return _sheet(Glance(core, Book(), beats, counts), core, now_ms, _unknown(core, counts, taking_back))


def _sheet(glance: Glance, core: HubCore, now_ms: int, unknown: str) -> Balance:
    names = dict.fromkeys([*_nodes_of_ledger(core), *core.serving.those(n.address.node for n in core.registry.all()), core.identity.node])
    nodes = [glance.entry(name).balance for name in sorted(names | dict.fromkeys(glance.stored))]
    fleet = _sum(nodes)
    if unknown:
        fleet, *nodes = [_not_known(row, unknown) for row in (fleet, *nodes)]
    return {"asOfMs": now_ms, "fleet": fleet, "nodes": nodes}


def _not_known(row: BalanceRow, why: str) -> BalanceRow:
    """The book keeps what was reckoned."""
    told = row.copy()
    told["balanced"], told["unknown"] = None, why
    return told


def _unknown(core: HubCore, counts: Mapping[StreamKey, StreamCounts] | None, taking_back: bool) -> str:
    """Why nobody can say whether it closes; empty: one can."""
    if counts is None:
        return NO_STORE
    if not core.asked_store:
        return NOT_ASKED
    return TAKING_BACK if taking_back else ""


def off_streams(core: HubCore, beats: Beats, counts: Mapping[StreamKey, StreamCounts]) -> dict[StreamKey, tuple[int, int]]:
    """Streams whose facts are not all accounted for: (captured, accounted for)."""
    out = {}
    for node in dict.fromkeys([*(key.node for key in counts), *_nodes_of_ledger(core)]):
        for key, s in streams_of(core, node, beats[node][0] if node in beats else None).items():
            c = counts.get(key)
            found = c.facts + c.quarantined + sum(c.records.values()) if c is not None else 0
            if s.head + s.twins != found + s.missing + s.unstored:
                out[key] = (s.head + s.twins, found + s.missing + s.unstored)
    return out


def _nodes_of_ledger(core: HubCore) -> list[str]:
    """Authors of facts in the ledger, as far as this worker answers for them."""
    return [name for name in core.ledger.log.nodes() if name == core.identity.node or core.serving.to(name)]


def _sum(rows: Sequence[BalanceRow]) -> BalanceRow:
    evicted: dict[str, int] = {}
    for row in rows:
        for why, seqs in row["evicted"].items():
            evicted[why] = evicted.get(why, 0) + seqs
    total = balance_row(
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
    total["custody"] = custody_row(sum(row["events"] for row in kept), sum(row["bytes"] for row in kept), min(oldest, default=None))
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
