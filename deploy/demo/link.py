"""A network link that can be cut: a TCP forwarder between one edge and the hub's broker."""

from __future__ import annotations

import asyncio
import contextlib


class Link:
    """Forwards `port` on loopback to a target until it is cut. Cutting drops every connection without a goodbye, as a dead network does."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, None] = {}
        self.port = 0

    @property
    def up(self) -> bool:
        """Does it carry traffic?"""
        return self._server is not None

    async def restore(self) -> None:
        """Carry traffic (again), on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Drop what is connected and refuse what comes."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers = {}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers[writer] = self._writers[far_writer] = None
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for w in (writer, far_writer):
            self._writers.pop(w, None)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
