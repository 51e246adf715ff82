"""Settings from files, drop-ins and the environment; every mistake is one line that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from protocols.errors import ConfigError
from protocols.settings import Setting, Source, document, load, render

TABLE = (
    Setting("api", "host", "127.0.0.1", "Where to listen."),
    Setting("api", "port", 8800, "The port.", least=0, most=65_535),
    Setting("api", "open", False, "Whether anybody may come."),
    Setting("api", "token_file", "api.token", "Holds the token.", path=True),
    Setting("log", "level", "info", "How much is said.", allowed=("debug", "info")),
    Setting("node", "name", "", "Who this is.", required=True),
    Setting("node", "wait_s", 5, "How long.", "seconds", least=1),
)
NAMED = '[node]\nname = "dock"\n'


def values(text: str = NAMED, env: dict[str, str] | None = None, *more: str) -> dict[str, dict[str, object]]:
    sources = [Source("hub.toml", text), *(Source(f"drop-{n}", one) for n, one in enumerate(more))]
    return load(TABLE, sources, env or {}, folder=Path("/etc/x")).values  # type: ignore[return-value]


def test_defaults_stand_where_nothing_is_said() -> None:
    found = values()
    assert found["api"] == {"host": "127.0.0.1", "port": 8800, "open": False, "token_file": "/etc/x/api.token"}
    assert found["node"] == {"name": "dock", "wait_s": 5}


def test_later_wins_file_then_drop_in_then_environment() -> None:
    assert values(NAMED + "wait_s = 6")["node"]["wait_s"] == 6
    assert values(NAMED + "wait_s = 6", None, "[node]\nwait_s = 7")["node"]["wait_s"] == 7
    assert values(NAMED + "wait_s = 6", {"LONGSHORE_NODE__WAIT_S": "8"}, "[node]\nwait_s = 7")["node"]["wait_s"] == 8


def test_each_value_says_where_it_came_from() -> None:
    found = load(TABLE, [Source("hub.toml", NAMED)], {"LONGSHORE_API__PORT": "1"}, folder=Path("."))
    assert found.origins["node.name"] == "hub.toml"
    assert found.origins["api.port"] == "LONGSHORE_API__PORT"
    assert found.origins["log.level"] == "default"


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("off", False), ("No", False)])
def test_the_environment_says_yes_and_no_in_words(text: str, meant: bool) -> None:
    assert values(NAMED, {"LONGSHORE_API__OPEN": text})["api"]["open"] is meant


def test_variables_without_a_section_are_somebody_elses() -> None:
    assert values(NAMED, {"LONGSHORE_HUB": "/srv", "PATH": "/bin"})["node"]["name"] == "dock"


@pytest.mark.parametrize(
    ("text", "env", "says"),
    [
        (NAMED + "nme = 1", {}, "hub.toml: 'nme' is no known setting in [node]. Did you mean name?"),
        (NAMED + "[appi]\nport = 1", {}, "hub.toml: 'appi' is no known section. Did you mean api?"),
        (NAMED + "zzzz = 1", {}, "Known: name, wait_s."),
        ("node = 3", {}, "node is a section: write [node]"),
        (NAMED + "[api]\nport = '80'", {}, "api.port must be a whole number, not '80'. Write it like: port = 8800"),
        (NAMED + "[api]\nport = true", {}, "api.port must be a whole number, not True."),
        (NAMED + "[api]\nopen = 1", {}, "api.open must be true or false, not 1."),
        (NAMED + "[api]\nhost = 7", {}, "api.host must be text, not 7."),
        (NAMED + "[api]\nport = 65536", {}, "api.port is 65536; it must be from 0 to 65535."),
        (NAMED + "wait_s = 0", {}, "node.wait_s is 0; it must be at least 1."),
        (NAMED + "[log]\nlevel = 'inf'", {}, "log.level is 'inf'; allowed: debug, info. Did you mean info?"),
        ('[node]\nname = "a\\u0007"', {}, "node.name holds a control character."),
        ("", {}, "node.name is not set. Set it in [node] or as LONGSHORE_NODE__NAME"),
        ("[node\n", {}, "hub.toml is not TOML:"),
        (
            NAMED,
            {"LONGSHORE_API__PROT": "1"},
            "the environment: 'LONGSHORE_API__PROT' is no known variable. Did you mean LONGSHORE_API__PORT?",
        ),
        (NAMED, {"LONGSHORE_API__PORT": "eighty"}, "LONGSHORE_API__PORT: api.port must be a whole number, not 'eighty'."),
        (NAMED, {"LONGSHORE_API__OPEN": "perhaps"}, "api.open must be true or false, not 'perhaps'."),
    ],
)
def test_a_mistake_is_one_line_that_names_it(text: str, env: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values(text, env)
    assert says in str(caught.value)
    assert "\n" not in caught.value.remedy


def test_an_absolute_path_stays_and_an_empty_one_means_none() -> None:
    assert values(NAMED + '[api]\ntoken_file = "/run/t"')["api"]["token_file"] == "/run/t"
    assert values(NAMED + '[api]\ntoken_file = ""')["api"]["token_file"] == ""


def test_the_rendered_file_reads_back_and_holds_every_setting() -> None:
    text = render(TABLE, {"node.name": 'a "quoted" name', "api.port": 0}, "A head\nof two lines")
    assert text.startswith("# A head\n# of two lines\n")
    assert tomllib.loads(text) == {"api": {"port": 0}, "log": {}, "node": {"name": 'a "quoted" name'}}
    uncommented = "\n".join(
        line.removeprefix("#") if line.startswith("#") and line[1:2] not in (" ", "") else line for line in text.splitlines()
    )
    assert sum(len(section) for section in tomllib.loads(uncommented).values()) == len(TABLE)


def test_the_document_names_every_setting_once() -> None:
    text = document(TABLE)
    assert [text.count(f"`{row.name}`") for row in TABLE] == [1] * len(TABLE)
