"""Commands around copies of an edge: `backup`, `restore`, `verify`, `audit`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent import __version__
from edge_agent.cli_table import CONFIG, FAILED, OK, Command, arg, config_of, say
from edge_agent.config import FILE_NAME
from protocols.errors import InvalidInput
from protocols.progress import Progress
from protocols.sqlite import Db

if TYPE_CHECKING:
    from protocols.verify import Verdict


def _tell() -> Progress:
    return Progress(time.monotonic, lambda text: print(text, file=sys.stderr))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _backup(args: argparse.Namespace) -> int:
    from edge_agent.backup_files import make_backup

    made = make_backup(
        config_of(args), Path(args.dest), f"longshore-edge {__version__}", _now_ms(), _tell(), with_keys=args.with_keys, quick=args.quick
    )
    names = list(made.manifest.files)
    size = sum(f.size_bytes for f in made.manifest.files.values())
    secret = (
        "keys are in it: keep it as secret as they are"
        if made.manifest.secrets
        else "no key, token or configuration is in it (--with-keys)"
    )
    lines = [
        f"backup {made.manifest.id}: {made.place}, {size / 1e6:,.1f} MB: {', '.join(names)}",
        secret,
        *(f"note: {n}" for n in made.notes),
    ]
    return say(args, {"place": str(made.place), "id": made.manifest.id, "files": names, "notes": made.notes}, "\n".join(lines))


def _restore(args: argparse.Namespace) -> int:
    from edge_agent.backup_files import restore, restore_configuration

    src = Path(args.src)
    put = restore_configuration(src, Path(args.config or FILE_NAME).absolute().parent) if args.with_keys else []
    manifest, aside = restore(config_of(args), src, _now_ms(), _tell(), force=args.force, quick=args.quick)
    lines = [f"restored the ledger from backup {manifest.id}; the next event begins a new epoch"]
    lines += [f"also restored: {', '.join(put)}"] if put else []
    lines += [f"what was there is kept in {aside[0].parent}"] if aside else []
    lines.append("next: longshore-edge run; the hub gives both histories their place")
    return say(args, {"id": manifest.id, "configuration": put, "aside": [str(path) for path in aside]}, "\n".join(lines))


def _verify(args: argparse.Namespace) -> int:
    from edge_agent.backup_files import verify_backup, verify_ledger

    if args.src:
        manifest, wrong, verdict = verify_backup(Path(args.src), _tell())
        what = f"backup {manifest.id} of {manifest.what} {manifest.node}"
    else:
        path = Path(config_of(args).storage.ledger_file)
        wrong, verdict, what = [], verify_ledger(path, _tell()), str(path)
    troubles, notes = [*wrong, *verdict.troubles()], verdict.notes()
    lines = [_counted(verdict), *(f"note {text}" for text in notes), *(f"BAD  {text}" for text in troubles)]
    lines.append(f"{what}: {'SOMETHING IS WRONG' if troubles else 'as it should be'}")
    counts = {"facts": verdict.chains.facts, "streams": verdict.chains.streams, "freed": verdict.chains.freed, "orders": verdict.orders}
    say(args, {"ok": not troubles, "troubles": troubles, "notes": notes, **counts}, "\n".join(lines))
    return FAILED if troubles else OK


def _counted(v: Verdict) -> str:
    return f"{v.chains.facts:,} facts in {v.chains.streams:,} streams, {v.orders:,} orders folded, {v.records:,} signed records"


def _audit(args: argparse.Namespace) -> int:
    from protocols.audit import audit as walk

    path = Path(config_of(args).storage.ledger_file)
    if not path.exists():
        raise InvalidInput("--config", f"this edge has never run: there is no {path}.", remedy="Start it: longshore-edge run")
    tell = _tell()
    db = Db(path, read_only=True)
    try:
        db.read_moment()
        done = walk(db, tell=lambda n, of: tell("ledger", n, of))
    finally:
        db.close()
    found = [
        {"node": f.stream.node, "epoch": f"{f.stream.epoch:x}", "class": f.stream.cls, "seq": f.seq, "what": str(f.what), "text": f.text}
        for f in done.findings
    ]
    lines = [f"BAD  {f.sentence()}" for f in done.findings]
    outcome = (
        "every chain is whole" if not found else f"{len(found)} {'stream is' if len(found) == 1 else 'streams are'} not what they were"
    )
    lines.append(f"walked {done.facts:,} facts in {done.streams:,} streams: {outcome}")
    say(args, {"ok": not found, "findings": found, "facts": done.facts, "freed": done.freed}, "\n".join(lines))
    return FAILED if found else OK


COMMANDS: Final = (
    Command(
        "backup", _backup, "copy the ledger, while the edge runs or not",
        "The copy is of one\nmoment, is read back, and is put in place in one step. Keys, tokens and configuration are\n"
        "in it only with --with-keys.",
        (
            arg("dest", metavar="DEST", help="the folder to make; where it exists, one named after node and time is made in it"),
            arg("--with-keys", action="store_true", help="also edge.toml, key, card, password and token (0600): keep it secret"),
            arg("--quick", action="store_true", help="do not read the copy back"),
            CONFIG,
        ),
    ),
    Command(
        "restore", _restore, "put a backup in the place of the ledger; the edge must not run",
        "Checks it\nfirst, and keeps aside what it replaces. The edge then begins a new epoch: the hub finds\n"
        "both histories, and keeps both.",
        (
            arg("src", metavar="SRC", help="the folder of the backup"),
            arg("--force", action="store_true", help="replace a ledger that is there; it is moved aside"),
            arg("--with-keys", action="store_true", help="also configuration and keys, where they are in the backup and not here"),
            arg("--quick", action="store_true", help="compare only the files with the manifest; do not read the ledger"),
            CONFIG,
        ),
    ),
    Command(
        "verify", _verify, "read a ledger whole: pages, chains, orders folded again, signed records",
        "Exits with 1 when\nsomething is wrong.",
        (arg("src", nargs="?", metavar="SRC", help="the folder of a backup (default: the ledger of this edge, running or not)"), CONFIG),
    ),
    Command(
        "audit", _audit, "walk the hash chains and name the first edit, deletion, insertion, exchange or cut",
        "Exits\nwith 1 when there is one.",
    ),
)  # fmt: skip
