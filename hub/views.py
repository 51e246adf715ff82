"""The presenter: rows of the store and of the fleet as what pages and JSON show. Pure: `now_ms` is an argument, nothing is fetched.

JSON is camelCase; moments are RFC 3339 text in UTC, durations are whole milliseconds with `Ms` in their names, epochs are text (they use
all 63 bits, more than a JavaScript number holds). Shapes that the hub's runtime hands in (`FleetRow`, `Balance`) are defined here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NotRequired, TypedDict
from urllib.parse import quote, urlencode

from hub import words
from hub.device_views import summary_json
from hub.store.port import Change, ConflictView, Disputed, EventView, OrderView
from protocols.clashes import clash_json, concurrent_json, credited, notes_json, policies_json
from protocols.clock import quality_word
from protocols.device_index import Summary
from protocols.event import TimeQuality, iso
from protocols.policy import Policies

QUALITY_WORDS: Final = {
    TimeQuality.STATED: "",
    TimeQuality.UNKNOWN: "time unknown",
    TimeQuality.IMPROBABLE: "time improbable",
}

Json = dict[str, Any]


# ------------------------------------------------------------------ what the runtime hands in


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One node as the hub knows it. Facts are counted over all its incarnations and both classes.

    `head`, `missing`, `missing_bytes`: None until the node has said how far it is. `missing`: facts it has and the hub has not, as of
    `last_seen_ms`. `oldest_age_ms`: age now of its oldest fact that is not settled, None when all is. `queued_bytes`: what it still keeps
    for want of a receipt. `waiting`: frames that wait for its admission. `skew_ms`: its clock minus the hub's. `devices`: of which it has
    told; `telemetry_ms`: when the newest reading of any came here.
    """

    node: str
    org: str
    region: str
    site: str
    fingerprint: str
    online: bool
    last_seen_ms: int | None
    skew_ms: int | None = None
    head: int | None = None
    received: int = 0
    missing: int | None = None
    missing_bytes: int | None = None
    oldest_age_ms: int | None = None
    settled: int = 0
    queued_bytes: int | None = None
    refused: int = 0
    waiting: int = 0
    version: str = ""
    disk_free_bytes: int | None = None
    incarnations: int = 1
    forked: bool = False
    holes: int = 0
    admitted: bool = True
    devices: int = 0
    telemetry_ms: int | None = None
    told: Summary | None = None
    """of its devices"""
    clock: int | None = None
    """what it thinks of its own clock (`protocols.fact.Clock`)"""


class CustodyRow(TypedDict):
    """What a node keeps for others: facts that are not settled, their bytes, and when it took the oldest (its own clock; None: no fact)."""

    events: int
    bytes: int
    oldestMs: int | None


class BalanceRow(TypedDict):
    """captured = settled + queued + inCustody + quarantined + the sum of evicted. `notHereYet`: of the queued and those in custody, those
    the hub has not (None: not known). `inCustody`: of this node's own facts, those that are not here and that relays keep; `custody`: what
    this node keeps for others. `balanced` None: not known yet, for the reason in `unknown`; then its numbers are no alarm.
    """

    node: str
    captured: int
    settled: int
    queued: int
    inCustody: int
    quarantined: int
    quarantinedResolved: int
    """of the quarantined, those that their author put right or gave up"""
    custody: NotRequired[CustodyRow]
    evicted: dict[str, int]
    balanced: bool | None
    unknown: NotRequired[str]
    notHereYet: int | None


class Balance(TypedDict):
    """`fleet` is the sum of `nodes`; its `node` is ""."""

    asOfMs: int
    fleet: BalanceRow
    nodes: list[BalanceRow]
    alarms: NotRequired[list[str]]
    """a sentence for each imbalance, with its node, epoch and numbers"""


# ------------------------------------------------------------------ orders


def order_url(org: str, order_id: str) -> str:
    """The page of an order; ids hold slashes, blanks and any script."""
    return f"/orders/{quote(order_id, safe='')}?{urlencode({'org': org})}"


def order_json(view: OrderView) -> Json:
    """One order of the consolidated view."""
    return {
        "org": view.org,
        "orderId": view.order_id,
        "status": view.status,
        "source": view.source,
        "region": view.region,
        "site": view.site,
        "node": view.node,
        "timestamp": iso(view.happened_ms),
        "timeQuality": _quality(view.quality),
        "receivedAt": iso(view.received_ms),
        "expectedDelivery": iso(view.expected_ms),
        "facts": view.facts,
        "heads": view.heads,
        "conflict": view.conflict,
        "abnormal": view.abnormal,
        "held": view.held,
        "quantities": view.quantities,
        "details": view.details,
        "links": {
            "self": f"/v1/orders/{quote(view.order_id, safe='')}?{urlencode({'org': view.org})}",
            "events": f"/v1/orders/{quote(view.order_id, safe='')}/events?{urlencode({'org': view.org})}",
            "page": order_url(view.org, view.order_id),
        },
    }


