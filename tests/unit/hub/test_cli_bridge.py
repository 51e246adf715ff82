"""Commands of the bridge where something is wrong: one clear line, an exit code, what to do, and no traceback."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from hub import kafka
from hub.bridge_topics import EVENTS, plans
from hub.cli import main
from hub.cli_ask import bridge_row
from hub.config import read_config
from protocols.errors import ConfigError
from tests.support.memory_bus import MemoryAdmin, MemoryBus
from tests.support.ports import free_port


@pytest.fixture
def hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", str(tmp_path / "hub"), "--json"]) == 0
    capsys.readouterr()
    return tmp_path / "hub"


def configured(hub: Path, text: str) -> Path:
    folder = hub / "hub.toml.d"
    folder.mkdir(exist_ok=True)
    (folder / "bridge.toml").write_text(f"[bridge]\n{text}\n")
    return hub


@pytest.mark.parametrize("command", [["topics", "show"], ["project"], ["dlq", "ls"], ["dlq", "replay"]], ids="-".join)
def test_without_a_bridge_they_say_so(hub: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--dir", str(hub)]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "bridge.kind is 'none'" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["topics", "show"], ["topics", "create"], ["dlq", "ls"], ["dlq", "replay"]], ids=lambda words: "-".join(words)
)
def test_a_kafka_that_is_not_there_is_named(hub: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    configured(hub, f'kind = "kafka"\nservers = "127.0.0.1:{port}"')
    assert main([*command, "--json", "--dir", str(hub)]) == 6
    said = json.loads(capsys.readouterr().err)
    assert said["error"] == f"Kafka cannot be reached: 127.0.0.1:{port} refuses connections" and said["exitCode"] == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('servers = ""', "bridge.servers names no broker", id="none"),
        pytest.param('servers = "kafka-1"', "'kafka-1' is not host:port", id="no-port"),
        pytest.param('servers = "a:1,b:99999"', "'b:99999' is not host:port", id="port"),
        pytest.param('security = "sasl_tls"', "do not fit security 'sasl_tls'", id="no-user"),
        pytest.param('username = "hub"', "do not fit security 'plaintext'", id="user"),
        pytest.param('security = "ssl"', "bridge.security", id="word"),
        pytest.param("partitions = 0", "bridge.partitions", id="partitions"),
    ],
)
def test_settings_that_do_not_fit_are_refused(hub: Path, text: str, says: str) -> None:
    configured(hub, f'kind = "kafka"\n{text}')
    with pytest.raises(ConfigError, match=r".") as refused:
        read_config(hub)
    assert says in refused.value.reason and "\n" not in str(refused.value)


def test_a_projectors_port_that_is_taken_is_named_by_its_option(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configured(hub, 'kind = "kafka"')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["project", "--listen", str(port), "--dir", str(hub)]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said
        == f"error: The projector cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --listen, or end what uses it."
    )


def test_dlq_ls_without_topics_says_so_and_topics_with_more_partitions_are_fine(
    hub: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus({})
    monkeypatch.setattr(kafka, "KafkaAdmin", lambda _: MemoryAdmin(bus))
    configured(hub, 'kind = "kafka"\npartitions = 3\nreplicas = 1')
    assert main(["dlq", "ls", "--dir", str(hub)]) == 0
    said = capsys.readouterr()
    assert said.out == "no dead letters\n"
    assert f"not there yet: {EVENTS}.dlq, " in said.err and "longshore-hub topics create" in said.err
    asyncio.run(MemoryAdmin(bus).create(plans(6, 1, read_config(hub).bridge.retention_days)))
    assert main(["topics", "show", "--dir", str(hub)]) == 0
    assert "as configured; more partitions than 3 are fine" in capsys.readouterr().out
    assert main(["dlq", "ls", "--dir", str(hub)]) == 0
    assert capsys.readouterr().err == ""
    configured(hub, 'kind = "kafka"\npartitions = 12\nreplicas = 1')
    assert main(["topics", "show", "--dir", str(hub)]) == 1
    assert "partitions is 6, not 12" in capsys.readouterr().out


def test_dlq_ls_takes_no_names(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configured(hub, 'kind = "kafka"')
    assert main(["dlq", "ls", "x@1", "--dir", str(hub)]) == 2
    assert "takes no names" in capsys.readouterr().err


def test_status_says_in_words_what_goes_over_kafka() -> None:
    seen = {"kind": "kafka", "up": True, "error": "", "backlog": 1_200, "backlogAgeMs": 65_000, "unsettled": 3, "unsettledAgeMs": 4_000}
    words = "1,200 not produced (1 m), 3 not in the store yet (4.0 s); 0 produced again"
    assert bridge_row(seen | {"producedAgain": 0}) == {"bridge": f"kafka, up; {words}"}
    assert bridge_row(seen | {"producedAgain": 0, "up": False, "error": "gone"}) == {"bridge": f"kafka, down: gone; {words}"}
    assert bridge_row(None) == {}
