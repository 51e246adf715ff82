"""Whether a fact of another may stand where it came, beyond being readable: what would cost too much, and who may speak for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from protocols.fact import WITHDRAWN, FactRow, read_withdrawn
from protocols.fact_columns import from_rows
from protocols.quarantine import TOO_MANY
from protocols.reading import kind_of, readable
from protocols.streams import StreamKey, StreamLog

REASON_CHARS: Final = 200


class Judge(NamedTuple):
    """For the facts of one stream. `bounded`: they may not make too many streams known. `orgs`: the organisations that their author speaks
    for; () holds nothing against it."""

    log: StreamLog
    key: StreamKey
    bounded: bool
    orgs: Sequence[str]

    def of(self, seq: int, values: object) -> tuple[FactRow | None, str]:
        """`readable`, and whether it may stand at this seq: (None, why) where it may not."""
        fact, why = readable(values, self.key, seq)
        if why:
            return None, why
        if fact is not None and self.orgs and fact.org not in self.orgs:
            return None, f"org: {fact.org} is not {' or '.join(self.orgs)}, for which its author may speak"[:REASON_CHARS]
        if not self.bounded or (fact is not None and not fact.context and fact.replaces is None):
            return fact, ""
        named = self._named(fact, values)
        return (None, TOO_MANY) if named and not self.log.room_for(named) else (fact, "")

    def plain(self, rows: Sequence[object]) -> list[FactRow] | None:
        """`of` each of these, where all are events of orders that may stand, name no stream, and put nothing right. None: look at each."""
        facts = from_rows(rows)
        if facts is None or any(fact.context for fact in facts):
            return None
        return facts if not self.orgs or {fact.org for fact in facts} <= set(self.orgs) else None

    def _named(self, fact: FactRow | None, values: object) -> list[StreamKey]:
        replaces = fact.replaces if fact is not None else read_withdrawn(values).replaces if kind_of(values) == WITHDRAWN else None
        named = [StreamKey(e[0], e[1], self.key.cls) for e in fact.context] if fact is not None else []
        if replaces is not None:
            named += [StreamKey(self.key.node, epoch, self.key.cls) for epoch, _, _ in replaces.all]
        return named
