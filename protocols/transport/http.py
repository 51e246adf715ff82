"""HTTP through httpx: a node that holds no line to a broker hands its messages to a gateway or to the hub, and fetches what was said to it.
The only importer of `httpx` in the product.

The port is that of MQTT, with less behind it: whoever answers `POST /v1/sync` is the broker. The channel of a message lies in its kind, so
topics are not sent. A message counts as `Published` once its parcel was answered with success: then it is on the disk of a gateway, or in
the queue of the hub; the core frees nothing because of it. There is no presence: nobody learns of a line that does not exist.

Two requests are under way at most: one that sends, and one that waits for mail. Both live in one thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from protocols.codec import Kind
from protocols.errors import DecodeError
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, PREFIX, WAIT_MOST_S, read_parcel, room_in, write_parcel
from protocols.topics import Address, Channel
from protocols.transport.line import FAREWELL_S, LineTransport, Outgoing
from protocols.transport.port import Message, Presence, Up
from protocols.transport.refusals import Refusal
from protocols.transport.tls import client_context

log = logging.getLogger(__name__)

_KIND_AT: Final = 3
_ON_ORDERS: Final = (Kind.DIFFER, Kind.FEED)
_REASON_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where to sync and as whom. Times in seconds.

    `url`: of the API, `https://HOST[:PORT]`. With `token` (of a gateway's API) it is sent as a bearer token; otherwise the node's name and
    `password` sign in, as at the broker. `ca_file`: PEM of the authority to trust instead of the system's. `wait_s`: how long a request
    waits for mail. `max_outgoing_bytes` bounds what was handed over and not answered yet.
    """

    url: str
    token: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_file: str | None = None
    wait_s: int = WAIT_MOST_S
    timeout_s: float = 15.0
    max_outgoing_bytes: int = 4_000_000
    backoff_min_s: float = 0.5
    backoff_max_s: float = 60.0
    stable_s: float = 10.0

    def tls_context(self) -> ssl.SSLContext:
        """The TLS context for https. Raises ConfigError if the authority's file cannot be read."""
        return client_context(self.ca_file)


_KINDS: Final = {
    401: Refusal.CREDENTIALS, 403: Refusal.CREDENTIALS, 413: Refusal.TOO_LARGE, 503: Refusal.QUOTA, 507: Refusal.QUOTA,
}  # fmt: skip


class _Failed(Exception):
    """This attempt is over; the reason is for people. `refusal`: the other end did not want it."""

    def __init__(self, reason: str, refusal: Refusal | None = None) -> None:
        super().__init__(reason)
        self.refusal = refusal


