"""A store in a file: projectors share it, a restore has it alone, and says so in one line; what a command says of a store that is away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hub import kafka_findings
from hub.bridge_config import Bridge
from hub.bridge_topics import EVENTS, plans
from hub.bus import BusRefused, TopicFound, TopicPlan
from hub.cli import main
from hub.config import read_config
from hub.store_use import projecting, replacing
from protocols.errors import LedgerBusy
from tests.support.memory_bus import MemoryAdmin, MemoryBus
from tests.support.ports import free_port
from tests.unit.hub.test_backup_commands import Cli, says
from tests.unit.hub.test_backup_commands import hub as hub_of_backups
from tests.unit.hub.test_cli_bridge import configured

hub = hub_of_backups


def test_projectors_share_a_store_and_a_restore_has_it_alone(hub: Cli) -> None:
    config = read_config(hub.folder, {})
    with projecting(config), projecting(config), pytest.raises(LedgerBusy, match="projectors apply"), replacing(config):
        pass
    with replacing(config), pytest.raises(LedgerBusy, match="being restored"), projecting(config):
        pass
    with projecting(config):
        pass


def test_a_restore_is_refused_in_one_line_while_projectors_run(hub: Cli, tmp_path: Path) -> None:
    says(hub.folder, "A1")
    place = tmp_path / "backups"
    place.mkdir()
    hub("backup", str(place))
    (src,) = place.iterdir()
    with projecting(read_config(hub.folder, {})):
        said = hub("restore", str(src), "--force", code=4)
        assert "projectors apply to this central store" in said and len(said.strip().splitlines()) == 1
        hub("restore", str(src), "--force", "--hub-only")  # hub.db is nobody else's
    hub("restore", str(src), "--force")


def test_a_command_does_not_promise_to_try_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "hub"), "--json"]) == 0
    capsys.readouterr()
    folder = tmp_path / "hub" / "hub.toml.d"
    folder.mkdir()
    (folder / "store.toml").write_text(f'[store]\nkind = "postgres"\ndsn = "host=127.0.0.1 port={free_port()} dbname=x user=x"\n')
    assert main(["store", "check", "--dir", str(tmp_path / "hub")]) == 6, "nothing of it is known to be damaged"
    said = capsys.readouterr().err
    assert "cannot be reached" in said and "it is tried again" not in said and "See that it runs, and store.dsn" in said


# ------------------------------------------------------------ doctor and Kafka

BRIDGE = Bridge("kafka", "k:9092", "plaintext", "PLAIN", "", "", "", "g", 60, 12, 1, 7)


def planned() -> list[TopicPlan]:
    return plans(BRIDGE.partitions, BRIDGE.replicas, BRIDGE.retention_days)


def seen(admin: MemoryAdmin) -> list[tuple[bool, str, str]]:
    return asyncio.run(kafka_findings.kafka_findings(BRIDGE, admin))


def test_doctor_says_that_kafka_is_as_configured() -> None:
    bus = MemoryBus({})
    asyncio.run(MemoryAdmin(bus).create(planned()))
    found = seen(MemoryAdmin(bus))
    assert [fine for fine, _, _ in found] == [True, True] and "as configured" in found[1][1]


def test_doctor_names_topics_that_are_missing_or_differ() -> None:
    bus = MemoryBus({})
    asyncio.run(MemoryAdmin(bus).create([TopicPlan(EVENTS, 1, 1, {"cleanup.policy": "compact"}), *planned()[2:]]))
    found = seen(MemoryAdmin(bus))
    assert [fine for fine, _, _ in found] == [True, False, False]
    assert f"missing topics: {EVENTS}.dlq" in found[1][1] and found[1][2] == "longshore-hub topics create"
    assert found[2][1].startswith(f"{EVENTS}: partitions is 1") and "cleanup.policy is compact" in found[2][1]


def test_doctor_says_that_kafka_is_away_or_refuses() -> None:
    bus = MemoryBus({}, away=True)
    ((fine, said, remedy),) = seen(MemoryAdmin(bus))
    assert not fine and said and "bridge.servers" in remedy

    class Refusing(MemoryAdmin):
        async def topics(self, names: object, settings: object) -> dict[str, TopicFound]:
            raise BusRefused("Kafka does not let this hub in: wrong password")

    ((fine, said, remedy),) = seen(Refusing(bus))
    assert not fine and "wrong password" in said and "credentials" in remedy


def test_doctor_has_a_line_for_a_kafka_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "hub"), "--json"]) == 0
    capsys.readouterr()
    configured(tmp_path / "hub", f'kind = "kafka"\nservers = "127.0.0.1:{free_port()}"')
    assert main(["doctor", "--json", "--dir", str(tmp_path / "hub")]) == 1
    (row,) = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["what"] == "kafka"]
    assert not row["ok"] and "refuses connections" in row["text"]
