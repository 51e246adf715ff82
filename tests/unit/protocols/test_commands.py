"""What is typed wrong is answered by what to type."""

from __future__ import annotations

import pytest

from deploy.plan import cli as plan
from edge_agent.cli import main as edge
from hub.cli import main as hub
from models.cli import main as models


@pytest.mark.parametrize(
    ("main", "line", "says"),
    [
        (hub, ["store", "--config", "hub.toml"], "a command comes before --config: longshore-hub store {migrate,check,rebuild}"),
        (hub, ["backups", "--json"], "a command comes before --json: longshore-hub backups {"),
        (hub, ["--config=x", "status"], "a command comes before --config: longshore-hub {"),
        (hub, ["quarantine", "--dir", "x"], "a command comes before --dir: longshore-hub quarantine {"),
        (edge, ["peer", "--config", "edge.toml"], "a command comes before --config: longshore-edge peer {"),
        (edge, ["queue", "quarantine", "--config", "x"], "a command comes before --config: longshore-edge queue quarantine {"),
        (models, ["--out", "x"], "a command comes before --out: longshore-models {"),
    ],
    ids=["store", "backups", "top", "quarantine", "peer", "nested", "models"],
)
def test_an_option_in_place_of_a_command_is_named(main: object, line: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)  # type: ignore[operator]
    said = capsys.readouterr().err
    assert ended.value.code == 2 and says in said and "invalid choice" not in said


def test_what_needs_no_command_goes_on_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--version"], ["-h"], ["store", "--help"], ["store", "check", "--help"]):
        with pytest.raises(SystemExit) as ended:
            hub(line)
        assert ended.value.code == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("main", "name"),
    [(plan.main, "sim"), (models, "models"), (edge, "edge"), (hub, "hub")],
    ids=["sim", "models", "edge", "hub"],
)
def test_every_command_says_its_version(main: object, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])  # type: ignore[operator]
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.startswith(f"longshore-{name} 0.") and said.count("\n") == 1


def test_the_choices_of_tls_have_no_empty_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hub(["init", "--help"])
    said = capsys.readouterr().out
    assert "{disable,prefer,require,verify-ca,verify-full}" in said and "{," not in said
