"""`longshore-hub import`: a stick that an edge wrote, handed to the hub that runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from hub.cli_ask import client_of, config_of, is_running
from protocols.errors import InvalidInput, TransportError
from protocols.stick import Damage, Part, counted, read_stick
from protocols.sync.parcel import MEDIA_TYPE, PREFIX, room_in, write_parcel

OK: Final = 0
FAILED: Final = 1
NAMED: Final = 20
"""parts that were left and are named one by one"""

Json = dict[str, Any]


def add(commands: Any, make: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "hand the running hub a file of `longshore-edge queue export`; what is damaged is named and skipped (exit 1), the rest is taken"
    command = make(commands, "import", run, text, "longshore-hub import dock-7.stick")
    command.add_argument("file", metavar="FILE", help="what the edge wrote")


def run(args: argparse.Namespace) -> int:
    """The command. Errors: InvalidInput: no stick; TransportError: no hub runs."""
    config = config_of(args)
    if not is_running(config):
        raise TransportError("The hub does not run, and only a running hub takes facts.", remedy="Start it: longshore-hub run")
    client = client_of(config)
    done: Json = {"damaged": 0}
    left: list[Json] = []
    with _opened(args.file) as file:
        batch: list[Part] = []
        for one in read_stick(file):
            if isinstance(one, Damage):
                done["damaged"] += 1
                left.append({"at": one.at, "author": "", "reason": one.reason})
                continue
            if batch and not room_in(sum(PREFIX + len(part.payload) for part in batch), len(batch), one.payload):
                _hand_over(client, batch, done, left)
                batch = []
            batch.append(one)
        _hand_over(client, batch, done, left)
    print(json.dumps({**done, "left": left}, ensure_ascii=False) if args.json else _text(done, left))
    return FAILED if left else OK


def _opened(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).", remedy="Give the file that `queue export` wrote.") from None


def _hand_over(client: Any, batch: list[Part], done: Json, left: list[Json]) -> None:
    if not batch:
        return
    said = client.send("/v1/sync", write_parcel(part.payload for part in batch), MEDIA_TYPE)
    for name, value in said.items():
        if isinstance(value, int):
            done[name] = done.get(name, 0) + value
    left += [{"at": batch[one["index"]].at, "author": one["author"], "reason": one["reason"]} for one in said["left"]]


def _text(done: Json, left: list[Json]) -> str:
    lines = [counted(done)]
    lines += [f"  at byte {one['at']:,}{', of ' + one['author'] if one['author'] else ''}: {one['reason']}" for one in left[:NAMED]]
    return "\n".join(lines + ([f"  and {len(left) - NAMED:,} more"] if len(left) > NAMED else []))
