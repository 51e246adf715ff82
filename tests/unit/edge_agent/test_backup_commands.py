"""`longshore-edge backup`, `restore`, `verify` and `audit`: an edge's ledger as files, while it runs and while it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from protocols import backup as files
from protocols.sqlite import Db
from tests.unit.edge_agent.test_cli import command, init, lines, running


class Cli:
    """The command line in this process, against one edge."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.folder, self._capsys = config, config.parent, capsys

    def __call__(self, *args: str | Path, code: int = 0) -> str:
        found = cli.main([*(str(arg) for arg in args), "--config", str(self.config)])
        said = self._capsys.readouterr()
        assert found == code, said.err + said.out
        return said.out if code in (0, 1) and said.out else said.err

    def json(self, *args: str | Path, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code))

    def says(self, *orders: str) -> None:
        """Capture events while the edge does not run."""
        path = self.folder / "events.jsonl"
        path.write_text(lines(*orders))
        self("events", "append", path)

    def epochs(self) -> list[tuple[int, int]]:
        """(facts, epoch in order of making) of its own streams."""
        db = Db(self.folder / "ledger.db", read_only=True)
        try:
            return [(int(last), n) for n, (last,) in enumerate(db.query("SELECT max(seq) FROM log GROUP BY sid ORDER BY sid"))]
        finally:
            db.close()


@pytest.fixture
def edge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    found = Cli(init(tmp_path / "edge", capsys=capsys), capsys)
    found.says("A1", "A2", "A3")
    return found


def test_a_restored_edge_begins_a_new_epoch_and_keeps_what_it_replaced(edge: Cli, tmp_path: Path) -> None:
    said = edge.json("backup", tmp_path / "b1")
    assert said["files"] == ["ledger.db"]
    assert files.read_manifest(tmp_path / "b1").streams["ledger.db"][0]["head"] == 3
    edge.says("A4")
    assert "is there already" in edge("restore", tmp_path / "b1", code=3)
    done = edge.json("restore", tmp_path / "b1", "--force")
    assert edge.epochs() == [(3, 0), (1, 1)], "the record that continues the old one stands there before the next yes"
    edge.says("A5")
    assert edge.epochs() == [(3, 0), (2, 1)]
    assert any(Path(path).name == "ledger.db" for path in done["aside"])
    assert edge.json("audit")["ok"]
    assert edge.json("verify")["orders"] == 4


def test_a_whole_edge_comes_back_into_an_empty_folder(edge: Cli, tmp_path: Path) -> None:
    assert "keys are in it" in edge("backup", tmp_path / "b1", "--with-keys")
    manifest = files.read_manifest(tmp_path / "b1")
    assert {f"config/{n}" for n in ("edge.toml", "node.key", "node.card.json", "broker.password", "api.token")} < set(manifest.files)
    assert all((tmp_path / "b1" / name).stat().st_mode & 0o077 == 0 for name in manifest.files)
    key = (edge.folder / "node.key").read_bytes()
    shutil.rmtree(edge.folder)
    assert edge.json("restore", tmp_path / "b1", "--with-keys")["configuration"]
    assert (edge.folder / "node.key").read_bytes() == key
    edge.says("A4")
    assert edge.epochs() == [(3, 0), (2, 1)]


def test_what_is_damaged_or_anothers_is_not_restored(edge: Cli, tmp_path: Path) -> None:
    edge("backup", tmp_path / "b1")
    (tmp_path / "b1/ledger.db").write_bytes((tmp_path / "b1/ledger.db").read_bytes()[:-1] + b"x")
    assert "manifest" in edge("verify", tmp_path / "b1", code=1)
    assert "damaged" in edge("restore", tmp_path / "b1", "--force", code=1)
    edge("backup", tmp_path / "b2")
    manifest = json.loads((tmp_path / "b2/manifest.json").read_text())
    (tmp_path / "b2/manifest.json").write_text(json.dumps(manifest | {"node": "other-1"}))
    assert "not of edge madrid-1" in edge("restore", tmp_path / "b2", "--force", code=3)
    assert "is not possible" in edge("restore", tmp_path / "b2", "--with-keys", code=2)
    (tmp_path / "b2/manifest.json").write_text(json.dumps(manifest | {"fingerprint": "SHA256:of-a-namesake"}))
    assert "of another edge of the name madrid-1" in edge("restore", tmp_path / "b2", "--force", code=3)
    assert edge.epochs() == [(3, 0)]


def test_a_ledger_that_somebody_edited_is_named_and_not_backed_up(edge: Cli, tmp_path: Path) -> None:
    db = Db(edge.folder / "ledger.db")
    db.run("DELETE FROM log WHERE seq=2")
    db.close()
    (found,) = edge.json("audit", code=1)["findings"]
    assert (found["node"], found["seq"], found["what"]) == ("madrid-1", 2, "deleted")
    assert "fact 2: deleted" in edge("verify", code=1)
    assert "not sound" in edge("backup", tmp_path / "b1", code=1)
    assert not (tmp_path / "b1").exists()


def test_an_interrupted_restore_is_finished_before_anything_runs(edge: Cli, tmp_path: Path) -> None:
    edge("backup", tmp_path / "b1")
    (edge.folder / files.UNFINISHED).write_text("{}")
    for args in (("queue", "ls"), ("run",)):
        assert "interrupted" in edge(*args, code=1)
    edge("restore", tmp_path / "b1", "--force")
    assert "not settled" in edge("queue", "ls")


@pytest.mark.parametrize("args", [("verify", "{0}"), ("restore", "{0}")], ids=["verify", "restore"])
def test_a_folder_that_is_no_backup_is_said_to_be_none(edge: Cli, tmp_path: Path, args: tuple[str, ...]) -> None:
    assert "is no backup" in edge(*(arg.format(tmp_path) for arg in args), code=3)


@pytest.mark.slow
def test_a_backup_while_the_edge_runs_is_of_one_moment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = Cli(init(tmp_path / "edge", "--loopback-without-token", capsys=capsys), capsys)
    with running(edge.config):
        assert command("events", "append", "--config", edge.config, stdin=lines("A1", "A2")).returncode == 0
        edge("backup", tmp_path / "b1")
        assert "as it should be" in edge("verify", tmp_path / "b1")
        assert edge.json("audit") == {"ok": True, "findings": [], "facts": 2, "freed": 0}
        assert "held by another process" in edge("restore", tmp_path / "b1", "--force", code=4)
