"""Sticks and peers from the command line, where no edge runs: straight into the ledger, under its lock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from protocols.stick import write_stick
from protocols.trust import HubAddress, format_address
from tests.unit.edge_agent.edges import HUB_KEY, event_json


class Node:
    """A node's folder, and its commands in this process."""

    def __init__(self, folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.dir, self._capsys = folder / name, capsys
        address = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub", HUB_KEY.public))
        place = ("--node", name, "--site", "S", "--region", "R", "--hub", address, "--port", "0")
        assert cli.main(["init", str(self.dir), *place]) == 0
        capsys.readouterr()

    @property
    def card(self) -> Path:
        return self.dir / "node.card.json"

    def does(self, *args: str | Path, code: int = 0) -> Any:
        """A command; its JSON, or the JSON of its error."""
        assert cli.main([*map(str, args), "--config", str(self.dir / "edge.toml"), "--json"]) == code
        said = self._capsys.readouterr()
        return json.loads(said.out or said.err)

    def says(self, *orders: str) -> None:
        path = self.dir / "events.jsonl"
        path.write_text("\n".join(json.dumps(event_json(order)) for order in orders))
        self.does("events", "append", path)


@pytest.fixture
def gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Node:
    return Node(tmp_path, "gate-1", capsys)


@pytest.fixture
def phone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Node:
    return Node(tmp_path, "phone-1", capsys)


def test_peers_come_and_go(gate: Node, phone: Node) -> None:
    assert gate.does("peer", "ls") == {"peers": []}
    assert gate.does("peer", "add", phone.card)["node"] == "phone-1"
    assert [peer["node"] for peer in gate.does("peer", "ls")["peers"]] == ["phone-1"]
    assert gate.does("peer", "rm", "phone-1") == {"removed": "phone-1"}
    assert gate.does("peer", "rm", "phone-1", code=2)["field"] == "node"


@pytest.mark.parametrize("text", ["", "[1]", "{}", "not json"])
def test_what_is_no_card_is_refused(gate: Node, tmp_path: Path, text: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    assert gate.does("peer", "add", bad, code=2)["exitCode"] == 2
    assert gate.does("peer", "add", tmp_path / "nowhere.json", code=2)["remedy"]


def test_a_stick_goes_from_one_to_the_other_once(gate: Node, phone: Node, tmp_path: Path) -> None:
    stick = tmp_path / "a.stick"
    phone.says("A1", "A2")
    wrote = phone.does("queue", "export", stick)
    assert (wrote["messages"], wrote["bytes"]) == (1, stick.stat().st_size)
    assert stick.stat().st_mode & 0o077 == 0
    strange = gate.does("queue", "import", stick, code=1)
    assert (strange["stranger"], strange["left"][0]["author"]) == (1, "phone-1")
    gate.does("peer", "add", phone.card)
    assert (first := gate.does("queue", "import", stick))["kept"] == 1
    assert first["newFacts"] == 2
    again = gate.does("queue", "import", stick)
    assert (again["kept"], again["known"], again["newFacts"]) == (0, 1, 0)
    assert gate.does("queue", "ls")["custody"]["events"] == 2
    back = tmp_path / "b.stick"
    assert gate.does("queue", "export", back)["messages"] == 1, "custody goes on, too"
    assert phone.does("queue", "import", back)["known"] == 1, "it knows its own"


def test_nothing_is_overwritten_and_no_half_stick_is_left(phone: Node, tmp_path: Path) -> None:
    stick = tmp_path / "a.stick"
    stick.write_bytes(b"mine")
    assert "exists" in phone.does("queue", "export", stick, code=2)["error"]
    assert stick.read_bytes() == b"mine"
    assert phone.does("queue", "export", tmp_path / "no" / "folder" / "a.stick", code=3)["remedy"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_empty_queue_makes_an_empty_stick(gate: Node, phone: Node, tmp_path: Path) -> None:
    stick = tmp_path / "a.stick"
    assert phone.does("queue", "export", stick)["messages"] == 0
    assert gate.does("queue", "import", stick)["left"] == []


def test_what_is_damaged_is_named_and_the_rest_is_taken(gate: Node, phone: Node, tmp_path: Path) -> None:
    phone.says(*(f"A{i}" for i in range(700)))
    gate.does("peer", "add", phone.card)
    stick = tmp_path / "a.stick"
    assert phone.does("queue", "export", stick)["messages"] == 2
    data = bytearray(stick.read_bytes())
    data[200] ^= 1
    stick.write_bytes(data)
    said = gate.does("queue", "import", stick, code=1)
    assert (said["kept"], said["newFacts"], said["damaged"]) == (1, 200, 2)
    assert said["left"][0]["at"] == 12


def test_what_is_no_stick_is_refused(gate: Node, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"PK\x03\x04" + bytes(40))
    assert gate.does("queue", "import", junk, code=2)["field"] == "file"
    assert gate.does("queue", "import", tmp_path / "nowhere", code=2)["remedy"]
    forged = tmp_path / "forged"
    with forged.open("w+b") as file:
        write_stick(file, [b"LS\x01\x01junk"])
    assert gate.does("queue", "import", forged, code=1)["refused"] == 1


def test_people_are_told_in_words(gate: Node, phone: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(node: Node, *args: str | Path) -> str:
        cli.main([*map(str, args), "--config", str(node.dir / "edge.toml")])
        return capsys.readouterr().out

    stick = tmp_path / "a.stick"
    phone.says("A1")
    assert "no peers" in says(gate, "peer", "ls")
    assert "is a peer" in says(gate, "peer", "add", phone.card)
    assert "1 message, " in says(phone, "queue", "export", stick)
    assert says(gate, "queue", "import", stick).startswith("1 message: 1 kept; 1 fact was new here")
    assert "stays until it is settled" in says(gate, "peer", "rm", "phone-1")
