"""Commands at workers that do not run: the table of leases, and the register that all share, are asked where they lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hub import cli
from hub.config import read_config
from hub.store.leases import Me
from hub.stores import open_leases
from protocols import mosquitto
from protocols.trust import NodeKey, hash_password, make_card

NOW_MS = 1_779_372_312_000
HASH = mosquitto.password_hash("the node's", bytes(12))


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = cli.main([str(arg) for arg in args])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


@pytest.fixture
def workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """Two workers of one hub on one machine; neither runs."""
    shared = tmp_path / "store"
    shared.mkdir()
    folders = tmp_path / "w1", tmp_path / "w2"
    for folder in folders:
        assert run(capsys, "init", folder)[0] == 0
        secret = folder / "broker.password"
        secret.write_text("a password of the hub")
        secret.chmod(0o600)
        drop = folder / "hub.toml.d"
        drop.mkdir()
        (drop / "worker.toml").write_text(
            f'[storage]\nstore_dir = "{shared}"\n'
            '[broker]\nkind = "external"\nhost = "127.0.0.1"\nusername = "hub"\npassword_file = "broker.password"\n'
            f'[workers]\nname = "{folder.name}"\npartitions = 4\n'
        )
    shutil.copyfile(folders[0] / "hub.key", folders[1] / "hub.key")
    return folders


def card(folder: Path, node: str, seed: bytes) -> Path:
    made = make_card(
        NodeKey(seed * 32), node=node, org="acme", region="R", site="S", password_hash=hash_password("x", n=2), mosquitto_hash=HASH
    )
    path = folder.parent / f"{node}.json"
    path.write_text(json.dumps(made))
    return path


def test_the_table_of_workers_is_shown_where_the_hub_does_not_run(
    workers: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "init", tmp_path / "alone")[0] == 0
    code, out, _ = run(capsys, "workers", "--dir", tmp_path / "alone")
    assert (code, out.strip()) == (0, "one process serves all nodes")
    assert run(capsys, "workers", "--dir", workers[0])[1] == "no worker of this hub lives\n"
    leases = open_leases(read_config(workers[1], {}), lambda: NOW_MS * 2)
    leases.renew(Me("w2", 7, "127.0.0.1:8081"), 60_000)
    leases.close()
    code, out, _ = run(capsys, "workers", "--dir", workers[0], "--json")
    found = json.loads(out)
    assert code == 1 and found["unheld"] == [0, 1, 2, 3], "nobody has taken them"
    assert (found["worker"], [w["worker"] for w in found["workers"]]) == ("w1", ["w2"])


def test_what_is_admitted_at_one_worker_is_known_at_all_though_none_runs(
    workers: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    w1, w2 = workers
    assert run(capsys, "nodes", "add", card(w2, "dock-7", b"7"), "--dir", w2)[0] == 0
    code, out, err = run(capsys, "broker", "passwords", "--dir", w1)
    assert code == 0 and f"dock-7:{HASH}" in out.splitlines(), err
    assert run(capsys, "nodes", "add", card(w1, "dock-8", b"8"), "--dir", w1)[0] == 0
    for folder in workers:
        users = [line for line in run(capsys, "broker", "acl", "--dir", folder)[1].splitlines() if line.startswith("user")]
        assert users == ["user hub", "user dock-7", "user dock-8"]
        nodes = json.loads(run(capsys, "nodes", "ls", "--dir", folder, "--json")[1])["nodes"]
        assert [row["node"] for row in nodes] == ["dock-7", "dock-8"]
        assert "dock-7" in run(capsys, "fleet", "--dir", folder)[1]
    code, _, err = run(capsys, "nodes", "add", card(w1, "dock-7", b"9"), "--dir", w1)
    assert code == 2 and "taken by another key" in err


def test_a_fleet_whose_nodes_are_other_workers_says_so(
    workers: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"/v1/fleet": {"fleet": [], "cursor": None}, "/v1/nodes": {"nodes": [{"node": "dock-7"}]}}
    monkeypatch.setattr("hub.cli_ask.ask", lambda _args, path, _params=None: answers[path])
    code, out, _ = run(capsys, "fleet", "--dir", workers[0])
    assert code == 0 and "the one admitted node is other workers'" in out
    answers["/v1/nodes"] = {"nodes": []}
    assert "no node is admitted" in run(capsys, "fleet", "--dir", workers[0])[1]
