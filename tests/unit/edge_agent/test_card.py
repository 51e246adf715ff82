"""`longshore-edge card`: the card written anew is of the same node and the same password."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.init import make_directory
from protocols import mosquitto
from protocols.trust import HubAddress, NodeKey, format_address, parse_card, password_matches


def test_the_card_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub", NodeKey(b"h" * 32).public))
    made = make_directory(tmp_path / "edge", node="dock-7", site="S", region="R", hub=hub)
    first = parse_card(json.loads(made.card.read_text()))
    assert first.mosquitto_hash
    secret = made.folder / "broker.password"
    secret.write_text("another password\n")
    assert cli.main(["card", "--config", str(made.config)]) == 0
    assert "nodes add" in capsys.readouterr().out
    second = parse_card(json.loads(made.card.read_text()))
    assert (second.node, second.public_key) == (first.node, first.public_key)
    assert password_matches("another password", second.password_hash)
    salt = base64.b64decode(second.mosquitto_hash.split("$")[3])
    assert second.mosquitto_hash == mosquitto.password_hash("another password", salt)
