"""What people do about two facts that did not know of each other: a table of rules, and what it says about a pair (sync.md, rule 14).

The fold keeps both facts whatever this table says, and which of them is shown is decided by the total order alone. A rule says what becomes
of the pair: `hold` (the order rests until somebody settles it, and there is a task), `task` (somebody has to look, the order goes on), or
`accept` (nothing to do, both are credited); with one sentence that a person at a dock understands.

The first rule that fits counts. A rule fits a pair in either order of its facts, so the outcome is the same whichever came first. What it
looks at is in the facts themselves: no clock, no local number, no order of arrival. Pure; `protocols.policies` reads tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from hashlib import blake2b
from itertools import product
from typing import Any, Final, NamedTuple

from protocols.codec import pack
from protocols.lifecycle import ROWS, Status, can_coexist, sort_key

CENTRE: Final = "centre"
DOCK: Final = "dock"
PLACES: Final = (CENTRE, DOCK)
SETTLING: Final = ("none", "one", "both")


class Outcome(IntEnum):
    """What becomes of a pair; the gravest of an order's pairs counts. The codes are on disk."""

    ACCEPT = 0
    TASK = 1
    HOLD = 2

    @property
    def word(self) -> str:
        """As tables and JSON write it."""
        return self.name.lower()


class Told(NamedTuple):
    """A fact as people and policies see it. Times in ms since 1970; `received_ms`: when this database's hub or node took it.

    A fact whose row was freed here is known by its identity and status alone: `known` is False, and everything else is empty.
    """

    node: str
    epoch: int
    seq: int
    h: bytes
    status: Status
    source: str = ""
    site: str | None = None
    actor: str | None = None
    happened_ms: int | None = None
    recorded_ms: int | None = None
    received_ms: int = 0
    settles: tuple[str, ...] = ()
    """ids of the facts that it says it settles"""
    note: str = ""
    known: bool = True

    @property
    def fact_id(self) -> str:
        """`node/epoch/seq/hash`, as everywhere."""
        return f"{self.node}/{self.epoch:x}/{self.seq}/{self.h[:4].hex()}"

    @property
    def identity(self) -> bytes:
        """What names this fact in all the world."""
        data: bytes = pack([self.node, self.epoch, self.seq, self.h])
        return data

    @property
    def place(self) -> str:
        """A node at a site says its site; who says none speaks for all of them."""
        return DOCK if self.site is not None or not self.known else CENTRE

    @property
    def who(self) -> str:
        """The person or machine to credit: the actor, or else the node."""
        return self.actor or self.node

    def words(self) -> str:
        """`picked at W8-Madrid by ana`."""
        where = f"at {self.site}" if self.site is not None else "at the centre" if self.known else ""
        return " ".join(part for part in (ROWS[self.status].verb, where, f"by {self.who}") if part)


def in_order(a: Told, b: Told) -> tuple[Told, Told]:
    """The one that is shown, then the other: by policy class, lifecycle rank, digest."""
    one, two = (sort_key(a.status), a.h), (sort_key(b.status), b.h)
    return (a, b) if (one > two if one != two else a.identity >= b.identity) else (b, a)


def clash_id(a: Told, b: Told) -> str:
    """The name of a pair, the same at every node and in either order: 16 hex digits."""
    return blake2b(b"".join(sorted((a.identity, b.identity))), digest_size=8).hexdigest()


# ------------------------------------------------------------------ the table


@dataclass(frozen=True, slots=True)
class Step:
    """One way to settle: the status to record, and what to do first, in words."""

    record: Status
    words: str


@dataclass(frozen=True, slots=True)
class Task:
    """What somebody has to do. `assignee`: dock or centre."""

    title: str
    assignee: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class When:
    """What must hold of a pair besides its statuses; None: either. True: the same (for `lifecycle`: one may follow the other).

    Two actors are the same only where both are named. `settling`: how many of the two were recorded to settle a conflict.
    """

    status: bool | None = None
    lifecycle: bool | None = None
    actor: bool | None = None
    source: bool | None = None
    site: bool | None = None
    first_at: str | None = None
    second_at: str | None = None
    settling: str | None = None


class Traits(NamedTuple):
    """All that a rule can ask of an ordered pair."""

    first: Status
    second: Status
    actor: bool
    source: bool
    site: bool
    first_at: str
    second_at: str
    settling: str


