"""Commands around copies: `backup`, `restore`, `verify`, `backups`, `audit`. Each says what it looks at while it takes long."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hub import backup_files
from hub import config as settings
from hub.audit import audit_hub
from hub.backup_files import Registrar
from hub.cli_ask import ask, config_of, now_ms, say, show, table
from hub.config import HubConfig
from protocols.audit import Finding
from protocols.backup import MANIFEST, UNFINISHED, of_system, read_manifest, sync
from protocols.errors import ConfigError, InvalidInput
from protocols.progress import Progress
from protocols.sqlite import Db
from protocols.verify import Verdict

PROGRAM: Final = "longshore-hub 0.1.0"
FAILED: Final = 1
_COLUMNS: Final = ("id", "state", "begunAt", "finishedAt", "streams", "facts", "tool", "place")

Make = Callable[[Any, str, Any, str, str], argparse.ArgumentParser]
"""`cli._asking`: a command with --json, --config and --dir"""


# ------------------------------------------------------------ the command line


def add(commands: Any, make: Make) -> None:
    """Add the commands to the parser."""
    _add_backup(commands, make)
    _add_restore(commands, make)
    command = make(
        commands, "verify", verify, "read databases whole: pages, chains, orders folded again, signed records; exit 1 if wrong",
        "longshore-hub verify /backups/hub-20260521T140512Z",
    )  # fmt: skip
    command.add_argument("src", nargs="?", metavar="SRC", help="the folder of a backup (default: the databases of the hub, running or not)")
    make(
        commands, "audit", audit, "walk every hash chain and name the first edit, deletion, insertion, exchange or cut; exit 1 on one",
        "longshore-hub audit --json",
    )  # fmt: skip
    _add_backups(commands, make)
    make(
        commands, "gaps", gaps, "what the hub knows that it does not have, and how the last holes were closed", "longshore-hub gaps --json"
    )


def _add_backup(commands: Any, make: Make) -> None:
    command = make(
        commands, "backup", backup, "copy the databases of the hub, running or not, and register the copy", "longshore-hub backup /backups"
    )
    command.description = (
        "Copies store.db and hub.db, each as of one moment, while the hub runs or not; checks the copies, and puts them in place in one "
        "step. The backup is registered before the first byte is copied: from then on nodes keep what it may lack, until it is expired. "
        "Keys and configuration are not in it unless --with-keys says so."
    )
    command.add_argument("dest", metavar="DEST", help="the folder to make; where it exists, one named after hub and time is made in it")
    command.add_argument("--store-only", action="store_true", help="only the central store, not hub.db")
    command.add_argument("--with-keys", action="store_true", help="also hub.toml, hub.key and api.token (mode 0600): keep it secret then")
    command.add_argument("--quick", action="store_true", help="do not read the copies back")


def _add_restore(commands: Any, make: Make) -> None:
    command = make(
        commands,
        "restore",
        restore,
        "put a backup where the hub's databases belong; the hub must not run",
        "longshore-hub restore SRC --force",
    )
    command.description = (
        "Checks the backup first. What it replaces is moved aside into the data directory and kept. Nodes and store then give back what is "
        "missing by themselves; the hub begins a new epoch for facts of its own. The list of the store's backups survives."
    )
    command.add_argument("src", metavar="SRC", help="the folder of the backup")
    only = command.add_mutually_exclusive_group()
    only.add_argument("--store-only", action="store_true", help="only the central store")
    only.add_argument("--hub-only", action="store_true", help="only hub.db")
    command.add_argument("--with-keys", action="store_true", help="also configuration and keys, where they are in the backup and not here")
    command.add_argument("--force", action="store_true", help="replace databases that are there, or take a backup that is not on the list")
    command.add_argument(
        "--other-key", action="store_true", help="the key of the backup's hub is lost: take its data in under the key that is here"
    )
    command.add_argument("--quick", action="store_true", help="compare only the files with the manifest; do not read the databases")


def _add_backups(commands: Any, make: Make) -> None:
    text = "the list of the store's backups: what any of them lacks is kept at the nodes until it is expired"
    parser = commands.add_parser("backups", help=text, description=f"{text[0].upper()}{text[1:]}.")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    make(inner, "ls", backups_ls, "list them", "longshore-hub backups ls")
    one = make(
        inner, "register", register, "register a copy that another tool is about to make; prints its id",
        "longshore-hub backups register --place s3://backups/store-today",
    )  # fmt: skip
    one.add_argument("--place", required=True, metavar="TEXT", help="where it will lie")
    one.add_argument("--tool", default="another tool", metavar="TEXT", help="what makes it (default: %(default)s)")
    for name, run, text in (
        ("complete", complete, "the copy of another tool is whole and where it belongs"),
        ("expire", expire, "a backup will never be restored: nodes may free what it lacks. Final; delete its folder after, never before"),
    ):
        make(inner, name, run, text, f"longshore-hub backups {name} 3f2a9c1e").add_argument("id", metavar="ID", help="as `ls` shows it")
    make(inner, "retention", retention, "expire what [backup] in hub.toml does not keep", "longshore-hub backups retention")


# ------------------------------------------------------------ backup and restore


def _progress() -> Progress:
    return Progress(time.monotonic, lambda text: print(text, file=sys.stderr))


def backup(args: argparse.Namespace) -> int:
    """Make one."""
    config = config_of(args)
    made = backup_files.make_backup(
        config, Path(args.dest), PROGRAM, now_ms, _progress(), store_only=args.store_only, with_keys=args.with_keys, quick=args.quick
    )
    manifest, names = made.manifest, list(made.manifest.files)
    if args.json:
        say({"place": str(made.place), "id": manifest.id, "files": names, "notes": made.notes, "expired": made.expired})
        return 0
    size = sum(f.size_bytes for f in manifest.files.values())
    print(f"backup {manifest.id}: {made.place}, {size / 1e6:,.1f} MB: {', '.join(names)}")
    print("keys are in it: keep it as secret as they are" if manifest.secrets else "no key, token or configuration is in it (--with-keys)")
    for note in made.notes:
        print(f"note: {note}")
    for gone in made.expired:
        print(f"expired by retention: {gone['id']}, which may now be deleted: {gone['place']}")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Put one in place."""
    src = Path(args.src)
    if args.with_keys:
        _restore_configuration(args, src)
    config = config_of(args)
    names = (settings.STORE_FILE,) if args.store_only else (settings.LEDGER_FILE,) if args.hub_only else backup_files.databases_of(config)
    done = backup_files.restore(
        config, src, now_ms(), _progress(), names=names, force=args.force, quick=args.quick, other_key=args.other_key
    )
    if args.json:
        aside = [str(path) for path in done.aside]
        say(
            {
                "id": done.manifest.id,
                "files": done.files,
                "aside": aside,
                "known": done.known,
                "givenUp": done.given_up,
                "keyChecked": done.known_key,
            }
        )
        return 0
    print(f"restored {', '.join(done.files)} from backup {done.manifest.id}")
    if not done.known_key:
        why = (
            f"its key was {done.manifest.fingerprint}" if done.manifest.fingerprint else "an earlier version made it, without a key's name"
        )
        print(f"note: not verified that it is of this hub, and not of another named {done.manifest.node}: {why}")
    if done.aside:
        print(f"what was there is kept in {done.aside[0].parent}")
    if done.known:
        print(f"backups on the list: {', '.join(done.known)}")
    for backup_id in done.given_up:
        print(f"given up: {backup_id} was unfinished; begin it anew")
    print("next: longshore-hub run; nodes and store give back what is missing (longshore-hub balance shows how far they are)")
    return 0


