"""What comes with a request, read within bounds: query parameters, the order that a path names, the body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request

from protocols import parameters
from protocols.errors import InvalidInput, LedgerBusy, TooLarge
from protocols.event import load_json
from protocols.lifecycle import STATUS_NAMES
from protocols.parameters import choice
from protocols.problem import MEDIA, Problem

CARD_BYTES: Final = 16_384


def query(request: Request, allowed: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a request that have a value. Raises InvalidInput."""
    return parameters.query(request.query_params.multi_items(), allowed)


def flag(params: dict[str, str], name: str) -> bool | None:
    """`true` or `false`; None where it is left out."""
    text = params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise InvalidInput(name, "must be true or false.", allowed=("true", "false"))
    return text == "true"


def status(params: dict[str, str]) -> str | None:
    """A status of the lifecycle."""
    return choice(params, "status", STATUS_NAMES)


def segments(request: Request, prefix: str) -> list[str]:
    """What follows `prefix`, cut at the slashes of the address as it was sent, then decoded: an id may hold an encoded slash."""
    raw = (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1").partition("?")[0]
    rest = raw[len(request.scope.get("root_path", "")) :].removeprefix(prefix)
    return [unquote(part, errors="replace") for part in rest.split("/")]


def order_and_part(request: Request, prefix: str, parts: tuple[str, ...]) -> tuple[str, str]:
    """(order id, "" or one of `parts`) from `{prefix}{id}[/{part}]`. A slash within an id is best sent as %2F; a plain one works too,
    unless the id itself ends in one of the parts."""
    found = segments(request, prefix)
    part = found.pop() if len(found) > 1 and found[-1] in parts else ""
    return "/".join(found), part


class Bodies:
    """Bodies of requests, within a bound for all that are held at once: many slow ones must not fill the memory together."""

    def __init__(self, most_held_bytes: int) -> None:
        self.held_bytes = 0
        self._most_held_bytes = most_held_bytes

    @asynccontextmanager
    async def whole(self, request: Request, most_bytes: int) -> AsyncIterator[bytes]:
        """The whole body, which counts as held until the block ends. Raises TooLarge as soon as it is known to be too long, without
        reading on, and LedgerBusy when too much is held."""
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > most_bytes:
            raise _too_large(most_bytes)
        chunks: list[bytes] = []
        try:
            await self._read(request, most_bytes, chunks)
            yield b"".join(chunks)
        finally:
            self.held_bytes -= sum(map(len, chunks))

    async def _read(self, request: Request, most_bytes: int, chunks: list[bytes]) -> None:
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
        except ClientDisconnect:  # nobody is left to hear it, and it is no fault of ours that belongs in the log
            raise InvalidInput("body", "ended before it was whole.") from None

    @asynccontextmanager
    async def json(self, request: Request, most_bytes: int) -> AsyncIterator[object]:
        """The JSON value in the body. The media type is demanded: a form on a web page cannot send it without the browser asking first."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            raise Problem(MEDIA, f"The body is {media or 'of no stated type'}.", remedy="Send it with Content-Type: application/json.")
        async with self.whole(request, most_bytes) as data:
            yield load_json(data)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge("body", f"is too long: at most {most_bytes} bytes are taken at once.", remedy="Send smaller batches.")
