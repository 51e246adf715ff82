"""The report of a play: every figure counted from the databases on disk, none from the player's own variables.

Read by another SQLite library (sqlite-utils over the standard library's) than the one that wrote them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from protocols.codec import pack, unpack
from protocols.errors import DecodeError
from protocols.limits import FRAME_UNPACKED_BYTES

_LATE_MS = 1_000
_RECORDED_MS = 7
_CONTEXT = 12


def count(hub_dir: Path, edge_dirs: list[Path]) -> dict[str, Any]:
    """Compare each edge's ledger, fact by fact, with the central store. Times in ms, rates per second."""
    store, hub = _open(hub_dir / "store.db"), _open(hub_dir / "hub.db")
    held = _store_facts(store)
    nodes = [_edge(d.name, ledger, held) for d in edge_dirs for ledger in [_open(d / "ledger.db")]]
    nodes.append(_edge("hub", hub, held))
    counters = dict(hub.execute("SELECT name, value FROM counters").fetchall())
    orders, conflicts = store.execute("SELECT count(*), coalesce(sum(conflict), 0) FROM view").fetchone()
    return {
        "captured": sum(n["captured"] for n in nodes),
        "settled": sum(n["settled"] for n in nodes),
        "lost": sum(n["lost"] for n in nodes),
        "appliedTwice": _doubled(store) + _phantoms(held, nodes),
        "quarantined": store.execute("SELECT count(*) FROM quarantine").fetchone()[0],
        "conflicts": conflicts,
        "orders": orders,
        **_outage(store),
        "bytesPerEvent": round(counters.get("up_bytes", 0) / counters["up_facts_new"], 2) if counters.get("up_facts_new") else None,
        "sentAgain": counters.get("up_facts_known", 0),
        "nodes": [{k: v for k, v in n.items() if k != "facts"} for n in nodes],
    }


def _open(path: Path) -> Database:
    """Read-only: whoever wrote it may still be running."""
    return Database(sqlite3.connect(f"file:{path}?mode=ro", uri=True))


def _store_facts(store: Database) -> dict[tuple[str, int, int, int, bytes], None]:
    rows = store.execute("SELECT node, epoch, cls, seq, h FROM log JOIN streams USING (sid)")
    return dict.fromkeys((n, e, c, s, bytes(h)) for n, e, c, s, h in rows)


def _edge(name: str, ledger: Database, held: dict[tuple[str, int, int, int, bytes], None]) -> dict[str, Any]:
    own = ledger.execute("SELECT node, epoch, cls, seq, h FROM log JOIN streams USING (sid) WHERE own=1")
    facts = [(n, e, c, s, bytes(h)) for n, e, c, s, h in own]
    there = sum(f in held for f in facts)
    return {
        "node": facts[0][0] if facts else name,
        "captured": len(facts),
        "settled": there,
        "lost": len(facts) - there,
        "requestKeys": ledger.execute("SELECT count(*) FROM idempotency").fetchone()[0],
        "facts": facts,
    }


def _phantoms(held: dict[tuple[str, int, int, int, bytes], None], nodes: list[dict[str, Any]]) -> int:
    """Facts of the store that no node ever said yes to."""
    said = dict.fromkeys(f for n in nodes for f in n["facts"])
    return sum(f not in said for f in held)


def _doubled(store: Database) -> int:
    """The same content by the same author more than once: what a lost answer and a retry would have made."""
    seen: Counter[bytes] = Counter()
    for node, row in store.execute("SELECT node, row FROM log JOIN streams USING (sid) WHERE okey IS NOT NULL"):
        try:
            values = unpack(row, max_bytes=FRAME_UNPACKED_BYTES)
        except DecodeError:
            continue
        if isinstance(values, list):
            content = [v for i, v in enumerate(values) if i not in (_RECORDED_MS, _CONTEXT)]
            seen[blake2b(pack([node, content]), digest_size=16).digest()] += 1
    return sum(n - 1 for n in seen.values())


def _outage(store: Database) -> dict[str, Any]:
    """The longest wait from recording to arrival at the hub (both stamped on this one machine), and how fast the backlog came in: of each
    edge from its first late arrival to the moment at which the central store had the last of it."""
    longest, late = 0, 0
    windows: dict[str, tuple[int, int]] = {}
    facts = store.execute("SELECT node, received_ms, at_ms, row FROM log JOIN streams USING (sid) WHERE okey IS NOT NULL")
    for node, received, stored, row in facts:
        values = unpack(row, max_bytes=FRAME_UNPACKED_BYTES)
        lag = received - values[_RECORDED_MS] if isinstance(values, list) else 0
        longest = max(longest, lag)
        if lag >= _LATE_MS:
            late += 1
            first, last = windows.get(node, (received, stored))
            windows[node] = min(first, received), max(last, stored)
    took = _length(sorted(windows.values()))
    return {
        "longestOutageMs": longest,
        "backlog": late,
        "catchUpMs": took,
        "eventsPerSecond": round(late * 1000 / took) if took else None,
    }


def _length(windows: list[tuple[int, int]]) -> int:
    """How long at least one of the windows was open."""
    total, end = 0, 0
    for first, last in windows:
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total