def traits(first: Told, second: Told) -> Traits:
    """Of two facts."""
    known = first.known and second.known
    settling = SETTLING[bool(first.settles) + bool(second.settles)]
    actor = known and first.actor is not None and first.actor == second.actor
    return Traits(
        first.status, second.status, actor, known and first.source == second.source, known and first.site == second.site,
        first.place, second.place, settling,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. `line`: where it stands in its file. `says` may hold {first}, {second}, and {First} to begin a sentence."""

    id: str
    line: int
    first: tuple[Status, ...]
    second: tuple[Status, ...]
    when: When
    outcome: Outcome
    says: str
    task: Task | None = None

    def fits(self, t: Traits) -> bool:
        """Does it, in this order of the two facts?"""
        if t.first not in self.first or t.second not in self.second:
            return False
        w = self.when
        asked = (
            (w.status, t.first is t.second), (w.lifecycle, can_coexist(t.first, t.second)), (w.actor, t.actor), (w.source, t.source),
            (w.site, t.site), (w.first_at, t.first_at), (w.second_at, t.second_at), (w.settling, t.settling),
        )  # fmt: skip
        return all(wanted is None or wanted == found for wanted, found in asked)

    def sentence(self, first: Told, second: Told) -> str:
        """In words, about these two."""
        one, other = first.words(), second.words()
        return self.says.replace("{First}", one[:1].upper() + one[1:]).replace("{first}", one).replace("{second}", other)


@dataclass(frozen=True)
class Verdict:
    """What the table says about a pair. `first` and `second` as the rule names them; `shown` is the one whose status is shown."""

    rule: Rule
    first: Told
    second: Told
    shown: Told
    other: Told

    @property
    def outcome(self) -> Outcome:
        """What becomes of the pair."""
        return self.rule.outcome

    @property
    def sentence(self) -> str:
        """Why, in words."""
        return self.rule.sentence(self.first, self.second)

    @cached_property
    def id(self) -> str:
        """The pair's name."""
        return clash_id(self.first, self.second)


@dataclass(frozen=True)
class Policies:
    """A checked table. `name`: `shipped`, or the file it came from."""

    name: str
    rules: tuple[Rule, ...]
    _by_pair: dict[tuple[Status, Status], tuple[Rule, ...]] = field(default_factory=dict, repr=False, compare=False)
    _found: dict[Traits, tuple[Rule, bool]] = field(default_factory=dict, repr=False, compare=False)
    """per case that was met (at most `every_case` of each pair of statuses) the rule that fits, and whether with the shown fact first"""

    @cached_property
    def digest(self) -> str:
        """Two tables with the same digest say the same: 16 hex digits."""
        rows: list[Any] = []
        for r in self.rules:
            task = [] if r.task is None else [r.task.title, r.task.assignee, [[int(s.record), s.words] for s in r.task.steps]]
            w = r.when
            when = [w.status, w.lifecycle, w.actor, w.source, w.site, w.first_at, w.second_at, w.settling]
            rows.append([r.id, [int(s) for s in r.first], [int(s) for s in r.second], when, int(r.outcome), r.says, task])
        return blake2b(pack(rows), digest_size=8).hexdigest()

    def by_id(self, rule_id: str) -> Rule | None:
        """The rule of this name, if the table (still) has it."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def judge(self, a: Told, b: Told) -> Verdict:
        """What becomes of two facts of one order that did not see each other; the same in either order."""
        shown, other = in_order(a, b)
        case = traits(shown, other)
        found = self._found.get(case)
        if found is None:
            found = self._found[case] = self._first_that_fits(case)
        rule, as_shown = found
        return Verdict(rule, *((shown, other) if as_shown else (other, shown)), shown, other)

    def _first_that_fits(self, case: Traits) -> tuple[Rule, bool]:
        turned = _turned(case)
        for rule in self._for(case.first, case.second):
            if rule.fits(case) or rule.fits(turned):
                return rule, rule.fits(case)
        raise AssertionError(f"a checked table has a rule for {case.first.name} and {case.second.name}")

    def _for(self, a: Status, b: Status) -> tuple[Rule, ...]:
        rules = self._by_pair.get((a, b))
        if rules is None:
            either = ((a, b), (b, a))
            rules = tuple(r for r in self.rules if any(x in r.first and y in r.second for x, y in either))
            self._by_pair[a, b] = rules
        return rules


# ------------------------------------------------------------------ what a table must be


def every_case(a: Status, b: Status) -> Iterator[Traits]:
    """All that can be asked of a pair of these statuses."""
    places = [(CENTRE, CENTRE, True), (DOCK, DOCK, True), (DOCK, DOCK, False), (CENTRE, DOCK, False), (DOCK, CENTRE, False)]
    for actor, source, (first_at, second_at, site), settling in product((True, False), (True, False), places, SETTLING):
        yield Traits(a, b, actor, source, site, first_at, second_at, settling)


def _turned(t: Traits) -> Traits:
    return Traits(t.second, t.first, t.actor, t.source, t.site, t.second_at, t.first_at, t.settling)


@dataclass(frozen=True, slots=True)
class Coverage:
    """`missing`: cases without a rule; `unreachable`: rules that are never the first to fit."""

    missing: tuple[Traits, ...]
    unreachable: tuple[Rule, ...]


def coverage(rules: tuple[Rule, ...]) -> Coverage:
    """Look at every case that there is: 120 pairs of statuses, 80 cases each."""
    missing: list[Traits] = []
    used: dict[str, None] = {}
    for a in Status:
        for b in Status:
            if a > b:
                continue
            here = [r for r in rules if (a in r.first and b in r.second) or (b in r.first and a in r.second)]
            for case in every_case(a, b):
                found = next((r for r in here if r.fits(case) or r.fits(_turned(case))), None)
                if found is None:
                    missing.append(case)
                else:
                    used[found.id] = None
    return Coverage(tuple(missing), tuple(r for r in rules if r.id not in used))
