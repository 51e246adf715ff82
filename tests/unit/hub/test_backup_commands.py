"""`longshore-hub backup`, `restore`, `verify`, `backups` and `audit`, over a hub's files and over one that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hub import cli
from hub.backup_register import open_store
from hub.cli_ask import client_of
from hub.config import read_config
from hub.core import HubCore, HubIdentity
from protocols import backup as files
from protocols.messages import Heartbeat, StreamQueue
from protocols.sqlite import Db
from protocols.trust import NodeKey, fingerprint, verify
from tests.support.procs import started
from tests.unit.hub.hub_world import make_card, order_event
from tests.unit.hub.test_cli import EVENT as AN_EVENT
from tests.unit.hub.test_cli import _post, ready_line, run_args

NOW_MS = 1_779_372_312_000


class Cli:
    """The command line in this process, against one hub's folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *args: str | Path, code: int = 0) -> str:
        found = cli.main([*(str(arg) for arg in args), "--dir", str(self.folder)])
        said = self._capsys.readouterr()
        assert found == code, said.err + said.out
        assert "Traceback" not in said.err
        return said.out if code in (0, 1) and said.out else said.err

    def json(self, *args: str | Path, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code))


@pytest.fixture
def hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """A hub that does not run, with three facts in ledger and store."""
    folder = tmp_path / "hub"
    assert cli.main(["init", str(folder), "--api-port", "0", "--broker-port", "0", "--loopback-without-token"]) == 0
    capsys.readouterr()
    says(folder, "A1", "A2", "A3")
    return Cli(folder, capsys)


def says(folder: Path, *orders: str) -> None:
    """Events at the centre, handed over to the store."""
    config = read_config(folder, {})
    key = NodeKey.load(config.key_file)
    store = open_store(config, lambda: NOW_MS)
    db = Db(folder / "hub.db")
    core = HubCore(db, HubIdentity("acme", "central", "hub", key.public), key.sign, verify, Random(str(orders)))
    core.begin()
    core.take_statement(store.statement(None), whole=True)
    core.take_events([order_event(order, "PLACED") for order in orders], NOW_MS)
    core.commit()
    taken, records = core.lacking_in_store()
    store.apply(taken, records, NOW_MS)
    core.begin()
    core.take_statement(store.statement(None), whole=True)
    core.commit()
    store.close()
    db.close()


def orders_in(path: Path) -> list[str]:
    db = Db(path, read_only=True)
    try:
        return [row[0] for row in db.query("SELECT order_id FROM view ORDER BY order_id")]
    finally:
        db.close()


def sql(path: Path, *statements: str) -> None:
    db = Db(path)
    for statement in statements:
        db.run(statement)
    db.close()


# ------------------------------------------------------------ backup and verify


def test_a_backup_is_whole_registered_and_says_what_is_in_it(hub: Cli, tmp_path: Path) -> None:
    said = hub.json("backup", tmp_path / "b1")
    place = Path(said["place"])
    assert place == tmp_path / "b1"
    assert sorted(p.name for p in place.iterdir()) == ["hub.db", "manifest.json", "store.db"]
    assert orders_in(place / "store.db") == ["A1", "A2", "A3"]
    manifest = files.read_manifest(place)
    assert (manifest.what, manifest.node, manifest.id, manifest.secrets) == ("hub", "hub", said["id"], [])
    assert [s["head"] for s in manifest.streams["store.db"]] == [3]
    (listed,) = hub.json("backups", "ls")["backups"]
    assert (listed["id"], listed["state"], listed["facts"], listed["place"]) == (said["id"], "complete", 3, str(place))
    assert "as it should be" in hub("verify", place)
    assert "no key, token or configuration" in hub("backup", tmp_path)
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("hub-2")]) == 1


def test_keys_are_in_it_only_on_demand_and_for_their_owner_alone(hub: Cli, tmp_path: Path) -> None:
    said = hub("backup", tmp_path / "b1", "--with-keys", "--store-only")
    assert "keys are in it" in said
    names = files.read_manifest(tmp_path / "b1").files
    assert {"store.db", "config/hub.toml", "config/hub.key", "config/api.token"} == set(names)
    assert {oct((tmp_path / "b1" / name).stat().st_mode & 0o777) for name in names} == {"0o600"}
    assert (tmp_path / "b1").stat().st_mode & 0o077 == 0


