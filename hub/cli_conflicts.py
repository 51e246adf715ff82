"""`longshore-hub conflicts`: list them, tell one, settle one."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from hub.cli_ask import ask, client_of, config_of, is_running, say, show
from protocols.clashes import clash_text
from protocols.errors import InvalidInput, TransportError

USAGE = "Write: longshore-hub conflicts, conflicts show ID, or conflicts settle ID --status STATUS --actor WHO"


def conflicts(args: argparse.Namespace) -> int:
    """What the words after `conflicts` ask for."""
    what = args.what or ["ls"]
    if what == ["ls"]:
        return _list(args)
    if len(what) != 2 or what[0] not in ("show", "settle"):
        raise InvalidInput("conflicts", f"{' '.join(what)[:80]!r} is not understood.", remedy=USAGE)
    return _show(args, what[1]) if what[0] == "show" else _settle(args, what[1])


def _list(args: argparse.Namespace) -> int:
    found = ask(args, "/v1/conflicts", {"open": "true" if args.open else None})
    rows = [{**row, "for": (row["task"] or {}).get("for")} for row in found["conflicts"]]
    columns = ("id", "org", "orderId", "outcome", "state", "for", "raisedAt", "settledAt")
    show(args, found, rows, columns, "no conflict")
    if rows and not args.json:
        print("why, and what to do: longshore-hub conflicts show ID")
    return 0


def _show(args: argparse.Namespace, clash: str) -> int:
    found = ask(args, f"/v1/conflicts/{quote(clash, safe='')}")
    if args.json:
        say(found)
        return 0
    print(clash_text(found))
    return 0


def _settle(args: argparse.Namespace, clash: str) -> int:
    for name in ("status", "actor"):
        if not getattr(args, name):
            raise InvalidInput(f"--{name}", "is needed to settle.", remedy=USAGE)
    config = config_of(args)
    if not is_running(config):
        raise TransportError("The hub does not run, and a settlement is a fact of its own.", remedy="Start it, or settle at an edge.")
    body = {"status": args.status, "actor": args.actor, "note": args.note, "idempotencyKey": args.key}
    found = client_of(config).post(f"/v1/conflicts/{quote(clash, safe='')}/settle", {k: v for k, v in body.items() if v is not None})
    if args.json:
        say(found)
    else:
        print(f"{'settled before' if found['repeated'] else 'settled'}: {found['orderId']} is {found['status']}, fact {found['factId']}")
    return 0
