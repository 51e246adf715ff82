"""An edge's ledger for a command line: through the process that runs, or straight from disk, under its lock, where none runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

from edge_agent import __version__
from edge_agent.client import LocalApi, api_of
from edge_agent.config import EdgeConfig
from edge_agent.core import EdgeCore
from edge_agent.runtime import system_now
from protocols.backup import refuse_half_restored
from protocols.errors import LedgerBusy, TransportError
from protocols.quarantine_view import list_json
from protocols.sqlite import DataLock, Db
from protocols.trust import NodeKey, verify

QUARANTINE_SHOWN = 100


@contextmanager
def whoever_holds(config: EdgeConfig) -> Iterator[EdgeCore | LocalApi]:
    """The core, alone on its data, or the API of the process that holds it. Errors: LedgerBusy: held by one that has no API."""
    try:
        lock = DataLock(config.storage.lock_file)
    except LedgerBusy as error:
        with _running(config, error) as api:
            yield api
        return
    try:
        refuse_half_restored(Path(config.storage.ledger_file).parent)
        with _core(config) as core:
            yield core
    finally:
        lock.release()


@contextmanager
def _running(config: EdgeConfig, busy: LedgerBusy) -> Iterator[LocalApi]:
    with api_of(config) as api:
        try:
            api.get("/healthz")
        except TransportError as error:
            raise LedgerBusy(f"{busy.reason}, which does not answer at {api.url}", remedy="Wait until it does, or stop it.") from error
        yield api


@contextmanager
def _core(config: EdgeConfig) -> Iterator[EdgeCore]:
    key = NodeKey.load(config.storage.key_file)
    db = Db(config.storage.ledger_file)
    try:
        core = EdgeCore(db, config.identity(__version__), key.sign, verify, SystemRandom(), config.core_settings())
        core.check_budget()
        yield core
    finally:
        db.rollback()
        db.close()


def look(config: EdgeConfig) -> dict[str, Any]:
    """`{"running", "status", "quarantine"}`, wherever they come from; looking makes no ledger where there is none."""
    if not Path(config.storage.ledger_file).exists():
        status = {
            "queue": {"events": 0, "bytes": 0, "oldestAgeMs": None, "notReceived": 0, "quarantined": 0},
            "streams": [],
            "link": {"refused": 0},
        }
        return {"running": False, "status": status, "quarantine": []}
    with whoever_holds(config) as held:
        if isinstance(held, LocalApi):
            quarantine = held.get(f"/v1/quarantine?limit={QUARANTINE_SHOWN}&state=open")["quarantine"]
            return {"running": True, "status": held.get("/v1/status"), "quarantine": quarantine}
        quarantine = list_json(held.ledger, QUARANTINE_SHOWN, "open")
        return {"running": False, "status": held.status(system_now()), "quarantine": quarantine}
