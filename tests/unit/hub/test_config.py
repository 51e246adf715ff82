"""hub.toml: what is refused before anything starts, and that the examples and the rendered file are what the program reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.config import SETTINGS, HubConfig, hub_address, new_file, read_config, read_token
from protocols.callers import is_loopback
from protocols.errors import ConfigError
from protocols.trust import NodeKey, new_token, parse_address, write_secret
from tests.support.source import ROOT

EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("hub*.toml"))
KEY = NodeKey(b"k" * 32)


def config(folder: Path, text: str, env: dict[str, str] | None = None) -> HubConfig:
    (folder / "hub.toml").write_text(text, "utf-8")
    return read_config(folder, env or {})


def test_a_new_file_is_read_back_as_it_was_chosen(tmp_path: Path) -> None:
    found = config(tmp_path, new_file({"hub.org": "acme", "broker.port": 0}))
    assert (found.hub.org, found.hub.node, found.broker.port, found.api.port) == ("acme", "hub", 0, 8800)
    assert found.storage.path("hub.db") == tmp_path / "hub.db"
    assert found.key_file == tmp_path / "hub.key"


def test_the_defaults_stay_on_this_machine(tmp_path: Path) -> None:
    found = config(tmp_path, new_file({"hub.org": "acme"}))
    assert is_loopback(found.api.host)
    assert is_loopback(found.broker.host)
    assert found.broker.embedded


def test_drop_in_files_are_read_after_it_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "hub.toml.d").mkdir()
    (tmp_path / "hub.toml.d" / "20.toml").write_text("[api]\nport = 20\n")
    (tmp_path / "hub.toml.d" / "10.toml").write_text('[api]\nport = 10\n[hub]\nregion = "EMEA"\n')
    found = config(tmp_path, '[hub]\norg = "acme"\n')
    assert (found.api.port, found.hub.region) == (20, "EMEA")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "hub.org is not set"),
        ('[hub]\norg = "a/b"', "hub.org: cannot be a level of a topic."),
        ('[hub]\norg = "acme"\nnode = "Hub One"', "hub.node: cannot name a node."),
        ('[hub]\norg = "acme"\n[broker]\nhost = "10.0.0.5"', "beyond this machine the embedded broker needs TLS"),
        ('[hub]\norg = "acme"\n[broker]\nhost = "0.0.0.0"\ncert_file = "a"\nkey_file = "b"', "edges cannot be told to connect there"),
        ('[hub]\norg = "acme"\n[broker]\ncert_file = "a.pem"', "go together"),
        ('[hub]\norg = "acme"\n[broker]\nkind = "external"\nport = 0', "the broker is an external one"),
        ('[hub]\norg = "acme"\n[broker]\nkind = "external"\nusername = "hub"', "password_file go together"),
        ('[hub]\norg = "acme"\n[api]\nport = 1883', "api.port and broker.port are both 1883"),
        ('[hub]\norg = "acme"\n[api]\nprot = 1', "Did you mean port?"),
    ],
)
def test_what_cannot_hold_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert says in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longshore-hub init"):
        read_config(tmp_path / "nowhere.toml", {})


def test_the_address_names_the_port_that_is_really_open_and_reads_back(tmp_path: Path) -> None:
    found = config(tmp_path, new_file({"hub.org": "acme", "broker.port": 0, "broker.advertise": "hub.example"}))
    address = parse_address(hub_address(found, KEY.public, 40_123))
    assert (address.host, address.port, address.org, address.hub, address.tls) == ("hub.example", 40_123, "acme", "hub", False)
    assert address.public_key == KEY.public


@pytest.mark.parametrize("text", ["", "short", "two words\x00and more of them"])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    found = config(tmp_path, new_file({"hub.org": "acme"}))
    write_secret(tmp_path / "api.token", text, what="token")
    with pytest.raises(ConfigError, match="damaged"):
        read_token(found)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    found = config(tmp_path, new_file({"hub.org": "acme"}))
    write_secret(tmp_path / "api.token", new_token(), what="token")
    assert read_token(found).startswith("lst_")
    (tmp_path / "api.token").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(found)


def test_every_setting_has_a_meaning_and_units_where_they_are_due() -> None:
    assert [row.name for row in SETTINGS if not row.doc.endswith(".")] == []
    assert [row.name for row in SETTINGS if row.key.endswith(("_s", "_ms", "_bytes")) and not row.unit] == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_a_configuration(path: Path) -> None:
    assert read_config(path, {}).hub.org
