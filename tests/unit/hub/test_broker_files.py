"""`longshore-hub broker`: what a Mosquitto beside the hub is told, from the registry and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub import cli
from hub.config import read_config
from protocols import mosquitto
from protocols.topics import Address, node_acl
from protocols.trust import NodeKey, hash_password, make_card

PASSWORD = "a password of the hub"
HASH = mosquitto.password_hash("the node's", bytes(12))


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = cli.main([str(arg) for arg in args])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A hub at an external broker with two nodes; the card of the second is an old one."""
    folder = tmp_path / "hub"
    assert run(capsys, "init", folder)[0] == 0
    secret = folder / "broker.password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    more = '\n[broker]\nkind = "external"\nhost = "mqtt.example.net"\nport = 8883\nusername = "bridge"\npassword_file = "broker.password"\n'
    drop = folder / "hub.toml.d"
    drop.mkdir()
    (drop / "broker.toml").write_text(more)
    assert read_config(folder, {}).broker.username == "bridge"
    for node, text in (("dock-7", HASH), ("dock-8", "")):
        add(folder, capsys, node, text)
    return folder


def add(folder: Path, capsys: pytest.CaptureFixture[str], node: str, text: str) -> None:
    key = NodeKey(node.encode().ljust(32, b"."))
    card = make_card(key, node=node, org="acme", region="R", site="S", password_hash=hash_password("x", n=2), mosquitto_hash=text)
    path = folder.parent / f"{node}.json"
    path.write_text(json.dumps(card))
    code, _, err = run(capsys, "nodes", "add", path, "--dir", folder)
    assert code == 0, err


def test_each_node_gets_its_own_topics_and_the_hub_the_other_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "broker", "acl", "--dir", folder)
    lines = out.splitlines()
    assert code == 0
    assert [line for line in lines if line.startswith("user")] == ["user bridge", "user dock-7", "user dock-8"]
    dock = lines[lines.index("user dock-7") + 1 :][:9]
    assert dock == [f"topic {access.value} {topic}" for access, topic in node_acl(Address("acme", "R", "S", "dock-7"))]


def test_patterns_need_no_registry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hub.db").unlink()
    code, out, _ = run(capsys, "broker", "acl", "--patterns", "--dir", folder)
    assert code == 0
    assert "pattern write longshore/v1/+/+/+/%u/up/live" in out
    assert run(capsys, "broker", "acl", "--dir", folder)[0] == 3


def test_passwords_are_hashes_and_who_has_none_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "broker", "passwords", "--dir", folder)
    own, dock = out.splitlines()
    assert dock == f"dock-7:{HASH}"
    assert own == f"bridge:{mosquitto.password_hash(PASSWORD, mosquitto.salt_of('bridge', PASSWORD))}"
    assert PASSWORD not in out + err
    assert code == 1
    assert "dock-8" in err and "longshore-edge card" in err


def test_a_new_card_brings_the_hash_and_one_without_takes_it_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(folder, capsys, "dock-8", HASH)
    assert run(capsys, "broker", "passwords", "--dir", folder)[0] == 0
    add(folder, capsys, "dock-8", "")
    assert run(capsys, "broker", "passwords", "--dir", folder)[0] == 1


def test_a_file_is_written_whole_keeps_its_mode_and_is_compared(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "longshore.acl"
    assert run(capsys, "broker", "acl", "--check", file, "--dir", folder)[0] == 1
    code, out, _ = run(capsys, "broker", "acl", "--out", file, "--dir", folder)
    assert code == 0 and "2 nodes" in out and "SIGHUP" in out
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    assert run(capsys, "broker", "acl", "--check", file, "--dir", folder)[0] == 0
    add(folder, capsys, "dock-9", HASH)
    assert run(capsys, "broker", "acl", "--check", file, "--dir", folder)[0] == 1
    code, out, _ = run(capsys, "broker", "acl", "--out", file, "--dir", folder, "--json")
    assert json.loads(out) == {"file": str(file), "nodes": 3, "lacking": [], "changed": True}
    assert file.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_a_node_of_the_hubs_name_would_have_its_rights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(folder, capsys, "bridge", HASH)
    for what in ("acl", "passwords"):
        code, out, err = run(capsys, "broker", what, "--dir", folder)
        assert (code, out) == (3, "")
        assert "broker.username" in err


@pytest.mark.parametrize("text", ["short", ""])
def test_the_hub_needs_a_password_worth_the_name(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (folder / "broker.password").write_text(text)
    code, out, err = run(capsys, "broker", "passwords", "--dir", folder)
    assert (code, out) == (3, "")
    assert "openssl rand" in err or "empty" in err


def test_where_nothing_can_be_written_is_one_clear_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "broker", "acl", "--out", folder / "no" / "acl", "--dir", folder)
    assert code == 3
    assert err.startswith("error: Cannot write") and err.count("\n") == 1
