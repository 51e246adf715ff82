"""The presenter: what rows become in words, JSON and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from hub import views, words
from hub.store.port import EventView, OrderView
from hub.views import CatchUp
from hub.web import timeline
from tests.support.fake_hub import DAY_MS, HOUR_MS, MINUTE_MS, NOW_MS, balance_row, fleet

ORDER = OrderView(
    "acme", "A-1", "SHIPPED", "WMS", "EMEA", "W8-Madrid", "dock-7", NOW_MS - HOUR_MS, 0, NOW_MS, 3, 1, False, False,
    NOW_MS + DAY_MS, {"a": 1},
)  # fmt: skip
EVENT = EventView(
    "dock-7/1f/3/aabbccdd", "dock-7", 2**62 + 1, 3, "SHIPPED", "WMS", "EMEA", "W8-Madrid", "Ana", NOW_MS - HOUR_MS, 0,
    NOW_MS - HOUR_MS + 800, NOW_MS, NOW_MS, True, False, [["hub", 2**62 + 1, 2, b"\x01\x02\x03\x04"]], {},
)  # fmt: skip
DOCK, LYON, MADRID, PORTO = fleet()


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 s"),
        (412, "0.4 s"),
        (9_999, "9.9 s"),
        (12_500, "12 s"),
        (59_999, "59 s"),
        (7 * MINUTE_MS, "7 m"),
        (3 * HOUR_MS + 12 * MINUTE_MS, "3 h 12 m"),
        (-3 * HOUR_MS, "3 h"),
        (4 * DAY_MS + 3 * HOUR_MS, "4 d 3 h"),
        (153 * DAY_MS, "5 months"),
        (11 * words.YEAR_MS + 3 * words.MONTH_MS, "11 y 3 mo"),
    ],
)
def test_a_duration_in_words(ms: int, said: str) -> None:
    assert words.duration(ms) == said


@pytest.mark.parametrize(
    ("past_ms", "said"),
    [
        (-5_000, "just now"),
        (14_999, "just now"),
        (41_000, "40 s ago"),
        (2 * MINUTE_MS, "2 min ago"),
        (30 * HOUR_MS, "30 h ago"),
        (4 * DAY_MS, "4 days ago"),
    ],
)
def test_an_age_in_words(past_ms: int, said: str) -> None:
    assert words.ago(NOW_MS - past_ms, NOW_MS) == said


@pytest.mark.parametrize(
    ("count_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_900_000, "1.9 MB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (64_000_000, "64 MB"),
        (5 * 10**15, "5,000 TB"),
    ],
)
def test_a_size_in_words(count_bytes: int, said: str) -> None:
    assert words.size(count_bytes) == said


def test_a_moment_is_told_in_utc_and_never_fails() -> None:
    assert words.moment(NOW_MS) == "21 May 2026, 14:05:12"
    assert words.moment(-(10**18)) == "1 Jan 1, 00:00:00"
    assert words.moment(10**18).startswith("31 Dec 9999")


# ------------------------------------------------------------------ fleet


def test_what_is_not_here_yet_is_said_with_count_size_age_and_last_seen() -> None:
    assert views.not_here_yet(replace(DOCK, online=True), NOW_MS) == "412 events, 1.9 MB, oldest 3 h 12 m"
    assert views.not_here_yet(DOCK, NOW_MS) == "at least 412 events, 1.9 MB, oldest 3 h 12 m, last seen 2 min ago"


def test_of_a_node_out_of_reach_nothing_is_promised() -> None:
    away = replace(MADRID, online=False, last_seen_ms=NOW_MS - 2 * HOUR_MS)
    assert views.not_here_yet(MADRID, NOW_MS) == "everything is here"
    assert views.not_here_yet(away, NOW_MS) == "nothing was missing when it was last seen (2 h ago)"
    assert views.not_here_yet(replace(MADRID, missing=None), NOW_MS) == "not heard from yet"
    assert views.not_here_yet(PORTO, NOW_MS) == "not admitted: 3 frames wait"


def test_the_headline_counts_only_admitted_nodes() -> None:
    assert views.fleet_headline([DOCK, LYON, MADRID, PORTO]) == "1 of 3 nodes is out of reach; at least 4,412 events are not here yet."
    assert views.fleet_headline([MADRID]) == "The one node is in reach and in step."
    assert views.fleet_headline([PORTO]) == "No node has been admitted yet."


def test_catching_up_is_measured_from_the_beginning_of_the_backlog() -> None:
    follow = CatchUp()
    row = replace(LYON, received=1_000, missing=400)
    assert follow.observe([row], NOW_MS)["lyon-x2"] == views.Progress(0, 400, None)
    row = replace(row, received=1_300, missing=200)  # 100 more were captured meanwhile
    assert follow.observe([row], NOW_MS + 1_000)["lyon-x2"] == views.Progress(300, 500, 667)
    assert follow.observe([replace(row, received=1_495, missing=5)], NOW_MS + 2_000) == {}


def test_a_small_backlog_shows_no_progress_and_a_rebuilt_hub_begins_anew() -> None:
    follow = CatchUp()
    assert follow.observe([replace(LYON, missing=99)], NOW_MS) == {}
    assert follow.observe([replace(LYON, received=500, missing=400)], NOW_MS) != {}
    assert follow.observe([replace(LYON, received=0, missing=900)], NOW_MS + 1_000) == {}


def test_a_node_that_is_cut_off_is_given_no_time_left() -> None:
    follow = CatchUp()
    follow.observe([replace(LYON, received=0, missing=500)], NOW_MS)
    progress = follow.observe([replace(LYON, received=100, missing=400, online=False)], NOW_MS + 1_000)
    assert progress["lyon-x2"] == views.Progress(100, 500, None)


def test_a_fleet_row_as_json_has_numbers_and_the_sentence() -> None:
    shown = views.fleet_json(DOCK, NOW_MS)
    assert shown["notHereYet"] == {
        "facts": 412, "bytes": 1_900_000, "atLeast": True, "sentence": "at least 412 events, 1.9 MB, oldest 3 h 12 m, last seen 2 min ago",
    }  # fmt: skip
    assert shown["lastSeenAt"] == "2026-05-21T14:03:12Z"


# ------------------------------------------------------------------ balance


def test_a_balance_that_closes_and_one_that_does_not() -> None:
    good = balance_row("dock-7", 100, queued=7, quarantined=1, evicted={"telemetry": 2})
    assert views.accounted(good) == 100
    assert views.balance_sentence(good) == "balanced"
    assert views.balance_sentence(balance_row("a", 100, settled=97)) == "off by 3: 100 events captured, only 97 accounted for"
    assert views.balance_sentence(balance_row("a", 100, settled=101)) == "off by 1: 101 events accounted for, only 100 captured"


def test_no_mark_is_shown_that_its_own_numbers_contradict() -> None:
    assert not views.is_balanced(balance_row("a", 100, settled=97, balanced=True))
    assert not views.is_balanced(balance_row("a", 100, balanced=False))
    shown = views.balance_json({"asOfMs": NOW_MS, "fleet": balance_row("", 1), "nodes": [balance_row("a", 5, settled=4)]})
    assert (shown["fleet"]["balanced"], shown["nodes"][0]["balanced"], shown["nodes"][0]["accounted"]) == (True, False, 4)


# ------------------------------------------------------------------ orders


def test_urls_carry_any_order_id() -> None:
    assert views.order_url("acme", "PO/7 ñ?&") == "/orders/PO%2F7%20%C3%B1%3F%26?org=acme"
    assert views.order_json(replace(ORDER, order_id="a/b"))["links"]["events"] == "/v1/orders/a%2Fb/events?org=acme"


def test_json_of_a_fact_keeps_epochs_exact() -> None:
    shown = views.event_view_json(EVENT)
    assert shown["epoch"] == str(2**62 + 1)
    assert shown["context"] == [["hub", str(2**62 + 1), 2, "01020304"]]
    assert shown["timeQuality"] == "stated"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =cmd|' /C calc'!A0"])
def test_csv_cells_never_become_formulas(text: str) -> None:
    assert views.csv_cell(text) == "'" + text


@pytest.mark.parametrize(("value", "cell"), [(None, ""), (True, "yes"), (False, "no"), (7, 7), (-7, -7), ("a=b", "a=b")])
def test_csv_cells_otherwise_keep_what_they_hold(value: object, cell: object) -> None:
    assert views.csv_cell(value) == cell


def test_csv_survives_quotes_and_line_ends() -> None:
    text = views.orders_csv([replace(ORDER, order_id='a"b,c', site="=HYPERLINK(1)")])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 1
    assert (rows[0]["orderId"], rows[0]["site"], rows[0]["conflict"]) == ('a"b,c', "'=HYPERLINK(1)", "no")


def test_pages_by_key_cover_everything_once() -> None:
    rows = [{"node": f"n{i:02d}"} for i in range(7)][::-1]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page, cursor = views.page_by_key(rows, "node", cursor, 3)
        seen += [row["node"] for row in page]
        if cursor is None:
            break
    assert seen == [f"n{i:02d}" for i in range(7)]


# ------------------------------------------------------------------ the page of an order


def test_lags_are_told_only_where_they_matter() -> None:
    assert timeline.lag_words(EVENT) == ["here 59 m later"]
    assert timeline.lag_words(replace(EVENT, happened_ms=NOW_MS - 3 * HOUR_MS))[0] == "written down 2 h after it happened"
    assert timeline.lag_words(replace(EVENT, recorded_ms=NOW_MS - 300)) == ["written down 59 m after it happened", "here within a second"]
    assert timeline.lag_words(replace(EVENT, happened_ms=None, quality=1, recorded_ms=NOW_MS + 5_000)) == [
        "the node's clock was 5.0 s ahead of the hub's"
    ]


def test_an_improbable_time_is_no_lag() -> None:
    assert timeline.lag_words(replace(EVENT, happened_ms=0, quality=2)) == ["here 59 m later"]


@pytest.mark.parametrize(
    ("status", "delivered_ms", "expected_ms", "tone", "said"),
    [
        ("SHIPPED", None, None, "none", "no promise known"),
        ("SHIPPED", None, NOW_MS + DAY_MS, "open", "due in 1 d"),
        ("SHIPPED", None, NOW_MS - 2 * DAY_MS, "late", "overdue by 2 d"),
        ("DELIVERED", NOW_MS, NOW_MS + 60_000, "good", "delivered on time"),
        ("DELIVERED", NOW_MS, NOW_MS - 2 * DAY_MS, "late", "delivered 2 d late"),
        ("DELIVERED", NOW_MS, NOW_MS + 2 * DAY_MS, "good", "delivered 2 d early"),
        ("CANCELLED", None, NOW_MS - DAY_MS, "none", "the order ended without a delivery"),
    ],
)
def test_promise_against_what_happened(status: str, delivered_ms: int | None, expected_ms: int | None, tone: str, said: str) -> None:
    events = [] if delivered_ms is None else [replace(EVENT, status="DELIVERED", happened_ms=delivered_ms)]
    assert timeline.promise_words(replace(ORDER, status=status, expected_ms=expected_ms), events, NOW_MS) == (tone, said)


def test_milestones_tell_reached_from_skipped_and_ahead() -> None:
    steps = timeline.milestones(ORDER, [replace(EVENT, status="ALLOCATED"), EVENT])
    assert [step["state"] for step in steps] == ["skipped"] * 2 + ["reached"] + ["skipped"] * 2 + ["reached"] + ["ahead"] * 3
    assert [step["name"] for step in steps if step["now"]] == ["SHIPPED"]
    assert [step["name"] for step in steps if step["furthest"]] == ["SHIPPED"]


def test_every_status_has_a_shape() -> None:
    found = [timeline.policy_class(name) for name in ("SHIPPED", "HELD", "CANCELLED", "DELIVERED")]
    assert found == ["moving", "stopped", "called-off", "done"]
    assert timeline.policy_class("FROM_A_LATER_VERSION") == "stopped"
