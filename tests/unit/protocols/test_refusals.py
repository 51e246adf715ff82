"""A transport's books of what was refused: open while it lasts, counted for good, bounded."""

from __future__ import annotations

import json

import pytest

from protocols.transport.refusals import KEPT, QUIET_MS, REMEDIES, Refusal, Refusals, of_connection, of_publish


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0x00, None), (0x10, Refusal.NOBODY), (0x87, Refusal.ACL), (0x95, Refusal.TOO_LARGE), (0x97, Refusal.QUOTA), (0x99, Refusal.OTHER)],
)
def test_what_the_reason_code_of_an_acknowledgement_means(code: int, kind: Refusal | None) -> None:
    assert of_publish(code) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0x86, Refusal.CREDENTIALS), (0x87, Refusal.CREDENTIALS), (0x97, Refusal.QUOTA), (0x95, Refusal.TOO_LARGE), (0x80, Refusal.OTHER)],
)
def test_what_the_reason_code_of_a_connection_means(code: int, kind: Refusal) -> None:
    assert of_connection(code) is kind


def test_every_kind_has_a_remedy() -> None:
    assert sorted(REMEDIES, key=lambda k: k.value) == sorted(Refusal, key=lambda k: k.value)


def test_a_node_that_nobody_admitted_is_told_so() -> None:
    assert "longshore-hub nodes add" in REMEDIES[Refusal.CREDENTIALS]


def test_the_same_again_is_one_entry_with_a_count(clock: Clock) -> None:
    books = Refusals(clock)
    books.note(Refusal.ACL, "no", "a/b")
    clock.now_ms += 5_000
    books.note(Refusal.ACL, "no", "a/b")
    books.note(Refusal.ACL, "no", "a/c")
    first = books.seen()[0]
    assert (first.topic, first.count, first.last_ms - first.since_ms) == ("a/b", 2, 5_000)
    assert books.totals()["acl"] == 3
    assert json.loads(json.dumps(first.as_json()))["remedy"] == REMEDIES[Refusal.ACL]


def test_what_passes_ends_what_was_refused_there_if_it_is_no_smaller(clock: Clock) -> None:
    books = Refusals(clock)
    books.note(Refusal.TOO_LARGE, "no", "a", 5_000)
    books.note(Refusal.TOO_LARGE, "no", "a", 9_000)
    books.passed("a", 4_999)
    books.passed("b", 9_000)
    assert len(books.seen()) == 1
    books.passed("a", 5_000)
    assert books.seen() == ()
    assert books.totals()["too-large"] == 2, "the count stays"


def test_a_connection_ends_what_kept_it_down_and_no_more(clock: Clock) -> None:
    books = Refusals(clock)
    books.note(Refusal.CREDENTIALS, "no")
    books.note(Refusal.ACL, "no", "a")
    books.entered()
    assert [seen.kind for seen in books.seen()] == [Refusal.ACL]


def test_what_is_not_seen_again_is_over(clock: Clock) -> None:
    books = Refusals(clock)
    books.note(Refusal.QUOTA, "no", "a")
    clock.now_ms += QUIET_MS - 1
    assert books.seen()
    clock.now_ms += 1
    assert books.seen() == ()


def test_the_books_are_bounded_and_the_one_seen_longest_ago_goes(clock: Clock) -> None:
    books = Refusals(clock)
    for number in range(KEPT):
        books.note(Refusal.ACL, "no", str(number))
    books.note(Refusal.ACL, "no", "0")
    books.note(Refusal.ACL, "no", "one more")
    topics = [seen.topic for seen in books.seen()]
    assert len(topics) == KEPT
    assert "0" in topics and "1" not in topics
