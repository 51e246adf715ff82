"""Heads of HTTP requests over uvicorn's own protocol: what is too long ends the connection, whatever else comes is untouched."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocols.heads import HEAD_BYTES, bounded

Ask = Callable[[bytes], Awaitable[bytes]]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read %d" % size})


def over_http(story: Callable[[Ask], Awaitable[None]]) -> None:
    """Run a story against a server on a free port; `ask` sends bytes and returns all that comes back."""

    async def run() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(_app, http=bounded(HttpToolsProtocol), lifespan="off", log_config=None))
        task = asyncio.create_task(server.serve(sockets=[sock]))

        async def ask(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            try:
                for at in range(0, len(data), 50_000):
                    writer.write(data[at : at + 50_000])
                    await writer.drain()
                    await asyncio.sleep(0.005)
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

        while not server.started:
            await asyncio.sleep(0.01)
        await story(ask)
        server.should_exit = True
        await task

    asyncio.run(run())


@pytest.mark.parametrize("head", [b"A: " + b"x" * 4 * HEAD_BYTES, b"".join(b"X%d: 1\r\n" % i for i in range(50_000))], ids=["one", "many"])
def test_a_head_without_an_end_is_cut_off(head: bytes) -> None:
    async def story(ask: Ask) -> None:
        assert await ask(b"GET / HTTP/1.1\r\nHost: x\r\n" + head) == b""

    over_http(story)


def test_long_bodies_and_requests_behind_one_another_pass() -> None:
    async def story(ask: Ask) -> None:
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
        last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: " + b"x" * 20_000 + b"\r\n\r\n"
        answers = await ask(post + post + last)
        assert answers.count(b"read 300000") == 2
        assert b"read 0\r\n" in answers

    over_http(story)
