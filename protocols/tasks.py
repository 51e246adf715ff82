"""Whose task an order is, as its facts say it. Pure; what a hub does with it: `hub.tasks`.

`details.assignedTo` (a name, or a list of names) gives an order to staff, until another fact gives it to others; an empty list takes it
from everybody. Without it an order is in the hands of whoever said the last word on it: the `actor` of the facts that stand, and who works
on the phone that said them. An order that is over is nobody's task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from protocols import limits
from protocols.details import check_text, join
from protocols.errors import InvalidInput
from protocols.lifecycle import TERMINAL
from protocols.merge import Head

ASSIGNED_TO: Final = "assignedTo"
ASSIGNED_MOST: Final = 16
"""people that one fact gives an order to"""
_OVER: Final = frozenset(int(status) for status in TERMINAL)


def assigned_to(details: Mapping[str, object]) -> tuple[str, ...] | None:
    """Whom a fact gives its order to; None: it does not say. What is no name is nobody's, for rows from outside are believed in nothing."""
    said = details.get(ASSIGNED_TO)
    if said is None:
        return None
    names = said if type(said) is list else [said]
    return tuple(sorted({n for n in names[:ASSIGNED_MOST] if type(n) is str and 0 < len(n) <= limits.TEXT_CHARS}))


def check_assigned(details: dict[str, object], at: str = "") -> dict[str, object]:
    """`details` itself, if what it says of `assignedTo` can be understood. Errors: InvalidInput naming the field."""
    said = details.get(ASSIGNED_TO)
    if said is not None:
        field = f"{join(at, 'details')}.{ASSIGNED_TO}"
        if type(said) is list and len(said) > ASSIGNED_MOST:
            raise InvalidInput(field, f"names {len(said)} people, at most {ASSIGNED_MOST} are taken.")
        for name in said if type(said) is list else [said]:
            check_text(name, field, "", limits.TEXT_CHARS)
    return details


def is_over(heads: Sequence[Head]) -> bool:
    """Is no work expected on an order with these heads? Not while they disagree: somebody has to settle it."""
    return bool(heads) and heads[0].status in _OVER and all(h.status == heads[0].status for h in heads)