def test_a_damaged_backup_is_found_and_not_restored(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1")
    data = bytearray((tmp_path / "b1/store.db").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b1/store.db").write_bytes(data)
    assert "not those that the manifest names" in hub("verify", tmp_path / "b1", code=1)
    assert "is damaged" in hub("restore", tmp_path / "b1", "--force", code=1)
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3"]


def test_a_copy_that_is_not_sound_is_no_backup(hub: Cli, tmp_path: Path) -> None:
    sql(hub.folder / "store.db", "UPDATE log SET row=x'93' WHERE seq=2")
    assert "not sound" in hub("backup", tmp_path / "b1", code=1)
    assert not (tmp_path / "b1").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert [b["state"] for b in hub.json("backups", "ls")["backups"]] == ["expired"], "what failed holds nothing back"
    verdict = hub.json("verify", code=1)
    assert "fact 2: edited" in str(verdict["troubles"])
    hub("backup", tmp_path / "b1", "--quick")


def test_a_backup_never_lies_inside_another(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1", "--quick")
    held = sorted(path.name for path in (tmp_path / "b1").iterdir())
    assert "is a backup itself" in hub("backup", tmp_path / "b1", "--quick", code=2)
    assert sorted(path.name for path in (tmp_path / "b1").iterdir()) == held


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("backup", "{0}/none/b1"), 2, "is not a folder"),
        (("restore", "{0}"), 3, "is no backup"),
        (("verify", "{0}/nothing"), 3, "is no backup"),
        (("backups", "expire", "nobody"), 2, "no backup 'nobody'"),
        (("backups", "complete", "nobody"), 2, "no backup 'nobody'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_line_and_a_documented_code(hub: Cli, tmp_path: Path, args: tuple[str, ...], code: int, says: str) -> None:
    assert says in hub(*(arg.format(tmp_path) for arg in args), code=code)


# ------------------------------------------------------------ restore


def test_a_restore_refuses_to_overwrite_keeps_what_it_replaces_and_begins_a_new_epoch(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1")
    says(hub.folder, "A4")
    assert "already" in hub("restore", tmp_path / "b1", code=3)
    said = hub.json("restore", tmp_path / "b1", "--force")
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3"]
    (aside,) = {str(Path(path).parent) for path in said["aside"]}
    assert orders_in(Path(aside) / "store.db") == ["A1", "A2", "A3", "A4"]
    db = Db(hub.folder / "hub.db", read_only=True)
    assert db.query("SELECT count(DISTINCT epoch) FROM streams WHERE own=1") == [(2,)]
    db.close()
    assert not (hub.folder / files.UNFINISHED).exists()
    says(hub.folder, "A5")
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3", "A5"]


def test_a_restore_into_an_empty_folder_needs_no_force_and_brings_the_keys_on_demand(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1", "--with-keys")
    key = (hub.folder / "hub.key").read_bytes()
    shutil.rmtree(hub.folder)
    hub("restore", tmp_path / "b1", "--with-keys")
    assert (hub.folder / "hub.key").read_bytes() == key
    assert (hub.folder / "hub.key").stat().st_mode & 0o077 == 0
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3"]


def test_the_list_survives_the_restore_of_an_older_backup(hub: Cli, tmp_path: Path) -> None:
    first = hub.json("backup", tmp_path / "b1")["id"]
    says(hub.folder, "A4")
    second = hub.json("backup", tmp_path / "b2")["id"]
    unfinished = hub.json("backups", "register", "--place", "elsewhere")["id"]
    hub("restore", tmp_path / "b1", "--force")
    states = {b["id"]: b["state"] for b in hub.json("backups", "ls")["backups"]}
    assert states == {first: "complete", second: "complete", unfinished: "expired"}


def test_the_list_is_found_beside_the_backup_where_everything_else_was_lost(hub: Cli, tmp_path: Path) -> None:
    first = hub.json("backup", tmp_path / "b1", "--with-keys")["id"]
    says(hub.folder, "A4")
    second = hub.json("backup", tmp_path / "b2")["id"]
    shutil.rmtree(hub.folder)
    hub("restore", tmp_path / "b1", "--with-keys")
    assert {b["id"]: b["state"] for b in hub.json("backups", "ls")["backups"]} == {first: "complete", second: "complete"}


def test_an_expired_or_forgotten_backup_is_restored_only_by_force(hub: Cli, tmp_path: Path) -> None:
    first = hub.json("backup", tmp_path / "b1")["id"]
    hub("backup", tmp_path / "b2")
    hub("backups", "expire", first)
    for name in ("store.db", "hub.db"):
        (hub.folder / name).unlink()
    assert "has expired" in hub("restore", tmp_path / "b1", code=3)
    hub("restore", tmp_path / "b2")
    (hub.folder / "backups.d" / f"{first}.json").unlink()
    for name in ("store.db", "hub.db"):
        (hub.folder / name).unlink()
    assert "is not on the list" in hub("restore", tmp_path / "b1", "--store-only", code=3)
    hub("restore", tmp_path / "b1", "--force")


def test_a_backup_of_another_hub_is_not_taken_for_this_ones(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1")
    manifest = json.loads((tmp_path / "b1/manifest.json").read_text())
    (tmp_path / "b1/manifest.json").write_text(json.dumps(manifest | {"node": "other"}))
    assert "not of hub hub of acme" in hub("restore", tmp_path / "b1", "--force", code=3)


def test_a_backup_of_another_hub_of_the_same_name_is_refused_by_its_key(
    hub: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub("backup", tmp_path / "b1")
    other = tmp_path / "other"
    assert cli.main(["init", str(other), "--api-port", "0", "--broker-port", "0"]) == 0
    capsys.readouterr()
    says(other, "B1")
    second = Cli(other, capsys)
    said = second("restore", tmp_path / "b1", "--force", code=3)
    mine, theirs = (fingerprint(NodeKey.load(folder / "hub.key").public) for folder in (other, hub.folder))
    assert theirs in said and mine in said and "another hub of the name hub" in said
    assert orders_in(other / "store.db") == ["B1"], "nothing was replaced"
    assert not second.json("restore", tmp_path / "b1", "--force", "--other-key")["keyChecked"]
    assert orders_in(other / "store.db") == ["A1", "A2", "A3"]
    assert hub.json("restore", tmp_path / "b1", "--force")["keyChecked"]


def test_a_backup_of_an_earlier_version_names_no_key_and_is_taken_only_by_force(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1")
    manifest = json.loads((tmp_path / "b1/manifest.json").read_text())
    del manifest["fingerprint"]
    (tmp_path / "b1/manifest.json").write_text(json.dumps(manifest))
    for name in ("store.db", "hub.db"):
        (hub.folder / name).unlink()
    assert "does not say which hub hub it is of" in hub("restore", tmp_path / "b1", code=3)
    assert "note: not verified that it is of this hub" in hub("restore", tmp_path / "b1", "--force")
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3"]


def test_a_manifest_cannot_name_files_outside_of_its_folder(hub: Cli, tmp_path: Path) -> None:
    hub("backup", tmp_path / "b1")
    manifest = json.loads((tmp_path / "b1/manifest.json").read_text())
    manifest["files"]["../../hub.key"] = manifest["files"]["hub.db"]
    (tmp_path / "b1/manifest.json").write_text(json.dumps(manifest))
    assert "is not a file of this folder" in hub("restore", tmp_path / "b1", "--force", code=3)


def test_a_restore_that_was_interrupted_is_not_run_on(hub: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub("backup", tmp_path / "b1")
    rename = Path.rename
    moved: list[Path] = []

    def power_cut(self: Path, target: Path) -> Path:
        if self.name.endswith(".restoring"):
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", power_cut)
    hub("restore", tmp_path / "b1", "--force", code=130)
    monkeypatch.setattr(Path, "rename", rename)
    assert "interrupted" in hub("backups", "ls", code=1 if (hub.folder / "store.db").exists() else 3)
    hub("restore", tmp_path / "b1", "--force")
    assert orders_in(hub.folder / "store.db") == ["A1", "A2", "A3"]
    says(hub.folder, "A4")


# ------------------------------------------------------------ the list


def test_another_tool_registers_before_it_begins_and_says_when_it_is_done(hub: Cli) -> None:
    backup_id = hub("backups", "register", "--place", "s3://x", "--tool", "pg_dump").split()[0]
    assert [b["state"] for b in hub.json("backups", "ls")["backups"]] == ["begun"]
    assert "is complete" in hub("backups", "complete", backup_id)
    assert "is expired" in hub("backups", "expire", backup_id)
    assert "has expired" in hub("backups", "complete", backup_id, code=2)


def test_retention_ends_what_the_configuration_does_not_keep(hub: Cli, tmp_path: Path) -> None:
    (hub.folder / "hub.toml.d").mkdir()
    (hub.folder / "hub.toml.d/keep.toml").write_text("[backup]\nkeep = 2\n")
    for n in range(3):
        said = hub.json("backup", tmp_path / f"b{n}")
    assert [gone["place"] for gone in said["expired"]] == [str(tmp_path / "b0")]
    assert [b["state"] for b in hub.json("backups", "ls")["backups"]] == ["expired", "complete", "complete"]
    (hub.folder / "hub.toml.d/keep.toml").write_text("[backup]\nkeep = 1\n")
    assert str(tmp_path / "b1") in hub("backups", "retention")
    assert "nothing has to go" in hub("backups", "retention")


# ------------------------------------------------------------ audit


def cut_clean(name: str) -> list[str]:
    """The last fact goes, and with it all that this database says of it elsewhere."""
    rest = ["DELETE FROM view", "DELETE FROM backups"] if name == "store.db" else ["UPDATE streams SET settled_seq=2"]
    return [
        "DELETE FROM log WHERE seq=3", "UPDATE runs SET last=2, h_last=(SELECT h FROM log WHERE seq=2)", "DELETE FROM orders", *rest,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tamper", "seq", "what"),
    [
        ("hub.db", ["UPDATE log SET row=row || x'00' WHERE seq=2"], 2, "edited"),
        ("store.db", ["DELETE FROM log WHERE seq=2"], 2, "deleted"),
        (
            "store.db",
            ["INSERT INTO log SELECT sid, 2, x'0000000000000001', prev, NULL, 0, row, 0 FROM log WHERE seq=2"],
            2,
            "inserted",
        ),
        ("hub.db", [f"UPDATE log SET seq={to} WHERE seq={at}" for at, to in ((1, 99), (2, 1), (99, 2))], 1, "reordered"),
        ("hub.db", cut_clean("hub.db"), 3, "cut"),
        ("store.db", cut_clean("store.db"), 3, "cut"),
    ],
    ids=["edit", "delete", "insert", "reorder", "cut the ledger", "cut the store"],
)
def test_an_audit_names_what_was_done_to_which_database(hub: Cli, name: str, tamper: list[str], seq: int, what: str) -> None:
    assert "every chain is whole" in hub("audit")
    sql(hub.folder / name, *tamper)
    found = hub.json("audit", code=1)["findings"]
    assert {"database": name, "node": "hub", "seq": seq, "what": what}.items() <= found[0].items(), found
    assert f"fact {seq}: {what}" in hub("audit", code=1)


def test_a_tail_that_is_cut_off_everywhere_shows_against_the_last_word_of_its_node(hub: Cli) -> None:
    config = read_config(hub.folder, {})
    key, dock = NodeKey.load(config.key_file), NodeKey(b"d" * 32)
    db = Db(hub.folder / "hub.db")
    core = HubCore(db, HubIdentity("acme", "central", "hub", key.public), key.sign, verify, Random(1))
    core.begin()
    core.take_card(make_card(dock, "dock-7"), NOW_MS)
    core.registry.note_beat("dock-7", Heartbeat(NOW_MS, (StreamQueue(5, 0, (9, b"12345678"), 2, 10, NOW_MS),), "1", 0), NOW_MS)
    core.commit()
    db.close()
    found = hub.json("audit", code=1)["findings"]
    assert [(f["database"], f["node"], f["epoch"], f["seq"], f["what"]) for f in found] == [
        ("hub.db", "dock-7", "5", 1, "cut"), ("store.db", "dock-7", "5", 1, "cut"),
    ]  # fmt: skip
    assert "the heartbeat of dock-7 names 7" in found[0]["text"]


def test_what_a_backup_had_the_store_must_have(hub: Cli, tmp_path: Path) -> None:
    backup_id = hub.json("backup", tmp_path / "b1")["id"]
    for name in ("hub.db", "store.db"):
        remembered = hub.folder / "store.db"
        db = Db(remembered, read_only=True)
        rows = db.query("SELECT * FROM backups")
        db.close()
        sql(hub.folder / name, *cut_clean(name))
        if name == "store.db":
            db = Db(remembered)
            db.many("INSERT INTO backups VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.close()
    found = hub.json("audit", code=1)["findings"]
    assert [(f["database"], f["seq"], f["what"]) for f in found] == [("store.db", 3, "cut")]
    assert f"backup {backup_id} names 3" in found[0]["text"]


# ------------------------------------------------------------ a hub that runs


@pytest.mark.slow
def test_backup_verify_audit_and_list_while_the_hub_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hub"
    assert cli.main(["init", str(folder), "--api-port", "0", "--broker-port", "0", "--loopback-without-token"]) == 0
    capsys.readouterr()
    hub = Cli(folder, capsys)
    with started(run_args(folder)) as child:
        url = ready_line(child).split()[1]
        _post(url, [AN_EVENT])
        api = client_of(read_config(folder, {}))
        child.wait_until(lambda: api.get("/v1/balance")["fleet"]["settled"] == 1, what="settled")
        said = hub.json("backup", tmp_path / "b1")
        assert [b["state"] for b in api.get("/v1/backups")["backups"]] == ["complete"]
        assert "held by another process" in hub("restore", tmp_path / "b1", "--force", code=4)
        assert "every chain is whole" in hub("audit")
        assert hub.json("verify")["ok"]
        hub("backups", "expire", said["id"])
        assert [b["state"] for b in api.get("/v1/backups")["backups"]] == ["expired"]
        assert "no backup 'x'" in hub("backups", "complete", "x", code=2)
