"""`longshore-hub quarantine`: what stepped aside, looked at, and for the hub's own facts put right or given up.

Through the running hub's API; where it does not run, to its files, under the lock of its data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from hub import config as settings
from hub.cli_ask import Broken, cell, client_of, config_of, is_running, say, table
from hub.config import HubConfig
from hub.core import HubCore, HubIdentity
from hub.quarantine import PATH
from hub.quarantine_rows import give_up, look, put_right, rows
from protocols.errors import InvalidInput
from protocols.event import EventDefaults, load_json, parse_event
from protocols.limits import BATCH_BYTES
from protocols.quarantine_view import STATES, parse_discard
from protocols.sqlite import DataLock, Db
from protocols.trust import NodeKey, verify

Json = dict[str, Any]
COLUMNS: Final = ("id", "at", "state", "factId", "reason", "ask")


def add(commands: Any, asking: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands. `asking` makes one that knows where the hub is."""
    group = commands.add_parser(
        "quarantine", help="facts that stepped aside: list, show, put right, give up", description="Facts that stepped aside."
    ).add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = asking(group, "ls", ls, "list facts that stepped aside, newest first", "longshore-hub quarantine ls --state open")
    command.add_argument("--state", choices=STATES, help="only those (default: all)")
    _id(asking(group, "show", show, "show one: why, its bytes, who must act, what became of it", "longshore-hub quarantine show 7"))
    command = asking(
        group, "resubmit", resubmit, "put a fact of the hub right: a new fact that takes its place; others' facts their author puts right",
        "longshore-hub quarantine resubmit 7 --file event.json",
    )  # fmt: skip
    command.add_argument("--file", required=True, metavar="FILE", help="the event as it should have been, as JSON; - for standard input")
    _id(command)
    command = asking(
        group, "discard", discard, "give up a fact of the hub; it and the reason stay in the history",
        "longshore-hub quarantine discard 7 --reason 'entered twice'",
    )  # fmt: skip
    command.add_argument("--reason", required=True, metavar="TEXT", help="why, at most 200 characters; it is kept for good")
    command.add_argument("--actor", metavar="WHO", help="who decided (default: the hub)")
    _id(command)


def _id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", type=int, metavar="ID", help="its number, as `quarantine ls` lists it")


# ------------------------------------------------------------------ commands


def ls(args: argparse.Namespace) -> int:
    """The list."""
    config = config_of(args)
    if is_running(config):
        found = client_of(config).get(PATH)["quarantined"]
    else:
        with _core(config) as core:
            found = [{name: value for name, value in row.items() if name != "atMs"} for row in rows(core.ledger, 1_000)]
    shown = [row for row in found if args.state in (None, row["state"])]
    if args.json:
        say({"quarantined": shown})
    else:
        table(shown, COLUMNS)
        if not shown:
            print("nothing is in quarantine")
    return 0


def show(args: argparse.Namespace) -> int:
    """One of them."""
    config = config_of(args)
    if is_running(config):
        found = client_of(config).get(f"{PATH}/{args.id}")
    else:
        with _core(config) as core:
            found = look(core, args.id)
    if found is None:
        raise Broken("Nothing in quarantine has this number.", remedy="List them: longshore-hub quarantine ls")
    if args.json:
        say(found)
    else:
        for name, value in found.items():
            print(f"{name:<11} {cell(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value)}")
    return 0


def resubmit(args: argparse.Namespace) -> int:
    """Put right."""
    config, value = config_of(args), _read(args.file)
    now_ms = time.time_ns() // 1_000_000
    event = parse_event(value, defaults=EventDefaults(config.hub.org, config.hub.region), now_ms=now_ms)
    if is_running(config):
        return _told(args, client_of(config).post(f"{PATH}/{args.id}/resubmit", value))
    return _told(args, _written(config, lambda core: put_right(core, now_ms, args.id, event)))


def discard(args: argparse.Namespace) -> int:
    """Give up."""
    config = config_of(args)
    said = {"reason": args.reason} | ({"actor": args.actor} if args.actor else {})
    why, actor = parse_discard(said)
    if is_running(config):
        return _told(args, client_of(config).post(f"{PATH}/{args.id}/discard", said))
    return _told(args, _written(config, lambda core: give_up(core, time.time_ns() // 1_000_000, args.id, why, actor)))


def _told(args: argparse.Namespace, done: Json) -> int:
    if args.json:
        say(done)
    else:
        print(f"{done['item']['factId']} is {done['item']['state']}, as {done['factId']} says")
    return 0


def _read(file: str) -> object:
    remedy = "Give a file with one event, or - for standard input."
    try:
        with open(0, "rb", closefd=False) if file == "-" else Path(file).open("rb") as source:
            return load_json(source.read(BATCH_BYTES + 1), "standard input" if file == "-" else file, remedy)
    except OSError as error:
        raise InvalidInput(file, f"cannot be read ({error.strerror}).", remedy=remedy) from None


@contextmanager
def _core(config: HubConfig) -> Iterator[HubCore]:
    """The core alone on its data."""
    key = NodeKey.load(config.key_file)
    lock = DataLock(config.storage.path(settings.LOCK_FILE))
    try:
        db = Db(config.storage.path(settings.LEDGER_FILE))
        try:
            identity = HubIdentity(config.hub.org, config.hub.region, config.hub.node, key.public)
            yield HubCore(db, identity, key.sign, verify, SystemRandom())
        finally:
            db.rollback()
            db.close()
    finally:
        lock.release()


def _written(config: HubConfig, work: Callable[[HubCore], Json]) -> Json:
    with _core(config) as core:
        core.begin()
        done = work(core)
        core.commit()
        return done
