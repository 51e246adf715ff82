"""`longshore-hub`: make a hub, admit nodes, run it, and ask it.

Commands that ask go to the running hub's API with the token of its data directory; where it does not run they read its files, and say so.
Exit codes: see EPILOG, which `--help` shows.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from hub import (
    __version__,
    cli_admin,
    cli_ask,
    cli_backup,
    cli_bridge,
    cli_broker,
    cli_conflicts,
    cli_devices,
    cli_import,
    cli_quarantine,
    cli_store,
)
from protocols.commands import CommandParser
from protocols.errors import ConfigError, LedgerBroken, LedgerFull, LongshoreError, sentence
from protocols.lifecycle import STATUS_NAMES
from protocols.starting import stays
from protocols.trust import owner_only

OK: Final = 0
INTERRUPTED: Final = 130
DAMAGED: Final = (
    "restore it from a backup, or move it away: store and edges give back what the centre lacks "
    "(after a loss of hub.db add the nodes again)"
)
EPILOG: Final = """\
from nothing to a running pair:
  longshore-hub init hub
  longshore-edge init edge --node dock-7 --site Madrid --region EMEA --hub 'ADDRESS that init printed'
  longshore-hub nodes add edge/node.card.json --dir hub
  longshore-hub run --config hub/hub.toml
  longshore-edge run --config edge/edge.toml

