"""What the workers of one hub share beside the facts: who lives, who holds which partition of the nodes, and which nodes are admitted.

Kept in the central store and in nobody's memory. A worker lives while its row is renewed, by the store's own clock; a partition belongs to
the process (worker and boot) that its row names, while that lives. Each change of hands raises the row's *fence*, and is made only if the
fence is still the one that was read: of two that reach for a partition one gets it. Every transaction here takes one row's lock first, so
that what is read in it stays true until it ends, and versions of the register are committed in their order.

It is noted when anybody was heard. After a silence that no worker makes who reaches the store, all rows have run out, also those of workers
that live and only could not tell it: for a lease they are spared.

SQLite: a file of its own, beside the store's, so that a renewal is no change to the store; for several workers on one machine, whose clock
is the store's. Both are made anew from what the workers hold when they are lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from protocols.codec import pack, unpack
from protocols.errors import ConfigError, DecodeError, InvalidInput, LedgerError, LongshoreError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.schema import migrate
from protocols.sql import Sql
from protocols.sqlite import Db

_PART: Final = "workers"
_ANEW: Final = "make the edge anew: each node has a key of its own"
SILENCE: Final = 2
"""half a lease without a word of anybody: a worker that lives renews at a third, and no row can run out in less than two thirds of one"""
NODES_A_TURN: Final = 2_000
"""of the register, in one reading"""


class Connection(Sql, Protocol):
    """One connection with transactions of its own. Errors: LedgerBusy, LedgerFull, LedgerBroken."""

    def begin(self) -> None:
        """Begin one."""

    def commit(self) -> None:
        """Durable on return."""

    def rollback(self) -> None:
        """Forget everything since `begin`; harmless without one."""

    def close(self) -> None:
        """Release it. Idempotent."""


class Me(NamedTuple):
    """A process: the worker's name, a number of this start that nobody else has (62 bits of chance), and where its API is, for people."""

    worker: str
    boot: int
    place: str = ""


class WorkerRow(NamedTuple):
    """A worker that lives. `left_ms`: until it counts as dead, if it is not heard; `age_ms`: since it began."""

    worker: str
    boot: int
    place: str
    left_ms: int
    age_ms: int


class PartitionRow(NamedTuple):
    """A partition. `worker` "": nobody's. `lives`: whether that process does; if not it may be taken. `age_ms`: since it changed hands."""

    partition: int
    worker: str
    boot: int
    fence: int
    age_ms: int
    lives: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Everything at one moment. `mine`: is this process's row its own? `nodes_version`: of the newest change to the register. `spares`:
    nobody could be heard until lately, so a worker whose row ran out may well live."""

    workers: tuple[WorkerRow, ...]
    partitions: tuple[PartitionRow, ...]
    mine: bool
    nodes_version: int
    spares: bool = False

    def is_free(self, row: PartitionRow) -> bool:
        """May it be taken? Nobody's, or of a process that is dead: its time to come back is over, or another has its name by now."""
        if row.lives or not self.spares:
            return not row.lives
        return not row.worker or any(w.worker == row.worker for w in self.workers)


class SharedNode(NamedTuple):
    """An admitted node as all workers know it: its card's fields, which organisations it may speak for, when it was admitted."""

    node: str
    public_key: bytes
    org: str
    region: str
    site: str
    password_hash: str
    mosquitto_hash: str
    added_ms: int
    orgs: tuple[str, ...]
    staff: str = ""


class Leases(Protocol):
    """The port. Errors of every method: LedgerError: the store is away or busy; nothing of it is there."""

    def renew(self, me: Me, lease_ms: int) -> Table:
        """This process lives for so long from now. Not where another process that lives has its name: then `mine` is False."""

    def read(self) -> Table:
        """Everything, and nothing is changed."""

    def take(self, me: Me, wanted: Sequence[tuple[int, int]]) -> dict[int, int]:
        """Partitions with the fences that were read: those that are nobody's still, are now this process's. Returns them, with the new
        fences; none where this process does not live."""

    def release(self, me: Me, given: Sequence[tuple[int, int]]) -> None:
        """Give partitions back that are this process's under these fences."""

    def leave(self, me: Me) -> None:
        """This process ends: everything of it is nobody's at once."""

    def admit(self, node: SharedNode) -> None:
        """Take a node into the register, or change it. Errors: InvalidInput: its name or its key is another's."""

    def nodes_since(self, version: int) -> tuple[list[SharedNode], int]:
        """Changes to the register after a version, oldest first, bounded; and the version that they reach."""

    def close(self) -> None:
        """Release it. Idempotent."""


