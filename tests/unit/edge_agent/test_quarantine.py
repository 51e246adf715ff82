"""Putting right what was refused, through the LAN API and the command line of an edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent import cli
from edge_agent.runtime import EdgeRuntime
from protocols.sqlite import Db
from tests.unit.edge_agent.callers import problem, tell
from tests.unit.edge_agent.edges import event, event_json


async def refused(runtime: EdgeRuntime, order_id: str = "A1") -> int:
    """Something that the hub refused; its number in the quarantine."""
    (done,) = await runtime.append([event(order_id)])
    runtime.core.begin()
    runtime.core.ledger.quarantine(1, done.seq, done.h, "org: acme is not beta", 1_779_372_312_000)
    runtime.core.commit()
    return runtime.core.ledger.quarantine_rows.items(1)[0].qid


def test_a_refused_fact_is_shown_put_right_and_stays_in_the_list(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        qid = await refused(runtime)
        whole = (await client.get(f"/v1/quarantine/{qid}")).json()
        assert (whole["state"], whole["mine"], whole["author"]) == ("open", True, "madrid-1")
        assert whole["ask"] == "resubmit or discard it here"
        assert whole["event"]["orderId"] == "A1" and bytes.fromhex(whole["hex"])[1] == 1
        done = await client.post(f"/v1/quarantine/{qid}/resubmit", json=whole["event"] | {"status": "PACKED", "actor": "kim"})
        assert done.status_code == 201
        (row,) = (await client.get("/v1/quarantine")).json()["quarantine"]
        assert (row["state"], row["resolution"]["factId"], row["resolution"]["who"]) == ("resubmitted", done.json()["factId"], "kim")
        assert (await client.get("/v1/quarantine?state=open")).json()["quarantine"] == []
        order = (await client.get("/v1/orders/A1")).json()
        assert (order["status"], order["heads"][0]["factId"]) == ("PACKED", done.json()["factId"])
        first, second = order["timeline"]
        assert (first["replacedBy"], second["replaces"]) == (second["factId"], first["factId"])
        assert (await client.get("/v1/status")).json()["queue"]["quarantined"] == 0

    tell(tmp_path, story)


def test_a_fact_is_given_up_with_a_reason_that_is_kept(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        qid = await refused(runtime, "TYPO-1")
        assert problem(await client.post(f"/v1/quarantine/{qid}/discard", json={}), 422)["field"] == "reason"
        assert problem(await client.post(f"/v1/quarantine/{qid}/discard", json={"reason": "x", "colour": 1}), 422)["field"] == "colour"
        done = await client.post(f"/v1/quarantine/{qid}/discard", json={"reason": "no such order", "actor": "kim"})
        assert (done.status_code, done.json()["item"]["resolution"]["why"]) == (201, "no such order")
        assert problem(await client.get("/v1/orders/TYPO-1"), 404)
        assert (await client.get("/v1/orders")).json()["orders"] == []
        assert "already" in problem(await client.post(f"/v1/quarantine/{qid}/discard", json={"reason": "x"}), 409)["detail"]

    tell(tmp_path, story)


@pytest.mark.parametrize(("path", "status"), [("99", 404), ("x", 422), ("99/resubmit", 404), ("x/discard", 422)])
def test_numbers_that_are_none_are_told_apart(tmp_path: Path, path: str, status: int) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        at = f"/v1/quarantine/{path}"
        problem(await (client.post(at, json={"reason": "x"}) if "/" in path else client.get(at)), status)

    tell(tmp_path, story)


def test_a_list_of_events_is_no_fix(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        qid = await refused(runtime)
        assert problem(await client.post(f"/v1/quarantine/{qid}/resubmit", json=[event_json()]), 422)["field"] == "body"
        assert runtime.core.ledger.quarantine_rows.count_open() == 1

    tell(tmp_path, story)


# ------------------------------------------------------------ the command line, straight on the ledger


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """An edge that does not run, with two facts in quarantine, 1 and 2."""
    from tests.unit.edge_agent.test_cli import init

    file = init(tmp_path / "edge", capsys=capsys)
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event_json(order)) + "\n" for order in ("A1", "A2")))
    assert cli.main(["events", "append", str(events), "--config", str(file)]) == 0
    db = Db(next((tmp_path / "edge").rglob("*.db")))
    db.run(
        "INSERT INTO quarantine (sid, seq, h, reason, at_ms) SELECT sid, seq, h, 'refused at the hub', 1779372312000 FROM log ORDER BY seq"
    )
    db.close()
    capsys.readouterr()
    return file


def run(config: Path, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any, str]:
    code = cli.main(["queue", "quarantine", *args, "--config", str(config), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def test_the_commands_list_show_put_right_and_give_up(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found, _ = run(config, capsys, "ls")
    assert (code, [row["id"] for row in found["quarantine"]]) == (0, [2, 1])
    _, whole, _ = run(config, capsys, "show", "1")
    fixed = tmp_path / "fixed.json"
    fixed.write_text(json.dumps(whole["event"] | {"status": "PACKED"}))
    code, done, _ = run(config, capsys, "resubmit", "1", "--file", str(fixed))
    assert (code, done["item"]["state"]) == (0, "resubmitted")
    code, done, _ = run(config, capsys, "discard", "2", "--reason", "scanned twice", "--actor", "kim")
    assert (code, done["item"]["resolution"]["who"]) == (0, "kim")
    assert run(config, capsys, "ls", "--state", "open")[1] == {"quarantine": []}
    assert cli.main(["queue", "quarantine", "ls", "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert "resubmitted" in text and "by kim" in text


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("show", "99"), 1, "Nothing in quarantine has the number 99"),
        (("discard", "99", "--reason", "x"), 1, "Nothing in quarantine has the number 99"),
        (("resubmit", "1", "--file", "/no/such/file"), 2, "/no/such/file"),
        (("discard", "1", "--reason", "x" * 201), 2, "reason"),
        (("ls", "--limit", "0"), 2, "--limit"),
    ],
    ids=["unknown", "unknown to give up", "no file", "long reason", "limit"],
)
def test_bad_input_is_named(config: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, says: str) -> None:
    assert (run(config, capsys, *args)[0], says in run(config, capsys, *args)[2]) == (code, True)


@pytest.mark.slow
def test_the_commands_go_through_the_edge_that_runs(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tests.unit.edge_agent.test_cli import running

    with running(config):
        _, whole, _ = run(config, capsys, "show", "1")
        assert (whole["state"], whole["event"]["orderId"]) == ("open", "A1")
        fixed = tmp_path / "fixed.json"
        fixed.write_text(json.dumps(whole["event"] | {"status": "PACKED"}))
        code, done, _ = run(config, capsys, "resubmit", "1", "--file", str(fixed))
        assert (code, done["item"]["state"]) == (0, "resubmitted")
        code, _, error = run(config, capsys, "resubmit", "1", "--file", str(fixed))
        assert (code, "already" in error) == (1, True), error
        assert run(config, capsys, "discard", "2", "--reason", "scanned twice")[0] == 0
        nobody = (("show", "99"), ("discard", "99", "--reason", "x"), ("resubmit", "99", "--file", str(fixed)))
        assert "List them: longshore-edge queue quarantine ls" in run(config, capsys, "show", "99")[2], "a command, and no address"
        assert [run(config, capsys, *args)[0] for args in nobody] == [1, 1, 1], "it answers: nothing has this number"
        assert cli.main(["conflicts", "show", "nope", "--config", str(config)]) == 1
        assert run(config, capsys, "ls", "--state", "open")[1] == {"quarantine": []}
