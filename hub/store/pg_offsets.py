"""Offsets of the bus (`hub.store.offsets`), moved on PostgreSQL: all of a batch with one statement."""

from __future__ import annotations

from typing import Final

from hub.store.offsets import Advance, fenced
from hub.store.pg import Answer, Asked
from hub.store.pg_values import bigints, integers, texts

_MOVE: Final = """UPDATE offsets o SET next_offset=m.next_offset
    FROM unnest(?::text[], ?::integer[], ?::bigint[], ?::bigint[], ?::bigint[]) m (topic, partition, fence, expected, next_offset)
    WHERE o.topic=m.topic COLLATE "C" AND o.partition=m.partition AND o.fence=m.fence AND o.next_offset IS NOT DISTINCT FROM m.expected
    RETURNING o.topic, o.partition"""


def moving(advance: Advance) -> Asked:
    """Compare and set; `check` is given the answer. In one order everywhere; two that hold each other's rows all the same are raced."""
    moves = sorted(advance.moves)
    return _MOVE, (
        texts([m.topic for m in moves]), integers([m.partition for m in moves]), bigints([m.fence for m in moves]),
        bigints([m.expected for m in moves]), bigints([m.next_offset for m in moves]),
    )  # fmt: skip


def check(advance: Advance, answer: Answer) -> None:
    """Errors: Fenced."""
    moved = dict.fromkeys(answer.rows)
    for move in sorted(advance.moves):
        if (move.topic, move.partition) not in moved:
            raise fenced(move)
