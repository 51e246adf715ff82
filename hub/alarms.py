"""Alarms with a name: what of the balance does not close, of which node and stream, in one sentence each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hub.views import Balance, BalanceRow, accounted
from protocols.streams import StreamKey

NAMED: Final = 5
PREFIX: Final = "balance: "

Off = Mapping[StreamKey, tuple[int, int]]
"""by stream: (captured, accounted for), where they differ"""


def imbalances(balance: Balance, off: Off) -> list[str]:
    """A sentence for each node whose facts are not all accounted for, the worst first. What is not known is no alarm."""
    rows = [row for row in balance["nodes"] if row["balanced"] is False]
    rows.sort(key=lambda row: (-abs(row["captured"] - accounted(row)), row["node"]))
    said = [PREFIX + _sentence(row, off) for row in rows[:NAMED]]
    if len(rows) > NAMED:
        said.append(f"{PREFIX}{len(rows) - NAMED} more nodes do not close")
    return said


def unaccounted(balance: Balance) -> int:
    """Facts by which the nodes' lines are off, all together."""
    return sum(abs(row["captured"] - accounted(row)) for row in balance["nodes"] if row["balanced"] is False)


def _sentence(row: BalanceRow, off: Off) -> str:
    captured, found = row["captured"], accounted(row)
    which = "".join(f" epoch {key.epoch:x}" for key in off if key.node == row["node"])
    missing = abs(captured - found)
    facts = f"{missing:,} {'fact' if missing == 1 else 'facts'}"
    what = f"{facts} unaccounted" if captured > found else f"{facts} more than were captured" if captured < found else "not confirmed"
    parts = [f"captured {captured:,}", f"settled {row['settled']:,}", f"queued {row['queued']:,}", f"in custody {row['inCustody']:,}"]
    parts.append(f"quarantined {row['quarantined']:,}")
    parts += [f"{why} {seqs:,}" for why, seqs in sorted(row["evicted"].items()) if seqs]
    return f"node {row['node']}{which} {what}: {', '.join(parts)}"
