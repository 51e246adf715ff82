"""`longshore-edge`: make an edge, run it, look after it, and hand it events. Exit codes: see EPILOG, which `--help` shows."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge_agent import __version__, cli_backup, cli_card, cli_carry, cli_conflicts, report
from edge_agent.cli_table import CONFIG, FAILED, OK, Command, add, arg, config_of, group, say, write_whole
from edge_agent.config import FILE_NAME, SETTINGS
from protocols.commands import CommandParser
from protocols.errors import InvalidInput, LedgerBroken, LongshoreError, sentence
from protocols.starting import stays, uncollected
from protocols.trust import EDGE, KINDS, check_staff, owner_only

INTERRUPTED: Final = 130
DAMAGED: Final = "restore it from a backup, or move it away: the edge then begins a new one, and what had not settled is only in the old"
EPILOG: Final = """\
from nothing to a running edge:
  longshore-edge init edge --node w8-madrid-1 --site W8-Madrid --region EMEA --hub 'ADDRESS from longshore-hub init'
  longshore-hub nodes add edge/node.card.json        (where the hub is)
  longshore-edge run --config edge/edge.toml

exit codes: 0 done; 1 failed (a damaged ledger too), nothing has that name, it is settled already, or a check found something wrong;
2 bad input or usage; 3 configuration, a port, a file or a directory; 4 another process holds the data; 5 no room on the disk or in the
budget; 6 the edge or the broker is not reachable; 130 interrupted