exit codes: 0 done; 1 failed (a damaged database too), nothing has that name, it is settled already, or a check found something wrong
(balance, doctor, verify, audit); 2 bad input or usage; 3 configuration: a setting, key, port or directory; 4 another process holds the
data; 5 the disk is full; 6 the hub, or the store's server, does not answer; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors become one line on standard error."""
    if argv is None:  # a program, and not a caller in one
        stays()
    args = _parser().parse_args(argv)
    try:
        with owner_only():
            return int(args.run(args))
    except LedgerBroken as error:
        return _complain(args, error.reason, error.remedy or DAMAGED, error.exit_code)
    except LongshoreError as error:
        return _complain(args, error.reason, error.remedy, error.exit_code)
    except BrokenPipeError:  # the reader has enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        known = _of_system(error)
        return _complain(args, known.reason, known.remedy, known.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(args: argparse.Namespace, reason: str, remedy: str, code: int) -> int:
    if getattr(args, "json", False):
        print(json.dumps({"error": reason, "remedy": remedy, "exitCode": code}, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"error: {sentence(reason, remedy)}", file=sys.stderr)
    return code


def _of_system(error: OSError) -> LongshoreError:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerFull(f"{where}the disk is full.", remedy="Free some space and run it again.")
    return ConfigError(f"{where}{error.strerror or error}.")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="longshore-hub",
        description="The hub: takes what edges captured, shows one consolidated view, and what is not here yet.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longshore-hub {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_init(commands)
    _add_nodes(commands)
    _add_run(commands)
    _add_orders(commands)
    _add_asking(commands)
    cli_import.add(commands, _asking)
    cli_backup.add(commands, _asking)
    cli_store.add(commands, _asking)
    cli_bridge.add(commands, _asking)
    cli_broker.add(commands, _asking)
    cli_devices.add(commands, _asking)
    return parser


def _command(commands: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example: {example}"
    )
    command.add_argument("--json", action="store_true", help="JSON for machines")
    command.set_defaults(run=run)
    return command


def _asking(commands: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    command = _command(commands, name, run, text, example)
    _add_where(command)
    return command


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="the hub's hub.toml (default: ./hub.toml, or $LONGSHORE_HUB)")
    command.add_argument("--dir", metavar="DIR", help="the folder that holds it")


def _add_init(commands: Any) -> None:
    command = _command(commands, "init", cli_admin.init, "make a hub: configuration, key and token", "longshore-hub init hub --org acme")
    command.add_argument("dir", metavar="DIR", help="a new or empty folder")
    command.add_argument("--org", default="acme", help="the organisation (default: %(default)s)")
    command.add_argument("--region", default="central", help="the region this hub stands for (default: %(default)s)")
    command.add_argument("--node", default="hub", help="the hub's own name (default: %(default)s)")
    command.add_argument(
        "--loopback-without-token", action="store_true", help="let programs and people on this very machine call without a token"
    )
    cli_store.add_choice(command)
    command.add_argument("--api-port", type=_port, metavar="PORT", help="of API and web (default: 8800; 0 takes a free one)")
    command.add_argument("--broker-port", type=_port, metavar="PORT", help="of the embedded broker (default: 1883; 0 takes a free one)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _add_nodes(commands: Any) -> None:
    parser = commands.add_parser("nodes", help="admit nodes, and list them", description="Admit nodes, and list them.")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add = _asking(
        inner,
        "add",
        cli_admin.nodes_add,
        "admit a node by its card; a taken name is refused",
        "longshore-hub nodes add edge/node.card.json",
    )
    add.add_argument("card", metavar="CARD", help="the node.card.json that `longshore-edge init` wrote, or - for standard input")
    add.add_argument("--org", action="append", metavar="ORG", help="an organisation it may speak for beside its own; repeat it; * for any")
    _asking(inner, "ls", cli_ask.nodes_ls, "list the admitted nodes", "longshore-hub nodes ls")


def _add_run(commands: Any) -> None:
    command = _asking(commands, "run", cli_admin.run, "run the hub until it is told to end", "longshore-hub run --config hub/hub.toml")
    command.description = (
        "Run the hub until SIGTERM or Ctrl-C. Says `ready: URL …` on standard output once it listens; logs go to standard error."
    )


def _add_orders(commands: Any) -> None:
    command = _asking(
        commands,
        "orders",
        cli_ask.orders,
        "search the consolidated view, or show one order",
        "longshore-hub orders --status SHIPPED --q 1234",
    )
    command.add_argument("show", nargs="*", metavar="show ID", help="`show ID`: one order with its timeline")
    command.add_argument("--site", help="only this site")
    command.add_argument("--region", help="only this region")
    command.add_argument("--status", choices=STATUS_NAMES, metavar="STATUS", help="only this status")
    command.add_argument("--org", help="only this organisation")
    command.add_argument("--q", metavar="TEXT", help="a fragment of the order's id")
    command.add_argument("--conflict", action="store_true", help="only orders with an open conflict")
    command.add_argument("--held", action="store_true", help="only orders that rest until a conflict is settled")
    command.add_argument("--limit", type=_count, default=50, help="at most so many, newest first (default: %(default)s)")
    command.add_argument("--cursor", help="go on after the page that ended with this cursor")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 500):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 500")
    return int(text)


def _add_asking(commands: Any) -> None:
    _asking(commands, "workers", cli_ask.workers, "who shares the nodes of this hub, and holds what", "longshore-hub workers --json")
    _asking(commands, "fleet", cli_ask.fleet, "every node, and what is not here yet", "longshore-hub fleet")
    _asking(
        commands,
        "balance",
        cli_ask.balance,
        "does captured = settled + queued + in custody + quarantined (also resolved) + evicted? Exit 1 if not; 0 while it is not known",
        "longshore-hub balance --json",
    )
    command = _asking(
        commands,
        "conflicts",
        cli_conflicts.conflicts,
        "facts that did not know of each other and that people must look at: list, show, settle",
        "longshore-hub conflicts settle 9f86d0818c2f1a3b --status RETURNED --actor desk-2 --note 'put back'",
    )
    command.add_argument("what", nargs="*", metavar="show ID | settle ID", help="one conflict with its task; or say what is true now")
    command.add_argument("--open", action="store_true", help="only those that nobody has settled")
    command.add_argument("--status", choices=STATUS_NAMES, metavar="STATUS", help="settle: the status that is true now")
    command.add_argument("--actor", metavar="WHO", help="settle: the person who settles it")
    command.add_argument("--note", metavar="TEXT", help="settle: a note for the others")
    command.add_argument("--key", metavar="KEY", help="settle: an idempotencyKey; the same command with it again is harmless")
    command = _asking(
        commands,
        "queue",
        cli_ask.queue,
        "what stepped aside: refused frames, facts in quarantine, nodes that wait, names that the broker did not let in",
        "longshore-hub queue ls",
    )
    command.add_argument("what", nargs="?", choices=["ls"], default="ls", help="ls, the only one so far and the default")
    cli_quarantine.add(commands, _asking)
    _asking(commands, "status", cli_ask.status, "is the hub up, and what does it hold", "longshore-hub status")
    _asking(
        commands,
        "doctor",
        cli_admin.doctor,
        "check configuration, key, ports, disk and clock; exit 1 if something is wrong",
        "longshore-hub doctor --dir hub",
    )


if __name__ == "__main__":
    sys.exit(main())
