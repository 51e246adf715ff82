"""`longshore-edge conflicts`: list them, tell one, settle one."""

from __future__ import annotations

import argparse
from typing import Final

from edge_agent.cli_table import CONFIG, Command, arg, config_of, say
from protocols.clashes import clash_text, clashes_text
from protocols.lifecycle import STATUS_NAMES


def _ls(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    with whoever_holds(config_of(args)) as held:
        found = conflicts.ls(held, open_only=args.open)
    return say(args, found, clashes_text(found["conflicts"]))


def _show(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    with whoever_holds(config_of(args)) as held:
        found = conflicts.show(held, args.id)
    return say(args, found, clash_text(found))


def _settle(args: argparse.Namespace) -> int:
    from edge_agent import conflicts
    from edge_agent.offline import whoever_holds

    config = config_of(args)
    said = {"status": args.status, "actor": args.actor, "note": args.note, "idempotencyKey": args.key}
    with whoever_holds(config) as held:
        done = conflicts.settle(held, args.id, {name: value for name, value in said.items() if value is not None}, config.defaults)
    return say(
        args, done, f"{'settled before' if done['repeated'] else 'settled'}: {done['orderId']} is {done['status']}, {done['factId']}"
    )


CONFLICTS: Final = (
    Command(
        "ls", _ls, "list conflicts, newest first", "\nAsks the running edge, or reads its ledger where none runs.",
        (arg("--open", action="store_true", help="only those that nobody has settled"), CONFIG),
    ),
    Command(
        "show", _show, "tell one conflict: who did what, its task, who settled it", "",
        (arg("id", metavar="ID", help="its id in the list; the same at the hub"), CONFIG),
    ),
    Command(
        "settle", _settle, "say what is true now, as an event of this edge",
        "\nIts author has seen both facts, so the conflict and its task close, here at once and\nelsewhere when the link returns. "
        "Works without a link and without a running edge.",
        (
            arg("id", metavar="ID", help="its id in the list"),
            arg("--status", required=True, choices=STATUS_NAMES, metavar="STATUS", help="the status that is true now"),
            arg("--actor", required=True, metavar="WHO", help="the person who settles it"),
            arg("--note", metavar="TEXT", help="a note for the others"),
            arg("--key", metavar="KEY", help="an idempotencyKey: the same command with it again is harmless"),
            CONFIG,
        ),
    ),
)  # fmt: skip
