"""`longshore-edge events append`: a file of any length, in bounded batches, into whoever holds the ledger."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge_agent.client import LocalApi
from edge_agent.config import EdgeConfig
from edge_agent.core import EdgeCore
from edge_agent.offline import whoever_holds
from edge_agent.runtime import system_now
from protocols.errors import InvalidInput, LongshoreError, TooLarge
from protocols.event import OrderEvent, load_json, parse_event
from protocols.limits import BATCH_BYTES

BATCH: Final = 500
BATCH_TEXT_BYTES: Final = 1_000_000
PROGRESS_AFTER_S: Final = 2.0

Numbered = tuple[str, object]
"""Where it stands (`line 7`, `[6]`), and the JSON value."""


@dataclass(slots=True)
class Done:
    """What became of the file. After an error, what came before it is taken."""

    ids: list[str] = field(default_factory=list)
    accepted: int = 0
    repeated: int = 0
    error: LongshoreError | None = None

    @property
    def taken(self) -> int:
        """Events that are on disk."""
        return self.accepted + self.repeated

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ids": self.ids, "accepted": self.accepted, "repeated": self.repeated}

    def as_text(self) -> str:
        """For people."""
        return f"{self.accepted:,} taken" + (f", {self.repeated:,} were there already" if self.repeated else "")


def append_file(config: EdgeConfig, name: str, on_ids: Callable[[list[str]], None] | None, tell: Callable[[str], None]) -> Done:
    """Hand over everything in a file, batch by batch, each whole or not at all. `on_ids` gets the ids of each as it is on disk; without it
    they are kept in the result. `tell` hears of progress, when it takes long. Errors on the way end up in the result."""
    done = Done()
    progress = _Progress(tell)
    with _opened(name) as stream, whoever_holds(config) as held:
        try:
            for batch in _batches(stream):
                ids, accepted = _hand_over(config, held, batch)
                done.accepted += accepted
                done.repeated += len(ids) - accepted
                if on_ids is None:
                    done.ids += ids
                else:
                    on_ids(ids)
                progress.at(done.taken)
        except LongshoreError as error:
            done.error = error
    return done


def _hand_over(config: EdgeConfig, held: EdgeCore | LocalApi, batch: list[Numbered]) -> tuple[list[str], int]:
    """The ids, and how many of the events are new. Checked here in any case, as only here it is known on which line an event stands."""
    now = system_now()
    judging_ms = now.wall if isinstance(held, LocalApi) else held.clock.judging_ms(now)
    events = [parse_event(value, defaults=config.defaults, now_ms=judging_ms, at=at) for at, value in batch]
    if isinstance(held, LocalApi):
        answer = held.append([value for _, value in batch])
        return answer["ids"], answer["accepted"]
    return _write(held, events)


def _write(core: EdgeCore, events: list[OrderEvent]) -> tuple[list[str], int]:
    core.begin()
    done = core.take_events(events, system_now())
    core.commit()
    return [one.fact_id for one in done], sum(not one.repeated for one in done)


# ------------------------------------------------------------ reading


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).", remedy="Give a file of events, or - for standard input.") from None


def _batches(stream: BinaryIO) -> Iterator[list[Numbered]]:
    """Events in the order of the file, as many at a time as travel well together."""
    batch: list[Numbered] = []
    text_bytes = 0
    for at, value, size_bytes in _values(stream):
        if batch and (len(batch) >= BATCH or text_bytes + size_bytes > BATCH_TEXT_BYTES):
            yield batch
            batch, text_bytes = [], 0
        batch.append((at, value))
        text_bytes += size_bytes
    if batch:
        yield batch


def _values(stream: BinaryIO) -> Iterator[tuple[str, object, int]]:
    """(where, value, bytes of text) of each event: of a JSON array, or of JSON lines."""
    number = 0
    while line := stream.readline(BATCH_BYTES + 1):
        number += 1
        if not line.strip():
            continue
        if line.lstrip()[:1] == b"[":
            yield from _array(line, stream, number)
            return
        if len(line) > BATCH_BYTES:
            raise TooLarge(f"line {number}", f"is longer than {BATCH_BYTES} bytes.", remedy="Write one event a line.")
        yield f"line {number}", _load(line, f"line {number}"), len(line)


def _array(begun: bytes, stream: BinaryIO, number: int) -> Iterator[tuple[str, object, int]]:
    """A JSON array is read whole, so it has a bound; JSON lines have none."""
    text = begun + stream.read(max(0, BATCH_BYTES + 1 - len(begun)))
    if len(text) > BATCH_BYTES:
        raise TooLarge(
            "body",
            f"is an array of more than {BATCH_BYTES} bytes.",
            remedy="Write one event a line (JSON lines): then it may be of any length.",
        )
    values = _load(text, f"line {number}")
    for index, value in enumerate(values if isinstance(values, list) else [values]):
        yield f"[{index}]", value, len(json.dumps(value))


def _load(text: bytes, at: str) -> object:
    try:
        return load_json(text)
    except InvalidInput as error:
        raise type(error)(at, error.reason.removeprefix("body: "), remedy=error.remedy) from None


class _Progress:
    """A line now and then, once it takes long."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._began_s = self._told_s = time.monotonic()

    def at(self, taken: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_AFTER_S:
            self._told_s = now_s
            self._tell(f"{taken:,} events, {taken / (now_s - self._began_s):,.0f}/s")
