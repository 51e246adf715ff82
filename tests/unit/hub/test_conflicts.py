"""The whole story with a real hub, a real edge and a real line: picked at a dock that is cut off, cancelled at the centre; then settled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent.conflicts import find, list_json
from edge_agent.runtime import EdgeRuntime
from hub.cli import main
from hub.conflicts_api import standing
from protocols.errors import Conflict
from protocols.event import EventDefaults, parse_event
from protocols.merged import totals
from protocols.settling import parse_settlement
from tests.unit.hub.test_runtime import Caller, EdgeKit, calling, in_loop, make_hub, until

pytestmark = pytest.mark.slow  # whole processes

DOCK = EventDefaults("acme", "EMEA", "Madrid")
AT = "2026-05-21T14:05:12Z"


def picked(order_id: str, actor: str = "ana") -> Any:
    said = {"orderId": order_id, "source": "WMS", "status": "PICKED", "timestamp": AT, "actor": actor}
    details = {"quantities": {"picked": 3}, "notes": f"picked by {actor}"}
    return parse_event({**said, "details": details}, defaults=DOCK, now_ms=0)


async def cancelled(hub: Caller, order_id: str) -> None:
    said = {"orderId": order_id, "source": "ERP", "status": "CANCELLED", "timestamp": AT, "actor": "desk-2"}
    details = {"notes": ["customer called"], "quantities": {"called": 1}}
    answer = await hub.client.post("/v1/events", json={**said, "details": details})
    assert answer.status_code == 201, answer.text


async def heard_at(edge: EdgeRuntime, conflict: str) -> dict[str, Any]:
    """The centre's fact came down to the dock, which judges for itself."""

    async def there() -> bool:
        return bool(list_json(edge.core.ledger, open_only=True, limit=10)["conflicts"])

    await until(there, "the conflict at the dock")
    (one,) = list_json(edge.core.ledger, open_only=True, limit=10)["conflicts"]
    assert one["id"] == conflict
    return dict(one)


