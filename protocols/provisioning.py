"""Devices in service: the states that one goes through, what a provisioning record must say, and what is known of a device in all.

A reading of kind `provisioning` is a record of who a device is: its state, and at least one name that its maker gave it, so that a device
that is exchanged under the same id is seen. All other readings may add to it: of each word the latest reading that has it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocols.errors import InvalidInput

KIND: Final = "provisioning"


@dataclass(frozen=True, slots=True)
class State:
    """One row of the table of states. `serves`: it is expected to be heard of. `watched`: a low battery or a weak signal is somebody's
    business."""

    name: str
    meaning: str
    serves: bool
    watched: bool


STATES: Final = (
    State("new", "known by name, nothing was done with it yet", False, True),
    State("enrolled", "it has its identity and its place, and waits for work", False, True),
    State("active", "in service", True, True),
    State("suspended", "taken out of service for a while: lost, damaged, or in the wrong hands", False, False),
    State("retired", "out of service for good", False, False),
)
UNWATCHED: Final = tuple(state.name for state in STATES if not state.watched)
NAMES: Final = tuple(state.name for state in STATES)
MAKERS: Final = ("mac", "serial")
LOW_BATTERY_PERCENT: Final = 20
WEAK_SIGNAL_DBM: Final = -85


def check_record(values: Mapping[str, object], where: str) -> None:
    """A reading of kind `provisioning` says what it must. Errors: InvalidInput naming the word that is missing below `where`."""
    if "provisioning" not in values:
        raise InvalidInput(f"{where}.provisioning", "is required in a provisioning record.", remedy="Say its state.", allowed=NAMES)
    if not any(name in values for name in MAKERS):
        raise InvalidInput(
            f"{where}.serial",
            "is required in a provisioning record, or mac is.",
            remedy="Say its serial number, its hardware address, or both.",
        )


# ------------------------------------------------------------------ what is known of a device


@dataclass(frozen=True, slots=True)
class Told:
    """The latest reading of one kind. `place`: its (stream, seq), by which its author's readings are ordered; never a clock."""

    kind: str
    place: tuple[int, int]
    happened_ms: int | None
    taken_ms: int
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its gateway told of it. `heard_ms`: when the newest reading came here, by this machine's clock; `seen_ms`: when the
    device was last heard by its gateway, as that says. What nobody said is None."""

    node: str
    device: str
    heard_ms: int
    seen_ms: int | None
    state: str | None
    mac: str | None
    serial: str | None
    firmware: str | None
    signal_dbm: int | None
    battery_percent: int | None

    @property
    def low_battery(self) -> bool:
        """It will be silent soon."""
        return self.state not in UNWATCHED and self.battery_percent is not None and self.battery_percent < LOW_BATTERY_PERCENT

    @property
    def weak_signal(self) -> bool:
        """It may be silent now and then."""
        return self.state not in UNWATCHED and self.signal_dbm is not None and self.signal_dbm < WEAK_SIGNAL_DBM


def known_of(node: str, device: str, told: Iterable[Told], parse_ms: Callable[[object], int | None]) -> Device:
    """Put together what the latest readings of each kind say; of a word that several have, the latest counts. `told`: at least one;
    `parse_ms` reads a time as `lastSeen` has it, and gives None for what is none."""
    words: dict[str, Any] = {}
    heard_ms, seen_ms = 0, None  # type: int, int | None
    for one in sorted(told, key=lambda t: t.place):
        words |= one.words
        heard_ms = max(heard_ms, one.taken_ms)
        stated = parse_ms(one.words.get("lastSeen"))
        seen_ms = stated if stated is not None else one.happened_ms if one.happened_ms is not None else seen_ms
    state, mac, serial, firmware = (_text(words, name) for name in ("provisioning", "mac", "serial", "firmware"))
    signal, battery = _whole(words, "signalDbm"), _whole(words, "batteryPercent")
    return Device(node, device, heard_ms, seen_ms, state, mac, serial, firmware, signal, battery)


def _text(words: Mapping[str, Any], name: str) -> str | None:
    """Rows from elsewhere are checked for their shape only: a later version may say a word in another way."""
    value = words.get(name)
    return value if isinstance(value, str) else None


def _whole(words: Mapping[str, Any], name: str) -> int | None:
    value = words.get(name)
    return value if type(value) is int else None
