"""`longshore-edge doctor`: everything an edge needs, looked at one by one. Changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from edge_agent.client import api_of
from edge_agent.config import EdgeConfig, load_config
from edge_agent.report import duration, size
from protocols.errors import ConfigError, InvalidInput, LedgerBusy, LongshoreError
from protocols.event import format_time
from protocols.kernel_clock import KernelClock
from protocols.sqlite import DataLock, Db
from protocols.transport.port import Down, Event, Transport, Up
from protocols.transport.refusals import REMEDIES, Refusal
from protocols.trust import NodeCard, NodeKey, parse_card, read_secret

BUILT_AFTER_MS: Final = 1_735_689_600_000
"""2025-01-01: an earlier clock was never set"""
SKEW_MS: Final = 60_000
LITTLE_BYTES: Final = 50_000_000
BROKER_S: Final = 8.0


class Verdict(Enum):
    """What a check came to. Only WRONG makes the command fail."""

    FINE = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return {"check": self.name, "verdict": self.verdict.value, "text": self.text} | ({"remedy": self.remedy} if self.remedy else {})

    def as_text(self) -> str:
        """One line. What is wrong reads as in every other command, here and at the hub."""
        return f"{'BAD' if self.verdict is Verdict.WRONG else self.verdict.value:5}  {self.name:14} {self.text} {self.remedy}".rstrip()


@dataclass(slots=True)
class _Scene:
    """What the checks share: the configuration, and whether an edge runs on it."""

    config: EdgeConfig
    status: dict[str, Any] | None = None
    held: bool = False


def examine(config_file: str, environ: Mapping[str, str]) -> list[Check]:
    """All checks; after a configuration that cannot be read there is nothing more to look at."""
    try:
        config = load_config(config_file, environ)
    except ConfigError as error:
        return [_wrong("configuration", error)]
    checks = [Check("configuration", Verdict.FINE, str(config.file))]
    scene = _Scene(config)
    for name, look in _CHECKS.items():
        try:
            checks.append(look(scene))
        except LongshoreError as error:
            checks.append(_wrong(name, error))
    return checks


def _wrong(name: str, error: LongshoreError) -> Check:
    return Check(name, Verdict.WRONG, error.reason, error.remedy)


def _running(scene: _Scene) -> Check:
    """Whether an edge runs here decides how the ledger and the port are looked at."""
    try:
        DataLock(scene.config.storage.lock_file).release()
        return Check("process", Verdict.FINE, "no edge runs on this data")
    except LedgerBusy:
        scene.held = True
    with api_of(scene.config) as api:
        scene.status = api.get("/v1/status")
    return Check("process", Verdict.FINE, f"an edge runs here, at {api.url}, for {duration(scene.status['uptimeMs'])}")


def _directory(scene: _Scene) -> Check:
    folder = Path(scene.config.storage.ledger_file).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("directory", Verdict.WRONG, f"{folder} is not writable.", "Make it writable for the user that runs the edge.")
    return Check("directory", Verdict.FINE, f"{folder} is writable")


def _disk(scene: _Scene) -> Check:
    ledger = Path(scene.config.storage.ledger_file)
    if not ledger.parent.exists():
        return Check("disk", Verdict.WRONG, f"{ledger.parent} does not exist.")
    free = shutil.disk_usage(ledger.parent).free
    used = ledger.stat().st_size if ledger.exists() else 0
    left = max(0, scene.config.storage.budget_bytes - used)
    if free < LITTLE_BYTES:
        return Check("disk", Verdict.WRONG, f"only {size(free)} are free.", "Make room; a full disk refuses events (507).")
    if free < left:
        return Check(
            "disk", Verdict.NOTE, f"{size(free)} are free, less than the budget leaves ({size(left)}).", "Lower storage.budget_bytes."
        )
    return Check("disk", Verdict.FINE, f"{size(free)} are free, the budget leaves {size(left)}")


def _clock(scene: _Scene) -> Check:
    now = time.time_ns() // 1_000_000
    if now < BUILT_AFTER_MS:
        return Check(
            "clock", Verdict.WRONG, f"says {format_time(max(0, now))}: it was never set.", "Set it, or let the board ask the network."
        )
    said = scene.status["clock"] if scene.status else {}
    skew = said.get("skewMs") if said.get("offsetMs") is None else said["offsetMs"]
    if said.get("quality") == "unset":
        stamped = format_time(said["recordsMs"])
        return Check("clock", Verdict.NOTE, f"says {format_time(now)}, before {stamped}, which has passed; facts are marked.", "Set it.")
    if skew is not None and abs(skew) > SKEW_MS:
        how = "ahead of" if skew > 0 else "behind"
        return Check("clock", Verdict.NOTE, f"is {duration(abs(skew))} {how} the hub's; facts keep the time that this one says.", "Set it.")
    kept = KernelClock().synchronised(0)
    how_kept = {True: ", kept in step", False: ", kept in step by nothing (run an NTP client)", None: ""}[kept]
    return Check("clock", Verdict.FINE, f"says {format_time(now)}" + ("" if skew is None else ", as the hub's does") + how_kept)


def _key(scene: _Scene) -> Check:
    config = scene.config
    key = NodeKey.load(config.storage.key_file)
    card = _read_card(Path(config.storage.card_file))
    if card.public_key != key.public:
        return Check("key", Verdict.WRONG, "node.key and the card are not of one node.", "Restore the one that was lost from your copy.")
    a = config.address
    if (card.node, card.org, card.region, card.site) != (a.node, a.org, a.region, a.site):
        return Check(
            "key", Verdict.WRONG, f"the card is of {card.org}/{card.region}/{card.site}/{card.node}, the configuration of another."
        )
    read_secret(config.storage.password_file, what="broker password")
    return Check("key", Verdict.FINE, f"{card.fingerprint}, as on the card")


def _read_card(path: Path) -> NodeCard:
    try:
        return parse_card(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.", remedy="Restore the card from your copy, or from the hub.") from None
    except (ValueError, InvalidInput) as error:
        raise ConfigError(f"{path} is not a node card: {error}.") from None


def _ledger(scene: _Scene) -> Check:
    path = Path(scene.config.storage.ledger_file)
    if scene.held:
        if scene.status is None:
            return Check("ledger", Verdict.NOTE, "is held by a process that does not answer, and was not looked at.")
        ready = scene.status["ready"]
        return Check(
            "ledger",
            Verdict.FINE if ready else Verdict.WRONG,
            "is open and takes events" if ready else "is open and takes no events: it is full.",
        )
    if not path.exists():
        return Check("ledger", Verdict.FINE, "is not there yet; the first run makes it")
    db = Db(path)
    try:
        found = db.damage(5, quick=True)
    finally:
        db.close()
    if found:
        return Check(
            "ledger",
            Verdict.WRONG,
            f"{path} is damaged: {'; '.join(found)}.",
            "Keep a copy, and read RELIABILITY about repair from the hub.",
        )
    return Check("ledger", Verdict.FINE, f"{path}, {size(path.stat().st_size)}, is sound")


def _port(scene: _Scene) -> Check:
    from edge_agent.serve import bind

    api = scene.config.api
    if scene.held:
        return Check("port", Verdict.FINE, "is the running edge's")
    bind(api.host, api.port).close()
    return Check("port", Verdict.FINE, f"{api.host}:{api.port} is free" if api.port else f"a free one on {api.host} will be taken")


def _http(scene: _Scene) -> Check:
    """The line over HTTP, where that is configured instead of a broker."""
    from edge_agent.serve import http_maker

    url = scene.config.hub.url
    said = _first_word(http_maker(scene.config)(0))
    if isinstance(said, Up):
        return Check("broker", Verdict.FINE, f"{url} syncs with this node; no broker is used")
    reason = said.reason if isinstance(said, Down) else "no answer in time"
    return Check("broker", Verdict.WRONG, f"{url}: {reason}.", "Does it run there, and know this node? Capturing works without it.")


def _broker(scene: _Scene) -> Check:
    if scene.config.hub.url:
        return _http(scene)
    from edge_agent.serve import mqtt_settings
    from protocols.transport.mqtt import MqttTransport

    to = scene.config.hub_address
    said = _first_word(MqttTransport(mqtt_settings(scene.config), subscriptions=scene.config.address.subscriptions()))
    if isinstance(said, Up):
        return Check("broker", Verdict.FINE, f"{to.host}:{to.port} let this node in{' over TLS' if to.tls else ' (no TLS: loopback)'}")
    reason = said.reason if isinstance(said, Down) else "no answer in time"
    return Check("broker", Verdict.WRONG, f"{to.host}:{to.port}: {reason}.", f"{_remedy(said)} Capturing works without it.")


def _remedy(said: Event | None) -> str:
    refusal = said.refusal if isinstance(said, Down) else None
    if refusal is None:
        return "Does the hub run there?"
    if refusal in (Refusal.CREDENTIALS, Refusal.ACL):
        return "Has `longshore-hub nodes add` seen this card? Mosquitto must then be told: `longshore-hub broker passwords`, `broker acl`."
    return REMEDIES[refusal]


def _first_word(transport: Transport) -> Event | None:
    """Whether a line comes up, or why not."""
    told = threading.Event()
    words: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, Up | Down) and not told.is_set():
            words.append(event)
            told.set()

    transport.start(listen)
    told.wait(BROKER_S)
    transport.stop()
    return words[0] if words else None


_CHECKS: Final[dict[str, Callable[[_Scene], Check]]] = {
    "process": _running,
    "directory": _directory,
    "disk": _disk,
    "clock": _clock,
    "key": _key,
    "ledger": _ledger,
    "port": _port,
    "broker": _broker,
}
