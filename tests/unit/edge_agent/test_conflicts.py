"""Conflicts in the LAN API and on the command line of an edge: listed, told, settled; with a link or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.runtime import EdgeRuntime
from protocols.codec import pack
from protocols.fact import chain, genesis, to_row
from protocols.ledger import Ledger
from protocols.sqlite import Db
from protocols.streams import StreamKey
from tests.unit.edge_agent.callers import tell
from tests.unit.edge_agent.edges import NOW_MS, event, event_json
from tests.unit.edge_agent.test_cli import command, here, init, one_line


def centre_says(ledger: Ledger, *statuses: str, order_id: str = "A1", **more: Any) -> None:
    """What the hub said of an order without having seen ours."""
    key = StreamKey("hub", 5, 0)
    rows = [to_row(event(order_id, status, site=None, actor="desk-2", **more), NOW_MS, []) for status in statuses]
    rows = [[*row[:9], None, *row[10:]] for row in rows]
    packed = [pack(row) for row in rows]
    start = genesis(*key)
    ledger.begin()
    ledger.offer(key, 1, start, list(zip(packed, rows, strict=True)), chain(start, packed), NOW_MS)
    ledger.commit()


def test_a_conflict_is_listed_told_and_settled_without_any_link(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        details = {"notes": "two boxes", "quantities": {"picked": 3}}
        await client.post("/v1/events", json=event_json(status="PICKED", actor="ana", details=details))
        assert (await client.get("/v1/conflicts")).json()["conflicts"] == []
        centre_says(runtime.core.ledger, "CANCELLED", details={"notes": ["customer called"], "quantities": {"picked": -1}})
        listed = (await client.get("/v1/conflicts?open=true")).json()
        (one,) = listed["conflicts"]
        assert (one["outcome"], one["held"], one["policy"], one["task"]["for"]) == ("hold", True, "cancelled-in-hand", "dock")
        assert (listed["policies"]["name"], listed["more"]) == ("shipped", False)
        assert (await client.get(f"/v1/conflicts/{one['id']}")).json() == one
        order = (await client.get("/v1/orders/A1")).json()
        assert (order["conflict"], order["held"], order["heldBecause"]) == (True, True, one["sentence"])
        assert (order["credited"], order["quantities"]) == (["desk-2", "ana"], {"picked": 2})
        assert [note["text"] for note in order["notes"]] == ["customer called", "two boxes"]
        assert [(p["outcome"], p["policy"]) for p in order["concurrent"]] == [("hold", "cancelled-in-hand")]
        assert [one["held"] for one in (await client.get("/v1/orders?held=true")).json()["orders"]] == [True]
        assert (await client.get("/v1/orders?held=false")).json()["orders"] == []
        assert "\nlongshore_conflicts_held 1.0\n" in (await client.get("/metrics")).text

        body = {"status": "RETURNED", "actor": "ana", "note": "back on shelf 3", "idempotencyKey": "s1"}
        done = await client.post(one["links"]["settle"], json=body)
        assert (done.status_code, done.json()["settles"]) == (201, [one["shownFact"], one["otherFact"]])
        again = await client.post(one["links"]["settle"], json=body)
        assert (again.status_code, again.json()["factId"]) == (200, done.json()["factId"])
        told = (await client.get(f"/v1/conflicts/{one['id']}")).json()
        assert (told["state"], told["task"]["open"], told["held"]) == ("settled", False, False)
        assert [(by["actor"], by["note"], by["factId"]) for by in told["settledBy"]] == [("ana", "back on shelf 3", done.json()["factId"])]
        order = (await client.get("/v1/orders/A1")).json()
        assert (order["status"], order["held"], order["heldBecause"], order["quantities"]) == ("RETURNED", False, None, {"picked": 2})
        assert order["timeline"][-1]["details"]["settles"] == [one["shownFact"], one["otherFact"]]
        assert (await client.get("/v1/conflicts?open=true")).json()["conflicts"] == []

    tell(tmp_path, story)


def test_a_settlement_is_refused_clearly(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await client.post("/v1/events", json=event_json(status="PICKED", actor="ana"))
        centre_says(runtime.core.ledger, "CANCELLED")
        path = (await client.get("/v1/conflicts")).json()["conflicts"][0]["links"]["settle"]
        bad = await client.post(path, json={"status": "RETURNED"})
        assert (bad.status_code, bad.json()["field"]) == (422, "actor")
        twice = await client.post(
            path, content=b'{"status": "RETURNED", "actor": "a", "actor": "b"}', headers={"content-type": "application/json"}
        )
        assert (twice.status_code, twice.json()["field"]) == (422, "actor")
        assert (await client.post("/v1/conflicts/nope/settle", json={})).status_code == 404
        assert (await client.get("/v1/conflicts/nope")).status_code == 404
        old = await client.post(path, json={"status": "RETURNED", "actor": "ana", "heads": ["somebody/1/1/00000000"]})
        assert (old.status_code, "has changed" in old.json()["detail"]) == (409, True)
        assert (await client.post(path, json={"status": "RETURNED", "actor": "ana"})).status_code == 201
        late = await client.post(path, json={"status": "PACKED", "actor": "ben"})
        assert (late.status_code, "settled already: returned at W8-Madrid by ana" in late.json()["detail"]) == (409, True)
        keyed = await client.post(path, json={"status": "PACKED", "actor": "ben", "idempotencyKey": "k"})
        assert (keyed.status_code, "settled already" in keyed.json()["detail"]) == (409, True)
        assert len((await client.get("/v1/orders/A1")).json()["timeline"]) == 3

    tell(tmp_path, story)


def test_two_staff_the_same_step_are_both_credited_and_it_is_nobodys_conflict(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await client.post("/v1/events", json=event_json(status="PICKED", actor="ana", details={"quantities": {"picked": 3}}))
        centre_says(runtime.core.ledger, "PICKED", details={"quantities": {"picked": 2}})
        order = (await client.get("/v1/orders/A1")).json()
        assert (order["status"], order["conflict"], order["held"], order["conflicts"]) == ("PICKED", False, False, [])
        assert (sorted(order["credited"]), order["quantities"]) == (["ana", "desk-2"], {"picked": 5})
        (pair,) = order["concurrent"]
        assert (pair["outcome"], pair["policy"], sorted(pair["credited"])) == ("accept", "same-step", ["ana", "desk-2"])

    tell(tmp_path, story)


@pytest.mark.slow
def test_the_command_line_settles_where_no_edge_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = init(tmp_path / "edge", capsys=capsys)
    line = json.dumps(event_json(status="PICKED", actor="ana"))
    assert command("events", "append", "-", "--config", config, stdin=line).returncode == 0
    db = Db(tmp_path / "edge" / "ledger.db")
    from protocols.policies import shipped

    centre_says(Ledger(db, node="madrid-1", new_epoch=lambda: 1, policies=shipped()), "CANCELLED")
    db.close()
    code, out, _ = here(capsys, "conflicts", "ls", "--open", "--config", config, "--json")
    (one,) = json.loads(out)["conflicts"]
    assert code == 0
    code, out, _ = here(capsys, "conflicts", "show", one["id"], "--config", config)
    assert "task for the dock (open): Stop the goods of a cancelled order" in out
    settle = ("conflicts", "settle", one["id"], "--status", "RETURNED", "--actor", "ana", "--note", "shelf 3", "--config", config)
    code, out, err = here(capsys, *settle, "--key", "k1")
    assert (code, out.startswith("settled: A1 is RETURNED")) == (0, True), err
    code, out, _ = here(capsys, *settle, "--key", "k1")
    assert (code, out.startswith("settled before: ")) == (0, True)
    code, _, err = here(capsys, *settle)
    assert "settled already: returned at W8-Madrid by ana" in one_line(err)
    assert code == 1
    code, _, err = here(capsys, "conflicts", "show", "nope", "--config", config)
    assert (code, "no conflict 'nope'" in one_line(err)) == (1, True)
    assert here(capsys, "conflicts", "ls", "--open", "--config", config)[1] == "no conflict\n"


def test_an_edge_does_not_start_with_a_bad_table_of_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = init(tmp_path / "edge", capsys=capsys)
    config.write_text(config.read_text("utf-8").replace('# policy_file = ""', 'policy_file = "mine.yaml"'), "utf-8")
    code, _, err = here(capsys, "run", "--config", config)
    assert (code, "conflicts.policy_file: cannot read" in one_line(err)) == (3, True)
    (tmp_path / "edge" / "mine.yaml").write_text("version: 1\npolicies: []\n", "utf-8")
    code, _, err = here(capsys, "run", "--config", config)
    assert (code, "mine.yaml, line 2: policies must be a list of 1 to 200" in one_line(err)) == (3, True)


def test_a_key_twice_in_one_object_is_refused(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        body = b'[{"orderId": "A", "source": "S", "status": "PLACED", "timeQuality": "unknown", "details": {"n": 1, "n": 2}}]'
        answer = await client.post("/v1/events", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["field"]) == (422, "n")
        assert (await client.get("/v1/orders")).json()["orders"] == []

    tell(tmp_path, story)
