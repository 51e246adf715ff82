"""The order lifecycle: one table, from which everything else here (and the document `LIFECYCLE.md`) is derived.

Nothing is refused because of this table: the world did what it did. It says which transitions are *normal*. An abnormal one is kept and
marked; two facts that did not see each other, and of which neither may follow the other, are a conflict that people settle (rule 14).

How to read a row:

- The *path* is PLACED ... DELIVERED. Skipping forward on it is normal (many sources report three milestones of nine), going back is not.
- `after` lists what may normally come directly before. The table has no memory: it judges two neighbours, not a whole history.
- `policy` and `rank` are the first two keys of the total order that chooses which of several concurrent facts is shown: the largest.
  What has irrevocably happened to goods or money (DONE) outranks a decision to stop (CALLED_OFF), which outranks an open problem (STOPPED),
  which outranks progress (MOVING). The order only chooses what is *displayed*; it never hides a conflict, and no clock takes part.
- `terminal`: no work is expected any more. Only terminal statuses normally follow a terminal one.
- `goods` says where the goods then are, which is what people need to know to settle a conflict.

Codes, policies and ranks are on disk and on the wire, and every node must order alike: add rows, never renumber (a golden test holds them).
`python -m protocols.lifecycle` writes `LIFECYCLE.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Final


class Status(IntEnum):
    """Milestones of an order, with their stable wire codes."""

    PLACED = 1
    APPROVED = 2
    ALLOCATED = 3
    PICKED = 4
    PACKED = 5
    SHIPPED = 6
    IN_TRANSIT = 7
    OUT_FOR_DELIVERY = 8
    DELIVERED = 9
    HELD = 10
    BACKORDERED = 11
    DELIVERY_FAILED = 12
    RETURNED = 13
    CANCELLED = 14
    REFUNDED = 15


class Policy(IntEnum):
    """First key of the total order: of concurrent facts, the one in the highest class is shown."""

    MOVING = 0
    STOPPED = 1
    CALLED_OFF = 2
    DONE = 3


class Goods(IntEnum):
    """Where the goods are once a status holds. `ANY`: the status alone does not tell."""

    ANY = 0
    STOCK = 1
    FLOOR = 2
    ROAD = 3
    CUSTOMER = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One status: its place in the total order, what may normally come directly before it, and words for people."""

    status: Status
    policy: Policy
    rank: int
    goods: Goods
    after: tuple[Status, ...]
    repeats: bool
    terminal: bool
    verb: str
    meaning: str


PATH: Final = tuple(status for status in Status if status <= Status.DELIVERED)
"""the way of an order that meets no trouble, in its order"""


def _before(status: Status) -> tuple[Status, ...]:
    return PATH[: PATH.index(status)]


_HELD, _SHORT, _FAILED = Status.HELD, Status.BACKORDERED, Status.DELIVERY_FAILED
_UNTOUCHED: Final = (*_before(Status.PICKED), _HELD, _SHORT)
"""nobody has laid hands on the goods: here an order can simply be called off"""

