"""The configuration: a value or an error that names the key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Final

import pytest

from edge_agent.config import SECTIONS, SETTINGS, EdgeConfig, load_config, render
from protocols.callers import is_loopback
from protocols.errors import ConfigError
from protocols.topics import Address
from protocols.trust import HubAddress, format_address
from tests.support.source import ROOT
from tests.unit.edge_agent.edges import HUB_ADDRESS, HUB_KEY

GIVEN: Final[dict[str, Any]] = {
    "node.name": "madrid-1", "node.site": "W8-Madrid", "node.region": "EMEA", "node.org": "acme", "hub.address": HUB_ADDRESS,
}  # fmt: skip


def write(folder: Path, text: str, more: dict[str, Any]) -> Path:
    path = folder / "edge.toml"
    path.write_text(render({**GIVEN, **more}) + text)
    return path


def load(folder: Path, environ: dict[str, str] | None = None, text: str = "", more: dict[str, Any] | None = None) -> EdgeConfig:
    return load_config(write(folder, text, more or {}), environ or {})


def refused(folder: Path, environ: dict[str, str] | None = None, text: str = "", more: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, environ, text, more)
    return str(caught.value)


# ------------------------------------------------------------ what is read


def test_what_init_writes_is_read_back_with_every_default(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.address == Address("acme", "EMEA", "W8-Madrid", "madrid-1")
    assert config.hub_address.public_key == HUB_KEY.public
    for row in SETTINGS.values():
        if row.key not in GIVEN and not row.name.endswith("_file"):
            assert getattr(getattr(config, row.section), row.name) == row.default, row.key


def test_removing_a_comment_sign_changes_nothing(tmp_path: Path) -> None:
    """The defaults that stand in the file as comments are the ones in force, and valid."""
    before = load(tmp_path)
    path = tmp_path / "edge.toml"
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.M))
    assert load_config(path, {}) == before


def test_every_setting_is_explained_in_the_file(tmp_path: Path) -> None:
    text = render(GIVEN)
    assert [row.key for row in SETTINGS.values() if f"# {row.doc}" not in text or f"{row.name} = " not in text] == []
    assert len(SETTINGS) > 25


def test_relative_paths_begin_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = load(tmp_path, more={"storage.ledger_file": "data/l.db", "storage.lock_file": "/run/x.lock"})
    assert config.storage.ledger_file == str(tmp_path / "data" / "l.db")
    assert config.storage.lock_file == "/run/x.lock"
    assert config.storage.key_file == str(tmp_path / "node.key")
    assert config.hub.ca_file == "", "no file is no file, not a folder"


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.api.port = 1  # type: ignore[misc]


def test_settings_reach_the_core_in_its_units(tmp_path: Path) -> None:
    settings = load(tmp_path, more={"storage.floor_days": 2, "sync.zlib_level": 9, "sync.heartbeat_ms": 700}).core_settings()
    assert (settings.floor_ms, settings.uplink.level, settings.heartbeat_ms) == (172_800_000, 9, 700)


def test_the_environment_outranks_the_file(tmp_path: Path) -> None:
    environ = {
        "LONGSHORE_API__PORT": "0", "LONGSHORE_API__LOOPBACK_WITHOUT_TOKEN": "true", "LONGSHORE_NODE__SITE": "W9",
        "LONGSHORE_API__TOKEN_HASHES": "sha256$a, sha256$b", "LONGSHORE_STORAGE__LEDGER_FILE": "other.db",
        "LONGSHORE_HOME": "without two underscores it is nobody's setting",
    }  # fmt: skip
    config = load(tmp_path, environ, more={"api.port": 9})
    assert (config.api.port, config.api.loopback_without_token, config.node.site) == (0, True, "W9")
    assert config.api.token_hashes == ("sha256$a", "sha256$b")
    assert config.storage.ledger_file == str(tmp_path / "other.db")


# ------------------------------------------------------------ what is refused


def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    text = refused(tmp_path, text="levle = 'debug'\n")
    assert "log.levle is not a setting" in text
    assert "Did you mean level?" in text


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    assert "[stroage] is not a section" in refused(tmp_path, text="[stroage]\nbudget_bytes = 1\n")


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    text = refused(tmp_path, environ={"LONGSHORE_API__PROT": "1"})
    assert "LONGSHORE_API__PROT" in text
    assert "Did you mean LONGSHORE_API__PORT?" in text


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("api.port", "8700", "must be a whole number"),
        ("api.port", 65_536, "from 0 to 65535"),
        ("api.port", True, "must be a whole number"),
        ("api.loopback_without_token", "yes", "must be true or false"),
        ("api.token_hashes", ("lst_plain",), "not a hash"),
        ("storage.budget_bytes", 5, "from 1000000"),
        ("sync.zlib_level", 0, "from 1 to 9"),
        ("log.level", "loud", "one of debug, info, warning, error"),
        ("node.name", "Madrid", "node.name"),
        ("node.site", "a/b", "node.site"),
        ("node.org", "other", "hub.address is of acme"),
        ("hub.address", "mqtt://x", "hub.address"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(tmp_path: Path, key: str, value: Any, says: str) -> None:
    assert says in refused(tmp_path, more={key: value})


@pytest.mark.parametrize(
    ("variable", "value"), [("LONGSHORE_API__PORT", "many"), ("LONGSHORE_HUB__MQTT", "yes"), ("LONGSHORE_LOG__LEVEL", "")]
)
def test_a_wrong_value_in_the_environment_is_refused(tmp_path: Path, variable: str, value: str) -> None:
    assert SETTINGS[variable.removeprefix("LONGSHORE_").replace("__", ".").lower()].key in refused(tmp_path, environ={variable: value})


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('[node]\nname = "n"\n')
    with pytest.raises(ConfigError, match=r"node\.site is missing"):
        load_config(path, {})


@pytest.mark.parametrize("text", ["[node", "a = 1\na = 2", "node = 3"])
def test_what_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"edge\.toml"):
        load_config(path, {})


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init"):
        load_config(tmp_path / "none.toml", {})


def test_beyond_this_machine_the_line_must_have_tls(tmp_path: Path) -> None:
    far = HubAddress("hub.example", 1883, "acme", "hub", HUB_KEY.public)
    assert "TLS" in refused(tmp_path, more={"hub.address": format_address(far)})
    secure = format_address(dataclasses.replace(far, tls=True))
    assert load(tmp_path, more={"hub.address": secure}).hub_address.tls


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("localhost.evil", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_names_that_only_look_like_it(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# ------------------------------------------------------------ the examples


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "examples").glob("edge*.toml")), ids=lambda path: path.name)
def test_the_shipped_examples_are_valid_and_complete(path: Path) -> None:
    load_config(path, {})
    text = path.read_text("utf-8")
    assert [row.key for row in SETTINGS.values() if f"\n{row.name} = " not in text and f"\n# {row.name} = " not in text] == []


def test_there_are_examples() -> None:
    assert len(list((ROOT / "deploy" / "examples").glob("edge*.toml"))) >= 2


def test_each_section_says_what_it_is_about() -> None:
    assert [name for name, kind in SECTIONS.items() if not kind.__doc__] == []


# ------------------------------------------------------------ over HTTP


@pytest.mark.parametrize(
    "url", ["hub.example", "ftp://hub", "https://", "http://127.0.0.1:0", "https://u@hub", "https://hub/path", "http://[::"]
)
def test_what_is_no_address_of_an_api_is_refused(tmp_path: Path, url: str) -> None:
    assert "hub.url" in refused(tmp_path, more={"hub.url": url})


def test_a_password_never_crosses_a_network_in_the_clear(tmp_path: Path) -> None:
    assert "in the clear" in refused(tmp_path, more={"hub.url": "http://192.168.1.5:8800"})
    for url, more in (
        ("https://hub.example", {}),
        ("http://127.0.0.1:8800", {}),
        ("http://192.168.1.5:8700", {"hub.token_file": "gateway.token"}),
    ):
        config = load(tmp_path, more={"hub.url": url, **more})
        assert config.core_settings().handout_ms == 3_000
    assert load(tmp_path).core_settings().handout_ms is None, "a broker is no relay: nothing is handed out to it"


def test_with_a_url_the_brokers_address_needs_no_tls(tmp_path: Path) -> None:
    beyond = format_address(HubAddress("hub.example", 1883, "acme", "hub", HUB_KEY.public))
    assert "TLS" in refused(tmp_path, more={"hub.address": beyond})
    assert load(tmp_path, more={"hub.address": beyond, "hub.url": "https://hub.example"}).hub_address.host == "hub.example"
