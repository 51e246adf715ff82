"""Devices as the API, the command and the page show them. Pure."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from protocols.device_index import UNSTATED, Summary
from protocols.errors import InvalidInput
from protocols.event import iso
from protocols.provisioning import NAMES, STATES, Device

Json = dict[str, Any]
SILENT_MS: Final = 86_400_000
"""a device in service that was not heard of for a day"""
SHOWN_STATES: Final = (*NAMES, UNSTATED)
_TONES: Final = {"active": "good", "enrolled": "moving", "new": "plain", "suspended": "stopped", "retired": "called-off", UNSTATED: "plain"}


def device_json(d: Device) -> Json:
    """One device; what nobody said is null. `lastSeenAt`: heard by its gateway; `heardAt`: when the hub took the newest reading."""
    return {
        "node": d.node,
        "device": d.device,
        "state": d.state,
        "mac": d.mac,
        "serial": d.serial,
        "firmware": d.firmware,
        "lastSeenAt": iso(d.seen_ms),
        "heardAt": iso(d.heard_ms),
        "signalDbm": d.signal_dbm,
        "batteryPercent": d.battery_percent,
    }


def summary_json(node: str, seen: Summary | None) -> Json:
    """What `GET /v1/fleet` says of a node's devices: counts, the first of them, and where the others are."""
    seen = seen or Summary(0, {}, 0, 0, 0)
    return {
        "states": seen.states,
        "lowBattery": seen.low_battery,
        "weakSignal": seen.weak_signal,
        "first": [device_json(d) for d in seen.first],
        "url": f"/v1/devices?{urlencode({'node': node})}",
    }


def after(cursor: str | None) -> tuple[str, str]:
    """The key that a cursor names. Errors: InvalidInput."""
    if cursor is None:
        return ("", "")
    node, slash, device = cursor.partition("/")
    if not slash:
        raise InvalidInput("cursor", "is not one of this list.", remedy="Take it from the page before, or leave it out.")
    return node, device


def cursor_of(shown: list[Device], limit: int) -> str | None:
    """Of a page that was asked for with one more than `limit`."""
    return f"{shown[limit - 1].node}/{shown[limit - 1].device}" if len(shown) > limit else None


def check_state(state: str | None) -> str | None:
    """Errors: InvalidInput."""
    if state is not None and state not in SHOWN_STATES:
        raise InvalidInput("state", f"{state!r} is no state of a device.", allowed=SHOWN_STATES)
    return state


def page_json(found: list[Device], limit: int) -> Json:
    """A page; `found` has one more than `limit` where there is a next one."""
    return {"devices": [device_json(d) for d in found[:limit]], "cursor": cursor_of(found, limit)}


def state_chip(d: Device) -> tuple[str, str]:
    """A tone and a word for its state."""
    word = d.state or UNSTATED
    return _TONES.get(word, "plain"), word


def to_look_at(d: Device, now_ms: int) -> list[tuple[str, str]]:
    """What may need a hand: tones and words."""
    serves = any(state.name == d.state and state.serves for state in STATES)
    found = []
    if serves and now_ms - (d.seen_ms if d.seen_ms is not None else d.heard_ms) > SILENT_MS:
        found.append(("away", "silent"))
    if d.low_battery:
        found.append(("bad", "battery low"))
    if d.weak_signal:
        found.append(("late", "signal weak"))
    return found


def headline(told: list[Summary]) -> str:
    """All devices in one sentence."""
    devices, low = sum(one.devices for one in told), sum(one.low_battery for one in told)
    if not devices:
        return "No device was told of yet."
    serving = sum(one.states.get("active", 0) for one in told)
    nodes = f"{len(told):,} {'node' if len(told) == 1 else 'nodes'}"
    batteries = f"; {low:,} with a low battery" if low else ""
    return f"{devices:,} {'device' if devices == 1 else 'devices'} at {nodes}, {serving:,} in service{batteries}."
