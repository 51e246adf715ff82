"""What every transport with a line of its own does alike: its thread, what was handed over and how each of it ends, the back-off.

A `LineTransport` keeps the books of the port; what a line is, and how to wake who waits for it, is said by its heirs (`mqtt`, `http`).
Nothing here knows a network library.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.errors import TransportError
from protocols.topics import check_topic
from protocols.transport.port import PLAIN, Down, Dropped, Event, Extra, Listener, Published
from protocols.transport.refusals import Refusal, Refusals, Seen

log = logging.getLogger(__name__)

FAREWELL_S: Final = 1.0
"""How long `stop` waits for answers before it says goodbye."""
_NOT_CONNECTED: Final = "not connected"


class Limits(Protocol):
    """What the settings of any such transport say. Times in seconds."""

    @property
    def max_outgoing_bytes(self) -> int:
        """Of what was handed over and has not ended yet, all together."""
        ...

    @property
    def backoff_min_s(self) -> float:
        """Before the first attempt after a failure."""
        ...

    @property
    def backoff_max_s(self) -> float:
        """Before any attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way out. `token`: None for what the transport publishes itself (birth, farewell)."""

    token: int | None
    topic: str
    payload: bytes
    qos: int
    retain: bool
    extra: Extra = PLAIN


class LineTransport(ABC):
    """The transport port but for the line itself. One daemon thread from `start` to `stop`; `publish` may be called from any thread."""

    def __init__(self, limits: Limits, *, name: str, line: str, whom: str, rng: random.Random | None) -> None:
        """`name`: of the thread. `line` and `whom` are for people: what has to end, and who lets others wait. `rng` draws the jitter."""
        self._limits, self._name, self._what, self._whom = limits, name, line, whom
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._outbox: deque[Outgoing] = deque()
        self._unsent: deque[Dropped] = deque()
        self._held_bytes = 0
        self._tokens = 0
        self._connected = False
        self._stopping = False
        self._restarting = False
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None
        self._refusals = Refusals(_now_ms)

    # --- what an heir says

    @abstractmethod
    def _prepare(self) -> None:
        """Make what `_ring` and `_run` need; in the caller's thread, once, with the lock held."""

    @abstractmethod
    def _run(self) -> None:
        """The thread: one line after another until `_stopping`."""

    @abstractmethod
    def _ring(self) -> None:
        """Let the thread look at what changed. From any thread, also when it has ended."""

    @abstractmethod
    def _break(self) -> None:
        """Let the thread end the line it has now, `_restarting` being set. From any thread, also before `start`."""

    @abstractmethod
    def _part(self) -> None:
        """Let the thread come to its end, `_stopping` being set. From any thread, also before `start`."""

    # --- the port, from any thread

    @property
    def connected(self) -> bool:
        """True from `Up` to the next `Down`."""
        return self._connected

    def refusals(self) -> tuple[Seen, ...]:
        """See the port."""
        return self._refusals.seen()

    def refused_totals(self) -> dict[str, int]:
        """See the port."""
        return self._refusals.totals()

    def start(self, listener: Listener) -> None:
        """See the port."""
        with self._lock:
            if self._thread is not None:
                raise TransportError("The transport was started before.")
            self._listener = listener
            self._prepare()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        """See the port. Raises InvalidInput for a topic that cannot be published to."""
        check_topic(topic)
        with self._lock:
            if self._thread is None or self._stopping:
                raise TransportError("The transport is not running.")
            self._tokens += 1
            token = self._tokens
            if not self._connected:
                self._unsent.append(Dropped(token, _NOT_CONNECTED))
            elif self._held_bytes + len(payload) > self._limits.max_outgoing_bytes:
                self._unsent.append(Dropped(token, f"no room: too many bytes wait {self._whom}"))
            else:
                self._outbox.append(Outgoing(token, topic, bytes(payload), qos, retain, extra))
                self._held_bytes += len(payload)
        self._ring()
        return token

    def restart(self) -> None:
        """See the port."""
        self._restarting = True
        self._break()

    def stop(self, timeout_s: float = 5.0) -> None:
        """See the port."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._part()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout_s)
        if thread.is_alive():
            raise TransportError(f"The {self._what} did not end within {timeout_s} s.")

    # --- for heirs, in the transport's own thread

    def _clear_up(self, reason: str, begun: Iterable[Outgoing] = (), refusal: Refusal | None = None) -> None:
        """Nothing that was handed over survives its line: each token still open gets its end, then people hear why. `begun`: what was
        taken from the outbox and has not ended. `reason` is empty where the owner ended the line; `refusal`: where the other end did."""
        reason = reason or ("stopped" if self._stopping else "restarted")
        with self._lock:
            self._connected = False
            left = [*begun, *self._outbox]
            self._outbox.clear()
            self._held_bytes = 0
        for outgoing in left:
            self._report(outgoing, reason)
        self._report_unsent()
        if refusal is not None:
            self._refusals.note(refusal, reason)
        self._emit(Down(reason, refusal))

    def _report(self, outgoing: Outgoing, dropped: str = "") -> None:
        """How a message ended: taken, or `dropped` and why. Nobody waits for what the transport published itself."""
        if outgoing.token is not None:
            self._emit(Dropped(outgoing.token, dropped) if dropped else Published(outgoing.token))

    def _report_unsent(self) -> None:
        while self._unsent:
            self._emit(self._unsent.popleft())

    def _emit(self, event: Event) -> None:
        assert self._listener is not None
        try:
            self._listener(event)
        except Exception:  # boundary: a listener's bug would silence the line for good
            log.exception("The listener of a transport raised on %s", type(event).__name__)

    def _backoff_s(self, failures: int) -> float:
        """Doubling with jitter between a half and the whole, so that a thousand nodes do not come back in step."""
        ceiling_s = min(self._limits.backoff_max_s, self._limits.backoff_min_s * 2.0 ** min(failures, 30))
        return ceiling_s * (0.5 + self._rng.random() / 2)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
