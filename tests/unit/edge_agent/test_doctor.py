"""`doctor`: each thing that can be wrong is found, and named."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from edge_agent.doctor import Check, Verdict, examine
from edge_agent.init import Made, make_directory
from hub.broker import BrokerSettings, BrokerThread, EmbeddedBroker, NodeGrant
from protocols.sqlite import DataLock, Db
from protocols.topics import node_acl
from protocols.trust import HubAddress, NodeKey, format_address, parse_card
from tests.support.fake_hub import FakeHub, Serving
from tests.support.ports import free_port
from tests.support.procs import python, started
from tests.unit.edge_agent.edges import HUB_KEY


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_at(tmp_path / "edge", free_port())


def make_at(folder: Path, broker_port: int) -> Made:
    hub = format_address(HubAddress("127.0.0.1", broker_port, "acme", "hub", HUB_KEY.public))
    return make_directory(folder, node="madrid-1", site="W8-Madrid", region="EMEA", hub=hub, settings={"api.port": 0})


def look(made: Made, environ: dict[str, str] | None = None) -> dict[str, Check]:
    return {check.name: check for check in examine(str(made.config), environ or {})}


def wrong(made: Made, environ: dict[str, str] | None = None) -> list[str]:
    """What is wrong, but for the broker, which is not there in most of these tests."""
    return [name for name, check in look(made, environ).items() if check.verdict is Verdict.WRONG and name != "broker"]


def test_a_new_edge_is_well_but_for_the_broker_that_is_not_there(made: Made) -> None:
    found = look(made)
    assert [name for name, check in found.items() if check.verdict is not Verdict.FINE] == ["broker"]
    assert "cannot reach" in found["broker"].text
    assert not (made.folder / "ledger.db").exists(), "looking changes nothing"


def test_the_exit_code_and_the_json_say_the_same(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--config", str(made.config), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert [check["check"] for check in said["checks"] if check["verdict"] == "wrong"] == ["broker"]


def test_what_is_wrong_reads_as_in_other_commands() -> None:
    assert Check("disk", Verdict.WRONG, "is full.").as_text().split() == ["BAD", "disk", "is", "full."]
    assert Check("disk", Verdict.FINE, "is not.").as_text().startswith("ok ")


def test_a_configuration_that_cannot_be_read_is_all_there_is_to_say(made: Made) -> None:
    made.config.write_text("[nodes]\n")
    (check,) = examine(str(made.config), {})
    assert (check.name, check.verdict) == ("configuration", Verdict.WRONG)
    assert "Did you mean node?" in check.remedy


def test_a_key_that_is_not_the_cards_is_found(made: Made) -> None:
    (made.folder / "node.key").unlink()
    NodeKey.generate().save(made.folder / "node.key")
    assert wrong(made) == ["key"]


def test_a_card_of_another_name_or_none_is_found(made: Made) -> None:
    assert wrong(made, {"LONGSHORE_NODE__SITE": "Elsewhere"}) == ["key"]
    made.card.write_text("{}")
    assert wrong(made) == ["key"]
    made.card.unlink()
    assert wrong(made) == ["key"]


def test_a_secret_that_others_can_read_is_found(made: Made) -> None:
    (made.folder / "broker.password").chmod(0o644)
    assert "chmod 600" in look(made)["key"].remedy


def test_a_damaged_ledger_is_found_and_a_sound_one_passes(made: Made) -> None:
    db = Db(made.folder / "ledger.db")
    db.run("CREATE TABLE t (a)")
    db.begin()
    db.many("INSERT INTO t VALUES (?)", [("x" * 500,)] * 400)
    db.commit()
    db.checkpoint()
    db.close()
    assert wrong(made) == []
    path = made.folder / "ledger.db"
    data = bytearray(path.read_bytes())
    data[8_192:12_288] = b"\xaa" * 4_096
    path.write_bytes(data)
    assert wrong(made) == ["ledger"]


def test_a_port_in_use_is_found(made: Made) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = look(made, {"LONGSHORE_API__PORT": str(taken.getsockname()[1])})
    assert found["port"].verdict is Verdict.WRONG
    assert "in use" in found["port"].text


def test_a_clock_that_was_never_set_is_found(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 86_400 * 10**9)
    assert wrong(made) == ["clock"]


@pytest.mark.parametrize(("free", "verdict"), [(1_000_000, Verdict.WRONG), (100_000_000, Verdict.NOTE), (10**12, Verdict.FINE)])
def test_little_room_is_found(made: Made, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    usage = shutil.disk_usage(made.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    assert look(made)["disk"].verdict is verdict


def test_a_directory_that_is_gone_is_found(made: Made, tmp_path: Path) -> None:
    found = wrong(made, {"LONGSHORE_STORAGE__LEDGER_FILE": str(tmp_path / "gone" / "ledger.db")})
    assert found[:2] == ["directory", "disk"]


def test_data_held_by_something_that_does_not_answer_is_found(made: Made) -> None:
    lock = DataLock(made.folder / "run.lock")
    try:
        assert "process" in wrong(made)
    finally:
        lock.release()


def test_a_running_edge_is_recognised(made: Made) -> None:
    ready = made.folder / "ready"
    with started(python("-m", "edge_agent.cli", "run", "--config", made.config, "--ready-file", ready)) as child:
        child.wait_until(ready.exists)
        found = look(made)
        assert "an edge runs here" in found["process"].text
        assert found["ledger"].text == "is open and takes events"
        assert found["port"].text == "is the running edge's"
        assert [name for name, check in found.items() if check.verdict is Verdict.WRONG] == ["broker"]


# ------------------------------------------------------------ with a broker


@pytest.fixture
def broker() -> Iterator[tuple[int, dict[str, NodeGrant]]]:
    """An embedded broker and the nodes it knows, to be filled."""
    known: dict[str, NodeGrant] = {}
    thread = BrokerThread(EmbeddedBroker(BrokerSettings(port=0), known.get))
    thread.start()
    try:
        yield thread.broker.port, known
    finally:
        thread.stop()


def test_an_admitted_node_is_let_in_and_a_stranger_is_told_what_is_missing(tmp_path: Path, broker: tuple[int, dict[str, Any]]) -> None:
    port, known = broker
    made = make_at(tmp_path / "edge", port)
    stranger = look(made)["broker"]
    assert stranger.verdict is Verdict.WRONG
    assert "nodes add" in stranger.remedy
    card = parse_card(json.loads(made.card.read_text()))
    known["madrid-1"] = NodeGrant(card.password_hash, tuple(node_acl(made.address)))
    assert look(made)["broker"].verdict is Verdict.FINE


def test_a_node_that_syncs_over_http_is_told_in_its_own_words(made: Made, tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    with Serving(hub) as serving:
        environ = {"LONGSHORE_HUB__URL": serving.url}
        stranger = look(made, environ)["broker"]
        assert stranger.verdict is Verdict.WRONG
        assert "401" in stranger.text
        card = parse_card(json.loads(made.card.read_text()))
        hub.grants["madrid-1"] = NodeGrant(card.password_hash, tuple(node_acl(made.address)))
        found = look(made, environ)["broker"]
        assert found.verdict is Verdict.FINE, found.text
        hub.post.close()
    assert look(made, environ)["broker"].verdict is Verdict.WRONG


def test_checks_cannot_be_changed() -> None:
    check = Check("name", Verdict.FINE, "text")
    with pytest.raises(dataclasses.FrozenInstanceError):
        check.name = "other"  # type: ignore[misc]
