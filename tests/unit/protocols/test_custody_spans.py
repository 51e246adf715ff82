"""What is remembered of the spans in custody is what lies in their table, whatever was written since."""

from __future__ import annotations

from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any

import pytest

from protocols import custody_spans
from protocols.custody_spans import SAFE, Span, Spans
from protocols.schema import LEDGER, migrate
from protocols.sqlite import Db
from protocols.streams import StreamKey

KEYS = [StreamKey(f"dock-{n}", 1, 0) for n in range(3)]


def made() -> Db:
    db = Db(":memory:")
    migrate(db, LEDGER)
    return db


def all_of(spans: Spans) -> list[Any]:
    return [(key, spans.of(key).kept, spans.of(key).ends(), spans.of(key).open()) for key in spans.streams()]


def drawn(rng: Random) -> Span:
    first = rng.randrange(1, 6)
    last = first + rng.randrange(4)
    return Span(rng.choice(KEYS), first, bytes([first - 1]) * 8, last, bytes([last + 10 * rng.randrange(2)]) * 8)


@pytest.mark.parametrize("most", [custody_spans.CACHED_SPANS, 5])
def test_what_is_remembered_is_what_is_written(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with so little memory that some are forgotten and some never kept."""
    monkeypatch.setattr(custody_spans, "CACHED_SPANS", most)
    seed = SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    rng, db = Random(seed), made()
    spans, cids = Spans(db), iter(range(1, 10_000))
    there: list[int] = []

    def add() -> None:
        there.append(next(cids))
        spans.add(there[-1], [drawn(rng) for _ in range(rng.randrange(1, 4))])

    def mark() -> None:
        kept = spans.of(rng.choice(KEYS)).kept
        some = [k for k in kept if rng.random() < 0.5]
        for key in dict.fromkeys(k.span.key for k in some):
            spans.mark(key, some, rng.randrange(SAFE + 1))

    def drop() -> None:
        if there:
            spans.drop(there.pop(rng.randrange(len(there))))

    steps: list[Callable[[], None]] = [add, add, mark, mark, drop]
    for _ in range(400):
        rng.choice(steps)()
        assert all_of(spans) == all_of(Spans(db))
        assert sum(len(stream.kept) for stream in spans._streams.values()) == spans._cached <= most


def test_who_looked_for_frames_looks_again_when_one_may_have_come_or_gone() -> None:
    db = made()
    spans = Spans(db)
    spans.add(1, [Span(KEYS[0], 1, b"", 2, b"2" * 8)])
    assert spans.of(KEYS[0]).framed is None
    spans.of(KEYS[0]).framed = True
    spans.mark(KEYS[0], spans.of(KEYS[0]).kept, SAFE)
    assert spans.of(KEYS[0]).framed is True
    assert spans.of(KEYS[0]).ends() == ([], [])
    spans.add(2, [Span(KEYS[0], 3, b"2" * 8, 3, b"3" * 8)])
    assert spans.of(KEYS[0]).framed is True  # whatever came, the one is still here
    spans.drop(1)
    assert spans.of(KEYS[0]).framed is None
    spans.of(KEYS[0]).framed = False
    spans.drop(2)
    assert spans.of(KEYS[0]).framed is False
    spans.add(3, [Span(KEYS[0], 3, b"2" * 8, 3, b"3" * 8)])
    assert spans.of(KEYS[0]).framed is False  # what came was none
    spans.add(4, [Span(KEYS[0], 4, b"3" * 8, 4, b"4" * 8)], frame=True)
    assert spans.of(KEYS[0]).framed is True
