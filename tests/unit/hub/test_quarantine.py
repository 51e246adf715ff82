"""Quarantine at the hub: what an author puts right is right at the hub and in the store, and the hub puts its own facts right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub import cli
from hub.fleet import balance
from hub.quarantine_rows import look, rows
from hub.registry import ANY_ORG
from protocols.codec import pack, unpack
from protocols.errors import InvalidInput
from protocols.ledger import parse_row
from protocols.lifecycle import Status
from protocols.limits import REFUSED_KEPT
from protocols.quarantine import discard, resubmit
from protocols.sqlite import Db
from tests.support.fake_hub import AppClient, FakeHub
from tests.unit.hub.hub_world import World
from tests.unit.protocols.fix_worlds import event as plain_event

NOBODY_KNOWS = 99


def bad_status(world: World, dock: Any, order_id: str = "B1") -> None:
    """The dock's next fact has a status that nobody knows yet."""
    ledger = dock.core.ledger
    row = [1, "acme", order_id, "WMS", NOBODY_KNOWS, None, 1, 1, None, None, "kim", {}, []]
    dock.core.begin()
    ledger._log_own(ledger.own(), pack(row), None, 1)
    dock.core.commit()
    world.run(2)


def counted(world: World, node: str) -> dict[str, Any]:
    counts = {c.stream: c for c in world.store.counts()}
    found = balance(world.hub, world.hub.registry.beats(), counts, world.now_ms)
    return dict(next(row for row in found["nodes"] if row["node"] == node))


def test_a_fact_that_is_put_right_at_its_edge_is_a_pair_at_the_hub_and_no_longer_open() -> None:
    world = World()
    dock = world.edge("dock-7")
    world.run(2)
    bad_status(world, dock)
    world.settle()
    (open_,) = rows(world.hub.ledger, 10)
    assert (open_["state"], open_["mine"], open_["author"]) == ("open", False, "dock-7")
    assert "only dock-7" in open_["ask"]
    (mine,) = dock.core.ledger.quarantine_rows.items()
    dock.core.begin()
    done = resubmit(dock.core.ledger, mine.qid, plain_event("B1", Status.PACKED, actor="kim"), 5)
    dock.core.uplink.on_appended(world.now_ms)
    dock.core.commit()
    world.settle()
    (closed,) = rows(world.hub.ledger, 10)
    assert (closed["state"], closed["resolution"]["factId"], closed["ask"]) == ("resubmitted", done.fact_id, None)
    assert [o.status for o in world.store.find("B1")] == ["PACKED"]
    assert world.hub.receiver.statement(dock.key_of_stream).refused == (), "what is done with is not said again"
    row = counted(world, "dock-7")
    assert (row["quarantined"], row["quarantinedResolved"], row["balanced"]) == (1, 1, True)
    whole = look(world.hub, closed["id"])
    assert whole is not None and unpack(bytes.fromhex(whole["hex"]), max_bytes=1_000)[4] == NOBODY_KNOWS  # type: ignore[index]


def test_a_fact_that_is_given_up_at_its_edge_is_given_up_at_the_hub() -> None:
    world = World()
    dock = world.edge("dock-7")
    world.run(2)
    bad_status(world, dock)
    world.settle()
    (mine,) = dock.core.ledger.quarantine_rows.items()
    dock.core.begin()
    discard(dock.core.ledger, mine.qid, "no such thing", 5, actor="kim")
    dock.core.uplink.on_appended(world.now_ms)
    dock.core.commit()
    world.settle()
    (closed,) = rows(world.hub.ledger, 10)
    assert (closed["state"], closed["resolution"]["why"], closed["resolution"]["who"]) == ("discarded", "no such thing", "kim")
    assert world.store.find("B1") == []
    assert counted(world, "dock-7")["balanced"]


# ------------------------------------------------------------ who may speak for whom


def said_by(world: World, org: str, order_id: str, **orgs: Any) -> list[str]:
    """What becomes of a fact of that organisation, said by a node of acme; the reasons in quarantine."""
    dock = world.edge("dock-7")
    if orgs:
        card = world.hub.registry.get("dock-7")
        assert card is not None
        world.hub.begin()
        world.hub.registry._nodes["dock-7"] = type(card)(card.address, card.public_key, card.password_hash, card.added_ms, orgs["orgs"])
        world.hub.commit()
    world.run(2)
    row = [1, org, order_id, "WMS", 1, None, 1, 1, None, None, None, {}, []]
    dock.core.begin()
    dock.core.ledger._log_own(dock.core.ledger.own(), pack(row), None, 1)
    dock.core.commit()
    world.run(2)
    world.settle()
    return [r["reason"] for r in rows(world.hub.ledger, 10)]


def test_a_fact_of_another_organisation_than_its_authors_steps_aside() -> None:
    world = World()
    assert said_by(world, "rival", "R1") == ["org: rival is not acme, for which its author may speak"]
    assert world.store.find("R1") == []


@pytest.mark.parametrize("orgs", [("rival",), (ANY_ORG,)], ids=["named", "any"])
def test_a_node_that_was_admitted_for_more_speaks_for_more(orgs: tuple[str, ...]) -> None:
    world = World()
    assert said_by(world, "rival", "R1", orgs=orgs) == []
    assert [o.org for o in world.store.find("R1")] == ["rival"]


