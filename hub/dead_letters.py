"""Dead letters as people see them: listed from the topics beside the topics, and sent back where they came from.

That one was replayed is a record, too, a *mark* in the same topic that names its offset: the list is what lies there and was not marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hub.bridge_topics import TOPICS, origin
from hub.bus import Admin, BusRecord, Sender, Taken
from hub.projector import replayed
from protocols.errors import InvalidInput
from protocols.event import format_time

MARK: Final = "dlq_replayed"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `id` names it to commands."""

    id: str
    record: Taken
    replayed: bool

    def row(self) -> dict[str, Any]:
        """As JSON."""
        said = {name: value.decode("utf-8", "replace") for name, value in self.record.headers if name.startswith(("dlq_", "ce_id"))}
        at = said.get("dlq_time_ms", "")
        return {
            "id": self.id,
            "from": f"{said.get('dlq_topic', '?')}/{said.get('dlq_partition', '?')}@{said.get('dlq_offset', '?')}",
            "at": format_time(int(at)) if at.isdigit() and len(at) < 15 else None,
            "error": said.get("dlq_error", ""),
            "ceId": said.get("ce_id"),
            "bytes": len(self.record.value) + sum(len(value) for _, value in self.record.headers),
            "replayed": self.replayed,
        }


async def letters(admin: Admin, most: int) -> list[Letter]:
    """The newest of each topic, at most so many. Errors: those of the bus."""
    found = await admin.read_all([topic.dead for topic in TOPICS], most)
    marks = {(one.place.topic, dict(one.headers)[MARK]) for one in found if MARK in dict(one.headers)}
    return [Letter(_id(one), one, (one.place.topic, b"%d" % one.offset) in marks) for one in found if MARK not in dict(one.headers)]


def _id(one: Taken) -> str:
    return f"{origin(one.place.topic)}@{one.offset}"


def chosen(found: Sequence[Letter], ids: Sequence[str]) -> list[Letter]:
    """Those that are named; all that were not replayed where none is. Errors: InvalidInput: one is not there."""
    if not ids:
        return [letter for letter in found if not letter.replayed]
    by_id = {letter.id: letter for letter in found}
    for one in ids:
        if one not in by_id:
            raise InvalidInput("dlq", f"{one[:200]!r} is no dead letter.", remedy="See: longshore-hub dlq ls --all")
    return [by_id[one] for one in dict.fromkeys(ids)]


async def replay(sender: Sender, wanted: Sequence[Letter], now_ms: int) -> list[str]:
    """Send them to their topics, then mark them. Returns the ids of those that are too large. Errors: those of the bus; DecodeError."""
    if not wanted:
        return []
    refused = await sender.send([replayed(letter.record) for letter in wanted])
    marks = [
        BusRecord(letter.record.place.topic, letter.record.key, b"", [(MARK, b"%d" % letter.record.offset)], now_ms)
        for n, letter in enumerate(wanted)
        if n not in refused
    ]
    if marks:
        await sender.send(marks)
    return [wanted[n].id for n in refused]