def tables(big: str = "INTEGER", blob: str = "BLOB") -> tuple[str, ...]:
    """The tables, with a database's names for 64 bits and for bytes."""
    return (
        f"CREATE TABLE workers (worker TEXT PRIMARY KEY, boot {big} NOT NULL, place TEXT NOT NULL, since_ms {big} NOT NULL,"
        f" expires_ms {big} NOT NULL)",
        f"CREATE TABLE worker_partitions (part INTEGER PRIMARY KEY, worker TEXT NOT NULL, boot {big} NOT NULL, fence {big} NOT NULL,"
        f" since_ms {big} NOT NULL)",
        f"CREATE TABLE worker_nodes (node TEXT PRIMARY KEY, public_key {blob} NOT NULL UNIQUE, body {blob} NOT NULL,"
        f" version {big} NOT NULL)",
        "CREATE INDEX worker_nodes_version ON worker_nodes (version)",
        f"CREATE TABLE worker_numbers (name TEXT PRIMARY KEY, value {big} NOT NULL)",
        "INSERT INTO worker_numbers VALUES ('nodes', 0)",
    )


TABLES: Final = (tables(),)


class SqlLeases:
    """See `Leases` and the module: over any connection that has the tables. `clock_ms` is the store's own clock."""

    def __init__(self, db: Connection, clock_ms: Callable[[], int], partitions: int) -> None:
        """Errors: ConfigError: the workers of this store have another number of partitions."""
        self._db, self._clock_ms = db, clock_ms
        self._in_transaction(lambda: self._settle(partitions))

    def _settle(self, partitions: int) -> None:
        """Which number of partitions it is, the first worker says."""
        row = self._db.one("SELECT value FROM worker_numbers WHERE name='partitions'")
        if row is None:
            self._db.run("INSERT INTO worker_numbers VALUES ('partitions', ?)", (partitions,))
            self._db.many("INSERT INTO worker_partitions VALUES (?, '', 0, 0, 0)", [(p,) for p in range(partitions)])
        elif int(row[0]) != partitions:
            raise ConfigError(
                f"workers.partitions is {partitions}, the workers of this central store have {int(row[0])}.",
                remedy=f"Set it to {int(row[0])} for each worker.",
            )

    def _in_transaction(self, work: Callable[[], Any]) -> Any:
        self._db.begin()
        try:
            self._db.run("UPDATE worker_numbers SET value = value WHERE name = 'nodes'")  # one lock for all of it
            done = work()
            self._db.commit()
        finally:
            self._db.rollback()  # harmless after a commit
        return done

    # ------------------------------------------------------------ leases

    def renew(self, me: Me, lease_ms: int) -> Table:
        """See `Leases.renew`."""
        done: Table = self._in_transaction(lambda: self._renew(me, lease_ms, self._clock_ms()))
        return done

    def _renew(self, me: Me, lease_ms: int, now_ms: int) -> Table:
        row = self._db.one("SELECT boot, since_ms, expires_ms FROM workers WHERE worker=?", (me.worker,))
        spares = self._after_silence(now_ms, lease_ms)
        mine = row is None or int(row[0]) == me.boot or int(row[2]) <= now_ms
        if mine:
            since_ms = int(row[1]) if row is not None and int(row[0]) == me.boot else now_ms
            self._db.run(
                """INSERT INTO workers VALUES (?, ?, ?, ?, ?) ON CONFLICT (worker) DO UPDATE SET boot=excluded.boot, place=excluded.place,
                     since_ms=excluded.since_ms, expires_ms=excluded.expires_ms""",
                (me.worker, me.boot, me.place, since_ms, now_ms + lease_ms),
            )
        return self._table(now_ms, mine=mine, spares=spares)

    def _after_silence(self, now_ms: int, lease_ms: int) -> bool:
        """Somebody is heard. Was nobody for long until now, or until less than a lease ago?"""
        noted = {name: int(at) for name, at in self._db.query("SELECT name, value FROM worker_numbers WHERE name IN ('heard', 'back')")}
        back = now_ms if now_ms - noted.get("heard", 0) > lease_ms // SILENCE else noted.get("back", 0)
        self._db.many(
            "INSERT INTO worker_numbers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
            [("heard", now_ms), ("back", back)],
        )
        return 0 <= now_ms - back < lease_ms

    def read(self) -> Table:
        """See `Leases.read`."""
        done: Table = self._in_transaction(lambda: self._table(self._clock_ms(), mine=False))
        return done

    def _table(self, now_ms: int, *, mine: bool, spares: bool = False) -> Table:
        workers = tuple(
            WorkerRow(worker, int(boot), place, int(expires) - now_ms, max(0, now_ms - int(since)))
            for worker, boot, place, since, expires in self._db.query(
                "SELECT worker, boot, place, since_ms, expires_ms FROM workers WHERE expires_ms > ? ORDER BY worker", (now_ms,)
            )
        )
        alive = {(w.worker, w.boot): None for w in workers}
        partitions = tuple(
            PartitionRow(int(p), worker, int(boot), int(fence), max(0, now_ms - int(since)), (worker, int(boot)) in alive)
            for p, worker, boot, fence, since in self._db.query(
                "SELECT part, worker, boot, fence, since_ms FROM worker_partitions ORDER BY part"
            )
        )
        version = self._db.one("SELECT value FROM worker_numbers WHERE name='nodes'")
        return Table(workers, partitions, mine, int(version[0]) if version else 0, spares)

    def take(self, me: Me, wanted: Sequence[tuple[int, int]]) -> dict[int, int]:
        """See `Leases.take`."""
        done: dict[int, int] = self._in_transaction(lambda: self._take(me, wanted, self._clock_ms()))
        return done

    def _take(self, me: Me, wanted: Sequence[tuple[int, int]], now_ms: int) -> dict[int, int]:
        if not self._lives(me.worker, me.boot, now_ms):
            return {}
        taken = {}
        for partition, fence in wanted:
            row = self._db.one("SELECT worker, boot, fence FROM worker_partitions WHERE part=?", (partition,))
            if row is None or int(row[2]) != fence or (row[0] and self._lives(row[0], int(row[1]), now_ms)):
                continue
            taken[partition] = fence + 1
            self._db.run(
                "UPDATE worker_partitions SET worker=?, boot=?, fence=?, since_ms=? WHERE part=?",
                (me.worker, me.boot, fence + 1, now_ms, partition),
            )
        return taken

    def _lives(self, worker: str, boot: int, now_ms: int) -> bool:
        found = self._db.one("SELECT 1 FROM workers WHERE worker=? AND boot=? AND expires_ms > ?", (worker, boot, now_ms))
        return found is not None

    def release(self, me: Me, given: Sequence[tuple[int, int]]) -> None:
        """See `Leases.release`."""
        now_ms = self._clock_ms()
        free = "UPDATE worker_partitions SET worker='', boot=0, fence=fence+1, since_ms=? WHERE part=? AND fence=? AND worker=? AND boot=?"
        self._in_transaction(lambda: self._db.many(free, [(now_ms, p, fence, me.worker, me.boot) for p, fence in given]))

    def leave(self, me: Me) -> None:
        """See `Leases.leave`."""

        def work() -> None:
            self._db.run(
                "UPDATE worker_partitions SET worker='', boot=0, fence=fence+1, since_ms=? WHERE worker=? AND boot=?",
                (self._clock_ms(), me.worker, me.boot),
            )
            self._db.run("DELETE FROM workers WHERE worker=? AND boot=?", (me.worker, me.boot))

        self._in_transaction(work)

    # ------------------------------------------------------------ the register of nodes

    def admit(self, node: SharedNode) -> None:
        """See `Leases.admit`."""
        self._in_transaction(lambda: self._admit(node))

    def _admit(self, node: SharedNode) -> None:
        body = pack([node.org, node.region, node.site, node.password_hash, node.mosquitto_hash, node.added_ms, list(node.orgs), node.staff])
        for name, key, known in self._db.query(
            "SELECT node, public_key, body FROM worker_nodes WHERE node=? OR public_key=? ORDER BY node", (node.node, node.public_key)
        ):
            if name != node.node:
                raise InvalidInput(
                    "publicKey", f"this key belongs to {name!r}", remedy="make the edge anew: each node has a key of its own"
                )
            if bytes(key) != node.public_key:
                raise InvalidInput("node", f"the name {name!r} is taken by another key", remedy="give the edge another --node name")
            if bytes(known) == body:
                return
        row = self._db.one("UPDATE worker_numbers SET value = value + 1 WHERE name = 'nodes' RETURNING value")
        assert row is not None
        self._db.run(
            """INSERT INTO worker_nodes VALUES (?, ?, ?, ?)
               ON CONFLICT (node) DO UPDATE SET body=excluded.body, version=excluded.version""",
            (node.node, node.public_key, body, int(row[0])),
        )

    def nodes_since(self, version: int) -> tuple[list[SharedNode], int]:
        """See `Leases.nodes_since`."""
        rows = self._db.query(
            "SELECT node, public_key, body, version FROM worker_nodes WHERE version > ? ORDER BY version LIMIT ?", (version, NODES_A_TURN)
        )
        return [_shared(node, bytes(key), bytes(body)) for node, key, body, _ in rows], int(rows[-1][3]) if rows else version

    def close(self) -> None:
        """See `Leases.close`."""
        self._db.close()


def _shared(node: str, key: bytes, body: bytes) -> SharedNode:
    """Errors: LedgerError: another version wrote it."""
    values: Any = ()
    with contextlib.suppress(DecodeError):
        values = unpack(body, max_bytes=FRAME_WIRE_BYTES)
    if not isinstance(values, list) or len(values) < 7:
        raise LedgerError(f"the register of nodes holds something else for {node!r}", remedy="admit it again")
    org, region, site, password, mosquitto, added_ms, orgs, *more = values
    return SharedNode(node, key, org, region, site, password, mosquitto, added_ms, tuple(orgs), more[0] if more else "")


def sqlite_leases(path: str | Path, clock_ms: Callable[[], int], partitions: int) -> SqlLeases:
    """In a file beside the store's, made where there is none. Errors: LedgerError, ConfigError."""
    db = Db(path)
    try:
        migrate(db, TABLES, part=_PART)
        return SqlLeases(db, clock_ms, partitions)
    except LongshoreError:
        db.close()
        raise
