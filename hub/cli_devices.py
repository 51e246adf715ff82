"""`longshore-hub devices`: what gateways told of the devices around them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from hub.cli_ask import ask, show
from hub.device_views import SHOWN_STATES


def add(commands: Any, make: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "devices by their latest readings: state, firmware, last seen, signal, battery"
    command = make(commands, "devices", run, text, "longshore-hub devices --node dock-7 --state suspended")
    command.add_argument("--node", metavar="NODE", help="only those that this node told of")
    command.add_argument("--state", choices=SHOWN_STATES, help="only those in this state; unstated: of whom no provisioning record came")
    command.add_argument("--limit", type=int, default=200, metavar="N", help="at most so many, 1 to 500 (default: %(default)s)")
    command.add_argument("--cursor", metavar="CURSOR", help="go on after the page that ended with this cursor")


def run(args: argparse.Namespace) -> int:
    """The command."""
    params = {"node": args.node, "state": args.state, "limit": args.limit, "cursor": args.cursor}
    found = ask(args, "/v1/devices", params)
    columns = ("node", "device", "state", "serial", "mac", "firmware", "lastSeenAt", "signalDbm", "batteryPercent")
    code = show(args, found, found["devices"], columns, "no device was told of; edges take readings at POST /v1/telemetry")
    if found["cursor"] and not args.json:
        print(f"more: --cursor '{found['cursor']}'")
    return code
