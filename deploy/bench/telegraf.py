"""Beside Telegraf, tuned: the bridge that users have today, on the same orders, the same Mosquitto and the same Kafka, in turns.

Telegraf: a message of JSON for each event waits in Mosquitto for a persistent session (QoS 1); Telegraf carries them into a topic of six
partitions with `acks=all`. Ours: the same events wait in an edge's ledger; edge and hub carry them into Kafka (the leg), and projectors on
into PostgreSQL (the whole way). Into Kafka the time is that between its first and its last record as Kafka's broker stamped them; into
PostgreSQL from the hub's first receipt to the last commit. What was left there is counted, and a run that lost an event, or stored one
twice, gives no rate. Kafka may hold copies; they are told.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from threading import Semaphore
from typing import Any, Final, NamedTuple

from deploy.bench import drain, engines, line
from deploy.bench.orders import objects
from deploy.bench.table import Figure
from deploy.demo.parts import free_port
from hub.bridge_config import Bridge
from hub.bridge_topics import EVENTS, plans
from hub.bus import Taken, TopicPlan
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Dropped, Published, Up

COUNT: Final = 50_000
RUNS: Final = 3
PARTITIONS: Final = 6
LEG: Final = 1.0
WHOLE: Final = 0.4
SCRIPT: Final = Path(__file__).parents[1] / "dev" / "telegraf.sh"
TOPIC: Final = "peer"
LOOK_S: Final = 0.4
STILL_S: Final = 2.0
PATIENCE_S: Final = 300.0
_NO_BOUND: Final = ("max_queued_messages 0", "max_queued_bytes 0")
_STAMPED: Final = {"message.timestamp.type": "LogAppendTime"}
_CONFIG: Final = """[agent]
  interval = "1s"
  flush_interval = "50ms"
  flush_jitter = "0s"
  metric_batch_size = 500
  metric_buffer_limit = 100000
  omit_hostname = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{mqtt}"]
  topics = ["orders/#"]
  qos = 1
  persistent_session = true
  client_id = "telegraf"
  max_undelivered_messages = 10000
  data_format = "value"
  data_type = "string"
[[outputs.kafka]]
  brokers = ["{kafka}"]
  topic = "{topic}"
  required_acks = -1
  max_message_bytes = 1000000
  data_format = "template"
  template = '{{{{ .Field "value" }}}}'
"""


class Run(NamedTuple):
    """One run: its rate, how many copies it left in Kafka beside the first of each, and how many events it lost on the way there."""

    rate: float
    copies: int
    missing: int = 0


def run(events: int = COUNT) -> Iterator[Figure]:
    """In turns; medians."""
    if engines.skipped(*line.ENGINES):
        return
    program = _program()
    if program is None:
        print("  !! SKIPPED: no Telegraf could be built; to enable: Go 1.24 or newer, then deploy/dev/telegraf.sh build", file=sys.stderr)
        return
    peer, leg, whole = [], [], []
    for _ in range(RUNS):
        peer.append(asyncio.run(_telegraf(program, events)))
        leg.append(asyncio.run(_ours(events, projectors=0)))
        whole.append(asyncio.run(_ours(events, projectors=line.PROJECTORS)))
    theirs, load = median(r.rate for r in peer), f"load {os.getloadavg()[0]:.1f}"
    note = f"{RUNS} runs each in turns; copies in Kafka: Telegraf's {_copies(peer)}, ours {_copies([*leg, *whole])}; {load}"
    for name, runs, target in (("edge backlog into Kafka", leg, LEG), ("the whole way into PostgreSQL", whole, WHOLE)):
        rate = median(r.rate for r in runs)
        yield Figure(name, rate, "ev/s", "Telegraf into Kafka", theirs, rate / theirs, f">= {target:g}x", rate / theirs >= target, note)
    lost = asyncio.run(_telegraf(program, events, killed=True))
    asyncio.run(_ours(events, projectors=line.PROJECTORS, killed=True))  # it raises where something is missing or twice
    note = f"the hub, beside Telegraf, by SIGKILL; in Kafka Telegraf left {lost.missing} missing, {lost.copies} twice"
    yield Figure("killed at half way: missing, twice in the store", 0, "ev", target="0", met=True, note=note)


def _copies(runs: list[Run]) -> int:
    return sum(one.copies for one in runs)


@cache
def _program() -> str | None:
    done = subprocess.run([SCRIPT, "build"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


# ------------------------------------------------------------------ ours


async def _ours(events: int, *, projectors: int, killed: bool = False) -> Run:
    async with line.line(projectors=projectors, before_topics=_stamped) as made:
        await asyncio.to_thread(drain.fill, made.edge.dir / "ledger.db", events)
        await line.start(made, made.hub)
        watch = _Watch(made.hub.env["LONGSHORE_BRIDGE__SERVERS"], EVENTS)
        asker = line.Asker(made.db)
        try:
            await line.start(made, made.edge)
            if killed:
                await watch.half(events)
                await made.hub.kill()
                await line.start(made, made.hub)
            ended = await line.held(asker, events) if projectors else 0.0
            await watch.count(events)
            records = await watch.all(events)
            said = line.facts_of(made.edge.dir / "ledger.db")
            _same({_identity(one) for one in records}, {f"{node}/{epoch:x}/{seq}/{h}" for node, epoch, seq, h in said})
            took = _took(records)
            if projectors:
                line.check(made, said)
                took = ended - int(made.db.ask(line.DATABASE, "SELECT min(received_ms) FROM log")[0][0]) / 1000
        finally:
            asker.close()
            await watch.close()
    return Run(events / took, len(records) - events)


async def _stamped(servers: str) -> None:
    """The topic of events as the hub makes it, but with the broker's own time on its records."""
    watch = _Watch(servers, EVENTS)
    plan = next(plan for plan in plans(PARTITIONS, 1, 7) if plan.name == EVENTS)
    await watch.admin.create([replace(plan, settings={**plan.settings, **_STAMPED})])
    await watch.close()