TABLE: Final = (
    Row(Status.PLACED, Policy.MOVING, 10, Goods.STOCK, (), False, False,
        "placed", "The customer's order is known. A second one under the same number is suspect."),
    Row(Status.APPROVED, Policy.MOVING, 20, Goods.STOCK, (*_before(Status.APPROVED), _HELD), True, False,
        "approved", "Credit, stock policy or a person has agreed; approvals may come in stages."),
    Row(Status.BACKORDERED, Policy.MOVING, 25, Goods.ANY, (*_before(Status.PICKED), _HELD), True, False,
        "backordered", "There is not enough stock; the order waits for more."),
    Row(Status.ALLOCATED, Policy.MOVING, 30, Goods.STOCK, (*_before(Status.ALLOCATED), _HELD, _SHORT), True, False,
        "allocated", "Stock is reserved, nobody has touched it yet."),
    Row(Status.PICKED, Policy.MOVING, 40, Goods.FLOOR, (*_before(Status.PICKED), _HELD, _SHORT), True, False,
        "picked", "Goods are taken from the shelf, in one or several lots."),
    Row(Status.PACKED, Policy.MOVING, 50, Goods.FLOOR, (*_before(Status.PACKED), _HELD, _SHORT), True, False,
        "packed", "Goods are packed and wait at the dock."),
    Row(Status.SHIPPED, Policy.MOVING, 60, Goods.ROAD, (*_before(Status.SHIPPED), _HELD, _SHORT), True, False,
        "shipped", "Goods have left the site, all or a part."),
    Row(Status.IN_TRANSIT, Policy.MOVING, 70, Goods.ROAD, (*_before(Status.IN_TRANSIT), _HELD, _SHORT, _FAILED), True, False,
        "seen in transit", "The carrier has the goods; each scan may say so again."),
    Row(Status.OUT_FOR_DELIVERY, Policy.MOVING, 80, Goods.ROAD, (*_before(Status.OUT_FOR_DELIVERY), _HELD, _SHORT, _FAILED), True, False,
        "sent out for delivery", "Goods are on the last vehicle."),
    Row(Status.HELD, Policy.STOPPED, 82, Goods.ANY, (*_before(Status.DELIVERED), _SHORT, _FAILED), True, False,
        "held", "Somebody stopped the order (credit, customs, quality); it goes on from any point once released."),
    Row(Status.DELIVERY_FAILED, Policy.STOPPED, 85, Goods.ROAD, (*_before(Status.DELIVERED), _HELD, _SHORT), True, False,
        "not delivered", "An attempt to deliver failed; another one, a return or a refund follows."),
    Row(Status.DELIVERED, Policy.DONE, 90, Goods.CUSTOMER, (*_before(Status.DELIVERED), _HELD, _SHORT, _FAILED), True, True,
        "delivered", "The customer has the goods, all or a part."),
    Row(Status.CANCELLED, Policy.CALLED_OFF, 100, Goods.ANY, _UNTOUCHED, False, True,
        "cancelled", "Called off before anybody picked the goods; later than that it must become a return."),
    Row(Status.RETURNED, Policy.DONE, 110, Goods.STOCK, (*PATH, _HELD, _SHORT, _FAILED, Status.CANCELLED, Status.REFUNDED), True, True,
        "returned", "Goods are back in stock, from the floor, the road or the customer; the money may have gone back before."),
    Row(Status.REFUNDED, Policy.DONE, 120, Goods.ANY,
        (*_UNTOUCHED, _FAILED, Status.DELIVERED, Status.CANCELLED, Status.RETURNED), True, True,
        "refunded", "Money went back, all or a part; not while goods are picked or on their way out."),
)  # fmt: skip

ROWS: Final[dict[int, Row]] = {row.status: row for row in TABLE}
STATUS_NAMES: Final = tuple(status.name for status in Status)
TERMINAL: Final = tuple(row.status for row in TABLE if row.terminal)

_NORMAL: Final = tuple(
    sum(1 << earlier for earlier in ROWS[later].after) | (1 << later if ROWS[later].repeats else 0) if later in ROWS else 0
    for later in range(max(Status) + 1)
)
"""per code of the later status, a bit for each earlier one: plain integers, as the fold asks this for every fact"""
_SORT_KEYS: Final = tuple((int(ROWS[code].policy), ROWS[code].rank) if code in ROWS else (0, 0) for code in range(max(Status) + 1))


def may_follow(earlier: Status, later: Status) -> bool:
    """Whether `later` normally comes after `earlier`, directly or by skipping milestones nobody reported."""
    return bool(_NORMAL[later] >> earlier & 1)


def can_coexist(a: Status, b: Status) -> bool:
    """Whether two facts that did not see each other agree: the same milestone, or one that may follow the other. Otherwise: a conflict."""
    return a == b or bool((_NORMAL[b] >> a | _NORMAL[a] >> b) & 1)


def sort_key(status: Status) -> tuple[int, int]:
    """(policy class, lifecycle rank): the first two keys of the total order of sync rule 14; the caller adds the fact's digest."""
    return _SORT_KEYS[status]