def _restore_configuration(args: argparse.Namespace, src: Path) -> None:
    """Configuration and keys that are in the backup; what is here stays as it is."""
    manifest = read_manifest(src)
    if settings.FILE not in [name.removeprefix("config/") for name in manifest.files]:
        raise InvalidInput("--with-keys", "is not possible: this backup was made without.", remedy="Make a hub with `init`, then restore.")
    folder = Path(args.dir) if args.dir else settings.config_file(args.config or settings.FILE).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in manifest.files:
            target = folder / name.removeprefix("config/")
            if name.startswith("config/") and not target.exists():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                target.touch(mode=0o600)
                shutil.copyfile(src / name, target)
                sync(target)
    except OSError as error:
        raise of_system(error, folder) from error


# ------------------------------------------------------------ verify and audit


def verify(args: argparse.Namespace) -> int:
    """Read everything."""
    if args.src:
        manifest, wrong, verdicts = backup_files.verify_backup(Path(args.src), _progress())
        what = f"backup {manifest.id} of {manifest.what} {manifest.node}"
    else:
        config = config_of(args)
        wrong, verdicts = [], backup_files.verify_folder(_data(config), backup_files.databases_of(config), _progress())
        what = f"the databases in {config.storage.data_dir}"
    troubles = wrong + [f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.troubles()]
    notes = [f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.notes()]
    if args.json:
        say({"ok": not troubles, "troubles": troubles, "notes": notes, "databases": {n: _counts(v) for n, v in verdicts.items()}})
        return FAILED if troubles else 0
    for name, v in verdicts.items():
        print(f"{name}: {v.chains.facts:,} facts in {v.chains.streams:,} streams, {v.orders:,} orders folded, {v.records:,} signed records")
    for text in (*notes, *troubles):
        print(f"{'BAD ' if text in troubles else 'note'} {text}")
    print(f"{what}: {'SOMETHING IS WRONG' if troubles else 'as it should be'}")
    return FAILED if troubles else 0