def event_view_json(view: EventView) -> Json:
    """One fact of a timeline."""
    return {
        "factId": view.fact_id,
        "traceId": view.trace_id,
        "node": view.node,
        "epoch": str(view.epoch),
        "seq": view.seq,
        "status": view.status,
        "source": view.source,
        "region": view.region,
        "site": view.site,
        "actor": view.actor,
        "timestamp": iso(view.happened_ms),
        "timeQuality": _quality(view.quality),
        "recordedAt": iso(view.recorded_ms),
        "receivedAt": iso(view.received_ms),
        "storedAt": iso(view.stored_ms),
        "clock": quality_word(view.clock),
        "recordedAbout": iso(view.about_ms),
        "replaces": view.replaces,
        "replacedBy": view.replaced_by,
        "isHead": view.is_head,
        "abnormal": view.abnormal,
        "context": [[e[0], str(e[1]), e[2], bytes(e[3]).hex() if isinstance(e[3], (bytes, bytearray)) else e[3]] for e in view.context],
        "details": view.details,
    }


def conflict_json(view: ConflictView) -> Json:
    """One conflict, with its task and its history."""
    return {**clash_json(view.clash, view.org, view.order_id), "page": order_url(view.org, view.order_id)}


def conflicts_json(found: Sequence[ConflictView], policies: Policies) -> Json:
    """A list of conflicts, and the table that judged them."""
    return {"conflicts": [conflict_json(view) for view in found], "policies": policies_json(policies)}


def disputed_json(disputed: Disputed) -> Json:
    """What an order adds to its state: its conflicts, what the table says of each pair that stands side by side, who is credited, notes."""
    conflicts = [conflict_json(view) for view in disputed.conflicts]
    return {
        "heldBecause": next((one["sentence"] for one in conflicts if one["held"]), None),
        "conflicts": conflicts,
        "concurrent": concurrent_json(disputed.verdicts),
        "credited": credited([told for told, _ in disputed.heads]),
        "notes": notes_json(disputed.heads),
    }


def change_json(change: Change) -> Json:
    """One applied fact, as the live feed says it (`kind` of the feed item: `change`)."""
    return {
        "org": change.org,
        "orderId": change.order_id,
        "status": change.status,
        "shown": change.shown,
        "source": change.source,
        "site": change.site,
        "region": change.region,
        "node": change.node,
        "timestamp": iso(change.happened_ms),
        "receivedAt": iso(change.received_ms),
        "conflict": change.conflict,
        "isHead": change.is_head,
        "page": order_url(change.org, change.order_id),
    }


def _quality(code: int) -> str:
    return TimeQuality(code).name.lower()


# ------------------------------------------------------------------ CSV

ORDER_COLUMNS: Final = (
    "org", "orderId", "status", "source", "region", "site", "node", "timestamp", "timeQuality", "receivedAt", "expectedDelivery", "facts",
    "conflict", "abnormal",
)  # fmt: skip
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def orders_csv(orders: Iterable[OrderView]) -> str:
    """RFC 4180, one line per order. Text that a spreadsheet would run as a formula is led by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(ORDER_COLUMNS)
    for view in orders:
        row = order_json(view)
        writer.writerow([csv_cell(row[name]) for name in ORDER_COLUMNS])
    return out.getvalue()


def csv_cell(value: object) -> object:
    """What goes into a cell: nothing for null, yes and no for booleans, no live formulas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and (value.startswith(_FORMULA_STARTS) or value.lstrip().startswith(_FORMULA_STARTS[:4])):
        return "'" + value
    return value


# ------------------------------------------------------------------ pages of a list that is in memory


def page_by_key(rows: Sequence[Any], key: str, cursor: str | None, limit: int) -> tuple[list[Any], str | None]:
    """At most `limit` rows after `cursor` by their attribute or item `key`, and the cursor of the next page (None: that was all)."""
    keyed = sorted(((_of(row, key), n) for n, row in enumerate(rows)), key=lambda pair: pair)
    after = [(name, n) for name, n in keyed if cursor is None or name > cursor]
    shown = [rows[n] for _, n in after[:limit]]
    return shown, after[limit - 1][0] if len(after) > limit else None