async def one_open(hub: Caller, order_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        listed = (await hub.get("/v1/conflicts?open=true"))["conflicts"]
        found[:] = [one for one in listed if one["orderId"] == order_id]
        return len(found) == 1

    await until(there, f"a conflict about {order_id}")
    return found[0]


async def closed(hub: Caller, conflict: str) -> dict[str, Any]:
    async def settled() -> bool:
        return (await hub.get(f"/v1/conflicts/{conflict}"))["state"] == "settled"

    await until(settled, "settled at the centre")
    return dict(await hub.get(f"/v1/conflicts/{conflict}"))


def test_held_at_both_ends_settled_at_the_dock_and_both_agree(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            assert (await hub.client.post("/v1/nodes", json=kit.card)).status_code == 201
            await cancelled(hub, "A1")  # the dock is not connected yet, and picks
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([picked("A1")])
                centre = await one_open(hub, "A1")
                dock = await heard_at(edge, centre["id"])
                known = edge.core.ledger.book.get("acme", "A1")
                assert known is not None
                assert totals(known.counted) == {"called": 1, "picked": 3}
                same = ("id", "outcome", "policy", "sentence", "task", "held", "shownFact", "otherFact", "credited")
                assert {name: dock[name] for name in same} == {name: centre[name] for name in same}
                assert (centre["outcome"], centre["held"], centre["task"]["for"], centre["credited"]) == (
                    "hold",
                    True,
                    "dock",
                    ["desk-2", "ana"],
                )

                order = await hub.get("/v1/orders/A1")
                assert (order["conflict"], order["held"], order["heldBecause"]) == (True, True, centre["sentence"])
                assert order["quantities"] == {"called": 1, "picked": 3}
                assert [(note["text"], note["by"]) for note in order["notes"]] == [("customer called", "desk-2"), ("picked by ana", "ana")]

                clash = find(edge.core.ledger, dock["id"])
                assert clash is not None
                said = {"status": "RETURNED", "actor": "ana", "note": "back on shelf 3"}
                settlement = parse_settlement(said, clash, "acme", "A1", defaults=DOCK, now_ms=edge.now().wall)
                (done,) = await edge.append([settlement])
                with pytest.raises(Conflict, match="not open here any more"):
                    await edge.append([settlement])
                assert list_json(edge.core.ledger, open_only=True, limit=10)["conflicts"] == []

                told = await closed(hub, centre["id"])
                (by,) = told["settledBy"]
                assert (by["factId"], by["actor"], by["note"], by["status"]) == (done.fact_id, "ana", "back on shelf 3", "RETURNED")
                assert (told["task"]["open"], told["held"]) == (False, False)
                order = await hub.get("/v1/orders/A1")
                assert (order["status"], order["held"], order["conflict"]) == ("RETURNED", False, False)
                assert order["quantities"] == {"called": 1, "picked": 3}

    in_loop(story)


def test_settled_at_the_centre_once_by_name_and_never_twice(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            assert (await hub.client.post("/v1/nodes", json=kit.card)).status_code == 201
            await cancelled(hub, "A1")
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([picked("A1")])
                path = f"/v1/conflicts/{(await one_open(hub, 'A1'))['id']}"
                bad = await hub.client.post(f"{path}/settle", json={"status": "RETURND", "actor": "x"})
                assert (bad.status_code, bad.json()["field"]) == (422, "status")
                said = {"status": "RETURNED", "actor": "desk-2", "note": "agreed by phone", "idempotencyKey": "s-1"}
                first = await hub.client.post(f"{path}/settle", json=said)
                assert (first.status_code, first.json()["repeated"]) == (201, False)
                again = await hub.client.post(f"{path}/settle", json=said)
                assert (again.status_code, again.json()) == (200, {**first.json(), "repeated": True})
                await closed(hub, path.rpartition("/")[2])
                order = await hub.get("/v1/orders/A1")
                assert (order["status"], order["site"], order["region"]) == ("RETURNED", "Madrid", "EMEA"), "it left the lists of its site"
                assert [one["orderId"] for one in (await hub.get("/v1/orders?site=Madrid"))["orders"]] == ["A1"]
                late = await hub.client.post(f"{path}/settle", json={"status": "PACKED", "actor": "ben"})
                assert late.status_code == 409
                assert "settled already: returned at the centre by desk-2" in late.json()["detail"]
                other = await hub.client.post(f"{path}/settle", json={**said, "status": "PACKED"})
                assert other.status_code == 409
                missing = await hub.client.post("/v1/conflicts/0123456789abcdef/settle", json=said)
                assert missing.status_code == 404

    in_loop(story)


class Told(NamedTuple):
    """What of a timeline's fact is asked."""

    region: str | None
    site: str | None
    is_head: bool


class OneOrder:
    """A store with one order, of which nobody shown names a site."""

    def __init__(self, *facts: Told) -> None:
        self._facts = facts

    def order(self, org: str, order_id: str) -> Told:
        return Told("central", None, True)

    def events(self, org: str, order_id: str) -> tuple[Told, ...]:
        return self._facts


@pytest.mark.parametrize(
    ("facts", "where"),
    [
        ((Told("EMEA", "Madrid", True), Told("APAC", "Perth", False), Told("central", None, True)), ("EMEA", "Madrid")),
        ((Told("EMEA", "Madrid", False), Told("APAC", "Perth", False), Told("central", None, True)), ("APAC", "Perth")),
        ((Told("central", None, True),), (None, None)),
    ],
    ids=["beside what is shown", "the last that was named", "nowhere"],
)
def test_where_an_order_stands_when_the_fact_shown_names_no_site(facts: tuple[Told, ...], where: tuple[str | None, str | None]) -> None:
    assert standing(OneOrder(*facts), "acme", "A1") == where  # type: ignore[arg-type]


def test_a_key_twice_in_one_object_is_refused_by_the_hub_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            body = b'{"orderId": "A", "source": "ERP", "status": "PLACED", "orderId": "B", "timeQuality": "unknown"}'
            answer = await hub.client.post("/v1/events", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["field"]) == (422, "orderId")
            assert (await hub.get("/v1/orders"))["orders"] == []

    in_loop(story)


def test_the_command_line_lists_tells_and_settles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dir", str(tmp_path)]

    def run(*args: str) -> tuple[int, str, str]:
        code = main([*args, *where])
        said = capsys.readouterr()
        return code, said.out, said.err

    async def story() -> None:
        import asyncio

        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            assert (await hub.client.post("/v1/nodes", json=kit.card)).status_code == 201
            await cancelled(hub, "A1")
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([picked("A1")])
                clash = (await one_open(hub, "A1"))["id"]
                code, out, _ = await asyncio.to_thread(run, "conflicts", "--open")
                assert code == 0
                assert clash in out
                code, out, _ = await asyncio.to_thread(run, "conflicts", "show", clash)
                assert "task for the dock (open): Stop the goods of a cancelled order" in out
                assert "  --status RETURNED: " in out
                code, _, err = await asyncio.to_thread(run, "conflicts", "settle", clash, "--status", "RETURNED")
                assert (code, "--actor: is needed" in err) == (2, True)
                code, out, _ = await asyncio.to_thread(
                    run, "conflicts", "settle", clash, "--status", "RETURNED", "--actor", "desk-2", "--note", "by phone", "--json"
                )
                assert (code, json.loads(out)["status"]) == (0, "RETURNED")
                await closed(hub, clash)
                code, out, _ = await asyncio.to_thread(run, "conflicts", "show", clash)
                assert "settled with RETURNED by desk-2 at the centre, “by phone”" in out
                code, _, err = await asyncio.to_thread(run, "conflicts", "settle", clash, "--status", "PACKED", "--actor", "x")
                assert (code, "settled already" in err) == (1, True), "as at an edge"
                code, _, err = await asyncio.to_thread(run, "conflicts", "tell", clash)
                assert (code, "is not understood" in err) == (2, True)

    in_loop(story)
    code, out, err = run("conflicts", "show", json.loads(run("conflicts", "--json")[1])["conflicts"][0]["id"])
    assert (code, "settled with RETURNED" in out) == (0, True)
    code, _, err = run("conflicts", "settle", "0123456789abcdef", "--status", "PACKED", "--actor", "x")
    assert (code, "does not run" in err) == (6, True)


def test_a_hub_does_not_start_with_a_bad_table_of_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(
        "version: 1\npolicies:\n  - {id: a, first: PICKD, second: ANY, outcome: accept, says: x}\n", "utf-8"
    )
    make_hub(tmp_path)
    file = tmp_path / "hub.toml"
    file.write_text(file.read_text("utf-8").replace('#policy_file = ""', 'policy_file = "mine.yaml"'), "utf-8")
    code = main(["run", "--dir", str(tmp_path)])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (3, 1)
    assert "mine.yaml, line 3: a status is 'PICKD'" in err
    assert "Did you mean PICKED?" in err
