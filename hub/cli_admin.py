"""Commands that make or change something: `init`, `nodes add`, `run`, `doctor`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple
from urllib.parse import urlencode

from hub import config as settings
from hub import loop
from hub.broker_listen import why_not
from hub.cli_ask import client_of, config_of, is_running, say
from hub.cli_store import chosen_store, store_finding
from hub.config import HubConfig
from hub.core import HubCore, HubIdentity
from protocols.errors import ConfigError, InvalidInput, LongshoreError
from protocols.event import load_json
from protocols.kernel_clock import KernelClock
from protocols.limits import FRAME_WIRE_BYTES
from protocols.sqlite import DataLock, Db
from protocols.starting import stays, uncollected
from protocols.topics import check_level, check_node
from protocols.trace_log import said_of, switch
from protocols.trust import NodeCard, NodeKey, fingerprint, narrow, new_token, parse_card, token_hash, verify, write_secret

# ------------------------------------------------------------------ init


def init(args: argparse.Namespace) -> int:
    """Make a hub in a new folder. Nothing that exists is ever overwritten."""
    check_level(args.org, "--org")
    check_level(args.region, "--region")
    check_node(args.node, "--node")
    folder = Path(args.dir)
    given = {"api": args.api_port, "broker": args.broker_port}
    at = {name: settings.default_port(name) if port is None else port for name, port in given.items()}
    settings.check_ports(("", at["api"]), ("", at["broker"]))
    store = chosen_store(args)
    _claim(folder)
    key = NodeKey.generate()
    key.save(folder / settings.KEY_FILE)
    token = new_token()
    write_secret(folder / settings.TOKEN_FILE, token + "\n", what="API token")
    chosen: dict[str, Any] = {"hub.org": args.org, "hub.region": args.region, "hub.node": args.node, "api.token_hashes": token_hash(token)}
    chosen |= store
    if args.loopback_without_token:
        chosen["api.loopback_without_token"] = True
    ports = {"api.port": args.api_port, "broker.port": args.broker_port}
    chosen |= {name: port for name, port in ports.items() if port is not None}
    file = folder / settings.FILE
    file.write_text(settings.new_file(chosen), "utf-8")
    config = settings.read_config(file, {})
    address = settings.hub_address(config, key.public, config.broker.port) if config.broker.port else None
    _tell_init(args, config, key, address)
    return 0


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{folder} is a file, not a folder.", remedy="Name another folder.") from None
    except OSError as error:
        raise ConfigError(f"Cannot make {folder}: {error.strerror}.", remedy="Name a folder that may be written.") from None
    for name in (settings.FILE, settings.KEY_FILE, settings.TOKEN_FILE, settings.LEDGER_FILE):
        if (folder / name).exists():
            raise ConfigError(f"{folder} already holds a hub ({name}).", remedy="Name another folder; a hub is never overwritten.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} may not be written.", remedy="Name a folder that may be written.")
    wide = narrow(folder)
    if wide:
        print(f"note: {wide}", file=sys.stderr)


def _tell_init(args: argparse.Namespace, config: HubConfig, key: NodeKey, address: str | None) -> None:
    if args.json:
        say(
            {
                "dir": str(args.dir),
                "config": str(config.file),
                "address": address,
                "fingerprint": fingerprint(key.public),
                "node": config.hub.node,
            }
        )
        return
    where = address or "(printed by `run`, once the broker has its port)"
    print(f"made a hub in {args.dir}: hub.toml, hub.key and api.token (keep the last two secret)")
    print(f"ADDRESS      {where}")
    print(f"fingerprint  {fingerprint(key.public)}")
    print("next:")
    print(f"  longshore-edge init edge --node dock-7 --site SITE --region REGION --hub '{address or 'ADDRESS'}'")
    print(f"  longshore-hub nodes add edge/node.card.json --dir {args.dir}")
    print(f"  longshore-hub run --config {config.file}")


# ------------------------------------------------------------------ nodes add


def nodes_add(args: argparse.Namespace) -> int:
    """Admit a node: through the running hub, or into its files where it does not run."""
    card = _read_card(args.card)
    parsed = parse_card(card)
    config = config_of(args)
    if is_running(config):
        path = "/v1/nodes" + (f"?{urlencode({'org': ','.join(args.org)})}" if args.org else "")
        added = client_of(config).post(path, card)
    else:
        added = _add_to_files(config, parsed, args.org)
    if args.json:
        say(added)
    else:
        print(f"admitted {parsed.node} ({parsed.org}, {parsed.region}, {parsed.site}), key {parsed.fingerprint}")
    return 0


def _read_card(name: str) -> Any:
    remedy = "Give the node.card.json that `longshore-edge init` wrote."
    try:
        data = sys.stdin.buffer.read(FRAME_WIRE_BYTES) if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise InvalidInput(name, "no such file.", remedy=remedy) from None
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).", remedy=remedy) from None
    return load_json(data, "standard input" if name == "-" else name, remedy)


def _add_to_files(config: HubConfig, card: NodeCard, orgs: Sequence[str] | None) -> dict[str, Any]:
    from hub.fleet import node_json
    from hub.workers_files import tell_register

    now_ms = time.time_ns() // 1_000_000
    key = NodeKey.load(config.key_file)
    lock = DataLock(config.storage.path(settings.LOCK_FILE))
    try:
        db = Db(config.storage.path(settings.LEDGER_FILE))
        try:
            core = HubCore(
                db, HubIdentity(config.hub.org, config.hub.region, config.hub.node, key.public), key.sign, verify, SystemRandom()
            )
            core.begin()
            node = core.take_card(card, now_ms, orgs)
            tell_register(config, card, node.orgs, now_ms)
            core.commit()
        finally:
            db.close()
    finally:
        lock.release()
    return node_json(node)


# ------------------------------------------------------------------ run


def run(args: argparse.Namespace) -> int:
    """Run the hub."""
    config = config_of(args)
    start_log(config, as_json=args.json)
    loop.run(_serve(config, args.json))
    return 0


async def _serve(config: HubConfig, as_json: bool) -> None:
    with uncollected():
        from hub.runtime import Hub, serve

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(hub: Hub) -> None:
        stays()
        host = f"[{config.api.host}]" if ":" in config.api.host else config.api.host
        url = f"http://{host}:{hub.api_port}"
        if as_json:
            line = json.dumps({"ready": url, "apiPort": hub.api_port, "brokerPort": hub.broker_port, "address": hub.address})
        else:
            line = f"ready: {url} broker {config.broker.host}:{hub.broker_port} address {hub.address}"
        print(line, flush=True)

    await serve(config, ready=ready, stop=stop)


def start_log(config: HubConfig, *, as_json: bool) -> None:
    """Log to standard error, as configured."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if as_json or config.log.format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=config.log.level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    switch(config.log.trace)