def _of(row: Any, key: str) -> str:
    return str(row[key] if isinstance(row, dict) else getattr(row, key))


# ------------------------------------------------------------------ fleet

SHOWN_FROM: Final = 100
"""a backlog below this drains before anybody could read its progress"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a node has caught up since its backlog began: `done` of `total` facts, and the time left at the pace of late."""

    done: int
    total: int
    left_ms: int | None


@dataclass(slots=True)
class _Backlog:
    began_received: int
    received: int
    at_ms: int
    per_s: float = 0.0


class CatchUp:
    """Remembers per node when its backlog began, so that a page can say how far it has drained. Fed with every look at the fleet."""

    def __init__(self) -> None:
        self._backlogs: dict[str, _Backlog] = {}

    def observe(self, rows: Sequence[FleetRow], now_ms: int) -> dict[str, Progress]:
        """The progress of each node that has a backlog. A backlog begins at SHOWN_FROM facts and ends when a tenth of that is left."""
        seen = {row.node: row for row in rows}
        self._backlogs = {node: backlog for node, backlog in self._backlogs.items() if node in seen}
        out = {}
        for row in rows:
            backlog = self._follow(row, now_ms)
            if backlog is not None and row.missing is not None:
                done = row.received - backlog.began_received
                left_ms = round(row.missing / backlog.per_s * 1000) if row.online and backlog.per_s > 0 else None
                out[row.node] = Progress(done, done + row.missing, left_ms)
        return out

    def _follow(self, row: FleetRow, now_ms: int) -> _Backlog | None:
        missing, backlog = row.missing or 0, self._backlogs.get(row.node)
        if backlog is None:
            if missing < SHOWN_FROM:
                return None
            backlog = self._backlogs[row.node] = _Backlog(row.received, row.received, now_ms)
        elif missing <= SHOWN_FROM // 10 or row.received < backlog.received:
            del self._backlogs[row.node]
            return None
        if now_ms - backlog.at_ms >= words.SECOND_MS // 2:
            pace = (row.received - backlog.received) * 1000 / (now_ms - backlog.at_ms)
            backlog.per_s = pace if not backlog.per_s else 0.5 * backlog.per_s + 0.5 * pace
            backlog.received, backlog.at_ms = row.received, now_ms
        return backlog


def not_here_yet(row: FleetRow, now_ms: int, progress: Progress | None = None) -> str:
    """What the hub does not have of a node, in words: `412 events, 1.9 MB, oldest 3 h 12 m, last seen 2 min ago`.

    Of a node that is out of reach the hub knows only what was said last, so the words say "at least".
    """
    if not row.admitted:
        return f"not admitted: {words.plural(row.waiting, 'frame')} wait" if row.waiting != 1 else "not admitted: 1 frame waits"
    if row.last_seen_ms is None or row.missing is None:
        return "not heard from yet"
    seen = "" if row.online else f"last seen {words.ago(row.last_seen_ms, now_ms)}"
    if not row.missing:
        return "everything is here" if row.online else f"nothing was missing when it was last seen ({words.ago(row.last_seen_ms, now_ms)})"
    parts = [words.plural(row.missing, "event") if row.online else f"at least {words.plural(row.missing, 'event')}"]
    if row.missing_bytes:
        parts.append(words.size(row.missing_bytes))
    if row.oldest_age_ms is not None:
        parts.append(f"oldest {words.duration(row.oldest_age_ms)}")
    if progress is not None and progress.left_ms is not None:
        parts.append(f"ready in {words.duration(max(progress.left_ms, 1000))}")
    return ", ".join([*parts, seen] if seen else parts)


def fleet_json(row: FleetRow, now_ms: int, progress: Progress | None = None, *, told: bool = True) -> Json:
    """One node, with what is not here yet as numbers and as a sentence; `told`: and with what it told of its devices."""
    return ({"deviceSummary": summary_json(row.node, row.told)} if told else {}) | {
        "node": row.node,
        "org": row.org,
        "region": row.region,
        "site": row.site,
        "fingerprint": row.fingerprint,
        "admitted": row.admitted,
        "online": row.online,
        "lastSeenAt": iso(row.last_seen_ms),
        "clockSkewMs": row.skew_ms,
        "clock": quality_word(row.clock),
        "head": row.head,
        "received": row.received,
        "settled": row.settled,
        "notHereYet": {
            "facts": row.missing,
            "bytes": row.missing_bytes,
            "atLeast": not row.online,
            "sentence": not_here_yet(row, now_ms, progress),
        },
        "oldestAgeMs": row.oldest_age_ms,
        "queuedBytes": row.queued_bytes,
        "catchUp": None if progress is None else {"done": progress.done, "total": progress.total, "leftMs": progress.left_ms},
        "holes": row.holes,
        "refused": row.refused,
        "waiting": row.waiting,
        "forked": row.forked,
        "incarnations": row.incarnations,
        "version": row.version,
        "diskFreeBytes": row.disk_free_bytes,
        "devices": row.devices,
        "telemetryAt": iso(row.telemetry_ms),
    }


