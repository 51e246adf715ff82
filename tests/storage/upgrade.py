"""A database of version 1 is brought forward, and the power goes on the way: it is of one version or the other, and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hub.registry import REGISTRY, Registry
from hub.store.schema import STORE
from hub.store.sqlite import SqliteStore
from protocols.ledger import Ledger
from protocols.schema import LEDGER, migrate, version
from protocols.sqlite import Db
from tests.golden.databases import contents, make
from tests.storage.cuts import Cutter, Plan, Tally
from tests.storage.disk import CrashVfs
from tests.storage.film import Watched
from tests.storage.verify import demand
from tests.storage.world import Yes, machine

NEXT: Final = (
    "CREATE TABLE of_the_next_version (x INTEGER PRIMARY KEY, at_ms INTEGER)",
    "INSERT INTO of_the_next_version SELECT rowid, 1 FROM (SELECT row_number() OVER () AS rowid FROM streams)",
    "ALTER TABLE streams ADD COLUMN of_the_next_version INTEGER NOT NULL DEFAULT 7",
    "CREATE INDEX next_version ON of_the_next_version (at_ms)",
)
"""a step that no release has: there is one to take whatever the newest version is"""
NODES: Final = {"edge": "w8-madrid", "hub": "hub-emea"}
KINDS: Final = ("edge", "hub", "store")


def bring_forward(kind: str, db: Db) -> None:
    """As the product does it, and one step more."""
    if kind == "store":
        SqliteStore(db)
    else:
        Ledger(db, node=NODES[kind], new_epoch=contents.no_epoch)
    if kind == "hub":
        Registry(db)
    migrate(db, (NEXT,), part="proof")


def cut_upgrade(vfs: CrashVfs, folder: Path, kind: str, plan: Plan) -> Tally:
    """Cut the upgrade of the golden database of version 1 at every point."""
    old = Path(make.__file__).parent / f"v1-{kind}.db"
    on = machine(vfs, folder, files={"old.db": old.read_bytes()})
    db = on.open("old.db")
    facts = _facts(db)
    bring_forward(kind, db)
    db.close()

    def go_on(dbs: dict[str, Watched], _: list[Yes]) -> None:
        again = dbs["old.db"]
        demand(_facts(again) == facts, "lost", "facts of version 1")
        bring_forward(kind, again)
        part, newest = ("store", len(STORE)) if kind == "store" else ("ledger", len(LEDGER))
        demand(version(again, part) == newest, "half", f"{kind} is of version {version(again, part)}")
        demand(again.one("SELECT min(of_the_next_version) FROM streams") == (7,), "half", "the step after it")
        demand(kind != "hub" or version(again, "registry") == len(REGISTRY), "half", "the registry")
        demand(_facts(again) == facts, "lost", "facts of version 1, brought forward")

    cutter = Cutter(f"upgrade-{kind}", on, plan, go_on)
    cutter.reads = False
    return cutter.run()


def _facts(db: Db) -> list[tuple[int, int, bytes, bytes]]:
    return [(sid, seq, bytes(h), bytes(row)) for sid, seq, h, row in db.query("SELECT sid, seq, h, row FROM log ORDER BY sid, seq, h")]
