"""`longshore-edge conflicts`: list them, tell one, settle one."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

from edge_agent.config import FILE_NAME, EdgeConfig, load_config
from protocols.clashes import clash_text, clashes_text
from protocols.lifecycle import STATUS_NAMES

OK = 0


def add(commands: Any, command: Callable[..., argparse.ArgumentParser], add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """The commands below `conflicts`."""
    group = commands.add_parser("conflicts", help="facts that did not know of each other, and people must look at").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    listed = command(group, "ls", _ls, "list conflicts, newest first", "\nAsks the running edge, or reads its ledger where none runs.")
    listed.add_argument("--open", action="store_true", help="only those that nobody has settled")
    shown = command(group, "show", _show, "tell one conflict: who did what, its task, who settled it")
    shown.add_argument("id", metavar="ID", help="its id in the list; the same at the hub")
    settle = command(
        group, "settle", _settle, "say what is true now, as an event of this edge",
        "\nIts author has seen both facts, so the conflict and its task close, here at once and\nelsewhere when the link returns. "
        "Works without a link and without a running edge.",
    )  # fmt: skip
    settle.add_argument("id", metavar="ID", help="its id in the list")
    settle.add_argument("--status", required=True, choices=STATUS_NAMES, metavar="STATUS", help="the status that is true now")
    settle.add_argument("--actor", required=True, metavar="WHO", help="the person who settles it")
    settle.add_argument("--note", metavar="TEXT", help="a note for the others")
    settle.add_argument("--key", metavar="KEY", help="an idempotencyKey: the same command with it again is harmless")
    for one in (listed, shown, settle):
        add_config(one)


def _config(args: argparse.Namespace) -> EdgeConfig:
    return load_config(args.config or FILE_NAME, os.environ)


def _say(args: argparse.Namespace, data: object, text: str) -> int:
    print(json.dumps(data, ensure_ascii=False) if args.json else text)
    return OK


def _ls(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    with whoever_holds(_config(args)) as held:
        found = conflicts.ls(held, open_only=args.open)
    return _say(args, found, clashes_text(found["conflicts"]))


def _show(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    with whoever_holds(_config(args)) as held:
        found = conflicts.show(held, args.id)
    return _say(args, found, clash_text(found))


def _settle(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    config = _config(args)
    said = {"status": args.status, "actor": args.actor, "note": args.note, "idempotencyKey": args.key}
    with whoever_holds(config) as held:
        done = conflicts.settle(held, args.id, {name: value for name, value in said.items() if value is not None}, config.defaults)
    return _say(
        args, done, f"{'settled before' if done['repeated'] else 'settled'}: {done['orderId']} is {done['status']}, {done['factId']}"
    )
