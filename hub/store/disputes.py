"""The conflicts of the consolidated view: pairs of heads as the table of policies judges them, and pairs that a fact settled, as history.

Both follow from the set of an order's facts: whatever their order of arrival, the same conflicts are open, and the same facts settled the
others. Only the times at which a conflict was found and closed are this store's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from protocols.clashes import Clash, ClashBook, Closed, State, judged, settlers, tell
from protocols.fact import FactRow
from protocols.merge import Ancestry, Head
from protocols.policy import Outcome, Policies, Told
from protocols.sql import Sql
from protocols.streams import StreamLog

Facts = Sequence[tuple[Head, FactRow, int]]
"""facts of an order: as the fold sees them, what they say, when the hub received them"""
Merges = Sequence[tuple[Head, tuple[Head, ...]]]
"""facts that came directly after several others, and those"""

_IN_USE: Final = "policies"
_OLD: Final = "conflicts_1"


class Disputes:
    """Inside the owner's transaction."""

    def __init__(self, db: Sql, log: StreamLog, policies: Policies) -> None:
        self._db, self._log, self.policies = db, log, policies
        self._book = ClashBook(db, policies)

    def of(self, okey: int, heads: Sequence[Head], facts: Facts, merges: Merges | None, now_ms: int) -> Outcome:
        """Judge an order as it stands, and what led there (None: only as it stands). Returns the gravest outcome of what is open."""
        here = {head.fact: (head, fact, received_ms) for head, fact, received_ms in facts}
        told: dict[tuple[int, int, bytes], Told] = {}

        def tell_head(head: Head) -> Told:
            found = told.get(head.fact)
            if found is None:
                found = told[head.fact] = self._tell(*here[head.fact])
            return found

        closed = [
            Closed(verdict, pair, (tell_head(after),))
            for after, before in merges or ()
            for verdict, pair in judged(self.policies, before, tell_head)
            if verdict.outcome is not Outcome.ACCEPT
        ]
        verdicts = judged(self.policies, heads, tell_head)
        return self._book.update(okey, verdicts, _together(closed), now_ms, complete=merges is not None)

    def gone(self, okey: int, now_ms: int) -> None:
        """All facts of an order were given up."""
        self._book.update(okey, [], [], now_ms, complete=True)

    def of_order(self, okey: int) -> list[Clash]:
        """What is kept of an order."""
        return self._book.of_order(okey)

    def _tell(self, head: Head, fact: FactRow, received_ms: int) -> Told:
        sid, seq, h = head.fact
        return tell(self._log.by_sid(sid).key, seq, h, fact, received_ms)

    # ------------------------------------------------------------ going forward

    def in_use(self) -> bool:
        """Was this database last written with this table of policies?"""
        row = self._db.one("SELECT value FROM meta WHERE key=?", (_IN_USE,))
        return row is not None and row[0] == self.policies.digest

    def note_in_use(self) -> None:
        """From now on it is."""
        self._db.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
            (_IN_USE, self.policies.digest),
        )

    def adopt_old(self, facts_of: Any, ancestry: Ancestry) -> None:
        """Take over what version 1 kept, with its words and times, once. `facts_of`: okey -> `Facts`."""
        if self._db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (_OLD,)) is None:
            return
        rows = self._db.query(
            f"""SELECT okey, shown_sid, shown_seq, shown_h, other_sid, other_seq, other_h, sentence, raised_ms, settled_ms
                FROM {_OLD} ORDER BY cid"""
        )
        for okey, *pair, sentence, raised_ms, settled_ms in rows:
            facts: Facts = facts_of(okey)
            sides = [next((f for f in facts if f[0].fact == (side[0], side[1], bytes(side[2]))), None) for side in (pair[:3], pair[3:])]
            if sides[0] is not None and sides[1] is not None:
                self._adopt(okey, (sides[0], sides[1]), facts, ancestry, sentence, raised_ms, settled_ms)
        self._db.run(f"DROP TABLE {_OLD}")

    def _adopt(
        self,
        okey: int,
        pair: tuple[tuple[Head, FactRow, int], tuple[Head, FactRow, int]],
        facts: Facts,
        ancestry: Ancestry,
        sentence: str,
        raised_ms: int,
        settled_ms: int | None,
    ) -> None:
        (a, _, _), (b, _, _) = pair
        verdict = self.policies.judge(self._tell(*pair[0]), self._tell(*pair[1]))
        self._book.insert(okey, verdict, (a, b), sentence, raised_ms)
        if settled_ms is not None:
            after = settlers(a, b, [head for head, _, _ in facts], ancestry)
            by = tuple(self._tell(*one) for one in facts if one[0] in after)
            self._book.close(verdict.id, State.SETTLED if by else State.WENT_ON, settled_ms, by)


def _together(closed: Sequence[Closed]) -> list[Closed]:
    """One for each pair, with all the facts that settled it, in an order of their own."""
    by_id: dict[str, Closed] = {}
    for one in closed:
        known = by_id.get(one.verdict.id)
        by_id[one.verdict.id] = one if known is None else known._replace(by=tuple(sorted((*known.by, *one.by), key=lambda t: t.identity)))
    return list(by_id.values())
