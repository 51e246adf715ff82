"""A phone at the edge's end: made by `init`, said in its card, refused where it is half said, and the actor of what it captures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import main
from edge_agent.config import load_config
from edge_agent.init import make_directory
from protocols.errors import ConfigError, InvalidInput
from protocols.event import parse_event
from protocols.trust import NodeCard, NodeKey, hash_password, make_card, parse_card
from tests.unit.edge_agent.edges import HUB_ADDRESS as ADDRESS

PASSWORD = hash_password("pw", n=2)
PLACE: dict[str, Any] = {"node": "phone-1", "site": "W8", "region": "EMEA"}


def card_of(folder: Path) -> NodeCard:
    return parse_card(json.loads((folder / "node.card.json").read_text("utf-8")))


def test_init_makes_a_phone_whose_card_and_configuration_say_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "phone"
    place = ["--node", "phone-1", "--site", "W8", "--region", "EMEA", "--hub", ADDRESS]
    assert main(["init", str(folder), *place, "--kind", "phone", "--staff", "ana"]) == 0
    capsys.readouterr()
    assert card_of(folder).staff == "ana"
    config = load_config(folder / "edge.toml", {})
    assert (config.node.kind, config.node.staff) == ("phone", "ana")
    said = {"orderId": "A1", "source": "PHONE", "status": "PICKED", "timestamp": "2026-05-21T14:05:12Z"}
    assert parse_event(said, defaults=config.defaults, now_ms=0).actor == "ana"
    assert parse_event({**said, "actor": "ben"}, defaults=config.defaults, now_ms=0).actor == "ben"


def test_a_phone_that_is_handed_on_gets_a_new_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_directory(tmp_path / "phone", **PLACE, hub=ADDRESS, staff="ana")
    made.config.write_text(made.config.read_text("utf-8").replace('staff = "ana"', 'staff = "ben"'), "utf-8")
    before = card_of(made.folder)
    assert main(["card", "--config", str(made.config)]) == 0
    assert (card_of(made.folder).staff, card_of(made.folder).public_key) == ("ben", before.public_key)


def test_an_edge_is_no_phone(tmp_path: Path) -> None:
    made = make_directory(tmp_path / "edge", **PLACE, hub=ADDRESS)
    assert "kind" not in json.loads(made.card.read_text("utf-8"))
    assert load_config(made.config, {}).defaults.actor is None


@pytest.mark.parametrize(
    ("more", "field"),
    [(["--kind", "phone"], "staff: is missing"), (["--staff", "ana"], "staff: is for phones")],
    ids=["no staff", "no phone"],
)
def test_half_a_phone_is_refused_in_one_line(more: list[str], field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--node", "phone-1", "--site", "W8", "--region", "EMEA", "--hub", ADDRESS]
    assert main(["init", str(tmp_path / "phone"), *place, *more]) == 2
    said = capsys.readouterr().err
    assert field in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "phone").exists()


def test_a_configuration_of_half_a_phone_names_the_setting(tmp_path: Path) -> None:
    made = make_directory(tmp_path / "phone", **PLACE, hub=ADDRESS, staff="ana")
    with pytest.raises(ConfigError, match=r"node\.staff: .*is missing"):
        load_config(made.config, {"LONGSHORE_NODE__STAFF": ""})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "phone", "staff": ""}, "staff"),
        ({"kind": "van"}, "kind"),
        ({"kind": "edge", "staff": "ana"}, "staff"),
        ({"staff": 7}, "staff"),
    ],
    ids=["phone of nobody", "another kind", "edge of somebody", "no text"],
)
def test_a_card_that_is_half_a_phones_is_refused(change: dict[str, object], field: str) -> None:
    key = NodeKey(b"k" * 32)
    made: dict[str, object] = {**make_card(key, node="p", org="a", region="r", site="s", password_hash=PASSWORD, staff="ana"), **change}
    with pytest.raises(InvalidInput) as refused:
        parse_card(made)
    assert refused.value.field in (field, "signature")


def test_whose_phone_it_is_is_signed() -> None:
    made = make_card(NodeKey(b"k" * 32), node="p", org="a", region="r", site="s", password_hash=PASSWORD, staff="ana")
    with pytest.raises(InvalidInput, match="signature"):
        parse_card({**made, "staff": "ben"})


@pytest.mark.parametrize(
    "to", [7, {"a": 1}, [""], ["ana", None], ["a"] * 17, "x" * 300], ids=["number", "map", "empty", "null", "many", "long"]
)
def test_an_assignment_that_nobody_can_read_is_refused_by_name(to: object, tmp_path: Path) -> None:
    made = make_directory(tmp_path / "edge", **PLACE, hub=ADDRESS)
    said = {"orderId": "A1", "source": "S", "status": "PICKED", "timestamp": "2026-05-21T14:05:12Z", "details": {"assignedTo": to}}
    with pytest.raises(InvalidInput, match="assignedTo"):
        parse_event(said, defaults=load_config(made.config, {}).defaults, now_ms=0)
