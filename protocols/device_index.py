"""All devices that a ledger knows of, in memory, for those who list and count them: built from the table of latest readings when it is
first asked for, and kept in step by it. See `protocols.devices`, which owns it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from protocols.errors import InvalidInput
from protocols.event import parse_time
from protocols.provisioning import NAMES, Device, Told, known_of
from protocols.telemetry import KNOWN, Reading

Key = tuple[str, str]
"""(node, device)"""
FIRST: Final = 10
UNSTATED: Final = "unstated"
"""of whom no provisioning record came"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The devices of one node: how many, by state (in the order of the table; only those there are), and how many need a look."""

    devices: int
    states: dict[str, int]
    low_battery: int
    weak_signal: int
    heard_ms: int
    first: tuple[Device, ...] = ()
    """by name, at most FIRST"""


class DeviceIndex:
    """See the module. One thread; everything it gives is a value."""

    def __init__(self) -> None:
        self._told: dict[Key, dict[str, Told]] = {}
        self._known: dict[Key, Device] = {}
        self._keys: list[Key] | None = None
        self._nodes: dict[str, None] = {}
        self._summaries: dict[str, Summary] = {}

    def note(self, node: str, reading: Reading, place: tuple[int, int], taken_ms: int) -> None:
        """A reading that is the latest of its kind unless a later one is here."""
        key = (node, reading.device)
        kinds = self._told.get(key)
        if kinds is None:
            kinds, self._keys = self._told.setdefault(key, {}), None
            self._nodes[node] = None
        before = kinds.get(reading.kind)
        if before is not None and before.place > place:
            return
        words = {name: value for name, value in reading.values.items() if name in KNOWN}
        kinds[reading.kind] = Told(reading.kind, place, reading.happened_ms, taken_ms, words)
        self._known.pop(key, None)
        self._summaries.pop(node, None)

    def page(self, after: Key, limit: int, *, node: str | None = None, state: str | None = None) -> list[Device]:
        """The next `limit` devices after a key, by node and device; of one node, or in one state (`UNSTATED` too)."""
        found: list[Device] = []
        for key in self._after(after if node is None else max(after, (node, ""))):
            if node is not None and key[0] != node:
                break
            device = self._device(key)
            if state is None or (device.state or UNSTATED) == state:
                found.append(device)
            if len(found) == limit:
                break
        return found

    def summaries(self) -> dict[str, Summary]:
        """By node, in the order of their names."""
        for node in self._nodes:
            if node not in self._summaries:
                self._summaries[node] = self._summary(node)
        return {node: self._summaries[node] for node in sorted(self._nodes)}

    def _summary(self, node: str) -> Summary:
        devices = [self._device(key) for key in takewhile(lambda key: key[0] == node, self._after((node, "")))]
        states = [device.state or UNSTATED for device in devices]
        counts = {name: states.count(name) for name in (*NAMES, UNSTATED) if name in states}
        other = len(states) - sum(counts.values())
        return Summary(
            len(devices),
            counts | ({"other": other} if other else {}),
            sum(device.low_battery for device in devices),
            sum(device.weak_signal for device in devices),
            max(device.heard_ms for device in devices),
            tuple(devices[:FIRST]),
        )

    def _device(self, key: Key) -> Device:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = known_of(*key, self._told[key].values(), _time)
        return found

    def _sorted(self) -> list[Key]:
        if self._keys is None:
            self._keys = sorted(self._told)
        return self._keys

    def _after(self, key: Key) -> Iterator[Key]:
        keys = self._sorted()
        for at in range(bisect_right(keys, key), len(keys)):
            yield keys[at]


def _time(value: object) -> int | None:
    try:
        return parse_time(value, "lastSeen") if isinstance(value, str) else None
    except InvalidInput:
        return None