Every setting of edge.toml can be overridden in the environment: LONGSHORE_API__PORT=0. `longshore-edge settings` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors become one line on standard error."""
    if argv is None:  # a program, and not a caller in one
        stays()
    args = _parser().parse_args(argv)
    try:
        with owner_only():
            return int(args.run(args))
    except LongshoreError as error:
        _tell_error(error, as_json=args.json)
        return error.exit_code
    except BrokenPipeError:  # the reader has enough (`| head`): nothing is wrong, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


def _tell_error(error: LongshoreError, *, as_json: bool) -> None:
    remedy = error.remedy or (DAMAGED if isinstance(error, LedgerBroken) else "")
    if as_json:
        more = {"field": error.field, "allowed": list(error.allowed)} if isinstance(error, InvalidInput) else {}
        print(json.dumps({"error": error.reason, "remedy": remedy, "exitCode": error.exit_code, **more}), file=sys.stderr)
    else:
        print(f"error: {sentence(error.reason, remedy)}{_allowed(error)}", file=sys.stderr)


def _allowed(error: LongshoreError) -> str:
    return f" ({', '.join(error.allowed)})" if isinstance(error, InvalidInput) and error.allowed else ""


# ------------------------------------------------------------ the command line


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="longshore-edge",
        description="An edge of Longshore: takes order events with or without a link, keeps them on disk, and brings them to the hub once.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"longshore-edge {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add(commands, MAIN)
    queue = group(commands, "queue", "what waits for the hub")
    add(queue, QUEUE)
    add(queue, cli_carry.QUEUE)
    add(group(queue, "quarantine", "what was refused, and what became of it"), QUARANTINE)
    add(group(commands, "events", "hand over events"), EVENTS)
    add(commands, SETTINGS_OF)
    add(commands, cli_card.CARD)
    add(group(commands, "peer", "nodes whose frames this edge carries"), cli_carry.PEER)
    add(commands, cli_backup.COMMANDS)
    add(group(commands, "conflicts", "facts that did not know of each other, and people must look at"), cli_conflicts.CONFLICTS)
    return parser


# ------------------------------------------------------------ commands


def _init(args: argparse.Namespace) -> int:
    from edge_agent.init import make_directory

    settings: dict[str, Any] = {"api.loopback_without_token": True} if args.loopback_without_token else {}
    if args.port is not None:
        if not 0 <= args.port <= 65_535:
            raise InvalidInput("--port", f"{args.port} is not a port.", remedy="Use 0 to 65535.")
        settings["api.port"] = args.port
    place = {"node": args.node, "site": args.site, "region": args.region}
    staff = check_staff(args.kind, args.staff)
    made = make_directory(Path(args.directory), **place, hub=args.hub, org=args.org, staff=staff, settings=settings)
    if made.note:
        print(f"note: {made.note}", file=sys.stderr)
    return say(args, report.made_json(made), report.made_text(made))


def _run(args: argparse.Namespace) -> int:
    config = config_of(args)
    from edge_agent import logs

    logs.setup(config.log.level, config.log.format, trace=config.log.trace)
    with uncollected():
        from edge_agent.serve import run

    if args.ready_file:
        Path(args.ready_file).unlink(missing_ok=True)  # an earlier run's would say ready too early

    def ready(url: str) -> None:
        stays()
        print(json.dumps({"ready": url}) if args.json else f"ready: {url}", flush=True)
        if args.ready_file:
            write_whole(Path(args.ready_file), f"{url}\n", "Choose another --ready-file.")

    run(config, __version__, ready)
    return OK


def _status(args: argparse.Namespace) -> int:
    from edge_agent.client import LocalApi, api_of
    from protocols.trust import read_secret

    if args.url:
        token = read_secret(args.token_file, what="token").strip() if args.token_file else None
        api = LocalApi(args.url, token)
    else:
        api = api_of(config_of(args))
    with api:
        status = api.get("/v1/status")
    return say(args, status, report.status_text(status))


def _doctor(args: argparse.Namespace) -> int:
    from edge_agent.doctor import Verdict, examine

    checks = examine(args.config or FILE_NAME, os.environ)
    bad = any(check.verdict is Verdict.WRONG for check in checks)
    say(args, {"ok": not bad, "checks": [check.as_json() for check in checks]}, "\n".join(check.as_text() for check in checks))
    return FAILED if bad else OK


def _queue(args: argparse.Namespace) -> int:
    from edge_agent.offline import look

    seen = look(config_of(args))
    return say(args, report.queue_json(seen), report.queue_text(seen))


def _quarantine_ls(args: argparse.Namespace) -> int:
    from edge_agent import quarantine
    from edge_agent.offline import whoever_holds

    if not 1 <= args.limit <= 500:
        raise InvalidInput("--limit", f"{args.limit} is not from 1 to 500.")
    with whoever_holds(config_of(args)) as held:
        found = quarantine.ls(held, args.state, args.limit)
    return say(args, found, quarantine.list_text(found))


def _quarantine_show(args: argparse.Namespace) -> int:
    from edge_agent import quarantine
    from edge_agent.offline import whoever_holds

    with whoever_holds(config_of(args)) as held:
        found = quarantine.show(held, args.id)
    return say(args, found, quarantine.item_text(found))


def _quarantine_resubmit(args: argparse.Namespace) -> int:
    from edge_agent import quarantine
    from edge_agent.offline import whoever_holds

    config = config_of(args)
    with whoever_holds(config) as held:
        done = quarantine.put_right(config, held, args.id, args.file)
    return say(args, done, f"{done['factId']} stands in the place of {done['item']['factId']}")


def _quarantine_discard(args: argparse.Namespace) -> int:
    from edge_agent import quarantine
    from edge_agent.offline import whoever_holds

    with whoever_holds(config_of(args)) as held:
        done = quarantine.give_up(held, args.id, args.reason, args.actor)
    return say(args, done, f"{done['item']['factId']} is given up, as {done['factId']} says")


def _append(args: argparse.Namespace) -> int:
    from edge_agent.appending import append_file

    config = config_of(args)
    done = append_file(
        config, args.file, None if args.json else lambda ids: print("\n".join(ids)), lambda text: print(text, file=sys.stderr)
    )
    if args.json:
        print(json.dumps(done.as_json(), ensure_ascii=False))
    if done.error is None:
        print(done.as_text(), file=sys.stderr)
        return OK
    if done.taken and not args.json:
        print(f"{done.as_text()} before this:", file=sys.stderr)
    raise done.error


def _settings(args: argparse.Namespace) -> int:
    return say(args, report.settings_json(), report.settings_text())


# ------------------------------------------------------------ the tables

MAIN: Final = (
    Command(
        "init", _init, "make the directory of a new edge",
        "Writes a commented configuration,\nthe node's key, its broker password, a token for its API, and the public card that\n"
        "`longshore-hub nodes add` takes. Refuses a directory that holds anything.",
        (
            arg("directory", metavar="DIR", help="where; made if it is missing"),
            arg("--node", required=True, metavar="N", help="the node's name, unique at its hub: a-z 0-9 -, at most 32"),
            arg("--site", required=True, metavar="S", help="the site it stands at"),
            arg("--region", required=True, metavar="R", help="the region of the site"),
            arg("--hub", required=True, metavar="ADDRESS", help="what `longshore-hub init` printed; in quotes"),
            arg("--org", metavar="O", help="the organisation (default: the hub's)"),
            arg("--kind", choices=KINDS, default=EDGE, help="edge: follows its site (the default); phone: its staff"),
            arg("--staff", default="", metavar="NAME", help="with --kind phone: who works on it, as `actor` and `assignedTo` name them"),
            arg("--port", type=int, metavar="P", help=f"port of the LAN API (default: {SETTINGS['api.port'].default}; 0: a free one)"),
            arg("--loopback-without-token", action="store_true", help="let programs on this machine call the API without a token"),
        ),
    ),
    Command(
        "run", _run, "run the edge until SIGTERM or Ctrl-C", "Prints `ready: URL` once events are taken.",
        (CONFIG, arg("--ready-file", metavar="FILE", help="also write the URL to FILE once events are taken")),
    ),
    Command(
        "status", _status, "show what waits, the link, the clock and the disk of a running edge", "",
        (
            CONFIG,
            arg("--url", metavar="URL", help="ask the edge there instead, such as http://192.168.1.20:8700"),
            arg("--token-file", metavar="FILE", help="with --url: a file (mode 0600) with a token of that edge"),
        ),
    ),
    Command(
        "doctor", _doctor, "check all that an edge needs",
        "Configuration, files, key and card, disk, clock,\nledger, port, and the broker. Exits with 1 when something is wrong.",
    ),
)  # fmt: skip
QUEUE: Final = (
    Command(
        "ls", _queue, "list what waits: streams, counts, bytes, age; what was refused and what stepped aside",
        "\nAsks the running edge, or reads its ledger where none runs.",
    ),
)  # fmt: skip
_THROUGH: Final = "\nGoes through the running edge, or to its ledger where none runs."
_ITEM: Final = (arg("id", type=int, metavar="ID", help="its number, as `queue quarantine ls` lists it"), CONFIG)
QUARANTINE: Final = (
    Command(
        "ls", _quarantine_ls, "list facts that stepped aside, newest first", _THROUGH,
        (
            arg("--state", choices=("open", "resubmitted", "discarded"), help="only those (default: all)"),
            arg("--limit", type=int, default=100, metavar="N", help="at most so many, 1 to 500 (default: 100)"),
            CONFIG,
        ),
    ),
    Command("show", _quarantine_show, "show one: why, its bytes, what it says, what became of it", _THROUGH, _ITEM),
    Command(
        "resubmit", _quarantine_resubmit, "put one right: a new fact that takes its place",
        "\nThe refused fact stays in the history." + _THROUGH,
        (arg("--file", required=True, metavar="FILE", help="the event as it should have been, as JSON; - for standard input"), *_ITEM),
    ),
    Command(
        "discard", _quarantine_discard, "give one up: everybody hears that nothing stands in its place",
        "\nThe refused fact and your reason stay in the history." + _THROUGH,
        (
            arg("--reason", required=True, metavar="TEXT", help="why, at most 200 characters; it is kept for good"),
            arg("--actor", metavar="WHO", help="who decided (default: the node)"),
            *_ITEM,
        ),
    ),
)  # fmt: skip
EVENTS: Final = (
    Command(
        "append", _append, "hand over events from a file or standard input",
        "One JSON object a line,\nor one JSON array. Goes through the edge that runs on this configuration; where none runs,\n"
        "straight into its ledger. Prints the ids. Events with an idempotencyKey can be handed\nover again without harm.",
        (arg("file", nargs="?", default="-", metavar="FILE", help="a path, or - for standard input (the default)"), CONFIG),
    ),
)  # fmt: skip
SETTINGS_OF: Final = (Command("settings", _settings, "list every setting of edge.toml with its default and meaning", args=()),)


if __name__ == "__main__":
    sys.exit(main())