def is_terminal(status: Status) -> bool:
    """Whether no work is expected any more."""
    return ROWS[status].terminal


def conflicts() -> list[tuple[Status, Status]]:
    """Each pair of statuses that conflict when concurrent, once, in the order of their codes."""
    return [(a, b) for a in Status for b in Status if a < b and not can_coexist(a, b)]


_GROUPS: Final = {
    Goods.STOCK: ("stock", "Goods in stock"),
    Goods.FLOOR: ("floor", "Goods in hand"),
    Goods.ROAD: ("road", "Goods on the road"),
}


def _group(goods: Goods) -> tuple[Status, ...]:
    return tuple(status for status in PATH if ROWS[status].goods is goods)


def _side_edges(row: Row) -> list[str]:
    """Arrows into a status beside the path (from a whole group where all of it may come before) and back onto the path."""
    name = row.status.name
    whole = [goods for goods in _GROUPS if all(status in row.after for status in _group(goods))]
    sources = [_GROUPS[goods][0] for goods in whole]
    sources += [status.name for status in Status if status in row.after and not (status in PATH and ROWS[status].goods in whole)]
    resumes = [status.name for status in PATH if may_follow(row.status, status)]
    return [f"{source} --> {name}" for source in sources] + [f"{name} --> {resume}" for resume in resumes[:1]]


def mermaid() -> str:
    """The state diagram as a Mermaid flowchart. Not drawn, because implied: skipping forward on the path, and repeats."""
    lines = ["flowchart LR"]
    for goods, (key, title) in _GROUPS.items():
        lines += [f'  subgraph {key} ["{title}"]', *(f"    {status.name}" for status in _group(goods)), "  end"]
    lines += [f"  {earlier.name} --> {later.name}" for earlier, later in pairwise(PATH)]
    for row in TABLE:
        if row.status not in PATH:
            lines += [f"  {edge}" for edge in _side_edges(row)]
    lines.append("  classDef terminal stroke-width:3px")
    lines.append(f"  class {','.join(status.name for status in TERMINAL)} terminal")
    return "\n".join(lines) + "\n"


def _table_lines() -> list[str]:
    lines = [
        "| code | status | class | rank | goods | ends the work | may come again | normally comes directly after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in TABLE:
        cells = [str(int(row.status)), f"**{row.status.name}**", row.policy.name, str(row.rank), row.goods.name.lower()]
        cells += ["yes" if row.terminal else "", "yes" if row.repeats else ""]
        cells.append(", ".join(earlier.name for earlier in row.after) or "nothing: it opens an order")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def markdown() -> str:
    """The whole of LIFECYCLE.md: meaning, diagram, table, conflicts."""
    meanings = [f"- **{row.status.name}**: {row.meaning}" for row in TABLE]
    pairs = [f"- **{a.name} / {b.name}**" for a, b in conflicts()]
    classes = ", ".join(f"{policy.name} ({int(policy)})" for policy in Policy)
    parts = [
        "# The order lifecycle",
        "Written by `python -m protocols.lifecycle` from the table in `lifecycle.py`; a test fails when it is out of date.",
        "An abnormal transition is never refused: it is kept and marked. Skipping forward is normal and, like repeats, not drawn.",
        "## What each status says",
        "\n".join(meanings),
        "## Diagram",
        f"```mermaid\n{mermaid()}```",
        "## Table",
        f"Of concurrent facts the one with the highest (class, rank, digest) is shown; classes from low to high: {classes}.",
        "\n".join(_table_lines()),
        "## Conflicts",
        "Two facts that did not see each other, and of which neither may follow the other ([what people do](CONFLICTS.md)):",
        "\n".join(pairs),
    ]
    return "\n\n".join(parts) + "\n"


DOCUMENT: Final = Path(__file__).with_name("LIFECYCLE.md")

if __name__ == "__main__":
    DOCUMENT.write_text(markdown(), encoding="utf-8")