def _counts(v: Verdict) -> dict[str, int]:
    return {"facts": v.chains.facts, "streams": v.chains.streams, "freed": v.chains.freed, "orders": v.orders, "records": v.records}


def _data(config: HubConfig) -> Path:
    folder = Path(config.storage.data_dir)
    if not all((folder / name).exists() for name in backup_files.databases_of(config)):
        remedy = "Finish the restore." if (folder / UNFINISHED).exists() else f"Start it: longshore-hub run --config {config.file}"
        raise ConfigError(f"There are no databases in {folder}.", remedy=remedy)
    return folder


def audit(args: argparse.Namespace) -> int:
    """Walk the chains."""
    config = config_of(args)
    if not config.store.sqlite:
        raise ConfigError(
            "The central store is a PostgreSQL database, which this command does not walk.",
            remedy="longshore-hub store check walks the store's chains, longshore-hub verify those of hub.db.",
        )
    folder = _data(config)
    ledger = Db(folder / settings.LEDGER_FILE, read_only=True)
    try:
        store = Db(folder / settings.STORE_FILE, read_only=True)
        try:
            ledger.read_moment()
            store.read_moment()
            done = audit_hub(ledger, store, _progress())
        finally:
            store.close()
    finally:
        ledger.close()
    found = done.findings()
    if args.json:
        totals = {"ledger": done.ledger.facts, "store": done.store.facts, "behind": done.behind}
        say({"ok": not found, "findings": [_finding(name, f) for name, f in found], "facts": totals})
    else:
        for name, f in found:
            print(f"BAD  {name}: {f.sentence()}")
        print(f"walked {done.ledger.facts:,} facts in hub.db and {done.store.facts:,} in store.db: {_outcome(len(found))}")
        if done.behind:
            print(f"note {done.behind:,} facts of hub.db are not in store.db yet")
    return FAILED if found else 0


def _outcome(number: int) -> str:
    return f"{number} {'stream is' if number == 1 else 'streams are'} not what they were" if number else "every chain is whole"


def _finding(name: str, f: Finding) -> dict[str, Any]:
    return {
        "database": name, "node": f.stream.node, "epoch": f"{f.stream.epoch:x}", "class": f.stream.cls, "seq": f.seq, "what": str(f.what),
        "text": f.text, "more": f.more,
    }  # fmt: skip


# ------------------------------------------------------------ the list


def backups_ls(args: argparse.Namespace) -> int:
    """Every backup that is known."""
    found = Registrar(config_of(args), now_ms).all()
    return show(args, {"backups": found}, found, _COLUMNS, "no backup is registered; see: longshore-hub backup --help")


def register(args: argparse.Namespace) -> int:
    """Before another tool begins."""
    made = Registrar(config_of(args), now_ms).begin(args.tool, args.place)
    if args.json:
        say(made)
    else:
        print(made["id"])
        print(f"now copy the store; then: longshore-hub backups complete {made['id']} (or expire it, if it failed)", file=sys.stderr)
    return 0


def complete(args: argparse.Namespace) -> int:
    """Another tool is done."""
    return _changed(args, Registrar(config_of(args), now_ms).complete(args.id))


def expire(args: argparse.Namespace) -> int:
    """It will never be restored."""
    return _changed(args, Registrar(config_of(args), now_ms).expire(args.id))


def _changed(args: argparse.Namespace, done: dict[str, Any]) -> int:
    if args.json:
        say(done)
        return 0
    print(f"{done['backup']['id']} is {done['backup']['state']}")
    return _tell_expired(done["expired"])


def retention(args: argparse.Namespace) -> int:
    """Expire what is not kept."""
    done = Registrar(config_of(args), now_ms).retention()
    if args.json:
        say(done)
        return 0
    if not done["expired"]:
        print("nothing has to go")
    return _tell_expired(done["expired"])


def _tell_expired(gone: list[dict[str, Any]]) -> int:
    for one in gone:
        manifest = Path(one["place"]) / MANIFEST
        print(f"expired: {one['id']}{', which may now be deleted: ' + one['place'] if manifest.exists() else ''}")
    return 0


# ------------------------------------------------------------ gaps


def gaps(args: argparse.Namespace) -> int:
    """Holes, what heads name beyond them, and what was closed lately."""
    found = ask(args, "/v1/gaps")
    if args.json:
        say(found)
        return 0
    columns = ("node", "epoch", "class", "first", "last", "facts", "since", "asked", "lastAsked")
    for title, rows, more in (
        ("holes, which each receipt asks for", found["holes"], ("branch",)),
        ("named by their nodes and not here yet", found["beyond"], ()),
        ("closed lately", found["closed"][:20], ("closed", "how")),
    ):
        print(f"{title}: {len(rows) or 'none'}")
        table(rows, (*columns, *more))
    return 0
