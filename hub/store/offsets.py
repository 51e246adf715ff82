"""How far the partitions of a bus were applied, kept by the store in the transaction that applies (reliability.md, rule 4).

A projector that is given a partition *claims* it with a token of its own chance; from that commit on whoever held it before is fenced. Each
batch then says how far it moves each of its partitions, and moves only if token and offset are still those it counted with. So of two that
believe they own a partition one applies, and the other changes nothing and is told. A store that came back older answers the same way:
its projectors claim again, and read on from where that store stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from protocols.errors import Fenced
from protocols.sql import Sql


class Move(NamedTuple):
    """One partition's share of a batch. `expected`: the next offset as the claim or the move before left it, None before the first."""

    topic: str
    partition: int
    fence: int
    expected: int | None
    next_offset: int
    """the first that is not applied by then"""


@dataclass(frozen=True, slots=True)
class Advance:
    """What a batch moves: all of it, or with `Fenced` nothing, the batch's facts included. At most one move for each partition."""

    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Offset:
    """A partition as the store knows it. `next_offset` None: nothing of it was applied yet."""

    topic: str
    partition: int
    next_offset: int | None
    fence: int


def fenced(move: Move) -> Fenced:
    """This partition is another's."""
    return Fenced(
        f"{move.topic}/{move.partition} stands no longer at {move.expected} under this claim: another projector took it over,"
        " or the store came back older",
        remedy="let it go, or claim it again and read on from where the store stands",
    )


FENCE_BITS: Final = 63
"""of a token"""


class Offsets:
    """The table. Inside the owner's transaction; keeps nothing in memory."""

    def __init__(self, db: Sql) -> None:
        self._db = db

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """Take a partition over. Returns its next offset; None: nothing of it was applied yet."""
        row = self._db.one(
            """INSERT INTO offsets (topic, partition, next_offset, fence) VALUES (?, ?, NULL, ?)
               ON CONFLICT (topic, partition) DO UPDATE SET fence=excluded.fence RETURNING next_offset""",
            (topic, partition, fence),
        )
        return None if row is None or row[0] is None else int(row[0])

    def advance(self, advance: Advance) -> None:
        """Compare and set. Errors: Fenced."""
        for move in sorted(advance.moves):  # in one order everywhere: two that hold each other's rows would wait for ever
            found = self._db.query(
                """UPDATE offsets SET next_offset=? WHERE topic=? AND partition=? AND fence=? AND next_offset IS NOT DISTINCT FROM ?
                   RETURNING 1""",
                (move.next_offset, move.topic, move.partition, move.fence, move.expected),
            )
            if not found:
                raise fenced(move)

    def all(self) -> list[Offset]:
        """Every partition that was ever claimed."""
        return [
            Offset(*row) for row in self._db.query("SELECT topic, partition, next_offset, fence FROM offsets ORDER BY topic, partition")
        ]
