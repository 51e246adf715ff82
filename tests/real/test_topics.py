"""What lies in Kafka is compared with what PostgreSQL holds: records made by hand, and each thing that may be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgpack
import pytest

from tests.chaos.oracle import Books, Fact, FactId
from tests.real.topics import EVENTS, Record, compare, repeated

STATUS: Final = 1


def fact(seq: int, order: str = "O1") -> Fact:
    row = msgpack.packb([1, "acme", order, "S", STATUS, 7, 0, 7, None, None, None, {"op": f"t{seq}"}, []])
    return Fact(FactId("dock", 0xAB, 0, seq, blake2b(row + bytes([seq]), digest_size=8).digest()), bytes(8), row)


def record(f: Fact, **changed: object) -> Record:
    assert f.order is not None
    value = {"org": f.order[0], "orderId": f.order[1], "status": f.status.name}
    ce_id = f"dock/ab/{f.id.seq}/{f.id.h.hex()}".encode()
    made = Record(EVENTS, 0, "/".join(f.order).encode(), json.dumps(value).encode(), {"ce_id": ce_id, "ls_fact": bytes(33) + f.row})
    return made._replace(**changed)  # type: ignore[arg-type]


def books(*facts: Fact) -> Books:
    return Books("store", {f.id: f for f in facts}, {})


def test_all_is_well_also_when_a_fact_lies_there_twice() -> None:
    one, two = fact(1), fact(2)
    records = [record(one), record(two), record(one)]
    assert compare(records, books(one, two)) == []
    assert repeated(records) == 1


WRONG: Final[dict[str, Callable[[Fact], tuple[list[Record], Books]]]] = {
    "is not in the store": lambda f: ([record(f)], books()),
    "is in the store and never was in Kafka": lambda f: ([], books(f)),
    "twice, and not the same": lambda f: ([record(f), record(f, value=b"{}")], books(f)),
    "lies there twice": lambda f: ([record(f), record(f, partition=1)], books(f)),
    "has another row": lambda f: ([record(f, headers=record(f).headers | {"ls_fact": bytes(33) + b"x"})], books(f)),
    "its row says otherwise": lambda f: ([record(f, value=record(f).value.replace(b"O1", b"O2"))], books(f)),
    "and its row says": lambda f: ([record(f, key=b"acme/O2")], books(f)),
    "lies in longshore.devices": lambda f: ([record(f, topic="longshore.devices.telemetry.v1")], books(f)),
    "a dead letter": lambda f: ([record(f), record(f, topic=f"{EVENTS}.dlq")], books(f)),
}


@pytest.mark.parametrize("words", list(WRONG))
def test_what_is_wrong_is_named(words: str) -> None:
    said = compare(*WRONG[words](fact(1)))
    assert len(said) == 1, said
    assert said[0].startswith("topic: ")
    assert words in said[0]