class _JsonLines(logging.Formatter):
    """One JSON object a line, for the journal."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "atMs": int(record.created * 1_000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **said_of(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


# ------------------------------------------------------------------ doctor


class Finding(NamedTuple):
    """One thing that was looked at. `ok` False makes the command fail; `remedy` says what to do."""

    what: str
    ok: bool
    text: str
    remedy: str = ""


def doctor(args: argparse.Namespace) -> int:
    """Look at everything that keeps a hub from running well."""
    findings = list(_findings(args))
    bad = [f for f in findings if not f.ok]
    if args.json:
        say({"ok": not bad, "findings": [f._asdict() for f in findings]})
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'BAD '} {f.what:<14} {f.text}{'' if f.ok or not f.remedy else f' -> {f.remedy}'}")
    return 1 if bad else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = config_of(args)
    except LongshoreError as error:
        yield Finding("configuration", False, error.reason, error.remedy)
        return
    yield Finding("configuration", True, str(config.file))
    yield _tried("key", lambda: fingerprint(NodeKey.load(config.key_file).public))
    yield _tried("token", lambda: "readable by its owner only" if settings.read_token(config) else "")
    running = is_running(config)
    yield Finding("process", True, "the hub runs" if running else "the hub does not run")
    yield from _disk(config)
    yield _clock()
    if running:
        yield from _of_running(config)
    else:
        yield _port_free("api port", config.api.host, config.api.port)
        if config.broker.embedded:
            yield _port_free("broker port", config.broker.host, config.broker.port)
    if not config.broker.embedded:
        yield _reachable(config)
    if not config.store.sqlite:
        yield Finding("store", *store_finding(config))
    if config.bridge.kafka:
        yield from _kafka(config)


def _kafka(config: HubConfig) -> Iterator[Finding]:
    from hub.cli_bridge import kafka_seen

    try:
        yield from (Finding("kafka", *found) for found in kafka_seen(config))
    except LongshoreError as error:  # a file of [bridge] that cannot be read
        yield Finding("kafka", False, error.reason, error.remedy)


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except LongshoreError as error:
        return Finding(what, False, error.reason, error.remedy)


def _disk(config: HubConfig) -> Iterator[Finding]:
    folder = Path(config.storage.data_dir)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("data directory", False, f"{folder} cannot be written", "set storage.data_dir, or change its owner")
        return
    free = shutil.disk_usage(folder).free
    enough = free >= 500_000_000
    yield Finding(
        "disk", enough, f"{free / 1e9:.1f} GB free in {folder}", "" if enough else "make room: the hub stops taking facts when it is full"
    )


def _clock() -> Finding:
    now_s = time.time()
    sane = 1_735_689_600 < now_s < 4_102_444_800  # 2025 to 2100
    kept = KernelClock().synchronised(0)
    how = {True: ", kept in step", False: ", kept in step by nothing: nodes go by this clock, so run an NTP client", None: ""}[kept]
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)) + how
    return Finding("clock", sane, text, "" if sane else "set the clock, and run an NTP client")


def _port_free(what: str, host: str, port: int) -> Finding:
    if port == 0:
        return Finding(what, True, "a free one is taken at each start")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        return Finding(what, False, f"{host}:{port}: {why_not(error)}", "choose another port, or end what uses it")
    return Finding(what, True, f"{host}:{port} is free")


def _reachable(config: HubConfig) -> Finding:
    """Does the external broker let this hub in?"""
    from hub.line import password_of, try_line, weakness_of

    where = f"{config.broker.host}:{config.broker.port}"
    why, remedy = try_line(config.broker)
    if why:
        return Finding("broker", False, f"{where}: {why}", remedy or "start the broker, or correct [broker]")
    weak = weakness_of(password_of(config.broker))
    if weak:
        return Finding("broker", False, f"{where} let this hub in, but {weak}", "Choose a longer one: openssl rand -base64 24")
    return Finding("broker", True, f"{where} let this hub in{' over TLS' if config.broker.tls else ''}")


def _of_running(config: HubConfig) -> Iterator[Finding]:
    try:
        client = client_of(config)
        health = client.get("/readyz", fine=(200, 503))
        balance = client.get("/v1/balance")
    except LongshoreError as error:  # a token that others may read, no answer, a refusal: a finding like any other
        yield Finding("api", False, error.reason, error.remedy)
        return
    yield Finding("ready", bool(health["ready"]), "; ".join(health["reasons"]) or "everything is there")
    row = balance["fleet"]
    off = row["balanced"] is False
    yield Finding("balance", not off, row["sentence"], "see: longshore-hub balance" if off else "")
    for found in health.get("findings", []):
        text, _, remedy = found.partition(": ")
        if text == "balance":
            yield Finding("balance", False, remedy, "see: longshore-hub gaps, and longshore-hub audit")
            continue
        yield Finding("registry", False, text, remedy)
