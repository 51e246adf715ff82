"""What a service manager hears: on a real socket, from a real loop."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocols.supervision import Progress, Supervisor, supervised


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock, self.name = sock, name

    def heard(self) -> list[str]:
        """All that has come so far."""
        said = []
        while True:
            try:
                said.append(self._sock.recv(4_096).decode())
            except BlockingIOError:
                return said

    def environ(self, **more: str) -> dict[str, str]:
        """What a service manager gives its children."""
        return {"NOTIFY_SOCKET": self.name, **more}


@contextmanager
def manager(name: str = "") -> Iterator[Manager]:
    """Listens for the length of the block; in a short path, which the names of sockets must have."""
    with tempfile.TemporaryDirectory(prefix="ls-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        where = name or str(Path(folder) / "notify")
        sock.bind(f"\0{where[1:]}" if where.startswith("@") else where)
        sock.setblocking(False)
        yield Manager(sock, where)


def beats(said: list[str]) -> int:
    return said.count("WATCHDOG=1")


def test_ready_alive_and_stopping_are_said_in_their_order() -> None:
    with manager() as systemd:

        async def story() -> None:
            async with supervised(supervisor=Supervisor(systemd.environ(WATCHDOG_USEC="150000"))):
                await asyncio.sleep(0.4)

        asyncio.run(story())
        said = systemd.heard()
    assert (said[0], said[-1]) == ("READY=1", "STOPPING=1")
    assert 3 <= beats(said) <= len(said) - 2


def test_who_is_not_alive_falls_silent() -> None:
    with manager() as systemd:

        async def story() -> None:
            async with supervised(lambda: False, Supervisor(systemd.environ(WATCHDOG_USEC="150000"))):
                await asyncio.sleep(0.3)

        asyncio.run(story())
        assert systemd.heard() == ["READY=1", "STOPPING=1"]


def test_an_abstract_name_is_reached_too() -> None:
    with manager(f"@longshore-test-{os.getpid()}") as systemd:
        assert Supervisor(systemd.environ()).tell("READY=1", "STATUS=all is well")
        assert systemd.heard() == ["READY=1\nSTATUS=all is well"]


def test_without_a_manager_nothing_is_said_and_nothing_fails() -> None:
    assert not Supervisor({}).tell("READY=1")
    assert not Supervisor({"NOTIFY_SOCKET": "/nowhere/at/all"}).tell("READY=1")
    asyncio.run(_short({}))
    asyncio.run(_short({"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000"}))


async def _short(environ: dict[str, str]) -> None:
    async with supervised(supervisor=Supervisor(environ)):
        await asyncio.sleep(0)


def test_an_error_inside_still_says_stopping() -> None:
    with manager() as systemd:

        async def story() -> None:
            async with supervised(supervisor=Supervisor(systemd.environ(WATCHDOG_USEC="60000000"))):
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            asyncio.run(story())
        assert systemd.heard()[-1] == "STOPPING=1"


@pytest.mark.parametrize(
    ("more", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "1"}, 0.05),
    ],
)
def test_how_often_is_a_third_of_what_is_allowed(more: dict[str, str], every_s: float | None) -> None:
    assert Supervisor({"NOTIFY_SOCKET": "/x", **more}, pid=7).every_s == every_s


def test_nobody_watches_without_a_socket() -> None:
    assert Supervisor({"WATCHDOG_USEC": "60000000"}, pid=7).every_s is None


def test_progress_is_a_count_that_moves_within_its_time() -> None:
    now, count = [100.0], [1]
    moves = Progress(lambda: count[0], 60, lambda: now[0])
    now[0] += 59
    assert moves()
    now[0] += 1
    assert not moves()
    count[0] += 1
    assert moves()
    now[0] += 60
    assert not moves()
