"""Holds, tasks and who settled them, on the pages of the hub."""

from __future__ import annotations

from typing import Any

from protocols.policies import shipped
from tests.support.fake_hub import HOUR_MS, NOW_MS, AppClient, FakeHub, event
from tests.unit.hub.test_web import XSS, faults_of, text_of


def disputes(hub: FakeHub) -> None:
    """One order on hold, one whose conflict was settled at the dock, one that two staff picked."""
    at = NOW_MS - 5 * HOUR_MS

    def says(node: str, order_id: str, status: str, later: int, *, seen: list[list[Any]] | None = None, **more: Any) -> list[Any]:
        one = event(order_id, status, at + later * 600_000, **more)
        return hub.fact(node, one, recorded_ms=at + later * 600_000, received_ms=at + later * 600_000 + 4_000, seen=seen)

    centre: dict[str, Any] = {"source": "CRM", "site": None, "actor": "service-desk"}
    counted = {"notes": f"two boxes {XSS}", "quantities": {"picked": 3}}
    for order_id in ("HOLD-1", "DONE-1"):
        picked = says("dock-7", order_id, "PICKED", 1, site="W3-Lisbon", actor="Ana", details=counted)
        cancelled = says("hub", order_id, "CANCELLED", 2, details={"notes": ["customer called"]}, **centre)
    back = {"notes": "back on shelf 3", "settles": ["a", "b"]}
    says("dock-7", "DONE-1", "RETURNED", 9, seen=[cancelled], site="W3-Lisbon", actor="Ana", details=back)
    assert picked
    says("dock-7", "TWICE-1", "PICKED", 1, site="W3-Lisbon", actor="Ana", details={"quantities": {"picked": 3}})
    says("lyon-x2", "TWICE-1", "PICKED", 2, site="X2-Lyon", actor="Ben", details={"quantities": {"picked": 2}})


def test_an_order_on_hold_says_why_and_what_to_do(hub: FakeHub) -> None:
    disputes(hub)
    text = text_of(AppClient(hub).get("/orders/HOLD-1?org=acme").text)
    assert "On hold" in text
    assert "People must settle this; until then the order is on hold hold Cancelled at the centre by service-desk while picked" in text
    assert "Task for the dock: Stop the goods of a cancelled order" in text
    assert "Returned The cancellation stands: return the goods to stock." in text
    assert "longshore-hub conflicts settle" in text
    assert "customer called service-desk" in text
    assert "two boxes <" in text
    assert "Quantities picked 3" in text
    assert "Current facts by service-desk, Ana" in text


def test_a_settled_conflict_says_who_and_how(hub: FakeHub) -> None:
    disputes(hub)
    text = text_of(AppClient(hub).get("/orders/DONE-1?org=acme").text)
    assert "On hold" not in text
    assert "Conflicts that are closed" in text
    assert "Returned settled by Ana at W3-Lisbon: back on shelf 3" in text
    listed = text_of(AppClient(hub).get("/conflicts?open=false").text)
    assert "settled by Ana at W3-Lisbon" in listed
    only = text_of(AppClient(hub).get("/conflicts").text)
    assert ("HOLD-1" in only, "DONE-1" in only) == (True, False)


def test_two_staff_are_both_credited(hub: FakeHub) -> None:
    disputes(hub)
    text = text_of(AppClient(hub).get("/orders/TWICE-1?org=acme").text)
    assert "the same step, recorded twice without knowing of each other. Nothing to do" in text
    assert "Quantities picked 5" in text
    assert "People must settle this" not in text


def test_milestones_nobody_reported_do_not_look_done(hub: FakeHub) -> None:
    disputes(hub)
    page = AppClient(hub).get("/orders/TWICE-1?org=acme").text
    assert page.count('<span class="unsaid">not reported</span>') == 3
    assert page.count('class="skipped"') == 3


def test_orders_on_hold_are_listed_alone(hub: FakeHub) -> None:
    disputes(hub)
    client = AppClient(hub)
    assert [one["orderId"] for one in client.get("/v1/orders?held=true").json()["orders"]] == ["HOLD-1"]
    assert {one["orderId"] for one in client.get("/v1/orders?held=false").json()["orders"]} == {"DONE-1", "TWICE-1"}
    assert client.get("/v1/orders?held=maybe").status_code == 422


def test_the_policy_in_use_is_named(hub: FakeHub) -> None:
    disputes(hub)
    told = AppClient(hub).get("/v1/conflicts").json()
    assert told["policies"] == {"name": "shipped", "digest": shipped().digest, "rules": len(shipped().rules)}


def test_the_pages_are_sound_and_what_people_wrote_is_no_markup(hub: FakeHub) -> None:
    disputes(hub)
    for path in ("/conflicts?open=false", "/orders/HOLD-1?org=acme", "/orders/DONE-1?org=acme", "/orders/TWICE-1?org=acme"):
        html = AppClient(hub).get(path).text
        assert faults_of(html) == []
        assert XSS not in html
