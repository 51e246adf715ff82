"""`longshore-hub store`: bring the central store forward, check it, make its views anew; and what `init` and `doctor` say of it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hub import config as settings
from hub.backup_files import locked
from hub.cli_ask import config_of, now_ms, say
from hub.config import HubConfig
from hub.store.check import Checked, check
from hub.store.port import CentralStore
from hub.store.rebuild import Rebuildable
from hub.stores import made, open_reader, open_writer, server_of
from protocols.errors import ConfigError, InvalidInput, LedgerError, LongshoreError
from protocols.progress import Progress
from protocols.schema import version
from protocols.sqlite import Db

FAILED: Final = 1
Make = Callable[[Any, str, Any, str, str], argparse.ArgumentParser]
"""`cli._asking`: a command with --json, --config and --dir"""


def add(commands: Any, make: Make) -> None:
    """Add the command to the parser."""
    text = "the central store itself: bring it forward, check it, make its views anew"
    parser = commands.add_parser("store", help=text, description=f"{text[0].upper()}{text[1:]}.")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    make(
        inner, "migrate", store_migrate, "make its tables, or bring them to this version; a hub does so when it starts",
        "longshore-hub store migrate",
    )  # fmt: skip
    make(inner, "check", store_check, "walk every chain of its log, and count; exit 1 if something is wrong", "longshore-hub store check")
    one = make(
        inner, "rebuild", store_rebuild, "make every view anew from the store's own log of facts; ended early, it goes on from there",
        "longshore-hub store rebuild",
    )  # fmt: skip
    one.description = (
        "Folds every order again from the store's log, and finds conflicts and fixes again. No fact is changed. With SQLite the hub must "
        "not run; with PostgreSQL everything may go on meanwhile."
    )


def add_choice(command: argparse.ArgumentParser) -> None:
    """What `init` asks of the store."""
    command.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite", help="the central store (default: %(default)s)")
    command.add_argument("--dsn", default="", metavar="TEXT", help='PostgreSQL: "host=db user=longshore dbname=orders", without a password')
    command.add_argument("--password-file", default="", metavar="FILE", help="PostgreSQL: holds the password; only its owner may read it")
    command.add_argument("--sslmode", default="", choices=settings.SSL_MODES, help="PostgreSQL: TLS (default: the driver's, prefer)")
    command.add_argument("--sslrootcert", default="", metavar="FILE", help="PostgreSQL: authority (PEM) that signed its certificate")


def chosen_store(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a new hub's store, after its server let us in. Errors: InvalidInput, ConfigError; silence is noted."""
    texts = {"dsn": args.dsn, "sslmode": args.sslmode}
    texts |= {name: str(Path(given).absolute()) if given else "" for name, given in _files(args).items()}
    if args.store == "sqlite":
        given = next((name for name, text in texts.items() if text), None)
        if given is not None:
            raise InvalidInput(f"--{given.replace('_', '-')}", "is of PostgreSQL.", remedy="Add --store postgres.")
        return {}
    store = settings.Store("postgres", **texts)
    settings.check_store(store)
    _let_in(store)
    return {"store.kind": "postgres", **{f"store.{name}": text for name, text in texts.items() if text}}


def _files(args: argparse.Namespace) -> dict[str, str]:
    return {"password_file": args.password_file, "sslrootcert": args.sslrootcert}


def _let_in(store: settings.Store) -> None:
    from hub.store.postgres import PostgresStore

    try:
        PostgresStore(server_of(store)).close()
    except LedgerError as error:
        print(f"note: {error.reason}; the hub will try by itself", file=sys.stderr)


def store_finding(config: HubConfig) -> tuple[bool, str, str]:
    """For `doctor`: is it there, what it says, what to do."""
    try:
        store = open_reader(config)
    except LongshoreError as error:
        return False, error.reason, error.remedy
    try:
        totals = store.totals()
    except LongshoreError as error:
        return False, error.reason, error.remedy
    finally:
        store.close()
    return True, f"{server_of(config.store).place()} answers; {totals['orders']:,} orders", ""


# ------------------------------------------------------------ commands


@contextlib.contextmanager
def _writing(config: HubConfig) -> Iterator[CentralStore]:
    """A store in a file has one writer; one on a server takes several."""
    with locked(config) if config.store.sqlite else contextlib.nullcontext():
        store = open_writer(config)
        try:
            yield store
        finally:
            store.close()


def _version(config: HubConfig) -> int:
    if config.store.sqlite:
        if not made(config):
            return 0
        db = Db(config.storage.path(settings.STORE_FILE), read_only=True)
        try:
            return version(db, "store")
        finally:
            db.close()
    from hub.store import pg, pg_schema

    server = pg.Pg(server_of(config.store))
    try:
        return pg_schema.version(server)
    finally:
        server.close()


def store_migrate(args: argparse.Namespace) -> int:
    """Bring it to this version."""
    config = config_of(args)
    had = _version(config)
    with _writing(config):
        has = _version(config)
    if args.json:
        say({"had": had, "has": has})
    elif had == has:
        print(f"the store is of version {has} already")
    else:
        print(f"the store is of version {has} now; it was {f'of version {had}' if had else 'not made yet'}")
    return 0


def store_check(args: argparse.Namespace) -> int:
    """Walk it."""
    config = config_of(args)
    if not made(config):
        raise ConfigError("This hub has never run: it has no store yet.", remedy=f"Start it: longshore-hub run --config {config.file}")
    store = open_reader(config)
    try:
        done = check(store, _progress())
    finally:
        store.close()
    return _tell_checked(done, as_json=args.json)


def _tell_checked(done: Checked, *, as_json: bool) -> int:
    if as_json:
        say({"ok": not done.wrong, "facts": done.facts, "streams": done.streams, "troubles": done.wrong})
    else:
        for text in done.wrong:
            print(f"BAD  {text}")
        outcome = f"{len(done.wrong)} troubles" if done.wrong else "every chain is whole"
        print(f"walked {done.facts:,} facts in {done.streams:,} streams: {outcome}")
    return FAILED if done.wrong else 0


def store_rebuild(args: argparse.Namespace) -> int:
    """Make the views anew."""
    config = config_of(args)
    if not made(config):
        raise ConfigError("This hub has never run: it has no store yet.", remedy=f"Start it: longshore-hub run --config {config.file}")
    with _writing(config) as store:
        rebuilds: Rebuildable = store  # type: ignore[assignment]
        orders = rebuilds.rebuild(now_ms(), _progress())
    if args.json:
        say({"orders": orders})
    else:
        print(f"{orders:,} orders folded from the log")
    return 0


def _progress() -> Progress:
    return Progress(time.monotonic, lambda text: print(text, file=sys.stderr))
