"""`longshore-hub project`, `topics` and `dlq`: projectors, the topics that they read, and records that they could not take."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar

from hub import loop
from hub.bridge_topics import DEAD, PROJECTED, TOPICS, differences, origin, plans, shown_state
from hub.bus import Admin, TopicPlan
from hub.cli_ask import config_of, now_ms, say, table
from hub.config import HubConfig
from hub.store_use import projecting
from protocols.errors import ConfigError, DecodeError, InvalidInput
from protocols.starting import uncollected
from protocols.supervision import Progress, supervised

T = TypeVar("T")
LIST_MOST: Final = 1_000
STUCK_S: Final = 600.0
"""a projector that ends no turn for so long is not alive: it polls twice a second, and a store that is away is asked within its own time"""


def add(commands: Any, asking: Any) -> None:
    """The three commands."""
    example = "longshore-hub project --config hub/hub.toml --listen 8810"
    project_ = asking(commands, "project", project, "apply facts from Kafka to the central store, as one of any number", example)
    project_.add_argument("--listen", type=_port, metavar="PORT", help="answer /readyz and /metrics on this port (0 takes a free one)")
    project_.add_argument("--host", default="127.0.0.1", help="address for --listen (default: %(default)s)")
    project_.description = (
        "Apply facts from Kafka to the central store, until SIGTERM or Ctrl-C. Projectors of one group share the partitions; where each"
        " goes on reading stands in the store. Kafka or store being away is waited out; exit code 3 where something must be changed."
    )
    topics_ = asking(commands, "topics", topics, "make the topics in Kafka, or look whether they are as configured",
                     "longshore-hub topics create --config hub/hub.toml")  # fmt: skip
    topics_.add_argument("what", choices=["create", "show"], help="create: make those that are missing; show: exit 1 unless all are right")
    dlq_ = asking(commands, "dlq", dlq, "records that no projector could take: list them, or put them back into their topic",
                  "longshore-hub dlq replay longshore.orders.events.v1@17")  # fmt: skip
    dlq_.add_argument("what", choices=["ls", "replay"], help="ls: list them; replay: send them to their topic again")
    dlq_.add_argument("which", nargs="*", metavar="TOPIC@OFFSET", help="replay: these, as ls names them (default: all that ls shows)")
    dlq_.add_argument("--all", action="store_true", help="ls: also those that were replayed")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _kafka_config(args: argparse.Namespace) -> HubConfig:
    config = config_of(args)
    if not config.bridge.kafka:
        raise ConfigError(f"{config.file}: bridge.kind is {config.bridge.kind!r}.", remedy='Set [bridge] kind = "kafka" first.')
    return config


# ------------------------------------------------------------------ project


def project(args: argparse.Namespace) -> int:
    """Run a projector."""
    from hub.claims import make_folder
    from hub.cli_admin import start_log

    config = _kafka_config(args)
    start_log(config, as_json=args.json)
    make_folder(Path(config.storage.data_dir))
    with projecting(config):
        loop.run(_project(config, args))
    return 0


async def _project(config: HubConfig, args: argparse.Namespace) -> None:
    with uncollected():
        from hub.kafka import Access, KafkaReader, KafkaSender, quiet
        from hub.project import Projection
        from hub.project_http import answering
        from hub.projector import Projector
        from hub.store.offsets import FENCE_BITS
        from hub.stores import open_writer

    quiet()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    access, rng = Access(config.bridge), SystemRandom()
    projection = Projection(
        Projector(lambda: open_writer(config), lambda: rng.getrandbits(FENCE_BITS), now_ms),
        lambda: KafkaReader(access, PROJECTED),
        lambda: KafkaSender(access, [name + DEAD for name in PROJECTED]),
    )
    async with contextlib.AsyncExitStack() as undo:
        if args.listen is not None:
            port = await undo.enter_async_context(answering(projection, args.host, args.listen))
            print(f"listening: http://{args.host}:{port}", flush=True)
        async with supervised(Progress(lambda: projection.turns_total, STUCK_S, time.monotonic)):
            await projection.run(stop)


# ------------------------------------------------------------------ topics


def topics(args: argparse.Namespace) -> int:
    """Make them, or look at them."""
    config = _kafka_config(args)
    bridge = config.bridge
    wanted = plans(bridge.partitions, bridge.replicas, bridge.retention_days)
    return _with_admin(config, lambda admin: _topics(args, admin, wanted))


async def _topics(args: argparse.Namespace, admin: Admin, wanted: Sequence[TopicPlan]) -> int:
    names = [plan.name for plan in wanted]
    settings = list(dict.fromkeys(name for plan in wanted for name in plan.settings))
    before = await admin.topics(names, settings)
    if args.what == "create":
        missing = [plan for plan in wanted if plan.name not in before]
        if missing:
            await admin.create(missing)
    now = await admin.topics(names, settings) if args.what == "create" else before
    rows = [_topic_row(plan, now.get(plan.name), made=plan.name in now and plan.name not in before) for plan in wanted]
    wrong = [row for row in rows if not row["ok"]]
    if args.json:
        say({"topics": rows, "ok": not wrong})
    else:
        table(rows, ("topic", "key", "partitions", "replicas", "state"))
    if args.what == "create" and wrong:
        said = "; ".join(f"{row['topic']}: {row['state']}" for row in wrong)
        raise ConfigError(
            f"Topics are there that differ from [bridge]: {said}", remedy="Change them with Kafka's own tools, or the settings."
        )
    return int(bool(wrong))


def _topic_row(plan: TopicPlan, found: Any, *, made: bool) -> dict[str, Any]:
    keys = {topic.name: topic.key for topic in TOPICS}
    row = {"topic": plan.name, "key": keys.get(origin(plan.name), "")}
    if found is None:
        said: dict[str, Any] = {
            "partitions": None,
            "replicas": None,
            "settings": {},
            "state": "missing; make it with: longshore-hub topics create",
        }
        return {**row, **said, "ok": False}
    off = differences(plan, found)
    state = "; ".join(off) or ("made" if made else shown_state(plan, found))
    said = {"partitions": found.partitions, "replicas": found.replicas, "settings": dict(found.settings), "state": state}
    return {**row, **said, "ok": not off}


def _with_admin(config: HubConfig, work: Callable[[Admin], Awaitable[T]]) -> T:
    from hub.kafka import Access, KafkaAdmin, quiet

    async def whole() -> T:
        admin = KafkaAdmin(Access(config.bridge))
        try:
            return await work(admin)
        finally:
            await admin.close()

    quiet()
    return asyncio.run(whole())


def kafka_seen(config: HubConfig) -> list[tuple[bool, str, str]]:
    """For `doctor`: see `hub.kafka_findings`."""
    from hub.kafka_findings import kafka_findings

    return _with_admin(config, lambda admin: kafka_findings(config.bridge, admin))


# ------------------------------------------------------------------ dlq


def dlq(args: argparse.Namespace) -> int:
    """List dead letters, or put them back."""
    config = _kafka_config(args)
    if args.what == "ls" and args.which:
        raise InvalidInput("dlq ls", "takes no names.", remedy="Leave them out.")
    return _with_admin(config, lambda admin: _ls(args, admin) if args.what == "ls" else _replay(args, config, admin))


async def _ls(args: argparse.Namespace, admin: Admin) -> int:
    from hub.dead_letters import letters

    there = await admin.topics([topic.dead for topic in TOPICS], [])
    missing = [topic.dead for topic in TOPICS if topic.dead not in there]
    if missing:
        print(f"note: not there yet: {', '.join(missing)}; make them with: longshore-hub topics create", file=sys.stderr)
    found = [letter for letter in await letters(admin, LIST_MOST) if args.all or not letter.replayed]
    rows = [letter.row() for letter in found]
    if args.json:
        say({"deadLetters": rows})
    elif rows:
        table(rows, ("id", "from", "at", "error", "replayed"))
    else:
        print("no dead letters")
    return 0


async def _replay(args: argparse.Namespace, config: HubConfig, admin: Admin) -> int:
    from hub.dead_letters import chosen, letters, replay
    from hub.kafka import Access, KafkaSender

    wanted = chosen(await letters(admin, LIST_MOST), args.which)
    sender = KafkaSender(Access(config.bridge), [*PROJECTED, *(name + DEAD for name in PROJECTED)])
    try:
        await sender.start()
        refused: list[str] = []
        try:
            refused = await replay(sender, wanted, now_ms())
        except DecodeError as error:
            raise InvalidInput("dlq", error.reason) from None
    finally:
        await sender.close()
    if args.json:
        say({"replayed": [letter.id for letter in wanted if letter.id not in refused], "tooLarge": refused})
    else:
        print(f"replayed {len(wanted) - len(refused)} of {len(wanted)}")
        for one in refused:
            print(f"{one}: too large for its topic", file=sys.stderr)
    return int(bool(refused))