def _took(records: Sequence[Taken]) -> float:
    stamps = [one.timestamp_ms for one in records]
    return (max(stamps) - min(stamps)) / 1000


def _identity(one: Taken) -> str:
    return dict(one.headers)["ce_id"].decode()


def _same(found: set[str], said: set[str]) -> None:
    if found != said:
        raise AssertionError(f"in Kafka: missing {len(said - found)}, unknown {len(found - said)}: no rate")


class _Watch:
    """A topic's ends, looked at all the time."""

    def __init__(self, servers: str, topic: str) -> None:
        from hub.kafka import Access, KafkaAdmin, quiet

        quiet()
        self.admin = KafkaAdmin(Access(Bridge("kafka", servers, "plaintext", "PLAIN", "", "", "", "bench", 60, PARTITIONS, 1, 7)))
        self._topic = topic

    async def make(self) -> None:
        """As the hub makes its own."""
        await self.admin.create([TopicPlan(self._topic, PARTITIONS, 1, _STAMPED)])

    async def count(self, wanted: int) -> None:
        """Until there are so many, and no more come: copies may be among them."""
        async with asyncio.timeout(PATIENCE_S):
            now, before = await self.ends(), -1
            while now < wanted or now != before:
                await asyncio.sleep(STILL_S if now >= wanted else LOOK_S)
                now, before = await self.ends(), now

    async def half(self, events: int) -> None:
        """Until half of them are there."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.ends() < events // 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    async def ends(self) -> int:
        """How many there are."""
        return sum(await self.admin.ends(self._topic, PARTITIONS))

    async def all(self, wanted: int) -> list[Taken]:
        """Everything that is there."""
        return await self.admin.read_all([self._topic], wanted * 2)

    async def close(self) -> None:
        """Let go."""
        await self.admin.close()


# ------------------------------------------------------------------ Telegraf


async def _telegraf(program: str, events: int, *, killed: bool = False) -> Run:
    port = free_port()
    with engines.folder() as root, engines.kafka(root) as kafka, engines.mosquitto(root, port, None, None, _NO_BOUND):
        config = root / "telegraf.conf"
        config.write_text(_CONFIG.format(mqtt=port, kafka=kafka.address, topic=TOPIC))
        watch = _Watch(kafka.address, TOPIC)
        try:
            await watch.make()
            args = [program, "--config", str(config)]
            with engines.running(args, root / "session.log"):  # its session is made, and waits from then on
                while not await watch.ends():
                    await asyncio.to_thread(_publish, port, ["probe"])
            before = await watch.ends()
            todo = [json.dumps({**event, "n": n}, ensure_ascii=False, separators=(",", ":")) for n, event in enumerate(objects(events))]
            await asyncio.to_thread(_publish, port, todo)
            with engines.running(args, root / "telegraf.log") as process:
                if killed:
                    await watch.half(events)
                    process.kill()
                else:
                    await watch.count(before + events)
            if killed:
                with engines.running(args, root / "again.log"):
                    await watch.count(events // 2)
            records = [one for one in await watch.all(events) if one.value.strip() != b"probe"]
        finally:
            await watch.close()
    found = [json.loads(one.value)["n"] for one in records]
    if not killed:
        _same({str(n) for n in found}, {str(n) for n in range(events)})
    return Run(events / _took(records), len(found) - len(set(found)), events - len(set(found)))


def _publish(port: int, texts: list[str]) -> None:
    """To Mosquitto, each acknowledged."""
    room, up, lost = Semaphore(1_000), Semaphore(0), []

    def heard(event: Any) -> None:
        if isinstance(event, Up):
            up.release()
        elif isinstance(event, Published | Dropped):
            lost.extend([event] if isinstance(event, Dropped) else [])
            room.release()

    transport = MqttTransport(MqttSettings("127.0.0.1", port, max_in_flight=500, version="5"), subscriptions=())
    transport.start(heard)
    if not up.acquire(timeout=20):
        raise RuntimeError("Mosquitto does not answer")
    for text in texts:
        room.acquire()
        transport.publish("orders/event", text.encode())
    for _ in range(1_000):
        room.acquire()
    transport.stop()
    if lost:
        raise AssertionError(f"{len(lost)} messages were not taken by Mosquitto: no rate")
