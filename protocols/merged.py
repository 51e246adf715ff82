"""Details that add up: notes and quantities of facts that did not know of each other.

Notes (`details.notes`, a text or a list of texts) of facts that stand side by side are all shown. Quantities (`details.quantities`, whole
numbers by name) say how many a fact adds; an order shows the sum of everything known, each contribution once.

A sum must survive that old facts are freed, and that a node holds only the newest. So a node writes beside its quantities what it had
seen (`details.quantitiesSeen`: name -> author -> [added, taken away]), as a context says which facts it had seen. An author's two totals
only grow, so to join what two facts say is to take the greater of each: commutative, associative, idempotent, in any order of arrival.
A fact without that (a node of version 1) counts under its own identity. Of a forked author, what was added on two branches of one epoch
counts as the greater of the two. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from protocols.codec import pack, unpack
from protocols.details import join as join_path
from protocols.details import json_type, packed_bytes
from protocols.errors import InvalidInput
from protocols.limits import DETAILS_BYTES, DETAILS_KEYS

NOTES: Final = "notes"
QUANTITIES: Final = "quantities"
SEEN: Final = "quantitiesSeen"
NAMES_MOST: Final = 16
NUMBER_MOST: Final = 10**12
NOTES_MOST: Final = 32
"""of one fact; further ones stand in its details and are not shown beside the order"""

Counted = dict[str, dict[str, tuple[int, int]]]
"""name -> author -> (added, taken away)"""


def check_quantities(details: dict[str, object], at: str = "") -> dict[str, object]:
    """`details` itself, if what it says of quantities can be added. `at`: where the event stands. Errors: InvalidInput."""
    if QUANTITIES not in details and SEEN not in details:
        return details
    if SEEN in details:
        raise InvalidInput(join_path(at, f"details.{SEEN}"), "is written by the node itself.", remedy="Leave it out.")
    said, field = details[QUANTITIES], join_path(at, f"details.{QUANTITIES}")
    if type(said) is not dict:
        raise InvalidInput(field, f"must be an object of whole numbers, not {json_type(said)}.", remedy='Write it like {"picked": 3}.')
    if len(said) > NAMES_MOST:
        raise InvalidInput(field, f"has {len(said)} names, at most {NAMES_MOST} are taken.")
    for name, number in said.items():
        if type(number) is not int or abs(number) > NUMBER_MOST:
            raise InvalidInput(
                f"{field}.{name}", f"must be a whole number from -10^12 to 10^12, not {json_type(number)}.",
                remedy="How many this event adds; a correction is negative.",
            )  # fmt: skip
    return details


def says(details: Mapping[str, object]) -> bool:
    """Does a fact with these details have a part in any sum?"""
    return QUANTITIES in details or SEEN in details


def adds(details: Mapping[str, object]) -> dict[str, int]:
    """What a fact adds; what is malformed counts for nothing."""
    said = details.get(QUANTITIES)
    if type(said) is not dict:
        return {}
    return {name: n for name, n in said.items() if type(n) is int and abs(n) <= NUMBER_MOST}


def counted(details: Mapping[str, object], author: str, fact_id: str) -> Counted:
    """What is known from one fact: what its author had seen, and what it adds. `author`: `node/epoch`."""
    seen = _read(details.get(SEEN))
    key = author if SEEN in details else fact_id
    for name, number in adds(details).items():
        authors = seen.setdefault(name, {})
        plus, minus = authors.get(key, (0, 0))
        authors[key] = (plus + max(number, 0), minus + max(-number, 0))
    return seen


def _read(said: object) -> Counted:
    out: Counted = {}
    for name, authors in said.items() if type(said) is dict else ():
        for author, pair in authors.items() if type(authors) is dict else ():
            if type(pair) is list and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair):
                out.setdefault(name, {})[author] = (pair[0], pair[1])
    return out


def join(a: Counted, b: Counted) -> Counted:
    """What is known from both."""
    out = {name: dict(authors) for name, authors in a.items()}
    for name, authors in b.items():
        mine = out.setdefault(name, {})
        for author, (plus, minus) in authors.items():
            had = mine.get(author, (0, 0))
            mine[author] = (max(had[0], plus), max(had[1], minus))
    return out


def totals(known: Counted) -> dict[str, int]:
    """The sums, by name in alphabetical order."""
    return {name: sum(plus - minus for plus, minus in known[name].values()) for name in sorted(known)}


def with_seen(details: dict[str, object], known: Counted) -> dict[str, object]:
    """The details of a fact that is said now, with what its author has seen. Where that does not fit, the sum begins anew with it."""
    seen: dict[str, object] = {}
    for name in sorted(known)[:DETAILS_KEYS]:
        authors = sorted(known[name].items(), key=lambda item: (-sum(item[1]), item[0]))[:DETAILS_KEYS]
        seen[name] = {author: list(pair) for author, pair in sorted(authors)}
    whole = {**details, SEEN: seen}
    return whole if len(whole) <= DETAILS_KEYS and packed_bytes(whole) <= DETAILS_BYTES else details


def dump(known: Counted) -> bytes | None:
    """As bytes for a column; None for nothing."""
    if not known:
        return None
    data: bytes = pack([[name, [[author, *pair] for author, pair in sorted(known[name].items())]] for name in sorted(known)])
    return data


def load(data: bytes | None) -> Counted:
    """What `dump` wrote."""
    rows: Any = unpack(data, max_bytes=len(data)) if data else []
    return {name: {author: (plus, minus) for author, plus, minus in authors} for name, authors in rows}


def notes(details: Mapping[str, object]) -> tuple[str, ...]:
    """The notes of one fact."""
    said = details.get(NOTES)
    texts: Iterable[object] = (said,) if type(said) is str else said if type(said) is list else ()
    return tuple(text for text in texts if type(text) is str)[:NOTES_MOST]
