"""`init`: a whole directory or none."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from edge_agent import init
from edge_agent.config import load_config
from edge_agent.init import Made, make_directory
from protocols.errors import ConfigError, InvalidInput
from protocols.trust import HubAddress, NodeKey, format_address, parse_card, password_matches, token_matches
from tests.unit.edge_agent.edges import HUB_ADDRESS, HUB_KEY


def make(folder: Path, **changed: Any) -> Made:
    return make_directory(folder, **{"node": "madrid-1", "site": "W8-Madrid", "region": "EMEA", "hub": HUB_ADDRESS, **changed})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_makes_all_that_an_edge_needs_and_secrets_are_its_owners_alone(tmp_path: Path) -> None:
    made = make(tmp_path / "deep" / "edge")
    assert names(made.folder) == ["api.token", "broker.password", "edge.toml", "node.card.json", "node.key"]
    modes = {name: stat.S_IMODE((made.folder / name).stat().st_mode) for name in names(made.folder)}
    assert {name: mode for name, mode in modes.items() if name in ("api.token", "broker.password", "node.key")} == {
        "api.token": 0o600,
        "broker.password": 0o600,
        "node.key": 0o600,
    }
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700


def test_key_card_password_and_token_fit_each_other(tmp_path: Path) -> None:
    made = make(tmp_path / "edge")
    card = parse_card(json.loads(made.card.read_text()))
    config = load_config(made.config, {})
    assert (card.node, card.org, card.region, card.site) == ("madrid-1", "acme", "EMEA", "W8-Madrid")
    assert card.public_key == NodeKey.load(made.folder / "node.key").public
    assert password_matches((made.folder / "broker.password").read_text().strip(), card.password_hash)
    token = (made.folder / "api.token").read_text().strip()
    assert token_matches(token, config.api.token_hashes[0])
    assert token not in made.config.read_text(), "only its hash stands in the configuration"
    assert config.hub_address.fingerprint == made.hub.fingerprint


def test_two_edges_have_nothing_secret_in_common(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1"), make(tmp_path / "2")
    for name in ("node.key", "broker.password", "api.token"):
        assert (one.folder / name).read_text() != (two.folder / name).read_text()


def test_an_empty_directory_is_used_and_settings_are_written(tmp_path: Path) -> None:
    made = make(tmp_path, settings={"api.port": 0})
    assert load_config(made.config, {}).api.port == 0


@pytest.mark.parametrize("found", ["edge.toml", "holiday.jpg", ".hidden"])
def test_a_directory_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path, found: str) -> None:
    (tmp_path / found).write_text("mine")
    with pytest.raises(ConfigError, match="nothing was changed"):
        make(tmp_path)
    assert names(tmp_path) == [found]
    assert (tmp_path / found).read_text() == "mine"


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("step", ["make_card", "write_secret", "load_config", "_sync"])
def test_a_failure_on_the_way_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existed: bool) -> None:
    folder = tmp_path / "edge"
    if existed:
        folder.mkdir()

    def failing(*args: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(init, step, failing)
        with pytest.raises(ConfigError, match="No space left"):
            make(folder)
    assert folder.exists() is existed
    assert not existed or names(folder) == []
    make(folder)


def test_what_a_killed_attempt_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".init").mkdir()
    (tmp_path / ".init" / "node.key").write_text("half")
    made = make(tmp_path)
    assert ".init" not in names(made.folder)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"node": "Madrid 1"}, "node"),
        ({"site": "a/b"}, "site"),
        ({"region": ""}, "region"),
        ({"org": "other"}, "org"),
        ({"hub": "mqtt://127.0.0.1"}, "address"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_made(tmp_path: Path, changed: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(tmp_path / "edge", **changed)
    assert caught.value.field == field
    assert names(tmp_path) == []


def test_a_hub_beyond_this_machine_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TLS"):
        make(tmp_path / "edge", hub=format_address(HubAddress("10.0.0.2", 1883, "acme", "hub", HUB_KEY.public)))
    make(tmp_path / "edge", hub=format_address(HubAddress("10.0.0.2", 8883, "acme", "hub", HUB_KEY.public, tls=True)))


def test_where_a_file_is_in_the_way_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot use"):
        make(tmp_path / "file" / "edge")


def test_where_nobody_may_write_not_even_root_it_says_so() -> None:
    with pytest.raises(ConfigError, match="may write to"):
        make(Path("/proc/edge"))
