"""What reaches the live feed when little happens, and when thousands of facts arrive per second."""

from __future__ import annotations

import json

from hub.feed import BURST, ITEMS_PER_S, MORE_EVERY_MS, Sampler
from hub.store.port import Change
from hub.stream import Feed


def changes(count: int, *, conflict_at: int | None = None, first: int = 0) -> list[Change]:
    return [
        Change("acme", f"A{first + n}", "PLACED", "PLACED", "ERP", None, None, "dock-7", 1, 2, n == conflict_at, True) for n in range(count)
    ]


def kinds(feed: Feed) -> list[str]:
    return [item.kind for item in feed.recent(10_000)]


def shown(feed: Feed) -> list[str]:
    return [json.loads(item.text)["orderId"] for item in reversed(feed.recent(10_000)) if item.kind == "change"]


def more(feed: Feed) -> list[int]:
    return [json.loads(item.text)["more"] for item in reversed(feed.recent(10_000)) if item.kind == "more"]


def test_everything_is_shown_while_little_happens() -> None:
    feed = Feed(boot="t")
    Sampler(feed).publish(changes(BURST), 0)
    assert kinds(feed) == ["change"] * BURST


def test_a_backlog_is_sampled_and_the_rest_is_counted() -> None:
    feed = Feed(boot="t")
    Sampler(feed).publish(changes(4_000), 0)
    assert len(shown(feed)) == BURST
    assert more(feed) == [4_000 - BURST]
    assert shown(feed)[-1] == "A3999", "the freshest"
    assert shown(feed) == sorted(shown(feed), key=lambda name: int(name[1:])), "in their order"


def test_a_conflict_is_shown_before_all_else() -> None:
    feed = Feed(boot="t")
    Sampler(feed).publish(changes(4_000, conflict_at=17), 0)
    assert "A17" in shown(feed)


def test_in_the_long_run_the_rate_is_bounded_and_nothing_is_left_uncounted() -> None:
    feed, total = Feed(boot="t", keep=100_000), 0
    sampler = Sampler(feed)
    for second in range(20):
        for part in range(10):
            sampler.publish(changes(200, first=total), second * 1_000 + part * 100)
            total += 200
    sampler.publish((), 21_000)
    assert len(shown(feed)) <= BURST + 20 * ITEMS_PER_S
    assert len(shown(feed)) + sum(more(feed)) == total
    assert sampler.unshown_total == sum(more(feed))
    assert len(more(feed)) <= 21_000 / MORE_EVERY_MS


def test_a_sampler_says_when_it_wants_to_be_asked_again() -> None:
    feed = Feed(boot="t")
    sampler = Sampler(feed)
    assert sampler.due_ms() is None
    sampler.publish(changes(BURST + 1), 0)
    sampler.publish(changes(5), 1)
    assert sampler.due_ms() == MORE_EVERY_MS
    sampler.publish((), MORE_EVERY_MS)
    assert sampler.due_ms() is None
    assert sum(more(feed)) == 6


def test_a_clock_that_goes_back_shows_no_more_than_the_burst() -> None:
    feed = Feed(boot="t")
    sampler = Sampler(feed)
    sampler.publish(changes(BURST), 1_000_000)
    sampler.publish(changes(50), 0)
    assert len(shown(feed)) == BURST
