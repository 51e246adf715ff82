"""`longshore-hub` as people and scripts run it: what it prints and how it exits (`tests.support.commands` says which run in a process)."""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import edge_agent
import models
from hub import cli
from hub.cli_ask import Client, _problem, client_of
from hub.config import read_config
from protocols.trust import NodeKey, hash_password, parse_address
from protocols.trust import make_card as signed_card
from tests.support.commands import done_at_last, ran
from tests.support.patience import ANSWER_S
from tests.support.ports import free_port
from tests.support.procs import Child, python, started
from tests.support.source import ROOT
from tests.unit.hub.hub_world import World

pytestmark = pytest.mark.slow  # whole processes

CARD: Final = signed_card(
    NodeKey(b"d" * 32), node="dock-7", org="acme", region="EMEA", site="Madrid", password_hash=hash_password("x" * 20, n=2)
)
EVENT: Final = {"orderId": "GLOBAL/12 34", "source": "ERP", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z", "site": "Madrid"}


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def hub(*args: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> Ended:
    """Run one command to its end. No command may ever show a traceback."""
    done = ran("hub.cli", *args, stdin=stdin, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def run_args(folder: Path, *more: str) -> list[str]:
    return python("-m", "hub.cli", "run", "--config", folder / "hub.toml", *more)


def made(folder: Path) -> Path:
    assert hub("init", folder, "--api-port", "0", "--broker-port", "0", "--loopback-without-token").code == 0
    return folder


def ready_line(child: Child) -> str:
    """The line that scripts wait for."""
    found: list[str] = []

    def said() -> bool:
        found[:] = [line for line in child.output().splitlines() if line.startswith(("ready: ", '{"ready"'))]
        return bool(found)

    child.wait_until(said)
    return found[0]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a hub that runs, with one node and two orders."""
    folder = made(tmp_path_factory.mktemp("hub") / "live")
    card = folder / "card.json"
    card.write_text(json.dumps(CARD))
    with started(run_args(folder), cwd=ROOT) as child:
        url = ready_line(child).split()[1]
        assert hub("nodes", "add", card, "--dir", folder).code == 0
        _post(url, [EVENT, EVENT | {"orderId": "B2", "status": "SHIPPED"}])
        child.wait_until(lambda: settled(folder) == 2, what="settled")
        yield folder


def _post(url: str, events: list[dict[str, Any]]) -> None:
    request = urllib.request.Request(f"{url}/v1/events", json.dumps(events).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        assert answer.status == 201


def fleet_row(folder: Path) -> dict[str, Any]:
    """The whole fleet's line of a running hub's balance."""
    return dict(client_of(read_config(folder, {})).get("/v1/balance")["fleet"])


def settled(folder: Path) -> int:
    return int(fleet_row(folder)["settled"])


# ------------------------------------------------------------------ init


def test_init_makes_a_hub_that_only_its_owner_can_impersonate(tmp_path: Path) -> None:
    ended = hub("init", tmp_path / "h", "--org", "globex", "--node", "hub-1", "--region", "EMEA")
    assert ended.code == 0
    address = re.search(r"^ADDRESS +(\S+)$", ended.out, re.M)
    assert address is not None
    parsed = parse_address(address[1])
    assert (parsed.host, parsed.port, parsed.org, parsed.hub) == ("127.0.0.1", 1883, "globex", "hub-1")
    assert f"fingerprint  {parsed.fingerprint}" in ended.out
    for name in ("hub.key", "api.token"):
        assert (tmp_path / "h" / name).stat().st_mode & 0o777 == 0o600
    assert parsed.public_key == NodeKey.load(tmp_path / "h" / "hub.key").public
    assert "longshore-edge init" in ended.out


def wider_than_its_owner(folder: Path) -> list[str]:
    return [path.name for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]


@pytest.mark.usefixtures("copies")
def test_nothing_that_a_hub_makes_can_be_read_by_others(tmp_path: Path) -> None:
    """Whatever the umask of who starts it, and whatever the folder was."""
    old = os.umask(0)
    try:
        folder = tmp_path / "h"
        folder.mkdir(mode=0o777)
        made(folder)
        assert wider_than_its_owner(folder) == []
        with started(run_args(folder), cwd=ROOT) as child:
            _post(ready_line(child).split()[1], [EVENT])
            assert {"hub.db", "hub.db-wal", "store.db", "store.db-wal"} <= {path.name for path in folder.iterdir()}
            assert wider_than_its_owner(folder) == []
            child.end()
        assert wider_than_its_owner(folder) == []
    finally:
        os.umask(old)


def test_init_says_so_where_it_leaves_a_folder_open_to_others(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("not a hub's")
    tmp_path.chmod(0o755)
    ended = hub("init", tmp_path)
    assert (ended.code, "mode 0755" in ended.err) == (0, True)
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    tmp_path.chmod(0o700)


def test_init_never_overwrites_a_hub(tmp_path: Path) -> None:
    made(tmp_path / "h")
    key = (tmp_path / "h" / "hub.key").read_bytes()
    ended = hub("init", tmp_path / "h")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert (tmp_path / "h" / "hub.key").read_bytes() == key


# ------------------------------------------------------------------ bad input: one line, a code, no traceback


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["init", "{dir}/new", "--org", "a/b"], 2, "--org"),
        (["init", "{dir}/new", "--node", "Hub 1"], 2, "--node"),
        (["init", "{dir}/new", "--api-port", "70000"], 2, "not a port"),
        (["init", "{dir}/new", "--api-port", "8855", "--broker-port", "8855"], 3, "api.port and broker.port are both 8855"),
        (["init", "{dir}/new", "--api-port", "1883"], 3, "api.port and broker.port are both 1883"),
        (["init", "{dir}/file/new"], 3, "Cannot make"),
        (["init", "{dir}/new", "--store", "postgres", "--dsn", "host=db", "--password-file", "{dir}/none"], 3, "umask 077"),
        (["run", "--config", "{dir}/nothing.toml"], 3, "There is no configuration"),
        (["run", "--config", "{dir}/typo.toml"], 3, "Did you mean port?"),
        (["run", "--config", "{dir}/nokey/hub.toml"], 3, "no key"),
        (["nodes", "add", "{dir}/nothing.json", "--dir", "{hub}"], 2, "no such file"),
        (["nodes", "add", "{dir}/file", "--dir", "{hub}"], 2, "{dir}/file: is not JSON"),
        (["nodes", "add", "{dir}/file", "--dir", "{hub}"], 2, "Give the node.card.json that `longshore-edge init` wrote."),
        (["quarantine", "resubmit", "1", "--file", "{dir}/file", "--dir", "{hub}"], 2, "{dir}/file: is not JSON"),
        (["nodes", "add", "{dir}/half.json", "--dir", "{hub}"], 2, "missing"),
        (["nodes", "add", "{dir}/forged.json", "--dir", "{hub}"], 2, "signature"),
        (["orders", "--dir", "{hub}"], 3, "has never run"),
        (["orders", "--status", "SHIPED", "--dir", "{hub}"], 2, "invalid choice"),
        (["orders", "--limit", "0", "--dir", "{hub}"], 2, "from 1 to 500"),
        (["orders", "peek", "A1", "--dir", "{hub}"], 2, "orders show ID"),
        (["fleet", "--dir", "{hub}", "--config", "{hub}/hub.toml"], 2, "same thing"),
        (["fly"], 2, "invalid choice"),
        ([], 2, "required"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_a_documented_code(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    folder = tmp_path / "hub"
    cli.main(["init", str(folder), "--api-port", "0", "--broker-port", "0", "--loopback-without-token"])
    (tmp_path / "file").write_text("not json")
    (tmp_path / "half.json").write_text(json.dumps({"longshore": "node-card/1"}))
    (tmp_path / "forged.json").write_text(json.dumps(CARD | {"site": "Elsewhere"}))
    (tmp_path / "typo.toml").write_text('[hub]\norg = "acme"\n[api]\nprot = 1\n')
    (tmp_path / "nokey").mkdir()
    (tmp_path / "nokey" / "hub.toml").write_text('[hub]\norg = "acme"\n[api]\nport = 0\n[broker]\nport = 0\n')
    ended = hub(*(arg.format(dir=tmp_path, hub=folder) for arg in args))
    assert (ended.code, ended.out) == (code, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith(("error: ", "longshore-hub"))
    assert says.format(dir=tmp_path) in last


def test_an_error_is_json_where_json_was_asked_for(tmp_path: Path) -> None:
    ended = hub("fleet", "--dir", tmp_path / "nowhere", "--json")
    said = json.loads(ended.err)
    assert (ended.code, said["exitCode"]) == (3, 3)
    assert "longshore-hub init" in said["remedy"]


@pytest.mark.parametrize("name", ["api", "broker"])
def test_a_port_in_use_ends_the_start_with_one_line(tmp_path: Path, live: Path, name: str) -> None:
    ports = json.loads((live / "run.ports.json").read_text())
    ended = hub("run", "--config", made(tmp_path / "h") / "hub.toml", env={f"LONGSHORE_{name.upper()}__PORT": str(ports[name])})
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert f"{ports[name]}: Address already in use. Choose another {name}.port" in last


def test_a_damaged_ledger_is_not_taken_for_another_process(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    (folder / "hub.db").write_bytes(b"no database" * 1_000)
    ended = hub("run", "--config", folder / "hub.toml")
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert "hub.db" in last
    assert "restore it from a backup, or move it away" in last


def test_a_second_hub_on_the_same_data_is_told_so(live: Path) -> None:
    ended = hub("run", "--config", live / "hub.toml")
    assert ended.code == 4
    assert "another process" in ended.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file that nobody may write; root may write all")
def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = hub("run", "--config", made(tmp_path / "h") / "hub.toml", env={"LONGSHORE_STORAGE__DATA_DIR": str(tmp_path / "file" / "data")})
    assert ended.code == 3
    assert "data" in ended.err


def test_a_full_disk_has_a_code_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hub.db")

    monkeypatch.setattr("hub.cli_ask.config_of", full)
    assert cli.main(["fleet"]) == 5
    assert "disk is full" in capsys.readouterr().err


def test_what_the_api_advises_is_said_as_a_command() -> None:
    for said, shown in (
        ("/v1/conflicts lists them.", "longshore-hub conflicts lists them."),
        ("List them: /v1/quarantine", "List them: longshore-hub quarantine ls"),
        ("Search for a fragment of it: /v1/orders?q=…", "Search for a fragment of it: longshore-hub orders --q …"),
    ):
        assert _problem({"detail": "None.", "remedy": said}, 404).remedy == shown


def test_a_hub_that_does_not_answer_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hub.cli_ask.config_of", lambda _: None)
    monkeypatch.setattr("hub.cli_ask.is_running", lambda _: True)
    monkeypatch.setattr("hub.cli_ask.client_of", lambda _: Client("127.0.0.1", free_port(), "token"))
    assert cli.main(["fleet"]) == 6
    assert "longshore-hub doctor" in capsys.readouterr().err


# ------------------------------------------------------------------ a running hub


def test_run_says_ready_with_both_ports_and_ends_cleanly_when_asked(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    with started(run_args(folder), cwd=ROOT) as child:
        words = ready_line(child).split()
        assert words[0::2] == ["ready:", "broker", "address"]
        ports = json.loads((folder / "run.ports.json").read_text())
        assert words[1] == f"http://127.0.0.1:{ports['api']}"
        assert words[3] == f"127.0.0.1:{ports['broker']}"
        assert parse_address(words[5]).port == ports["broker"]
        child.wait_http(f"{words[1]}/readyz")
        assert child.end() == 0
    assert not (folder / "run.ports.json").exists()


def test_run_speaks_json_to_machines(tmp_path: Path) -> None:
    with started(run_args(made(tmp_path / "h"), "--json"), cwd=ROOT) as child:
        said = json.loads(ready_line(child))
        assert said["ready"] == f"http://127.0.0.1:{said['apiPort']}"
        assert parse_address(said["address"]).port == said["brokerPort"]
        assert child.end() == 0
        lines = [json.loads(line) for line in child.output().splitlines()]
        assert all("message" in line or "ready" in line for line in lines)


@pytest.mark.usefixtures("copies")
def test_a_hub_that_was_killed_starts_again_with_what_it_had(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    with started(run_args(folder), cwd=ROOT) as child:
        _post(ready_line(child).split()[1], [EVENT])
        child.kill()
    found = done_at_last("hub.cli", "balance", "--dir", folder, "--json")  # for a moment its store's process still holds the lock
    assert found["fleet"]["captured"] == 1, "from its files"
    with started(run_args(folder), cwd=ROOT) as child:
        ready_line(child)
        child.wait_until(lambda: settled(folder) == 1, what="settled")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nodes", "ls"], ["dock-7", "SHA256:"]),
        (["orders"], ["GLOBAL/12 34", "B2", "SHIPPED"]),
        (["orders", "--status", "SHIPPED"], ["B2"]),
        (["orders", "--q", "12 3"], ["GLOBAL/12 34"]),
        (["orders", "--q", "no such order"], ["no order matches"]),
        (["orders", "show", "GLOBAL/12 34"], ["acme/GLOBAL/12 34: PLACED", "ERP"]),
        (["fleet"], ["dock-7", "not heard from yet"]),
        (["balance"], ["hub", "all", "balanced"]),
        (["conflicts"], ["no conflict"]),
        (["queue"], ["refused frames", "none", "did not let in"]),
        (["status"], ["running", "yes"]),
        (["doctor"], ["ok   configuration", "ok   balance"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_each_asking_command_answers_people_and_machines(live: Path, args: list[str], says: list[str]) -> None:
    ended = hub(*args, "--dir", live)
    assert ended.code == 0, ended.err
    assert [word for word in says if word not in ended.out] == []
    assert hub(*args, "--dir", live, "--json").json is not None


def test_pages_of_orders_follow_each_other(live: Path) -> None:
    first = hub("orders", "--dir", live, "--limit", "1", "--json").json
    second = hub("orders", "--dir", live, "--limit", "1", "--cursor", first["cursor"], "--json").json
    assert {page["orders"][0]["orderId"] for page in (first, second)} == {"B2", "GLOBAL/12 34"}
    assert second["cursor"] is None


def test_an_order_that_nobody_knows_exits_with_1(live: Path) -> None:
    ended = hub("orders", "show", "nothing", "--dir", live)
    assert ended.code == 1
    assert "heard of here" in ended.err


def test_a_taken_name_is_refused_by_the_running_hub(live: Path, tmp_path: Path) -> None:
    other = signed_card(NodeKey(b"o" * 32), node="dock-7", org="acme", region="EMEA", site="Madrid", password_hash=CARD["brokerPassword"])
    ended = hub("nodes", "add", "-", "--dir", live, stdin=json.dumps(other))
    assert ended.code == 2
    assert "taken" in ended.err


def test_a_wrong_token_is_a_matter_of_configuration(live: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("lst_not_the_right_one_at_all\n")
    (tmp_path / "token").chmod(0o600)
    ended = hub("fleet", "--dir", live, env={"LONGSHORE_API__TOKEN_FILE": str(tmp_path / "token")})
    assert ended.code == 3
    assert "token" in ended.err


def test_doctor_of_a_running_hub_says_that_others_may_read_the_token_and_goes_on(live: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes((live / "api.token").read_bytes())
    token.chmod(0o644)
    ended = hub("doctor", "--dir", live, env={"LONGSHORE_API__TOKEN_FILE": str(token)})
    assert ended.code == 1
    assert re.search(r"^BAD  token .*chmod 600", ended.out, re.M)
    assert re.search(r"^BAD  api .*0644", ended.out, re.M)
    assert "ok   clock" in ended.out


@pytest.mark.parametrize(("balanced", "code"), [(True, 0), (False, 1), (None, 0)])
def test_balance_exits_with_1_only_where_it_is_known_not_to_close(
    monkeypatch: pytest.MonkeyPatch, balanced: bool | None, code: int
) -> None:
    row: dict[str, Any] = {"evicted": {}, "balanced": balanced, "sentence": "…"}
    monkeypatch.setattr("hub.cli_ask.ask", lambda *_: {"fleet": row, "nodes": []})
    assert cli.main(["balance"]) == code


@pytest.mark.usefixtures("copies")
def test_doctor_and_readyz_miss_the_nodes_of_a_lost_registry(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    world = World()
    world.edge("dock-7").says("A1", "PLACED")
    world.settle()
    (folder / "store.db").write_bytes(world.store._db.dump())
    with started(run_args(folder), cwd=ROOT) as child:
        url = ready_line(child).split()[1]
        assert child.output().count("the registry is empty, but the central store holds 1 stream of dock-7") == 1
        with urllib.request.urlopen(f"{url}/readyz") as answer:
            assert json.loads(answer.read())["findings"]
        ended = hub("doctor", "--dir", folder)
        assert ended.code == 1
        assert re.search(r"^BAD  registry .*dock-7 -> add the nodes again", ended.out, re.M)
        assert hub("nodes", "add", tmp_path / "card.json", "--dir", folder).code == 0
        assert "registry" not in hub("doctor", "--dir", folder).out


# ------------------------------------------------------------------ a hub that does not run


def test_nodes_are_added_and_listed_while_the_hub_does_not_run(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    added = hub("nodes", "add", tmp_path / "card.json", "--dir", folder)
    assert (added.code, "admitted dock-7" in added.out) == (0, True)
    assert hub("nodes", "add", tmp_path / "card.json", "--dir", folder).code == 0, "the same card again is harmless"
    listed = hub("nodes", "ls", "--dir", folder, "--json")
    assert [node["node"] for node in listed.json["nodes"]] == ["dock-7"]
    assert "scrypt" not in listed.out
    assert "does not run" in listed.err
    other = signed_card(NodeKey(b"o" * 32), node="dock-7", org="acme", region="EMEA", site="Madrid", password_hash=CARD["brokerPassword"])
    assert hub("nodes", "add", "-", "--dir", folder, stdin=json.dumps(other)).code == 2


@pytest.mark.usefixtures("copies")
def test_a_hub_restored_from_an_older_backup_is_out_of_balance_until_it_runs(tmp_path: Path) -> None:
    """The store holds what this ledger has never heard of: the command says so with 1, and running the hub heals it."""
    folder = made(tmp_path / "h")

    def capture_and_stop(count: int) -> None:
        with started(run_args(folder), cwd=ROOT) as child:
            _post(ready_line(child).split()[1], [EVENT])
            child.wait_until(lambda: settled(folder) == count, what="settled")

    capture_and_stop(1)
    backup = (folder / "hub.db").read_bytes()
    capture_and_stop(2)
    assert hub("balance", "--dir", folder).code == 0
    for rest in folder.glob("hub.db-*"):
        rest.unlink()
    (folder / "hub.db").write_bytes(backup)
    ended = hub("balance", "--dir", folder)
    assert ended.code == 1
    assert "off by" in ended.out
    assert hub("orders", "show", EVENT["orderId"], "--dir", folder).code == 0
    with started(run_args(folder), cwd=ROOT) as child:
        ready_line(child)
        child.wait_until(lambda: bool(fleet_row(folder)["balanced"]), what="balanced again")


def test_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    folder = made(tmp_path / "h")
    assert hub("doctor", "--dir", folder).code == 0
    (folder / "hub.key").chmod(0o644)
    ended = hub("doctor", "--dir", folder)
    assert ended.code == 1
    assert "BAD  key" in ended.out
    assert "chmod 600" in ended.out


# ------------------------------------------------------------------ help


def test_both_commands_say_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert hub("--version").out == f"longshore-hub {version}\n"
    assert edge_agent.__version__ == models.__version__ == version


def test_help_names_every_command_and_every_exit_code() -> None:
    ended = hub("--help")
    assert ended.code == 0
    for command in ("init", "nodes", "run", "orders", "fleet", "balance", "conflicts", "queue", "status", "doctor"):
        assert re.search(rf"^    {command}\b", ended.out, re.M), command
        inner = hub(command, "--help")
        assert inner.code == 0
        assert "example" in inner.out or command == "nodes"
    assert all(f"{code} " in cli.EPILOG for code in (0, 1, 2, 3, 4, 5, 6))
