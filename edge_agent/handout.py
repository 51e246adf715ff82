"""Own facts for whoever will carry them: to a relay while the hub does not answer through it, and onto a stick (sync.md, rule 16).

Frames are cut anew and alike each time (they end at multiples of their size), so that a relay that has them already can tell. Handing out
frees nothing and counts for nothing: only the hub's answer says what it holds.

Pure: driven by `EdgeCore`, after the commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from protocols.codec import Kind
from protocols.custody import Custody
from protocols.errors import InvalidInput
from protocols.ledger import Ledger
from protocols.streams import Stream
from protocols.sync.frames import cut
from protocols.sync.intervals import Intervals
from protocols.sync.seal import Sign, seal
from protocols.sync.uplink import Out, Uplink
from protocols.topics import Channel

_TURN_FRAMES: Final = 4
_PAUSE_MS: Final = 200
"""so that what is captured in a busy moment shares a frame"""
_AGAIN_MS: Final = 3_600_000
_DOUBT_MS: Final = 60_000
_RECENT: Final = 10_000
_START: Final = "own:0:0"


class Handout:
    """Hands out what is neither settled nor believed to be at the hub, after `after_ms` without an answer, and again after an hour: the
    line leads to one relay, which keeps what it took. Of what was sent shortly before the line broke nobody knows whether it arrived."""

    def __init__(self, ledger: Ledger, uplink: Uplink, after_ms: int | None) -> None:
        self._ledger, self._uplink, self._after_ms = ledger, uplink, after_ms
        self._due_ms: int | None = None
        """when to look again; None: not before something happens"""
        self._quiet = False
        """is it known that no answer is there?"""
        self._handed: dict[int, Intervals] = {}
        self._recent: deque[tuple[int, int, int, int]] = deque(maxlen=_RECENT)
        """(when, stream, first, last) of what was handed out last"""
        self._since_ms = self._last_ms = 0

    def on_up(self, now: int) -> None:
        """Connected (again)."""
        if now - self._since_ms > _AGAIN_MS:
            self._forget(now)
        for at_ms, sid, first, last in self._recent:
            if at_ms > self._last_ms - _DOUBT_MS:
                self._handed[sid].remove(first, last)
        self._await(now)

    def _forget(self, now: int) -> None:
        self._handed, self._since_ms = {}, now
        self._recent.clear()

    def on_down(self) -> None:
        """Nobody is there to take anything."""
        self._quiet, self._due_ms = False, None

    def _await(self, now: int) -> None:
        self._quiet, self._due_ms = True, None if self._after_ms is None else now + self._after_ms

    def outputs(self, now: int) -> list[Out]:
        """Frames to send now: what is new soon, what is more at once, all only while the hub does not answer."""
        if self._after_ms is None or not self._uplink.connected or self._uplink.incarnation is not None:
            self.on_down()
            return []
        self._last_ms = now
        if not self._quiet:
            self._await(now)
        if now - self._since_ms > _AGAIN_MS:
            self._forget(now)
        if self._due_ms is not None and now < self._due_ms:
            return []
        outs: list[Out] = []
        for stream in self._ledger.own_streams():
            outs += self._of(stream, _TURN_FRAMES - len(outs), now)
        self._due_ms = None if not outs else now + (1 if len(outs) == _TURN_FRAMES else _PAUSE_MS)
        return outs

    def next_deadline(self) -> int | None:
        """When `outputs` has something by itself."""
        return self._due_ms

    def _of(self, stream: Stream, most: int, now: int) -> Iterator[Out]:
        handed = self._handed.setdefault(stream.sid, Intervals())
        settings = self._uplink.settings
        for _ in range(most):
            gone = Intervals([*handed, *self._uplink.believed(stream)])
            gap = next((gap for low, high in _held(stream) for gap in gone.missing(low, high)), None)
            if gap is None:
                return
            frame = _frame(self._ledger, stream, *gap, settings.frame_facts, self._uplink.dictionary, settings.level)
            handed.add(gap[0], gap[1] if frame is None else frame.last)
            if frame is not None:
                self._recent.append((now, stream.sid, gap[0], frame.last))
                yield frame.out


def _held(stream: Stream) -> list[tuple[int, int]]:
    """Stretches of an own stream that are here and not settled: what was evicted leaves holes."""
    first = max(stream.settled_seq, stream.freed_seq) + 1
    return [(max(first, run.first), run.last) for run in sorted(stream.chain.data(), key=lambda r: r.first) if run.last >= first]


class _Cut(NamedTuple):
    out: Out
    last: int


def _frame(ledger: Ledger, stream: Stream, first: int, last: int, facts: int, dictionary: int, level: int) -> _Cut | None:
    """The frame that begins at `first` and ends at a multiple of its size, or at `last`."""
    end = min(last, ((first - 1) // facts + 1) * facts)
    done = cut(ledger.log, stream, first, end, facts=facts, dictionary=dictionary, level=level)
    return None if done is None else _Cut(Out(Channel.BACKFILL, Kind.FRAME, done.header.to_list(), done.body), done.last)


class Page(NamedTuple):
    """Signed envelopes to be carried away, and where the next page begins; None after the last."""

    payloads: list[bytes]
    cursor: str | None


class Carry:
    """Everything that another may carry for this node: own facts that are not settled, as frames, and what is in custody here."""

    def __init__(self, ledger: Ledger, uplink: Uplink, custody: Custody, sign: Sign) -> None:
        self._ledger, self._uplink, self._custody, self._sign = ledger, uplink, custody, sign

    def page(self, cursor: str | None, most_bytes: int) -> Page:
        """About `most_bytes` of it from a cursor (None: from the beginning). Errors: InvalidInput: not a cursor."""
        kind, number, seq = _parsed(cursor or _START)
        payloads: list[bytes] = []
        size = 0
        if kind == "own":
            for at, payload in self._own(number, seq):
                payloads.append(payload)
                size += len(payload)
                if size >= most_bytes:
                    return Page(payloads, at)
            number = 0
        for cid, length in self._custody.payloads():
            if cid > number:
                if payloads and size + length > most_bytes:
                    return Page(payloads, f"kept:{cid - 1}:0")
                payloads.append(self._custody.payload(cid))
                size += length
        return Page(payloads, None)

    def _own(self, sid: int, seq: int) -> Iterator[tuple[str, bytes]]:
        """(cursor behind it, signed frame) of each frame from (sid, seq) on."""
        settings = self._uplink.settings
        for stream in (s for s in self._ledger.own_streams() if s.sid >= sid):
            behind = seq if stream.sid == sid else 0
            for low, high in _held(stream):
                at = max(low, behind + 1)
                while at <= high:
                    frame = _frame(self._ledger, stream, at, high, settings.frame_facts, 0, settings.level)
                    if frame is None:
                        break
                    at = frame.last + 1
                    yield f"own:{stream.sid}:{frame.last}", seal(frame.out, self._ledger.node, "", self._sign)


def _parsed(cursor: str) -> tuple[str, int, int]:
    kind, _, rest = cursor.partition(":")
    number, _, seq = rest.partition(":")
    if kind not in ("own", "kept") or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (number, seq)):
        raise InvalidInput("cursor", "is not one that this edge gave.", remedy="Begin without a cursor.")
    return kind, int(number), int(seq)
