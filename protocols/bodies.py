"""Bodies of HTTP requests, read within bounds: the same rules at edge and hub, whichever web framework brings the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from protocols import limits
from protocols.errors import InvalidInput, LedgerBusy, TooLarge
from protocols.event import load_json
from protocols.problem import MEDIA, Problem

JSON: Final = "application/json"


class Incoming(Protocol):
    """A request of which the body was not read yet. Names of headers are found in whatever case they were sent."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    def stream(self) -> AsyncIterator[bytes]:
        """Its body, as it comes."""
        ...


class Bodies:
    """Bodies of requests, within a bound for all that are held at once: many slow ones must not fill the memory together."""

    def __init__(self, most_held_bytes: int, gone: type[Exception]) -> None:
        """`gone`: what a stream raises whose caller has hung up."""
        self.held_bytes = 0
        self._most_held_bytes, self._gone = most_held_bytes, gone

    @asynccontextmanager
    async def whole(self, request: Incoming, most_bytes: int) -> AsyncIterator[bytes]:
        """The whole body, which counts as held until the block ends. Raises TooLarge as soon as it is known to be too long, without
        reading on, LedgerBusy when too much is held, and InvalidInput where it ends too soon."""
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > most_bytes:
            raise _too_large(most_bytes)
        chunks: list[bytes] = []
        try:
            await self._read(request, most_bytes, chunks)
            yield b"".join(chunks)
        finally:
            self.held_bytes -= sum(map(len, chunks))

    async def _read(self, request: Incoming, most_bytes: int, chunks: list[bytes]) -> None:
        size_bytes = 0
        try:
            async for chunk in request.stream():
                chunks.append(chunk)
                size_bytes += len(chunk)
                self.held_bytes += len(chunk)
                if size_bytes > most_bytes:
                    raise _too_large(most_bytes)
                if self.held_bytes > self._most_held_bytes:
                    raise LedgerBusy("too many bytes of other requests are held here", remedy="send it again in a moment")
        except self._gone:  # nobody is left to hear it, and it is no fault of ours that belongs in the log
            raise InvalidInput("body", "ended before it was whole.") from None

    def of_type(self, request: Incoming, media: str = JSON, most_bytes: int = limits.BATCH_BYTES) -> AbstractAsyncContextManager[bytes]:
        """The same of a media type, which is demanded: a form on somebody's web page cannot send it without the browser asking first.
        Errors: Problem too."""
        stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if stated != media and not (media == JSON and stated.endswith("+json")):
            raise Problem(MEDIA, f"The body is {stated or 'of no stated type'}.", remedy=f"Send it with Content-Type: {media}.")
        return self.whole(request, most_bytes)

    @asynccontextmanager
    async def json(self, request: Incoming, most_bytes: int = limits.BATCH_BYTES) -> AsyncIterator[object]:
        """The JSON value in the body. Errors: as `of_type`."""
        async with self.of_type(request, JSON, most_bytes) as data:
            yield load_json(data)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge("body", f"is too long: at most {most_bytes} bytes are taken at once.", remedy="Send smaller batches.")