class HttpTransport(LineTransport):
    """The transport port over `POST /v1/sync`."""

    def __init__(
        self, settings: HttpSettings, address: Address, *, presence: Presence | None = None, rng: random.Random | None = None
    ) -> None:
        """Touches no network. `address`: whose messages these are. `presence` is ignored. Raises ConfigError: certificates."""
        super().__init__(settings, name=f"http-{settings.url}", line=f"requests to {settings.url}", whom="to be sent", rng=rng)
        self._settings, self._address = settings, address
        self._tls = settings.tls_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: asyncio.Task[bool] | None = None
        self._bell = asyncio.Event()

    @property
    def protocol(self) -> str:
        """See the port."""
        return "HTTP"

    def _prepare(self) -> None:
        self._loop = asyncio.new_event_loop()

    def _ring(self) -> None:
        self._call(self._bell.set)

    def _break(self) -> None:
        self._call(self._cut)

    def _part(self) -> None:
        self._call(self._end)

    def _call(self, what: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(what)
            except RuntimeError:  # the loop has ended: nobody listens any more
                return

    # --- everything below runs in the transport's own thread

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._loop.close()

    def _cut(self) -> None:
        """What is under way ends now."""
        self._bell.set()
        if self._line is not None:
            self._line.cancel()

    def _end(self) -> None:
        """What waits may still be sent; then what is under way ends."""
        self._bell.set()
        assert self._loop is not None
        self._loop.call_later(FAREWELL_S, self._cut)

    async def _live(self) -> None:
        failures = 0
        while not self._stopping:
            self._restarting = False
            began_s = time.monotonic()
            self._line = asyncio.create_task(self._one_line())
            was_up = await self._line
            self._line = None
            failures = 0 if was_up and time.monotonic() - began_s >= self._settings.stable_s else failures + 1
            if not (self._stopping or self._restarting):
                await self._pause(self._backoff_s(failures))
        self._report_unsent()

    async def _one_line(self) -> bool:
        """Ask until something fails or somebody ends it, and clear up. Returns whether it was up."""
        reason, refusal, was_up = "", None, False  # type: str, Refusal | None, bool
        try:
            async with self._client() as client:
                await self._ask(client, [], wait_s=0)  # what it answers shows that we may come
                was_up = self._connected = True
                self._refusals.entered()
                self._emit(Up())
                await self._serve(client)
        except _Failed as failed:
            reason, refusal = str(failed), failed.refusal
        except asyncio.CancelledError:  # by `restart` or `stop`, and by nobody else
            pass
        except Exception as error:  # boundary: bytes from outside in a library end this line, never the thread
            log.warning("Syncing with %s failed: %r", self._settings.url, error)
            reason = f"broken: {error!r}"
        self._clear_up(reason, refusal=refusal)
        return was_up

    def _client(self) -> httpx.AsyncClient:
        s = self._settings
        headers = {"authorization": f"Bearer {s.token}"} if s.token else {}
        auth = None if s.token else httpx.BasicAuth(self._address.node, s.password)
        timeout = httpx.Timeout(s.timeout_s, read=s.timeout_s + s.wait_s)
        return httpx.AsyncClient(base_url=s.url, headers=headers, auth=auth, timeout=timeout, verify=self._tls, trust_env=False)

    async def _serve(self, client: httpx.AsyncClient) -> None:
        """Send what there is, and wait for mail beside it, until either fails or the owner says so."""
        mail = asyncio.create_task(self._fetch(client))
        try:
            while not self._restarting and not mail.done():
                self._bell.clear()
                self._report_unsent()
                if not await self._send(client):
                    if self._stopping:
                        return
                    bell = asyncio.create_task(self._bell.wait())
                    await asyncio.wait((bell, mail), return_when=asyncio.FIRST_COMPLETED)
                    bell.cancel()
        finally:
            mail.cancel()
            results = await asyncio.gather(mail, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _fetch(self, client: httpx.AsyncClient) -> None:
        while True:
            began_s = time.monotonic()
            if not await self._ask(client, [], wait_s=self._settings.wait_s) and time.monotonic() - began_s < 0.1:
                await asyncio.sleep(0.5)  # whoever answers at once with nothing would be asked in a circle

    async def _send(self, client: httpx.AsyncClient) -> bool:
        """One parcel of what waits. False: there was nothing."""
        taken: list[Outgoing] = []
        size = 0
        with self._lock:
            while self._outbox and room_in(size, len(taken), self._outbox[0].payload):
                taken.append(self._outbox.popleft())
                size += PREFIX + len(taken[-1].payload)
        if not taken:
            return False
        reason = "not answered"
        try:
            await self._ask(client, [one.payload for one in taken], wait_s=0)
            reason = ""
        except _Failed as failed:
            reason = str(failed)
            raise
        finally:
            with self._lock:
                self._held_bytes -= sum(len(one.payload) for one in taken)
            for one in taken:
                self._report(one, reason)
        return True

    async def _ask(self, client: httpx.AsyncClient, payloads: list[bytes], *, wait_s: int) -> int:
        """One request; what it answers is heard. Returns how many messages that were. Errors: _Failed."""
        params: dict[str, Any] = {"node": self._address.node} | ({"wait": wait_s} if wait_s else {})
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        try:
            async with client.stream("POST", "/v1/sync", params=params, content=write_parcel(payloads), headers=headers) as answer:
                body = await _bounded(answer)
        except httpx.HTTPError as error:
            raise _Failed(f"cannot reach {self._settings.url}: {str(error) or type(error).__name__}") from None
        if answer.status_code != 200:
            raise _Failed(_refusal(self._settings.url, answer, body), _KINDS.get(answer.status_code))
        if answer.headers.get("content-type", "").partition(";")[0] != MEDIA_TYPE:
            raise _Failed(f"what answers at {self._settings.url} is no gateway and no hub of Longshore")
        try:
            mail = read_parcel(body)
        except DecodeError as error:
            raise _Failed(f"{self._settings.url} answered with damage: {error.reason}") from None
        for payload in mail:
            self._emit(Message(self._address.topic(_channel(payload)), payload))
        return len(mail)

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next attempt; what is published meanwhile is reported at once, and `stop` and `restart` end the wait."""
        until_s = time.monotonic() + pause_s
        while not (self._stopping or self._restarting) and (left_s := until_s - time.monotonic()) > 0:
            self._bell.clear()
            self._report_unsent()
            try:
                async with asyncio.timeout(left_s):
                    await self._bell.wait()
            except TimeoutError:
                return


async def _bounded(answer: httpx.Response) -> bytes:
    """The body, no longer than a parcel may be. Errors: _Failed."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.aiter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > PARCEL_BYTES:
            raise _Failed(f"the answer is longer than {PARCEL_BYTES} bytes")
    return b"".join(chunks)


def _refusal(url: str, answer: httpx.Response, body: bytes) -> str:
    """What a problem document says, for people."""
    try:
        said = httpx.Response(answer.status_code, content=body).json()
        text = f"{said['detail']} {said.get('remedy', '')}".strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        text = "it gave no reason"
    return f"{url} answered {answer.status_code}: {text[:_REASON_CHARS]}"


def _channel(payload: bytes) -> Channel:
    """On which of the node's channels a broker would have brought this."""
    kind = payload[_KIND_AT] if len(payload) > _KIND_AT else 0
    return Channel.ORDERS if kind in _ON_ORDERS else Channel.RECEIPT