def fleet_headline(rows: Sequence[FleetRow]) -> str:
    """The state of the fleet in one sentence, for the top of the page."""
    known = [row for row in rows if row.admitted]
    if not known:
        return "No node has been admitted yet."
    away = [row for row in known if not row.online]
    missing = sum(row.missing or 0 for row in known)
    all_of_them = f"All {len(known)} nodes are" if len(known) > 1 else "The one node is"
    if not away and not missing:
        return f"{all_of_them} in reach and in step."
    if not away:
        return f"{all_of_them} in reach; {words.plural(missing, 'event')} on the way."
    reach = f"{len(away)} of {words.plural(len(known), 'node')} {'is' if len(away) == 1 else 'are'} out of reach"
    return f"{reach}; at least {words.plural(missing, 'event')} {'is' if missing == 1 else 'are'} not here yet." if missing else f"{reach}."


# ------------------------------------------------------------------ balance


def accounted(row: BalanceRow) -> int:
    """The right side of the balance."""
    return row["settled"] + row["queued"] + row["inCustody"] + row["quarantined"] + sum(row["evicted"].values())


def balance_sentence(row: BalanceRow) -> str:
    """Balanced, or off by how many and in which direction; or why it is not known yet."""
    if row["balanced"] is None:
        return f"not known yet: {row.get('unknown', 'nothing was counted')}"
    captured, found = row["captured"], accounted(row)
    if captured > found:
        return f"off by {captured - found:,}: {words.plural(captured, 'event')} captured, only {found:,} accounted for"
    if captured < found:
        return f"off by {found - captured:,}: {words.plural(found, 'event')} accounted for, only {captured:,} captured"
    return "balanced" if row["balanced"] else "the sums agree, but the hub has not confirmed them"


def balance_json(balance: Balance) -> Json:
    """The balance with its sentence per node; `balanced` is true only where the sums agree too, and null while it is not known."""
    return {
        "asOf": iso(balance["asOfMs"]),
        "fleet": _balance_row(balance["fleet"]),
        "nodes": [_balance_row(row) for row in balance["nodes"]],
        "alarms": balance.get("alarms", []),
    }


def is_balanced(row: BalanceRow) -> bool | None:
    """Whether the hub says so and the sums agree: a page never shows a mark that its own numbers contradict. None: not known yet."""
    return None if row["balanced"] is None else row["balanced"] and row["captured"] == accounted(row)


def _balance_row(row: BalanceRow) -> Json:
    return {
        **row,
        "unknown": row.get("unknown"),
        "accounted": accounted(row),
        "balanced": is_balanced(row),
        "sentence": balance_sentence(row),
    }


# ------------------------------------------------------------------ what was kept


def kept_json(row: Mapping[str, Any]) -> Json:
    """A refused frame or a quarantined fact; `atMs` becomes `at`."""
    out: Json = dict(row)
    out["at"] = iso(out.pop("atMs"))
    return out


# ------------------------------------------------------------------ gaps


def gaps_json(seen: Mapping[str, Any], now_ms: int) -> Json:
    """The gap ledger as the API says it: each `…Ms` as a time."""
    return {
        "asOf": iso(now_ms),
        "facts": seen["facts"],
        "holes": [_gap_json(row) for row in seen["open"]],
        "beyond": [_gap_json(row) for row in seen["beyond"]],
        "closed": [_gap_json(row) for row in seen["closed"]],
        "more": seen["holes"] > len(seen["open"]),
    }


def _gap_json(row: Mapping[str, Any]) -> Json:
    out = {name: value for name, value in row.items() if not name.endswith("Ms")}
    out |= {"since": iso(row["sinceMs"]), "lastAsked": iso(row["askedMs"])}
    return out | ({"closed": iso(row["closedMs"])} if "closedMs" in row else {})
