"""The same answers as the API's, from the files of a hub that does not run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from random import SystemRandom
from typing import Any
from urllib.parse import unquote

from hub import config as settings
from hub import stores, views
from hub.cli_ask import Broken
from hub.config import HubConfig
from hub.core import HubCore, HubIdentity
from hub.device_views import page_json
from hub.devices_api import select
from hub.fleet import Seen, look
from hub.store.port import CentralStore, OrderQuery
from hub.times import as_shown
from hub.workers_files import take_in_register, workers_in_files
from protocols.errors import ConfigError, InvalidInput
from protocols.parameters import page_size
from protocols.sqlite import DataLock, Db
from protocols.trust import NodeKey, verify


def answer(config: HubConfig, path: str, params: Mapping[str, Any]) -> Any:
    """What the API would say at `path`. The data directory's lock is held meanwhile. Errors: ConfigError: there is nothing yet."""
    if path == "/v1/workers":
        return workers_in_files(config)
    of_store = path.startswith(("/v1/orders", "/v1/conflicts"))
    if of_store and not stores.made(config):
        raise ConfigError("This hub has never run: it has no store yet.", remedy=f"Start it: longshore-hub run --config {config.file}")
    with contextlib.ExitStack() as undo:
        undo.callback(DataLock(config.storage.path(settings.LOCK_FILE)).release)
        store = stores.open_reader(config) if of_store else stores.open_writer(config)
        undo.callback(store.close)
        return _from_store(store, path, params) if of_store else _from_look(config, store, path, params)


def _from_store(store: CentralStore, path: str, params: Mapping[str, Any]) -> Any:
    if path.startswith("/v1/conflicts/"):
        one = store.conflict(unquote(path.removeprefix("/v1/conflicts/")))
        if one is None:
            raise Broken("There is no conflict with this id here.", remedy="List them: longshore-hub conflicts")
        return views.conflict_json(one)
    if path == "/v1/conflicts":
        return views.conflicts_json(store.conflicts(open_only=bool(params.get("open"))), store.judged_by())
    if path == "/v1/orders":
        get = params.get
        conflict, held = (True if get(name) else None for name in ("conflict", "held"))
        limit = get("limit") or 50
        page = store.orders(
            OrderQuery(get("site"), get("region"), get("status"), get("q"), get("org"), conflict, get("cursor"), limit, held)
        )
        return {"orders": [views.order_json(one) for one in page.orders], "cursor": page.cursor}
    quoted, _, part = path.removeprefix("/v1/orders/").partition("/")
    return _order(store, unquote(quoted), params.get("org"), part)


def _order(store: CentralStore, order_id: str, org: str | None, part: str) -> Any:
    found = [view for view in store.find(order_id) if org in (None, view.org)]
    if not found:
        raise Broken("No order with this id has been heard of here.", remedy="Search for a fragment of it: longshore-hub orders --q …")
    if len(found) > 1:
        raise InvalidInput("--org", "is needed: several organisations have this order.", allowed=tuple(view.org for view in found))
    view = found[0]
    if part:
        return {"events": [views.event_view_json(one) for one in as_shown(store.events(view.org, view.order_id), {})]}
    return views.order_json(view) | views.disputed_json(store.disputed(view.org, view.order_id))


def _from_look(config: HubConfig, store: CentralStore, path: str, params: Mapping[str, Any]) -> Any:
    """Opened as a hub opens them (a file of an older version goes forward), but nothing is written."""
    now_ms = time.time_ns() // 1_000_000
    key = NodeKey.load(config.key_file)
    db = Db(config.storage.path(settings.LEDGER_FILE))
    try:
        identity = HubIdentity(config.hub.org, config.hub.region, config.hub.node, key.public)
        core = HubCore(db, identity, key.sign, verify, SystemRandom())
        core.begin()
        core.take_statement(store.statement(None), whole=True)
        take_in_register(config, core, now_ms)
        if path == "/v1/devices":
            return _devices(core, params)
        seen = look(core, store, now_ms, lambda _: None, 0)
        db.rollback()
    finally:
        db.close()
    return _shown(seen, path)


def _devices(core: HubCore, params: Mapping[str, Any]) -> Any:
    given = {name: str(value) for name, value in params.items() if value is not None}
    limit = page_size(given, 200)
    return page_json(select(core, given, limit), limit)


def _shown(seen: Seen, path: str) -> Any:
    if path == "/v1/fleet":
        return {"fleet": [views.fleet_json(row, seen.at_ms) for row in seen.fleet], "cursor": None}
    if path == "/v1/balance":
        return views.balance_json(seen.balance)
    if path == "/v1/gaps":
        return views.gaps_json(seen.gaps, seen.at_ms)
    if path == "/v1/nodes":
        return {"nodes": seen.nodes, "cursor": None}
    if path == "/v1/refused":
        return {"refused": [views.kept_json(row) for row in seen.refused], "turnedAway": []}
    assert path == "/v1/quarantine", path
    return {"quarantined": [views.kept_json(row) for row in seen.quarantined]}