def test_the_organisations_of_a_node_outlast_a_restart_and_a_repeated_card() -> None:
    from hub.registry import Registry
    from protocols.trust import NodeKey, hash_password, make_card, parse_card

    key = NodeKey.generate()
    card = parse_card(make_card(key, node="gate", org="acme", region="R", site="S", password_hash=hash_password("x", n=2)))
    db = Db(":memory:")
    registry = Registry(db)
    registry.admit(card, "hub", 1, ["beta", "acme", "alpha"])
    assert registry.admit(card, "hub", 2).speaks_for == ("acme", "alpha", "beta")
    again = Registry(db)
    assert again.all()[0].orgs == ("alpha", "beta")
    assert again.admit(card, "hub", 3, ["*"]).speaks_for == ()
    assert again.admit(card, "hub", 4, []).speaks_for == ("acme",)
    with pytest.raises(InvalidInput, match="org"):
        again.admit(card, "hub", 5, ["no good name"])
    db.close()


# ------------------------------------------------------------ evidence


def test_one_nodes_nonsense_does_not_crowd_out_the_others_evidence() -> None:
    from hub.registry import Registry

    db = Db(":memory:")
    registry = Registry(db)
    db.begin()
    registry.refuse("quiet", b"0", "damaged", b"evidence", 1)
    for n in range(REFUSED_KEPT + 50):
        registry.refuse("loud", str(n).encode(), "damaged", b"x", 2 + n)
    db.commit()
    assert registry.refused_by_node() == {"quiet": 1, "loud": REFUSED_KEPT - 1}
    assert Registry(db).refused_by_node() == registry.refused_by_node()
    assert db.one("SELECT count(*) FROM refused") == (REFUSED_KEPT,)
    db.close()


def test_the_receiver_keeps_no_quarantine_in_memory() -> None:
    """Ten thousand bad facts cost the disk, not the memory; a statement names the newest."""
    from protocols.sync.receiver import REFUSED_STATED, Receiver

    world = World()
    hub = world.hub.ledger
    from protocols.streams import StreamKey

    key = StreamKey("loud", 3, 0)
    hub.begin()
    sid = hub.log.open(key).sid
    for seq in range(1, 2_001):
        hub.quarantine(sid, seq, seq.to_bytes(8, "big"), "nonsense", 1)
    hub.commit()
    receiver = Receiver(hub, b"12345678")
    held = [value for value in vars(receiver).values() if isinstance(value, dict | list)]
    assert sum(map(len, held)) == 0
    assert [seq for seq, _, _ in receiver.statement(key).refused] == list(range(2_001 - REFUSED_STATED, 2_001))
    assert list(receiver.quarantine_reasons(sid, 5, 6)) == [(5, (5).to_bytes(8, "big")), (6, (6).to_bytes(8, "big"))]


# ------------------------------------------------------------ API and commands


def hub_with_a_bad_fact_of_its_own(folder: Path) -> tuple[FakeHub, AppClient]:
    hub = FakeHub(folder)
    client = AppClient(hub)
    assert client.get("/v1/quarantine/1").status_code == 404  # and the core is there
    core = hub.core
    assert core is not None
    core.begin()
    (done,) = core.ledger.append_all([plain_event("H1")], 1)
    core.ledger.quarantine(core.ledger.own().sid, done.seq, done.h, "refused elsewhere", 2)
    core.commit()
    return hub, client


def test_the_hub_puts_its_own_fact_right_over_the_api(tmp_path: Path) -> None:
    hub, client = hub_with_a_bad_fact_of_its_own(tmp_path)
    whole = client.get("/v1/quarantine/1").json()
    assert (whole["mine"], whole["event"]["orderId"], whole["ask"]) == (True, "H1", "resubmit or discard it here")
    answer = client.post("/v1/quarantine/1/resubmit", json=whole["event"] | {"status": "PACKED"})
    assert (answer.status_code, answer.json()["item"]["state"]) == (201, "resubmitted")
    assert client.post("/v1/quarantine/1/discard", json={"reason": "x"}).status_code == 409
    assert client.post("/v1/quarantine/9/discard", json={"reason": "x"}).status_code == 404
    core = hub.core
    assert core is not None
    assert parse_row(core.ledger.db.query("SELECT row FROM log ORDER BY seq")[-1][0]).status is Status.PACKED
    assert core.ledger.own().key in core.handing.unhanded


def test_the_commands_of_a_hub_that_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hub"
    assert cli.main(["init", str(folder)]) == 0
    capsys.readouterr()

    def run(*args: str) -> tuple[int, Any]:
        code = cli.main(["quarantine", *args, "--dir", str(folder), "--json"])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else None

    assert run("ls") == (0, {"quarantined": []})
    db = Db(next(folder.rglob("hub.db")))
    db.run("INSERT INTO streams (sid, node, epoch, cls, own) VALUES (7, 'dock-7', 5, 0, 0)")
    db.run("INSERT INTO quarantine (sid, seq, h, reason, at_ms) VALUES (7, 1, x'0102030405060708', 'kind 9', 1)")
    db.close()
    assert [row["ask"] is not None for row in run("ls", "--state", "open")[1]["quarantined"]] == [True]
    assert run("show", "1")[1]["author"] == "dock-7"
    assert run("discard", "1", "--reason", "x")[0] == 2, "only its author may"
    assert run("show", "9")[0] == 1
    assert cli.main(["quarantine", "show", "1", "--dir", str(folder)]) == 0
    assert "mine        no\n" in capsys.readouterr().out, "people are not shown Python's words"
