"""One end of the line between a hub and the process of its broker, in an event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from hub.broker_words import LENGTH, packed, unpacked


class BrokerLine:
    """Whole objects, in order, each way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> BrokerLine:
        """Takes the socket over."""
        return cls(*await asyncio.open_connection(sock=end))

    async def hear(self) -> tuple[str, Any] | None:
        """The next word and what belongs to it; None when the other end has closed, or is gone."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return unpacked(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None

    def say(self, word: str, what: object) -> None:
        """Send it without waiting. To an end that is gone nothing is said."""
        if not self._writer.transport.is_closing():
            self._writer.write(packed(word, what))

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other end to read."""
        return self._writer.transport.get_write_buffer_size()

    async def finish(self) -> None:
        """Close it; return when the other end may read all that was said, or is gone."""
        with suppress(OSError):
            self._writer.close()
            await self._writer.wait_closed()

    def close(self) -> None:
        """The other end hears an end. Idempotent."""
        self._writer.transport.abort()
