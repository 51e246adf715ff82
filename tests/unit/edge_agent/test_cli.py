"""`longshore-edge` as a user runs it: real processes, a real port, real signals. No hub: capturing must not need one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from edge_agent.config import SETTINGS
from protocols.sqlite import DataLock
from protocols.trust import HubAddress, format_address
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.support.ports import free_port
from tests.support.procs import Child, python, started
from tests.unit.edge_agent.edges import HUB_KEY, event_json, stored

pytestmark = pytest.mark.slow  # whole processes


def command(*args: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        python("-m", "edge_agent.cli", *args),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, **(env or {})},
    )


def here(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """The command line in this process: quicker, for what needs no process."""
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(cli.main([str(arg) for arg in args]))
    said = capsys.readouterr()
    return int(str(ended.value.code)), said.out, said.err


def one_line(text: str) -> str:
    """The only line of an error: no trace, no second line."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ")
    assert "Traceback" not in text
    return lines[0]


def init(folder: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> Path:
    address = format_address(HubAddress("127.0.0.1", free_port(), "acme", "hub", HUB_KEY.public))
    code, _, err = here(
        capsys, "init", folder, "--node", "madrid-1", "--site", "W8-Madrid", "--region", "EMEA", "--hub", address, "--port", "0", *more
    )  # fmt: skip
    assert code == 0, err
    return folder / "edge.toml"


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return init(tmp_path / "edge", capsys=capsys)


@contextlib.contextmanager
def running(config: Path, *more: str, env: dict[str, str] | None = None) -> Iterator[tuple[Child, str]]:
    """An edge that takes events, and its URL."""
    ready = config.parent / "ready"
    ready.unlink(missing_ok=True)
    with started(python("-m", "edge_agent.cli", "run", "--config", config, "--ready-file", ready, *more), env=env) as child:
        child.wait_until(ready.exists)
        yield child, ready.read_text().strip()


def lines(*orders: str) -> str:
    return "".join(json.dumps(event_json(order, idempotencyKey=f"key-{order}")) + "\n" for order in orders)


# ------------------------------------------------------------ the whole way


def test_from_nothing_to_events_on_disk_and_a_clean_end(config: Path) -> None:
    with running(config) as (child, url):
        assert f"ready: {url}" in child.output()
        taken = command("events", "append", "--config", config, stdin=lines("A1", "A2"))
        assert taken.returncode == 0, taken.stderr
        assert [fact.split("/")[2] for fact in taken.stdout.split()] == ["1", "2"]
        assert "2 taken" in taken.stderr

        status = command("status", "--config", config, "--json")
        assert json.loads(status.stdout)["queue"]["events"] == 2
        assert "2 events not settled" in command("status", "--url", url, "--token-file", config.parent / "api.token").stdout

        queue = json.loads(command("queue", "ls", "--config", config, "--json").stdout)
        assert (queue["running"], queue["queue"]["events"], queue["streams"][0]["queued"]) == (True, 2, 2)

        second = command("run", "--config", config)
        assert second.returncode == 4
        assert "held by another process" in one_line(second.stderr)

        assert child.end() == 0
        assert child.output().count("no line to the broker") == 1
        assert "Traceback" not in child.output()
    assert len(stored(config.parent)) == 2
    assert not (config.parent / "run.url").exists()


def test_what_was_answered_survives_kill_9(config: Path) -> None:
    with running(config) as (child, _):
        taken = command("events", "append", "--config", config, stdin=lines("A1", "A2", "A3"))
        child.kill()
    with running(config):
        assert json.loads(command("status", "--config", config, "--json").stdout)["queue"]["events"] == 3
        again = command("events", "append", "--config", config, "--json", stdin=lines("A1", "A2", "A3", "A4"))
        answer = json.loads(again.stdout)
        assert (answer["accepted"], answer["repeated"]) == (1, 3)
        assert answer["ids"][:3] == taken.stdout.split()
    assert len(stored(config.parent)) == 4


def test_the_api_over_a_real_socket(config: Path) -> None:
    token = (config.parent / "api.token").read_text().strip()
    with running(config) as (child, url):
        request = urllib.request.Request(
            f"{url}/v1/events", json.dumps(event_json()).encode(), {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            assert (answer.status, json.load(answer)["accepted"]) == (201, 1)
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(f"{url}/v1/status", timeout=ANSWER_S):
            pass
        with refused.value as error:
            assert (error.code, json.load(error)["status"]) == (401, 401)
        child.process.send_signal(2)
        assert child.ended_within(10)
        assert child.process.returncode == 0, "Ctrl-C is a clean end"


def test_a_free_port_can_be_forced_by_the_environment_and_logs_are_json_off_a_terminal(config: Path) -> None:
    port = free_port()
    with running(config, "--json", env={"LONGSHORE_API__PORT": str(port)}) as (child, url):
        assert url.endswith(f":{port}")
        said = [json.loads(line) for line in child.output().splitlines()]
        assert {"ready": url} in said
        child.wait_until(lambda: "no line to the broker" in child.output(), what="telling that there is no broker")
        assert [json.loads(line)["level"] for line in child.output().splitlines() if "broker" in line] == ["warning"]


# ------------------------------------------------------------ run: what keeps it from running


def test_a_port_in_use_is_one_line_and_exit_3(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = command("run", "--config", config, env={"LONGSHORE_API__PORT": str(taken.getsockname()[1])})
    assert failed.returncode == 3
    assert "Address already in use" in one_line(failed.stderr)
    assert "api.port" in failed.stderr


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("edge.toml", "[node]\nnam = 1\n", "Did you mean name?"),
        ("node.key", "nothing", "node.key"),
        ("node.key", None, "node.key"),
        ("broker.password", None, "broker.password"),
    ],
)
def test_a_damaged_directory_is_one_line_and_exit_3(
    config: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, says: str
) -> None:
    path = config.parent / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    code, out, err = here(capsys, "run", "--config", config)
    assert (code, out) == (3, "")
    assert says in one_line(err)


def test_nothing_that_an_edge_makes_can_be_read_by_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the umask of who starts it, and whatever the folder was."""

    def wide() -> list[str]:
        return [path.name for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]

    old = os.umask(0)
    try:
        folder = tmp_path / "edge"
        folder.mkdir(mode=0o777)
        config = init(folder, capsys=capsys)
        assert wide() == []
        with running(config):
            assert {"ledger.db", "ledger.db-wal"} <= {path.name for path in folder.iterdir()}
            assert wide() == []
        assert wide() == []
    finally:
        os.umask(old)


def test_a_ledger_that_is_none_is_one_line(config: Path) -> None:
    (config.parent / "ledger.db").write_bytes(b"this is no database" * 100)
    failed = command("run", "--config", config)
    assert failed.returncode == 1, "not 4: no other process holds it"
    assert "ledger.db" in one_line(failed.stderr)
    assert "restore it from a backup, or move it away" in one_line(failed.stderr)


def test_errors_are_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = here(capsys, "status", "--json", "--config", tmp_path / "none.toml")
    said = json.loads(err)
    assert (code, out, said["exitCode"]) == (3, "", 3)
    assert "init" in said["remedy"]


# ------------------------------------------------------------ init


def test_init_says_where_the_card_is_both_fingerprints_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub", HUB_KEY.public))
    args = ("init", tmp_path / "edge", "--node", "n", "--site", "S", "--region", "R", "--hub", address)
    code, out, _ = here(capsys, *args)
    assert code == 0
    assert out.startswith(f"card: {tmp_path / 'edge' / 'node.card.json'}\n")
    assert out.count("SHA256:") == 2
    assert f"longshore-hub nodes add {tmp_path / 'edge' / 'node.card.json'}" in out
    assert f"longshore-edge run --config {tmp_path / 'edge' / 'edge.toml'}" in out
    code, _, err = here(capsys, *args)
    assert code == 3
    assert "already" in one_line(err)


@pytest.mark.parametrize("args", [("--node", "Big"), ("--port", "70000"), ("--hub", "nonsense"), ("--org", "other")])
def test_init_with_a_wrong_value_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: Sequence[str]) -> None:
    address = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub", HUB_KEY.public))
    code, _, err = here(capsys, "init", tmp_path / "e", "--node", "n", "--site", "S", "--region", "R", "--hub", address, *args)
    assert code == 2
    one_line(err)
    assert not (tmp_path / "e").exists()


# ------------------------------------------------------------ while no edge runs


def test_events_go_straight_into_the_ledger_where_no_edge_runs(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text(lines("A1", "A2") + "\n")
    code, out, err = here(capsys, "events", "append", events, "--config", config)
    assert (code, len(out.split()), err) == (0, 2, "2 taken\n")
    array = tmp_path / "events.json"
    array.write_text(json.dumps([event_json("A1", idempotencyKey="key-A1"), event_json("B1")], indent=1))
    code, out, _ = here(capsys, "events", "append", array, "--config", config, "--json")
    answer = json.loads(out)
    assert (code, answer["accepted"], answer["repeated"]) == (0, 1, 1)
    code, out, _ = here(capsys, "queue", "ls", "--config", config)
    assert code == 0
    assert "3 events not settled" in out
    assert "the edge is not running" in out
    assert len(stored(config.parent)) == 3


def test_a_file_of_many_batches_is_taken_in_order(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event_json(f"A{i}")) + "\n" for i in range(1_234)))
    code, out, _ = here(capsys, "events", "append", events, "--config", config)
    assert code == 0
    assert [int(fact.split("/")[2]) for fact in out.split()] == list(range(1, 1_235))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"orderId": "A1"}', "line 2.status"),
        ("{nonsense", "line 2"),
        ('"text"', "line 2"),
        (json.dumps(event_json(idempotencyKey="key-A1", status="SHIPPED")), "key-A1"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_bad_line_is_named_and_its_batch_left_out(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str, as_json: bool
) -> None:  # fmt: skip
    events = tmp_path / "events.jsonl"
    events.write_text(lines("A1") + text + "\n")
    code, out, err = here(capsys, "events", "append", events, "--config", config, *(["--json"] if as_json else []))
    assert code in (1, 2)
    assert says in err
    assert stored(config.parent) == []
    assert (json.loads(out)["accepted"] == 0) if as_json else out == ""


def test_what_was_taken_before_a_bad_batch_is_told(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event_json(f"A{i}")) + "\n" for i in range(600)) + "{}\n")
    code, out, err = here(capsys, "events", "append", events, "--config", config)
    assert code == 2
    assert len(out.split()) == 500 == len(stored(config.parent))
    assert err.splitlines()[0] == "500 taken before this:"
    assert "line 601.status" in err.splitlines()[1]


def test_without_the_file_it_is_exit_2_and_without_the_edge_exit_6(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = here(capsys, "events", "append", "no-such-file", "--config", config)
    assert (code, "no-such-file" in one_line(err)) == (2, True)
    code, _, err = here(capsys, "status", "--url", f"http://127.0.0.1:{free_port()}")
    assert (code, "longshore-edge run" in one_line(err)) == (6, True)
    code, _, err = here(capsys, "status", "--url", "https://127.0.0.1")
    assert (code, "http://" in one_line(err)) == (2, True)


def test_data_held_by_a_process_that_does_not_answer_is_exit_4(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text(lines("A1"))
    lock = DataLock(config.parent / "run.lock")
    try:
        code, _, err = here(capsys, "events", "append", events, "--config", config)
    finally:
        lock.release()
    assert (code, "does not answer" in one_line(err)) == (4, True)


def test_looking_makes_no_ledger(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = here(capsys, "queue", "ls", "--config", config, "--json")
    assert (code, json.loads(out)["queue"]["events"]) == (0, 0)
    assert not (config.parent / "ledger.db").exists()


# ------------------------------------------------------------ help that a newcomer understands


def test_help_names_the_first_steps_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("init", "run", "status", "doctor", "queue", "events", "settings", "exit codes", *(f"{code} " for code in range(7))):
        assert word in text


@pytest.mark.parametrize(
    "path",
    [("init",), ("run",), ("status",), ("doctor",), ("queue", "ls"), ("queue", "quarantine", "ls"), ("events", "append"), ("settings",)],
)
def test_every_command_explains_itself_and_has_json(path: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*path, "--help"])
    assert "--json" in capsys.readouterr().out


def test_settings_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = here(capsys, "settings")
    assert code == 0
    assert [row.key for row in SETTINGS.values() if row.key not in out or row.doc not in out] == []
    rows: list[Any] = json.loads(here(capsys, "settings", "--json")[1])
    assert {row["variable"] for row in rows} == {row.variable for row in SETTINGS.values()}


def test_a_command_line_that_makes_no_sense_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fly"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
