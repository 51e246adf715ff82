"""What a hub and the process of its broker say to each other: one JSON object each, one way and the other. Values and bytes only."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from hub.broker_access import Door, NodeGrant
from hub.broker_port import BrokerCounts, BrokerSettings
from hub.grants import Changes
from protocols.topics import Access, Rule

LENGTH: Final = struct.Struct(">I")
"""before each object, in bytes"""
START: Final = "start"
GRANTS: Final = "grants"
ASK: Final = "ask"
"""owner to child: the first word; who is admitted from now on; have you heard all of this?"""
UP: Final = "up"
FAILED: Final = "failed"
HEARD: Final = "heard"
REPORT: Final = "report"
LOG: Final = "log"
"""child to owner: it listens; it cannot, with reason and remedy; the answer to `ask`; what there is to count; a line for the log"""


def packed(word: str, what: object) -> bytes:
    """One object, ready to be sent."""
    data = json.dumps([word, what], separators=(",", ":")).encode()
    return LENGTH.pack(len(data)) + data


def unpacked(data: bytes) -> tuple[str, Any]:
    """Word and what belongs to it."""
    word, what = json.loads(data)
    return word, what


@dataclass(frozen=True, slots=True)
class Start:
    """What a child is told first. `sockets`: descriptors by the name of the listener; `log_level`: what is worth a line."""

    settings: BrokerSettings
    sockets: Mapping[str, int]
    secret: str
    hub_rules: tuple[Rule, ...] | None
    grants: Mapping[str, NodeGrant]
    log_level: int

    def as_json(self) -> dict[str, Any]:
        """For `packed`."""
        rules = None if self.hub_rules is None else _rules_json(self.hub_rules)
        return {
            "settings": asdict(self.settings), "sockets": dict(self.sockets), "secret": self.secret, "hub_rules": rules,
            "grants": grants_json(self.grants), "log_level": self.log_level,
        }  # fmt: skip

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Start:
        """What `as_json` made."""
        rules = None if told["hub_rules"] is None else _rules(told["hub_rules"])
        grants = {name: grant for name, grant in grants_of(told["grants"]).items() if grant is not None}
        return cls(BrokerSettings(**told["settings"]), told["sockets"], told["secret"], rules, grants, told["log_level"])


def grants_json(changes: Changes) -> dict[str, Any]:
    """Who may do what from now on, for `packed`."""
    return {name: None if grant is None else [grant.password_hash, _rules_json(grant.rules)] for name, grant in changes.items()}


def grants_of(told: Mapping[str, Any]) -> dict[str, NodeGrant | None]:
    """What `grants_json` made."""
    return {name: None if grant is None else NodeGrant(grant[0], _rules(grant[1])) for name, grant in told.items()}


def _rules_json(rules: Sequence[Rule]) -> list[list[str]]:
    return [[access.value, pattern] for access, pattern in rules]


def _rules(told: Sequence[Sequence[str]]) -> tuple[Rule, ...]:
    return tuple((Access(access), pattern) for access, pattern in told)


@dataclass(frozen=True, slots=True)
class Report:
    """Totals since the child's start, sockets that are open now, and who came to the door since the last report (`NewsDoor.take`)."""

    counts: BrokerCounts
    connections: int
    door: Sequence[Sequence[Any]] = ()

    def as_json(self) -> list[Any]:
        """For `packed`."""
        return [astuple(self.counts), self.connections, self.door]

    @classmethod
    def of(cls, told: Sequence[Any]) -> Report:
        """What `as_json` made."""
        return cls(BrokerCounts(*told[0]), told[1], told[2])


class NewsDoor(Door):
    """A door whose news are for somebody else, who keeps them. Bounded like any."""

    def __init__(self) -> None:
        super().__init__()
        self._let_in: dict[str, None] = {}

    def enter(self, name: str) -> None:
        """It was let in."""
        super().enter(name)
        self._let_in[name] = None

    def take(self) -> list[list[Any]]:
        """The news since the last time, for `pass_on`."""
        refused = [[row["node"], row["reason"], row["atMs"], row["count"]] for row in reversed(self.turned_away())]
        news = [*([name] for name in self._let_in), *refused]
        self._let_in.clear()
        self._seen.clear()
        return news


def pass_on(news: Sequence[Sequence[Any]], door: Door) -> None:
    """What `take` gave, to the door that keeps it: who was let in, then who was refused after that."""
    for name, *refusal in news:
        if refusal:
            door.refuse(name, *refusal)
        else:
            door.enter(name)
