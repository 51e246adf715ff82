"""Opening the central store that the configuration names: the one place that knows which engines there are.

A server that does not answer must not hold up whoever else the caller serves: connecting happens in a thread, and who opens waits for it
only for a moment. The connection that comes late is there at the next try.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hub import workers_config
from hub.config import STORE_FILE, HubConfig, Store
from hub.store.apart import ApartStore
from hub.store.leases import Leases, sqlite_leases
from hub.store.port import CentralStore
from hub.store.sqlite import SqliteStore
from protocols.backup import refuse_half_restored
from protocols.errors import LedgerBusy, LedgerError
from protocols.policy import Policies

if TYPE_CHECKING:
    from hub.store.pg import Server

PATIENCE_S: Final = 0.05


def apart(config: HubConfig) -> bool:
    """Does the hub have its store written by a process of its own? Not one that only reads it, nor one of several that write it."""
    if not config.store.sqlite or config.bridge.kafka or config.workers.several:
        return False
    return config.store.process == "own" or (config.store.process == "auto" and len(os.sched_getaffinity(0)) > 1)


def open_writer(config: HubConfig, policies: Policies | None = None, *, holds: Sequence[int] | None = None) -> CentralStore:
    """The store for one that applies. `holds`: where `apart` says so it is opened there, and these descriptors with it. Errors:
    ConfigError: nothing that time mends; LedgerError."""
    judges, required = policies or config.policies(), config.backup.required
    if config.store.sqlite:
        refuse_half_restored(Path(config.storage.data_dir))
        if holds is not None and apart(config):
            return ApartStore(config.storage.path(STORE_FILE), judges, backup_required=required, holds=holds)
        shared = config.bridge.kafka or config.workers.several  # several processes write one file
        return SqliteStore(config.storage.path(STORE_FILE), backup_required=required, policies=judges, shared=shared)
    from hub.store.postgres import PostgresStore  # here, because libpq takes memory and time that a hub with SQLite does not need

    return PostgresStore(server_of(config.store), backup_required=required, policies=judges)


def open_reader(config: HubConfig, policies: Policies | None = None) -> CentralStore:
    """The store for one that only reads, beside those that apply. Errors: ConfigError, LedgerError."""
    judges = policies or config.policies()
    if config.store.sqlite:
        return SqliteStore(config.storage.path(STORE_FILE), read_only=True, policies=judges)
    from hub.store.postgres import PostgresStore

    return PostgresStore(server_of(config.store), read_only=True, backup_required=config.backup.required, policies=judges)


def open_leases(config: HubConfig, clock_ms: Callable[[], int]) -> Leases:
    """What the workers share, in the same engine as the store. `clock_ms`: of this machine, where the store is a file on it.
    Errors: ConfigError, LedgerError."""
    partitions = config.workers.partitions
    if config.store.sqlite:
        return sqlite_leases(config.storage.path(workers_config.FILE), clock_ms, partitions)
    from hub.store.pg_leases import postgres_leases

    return postgres_leases(server_of(config.store), partitions)


def server_of(store: Store) -> Server:
    """Where PostgreSQL is, as the driver's module is told."""
    from hub.store.pg import Server

    return Server(store.dsn, store.password_file, store.sslmode, store.sslrootcert)


def made(config: HubConfig) -> bool:
    """Was there ever a store? Of a server this is not asked."""
    return not config.store.sqlite or config.storage.path(STORE_FILE).exists()


class Patient:
    """Opens what a server may keep waiting. The first time it waits for the answer: what nobody can mend by waiting ends a start."""

    def __init__(self, opening: Callable[[], CentralStore], *, at_once: bool = False, patience_s: float = PATIENCE_S) -> None:
        """`at_once`: it is a file, nobody keeps anybody waiting."""
        self._opening, self._at_once, self._patience_s = opening, at_once, patience_s
        self._try: _Try | None = None
        self._first = True

    def __call__(self) -> CentralStore:
        """The store. Errors: those of the opening; LedgerBusy: it still waits for an answer."""
        if self._at_once:
            return self._opening()
        current = self._try = self._try or _Try(self._opening)
        done = current.wait(None if self._first else self._patience_s)
        self._first = False
        if not done:
            raise LedgerBusy("the central store's server has not answered yet", remedy="it is waited for")
        self._try = None
        return current.result()

    def close(self) -> None:
        """Let go of what came and was not taken. Idempotent."""
        current, self._try = self._try, None
        if current is not None:
            current.abandon()


class _Try:
    """One attempt in a thread of its own, which ends with the connection's own time limit."""

    def __init__(self, opening: Callable[[], CentralStore]) -> None:
        self._opening = opening
        self._store: CentralStore | None = None
        self._error: Exception | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        threading.Thread(target=self._run, name="longshore-store", daemon=True).start()

    def _run(self) -> None:
        try:
            store = self._opening()
        except Exception as error:  # boundary: raised where it was asked for
            self._error = error
        else:
            with self._lock:
                self._store = store
                if self._abandoned:
                    store.close()
        self._over.set()

    def wait(self, seconds: float | None) -> bool:
        return self._over.wait(seconds)

    def result(self) -> CentralStore:
        if self._error is not None:
            raise self._error
        if self._store is None:
            raise LedgerError("the central store was not opened")
        return self._store

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._store is not None:
                self._store.close()
