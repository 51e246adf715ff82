"""A TCP line that can be made to lie: a forwarder of ours on loopback, in user space, with a thread of its own.

    with Proxy(target_port, seed=7) as line:
        …connect to line.port…
        line.set(Fault(latency_ms=200, lose=DOWN))
        line.heal()
        line.play([(0.0, Fault(reset_up_at=120, step=1)), (2.0, HEALTHY)])

Bytes are forwarded piece by piece over plain non-blocking sockets, not over asyncio's streams: nothing is buffered out of sight, so a reset
at byte n really lets n bytes through. All chance comes from the seed and the number of the connection.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.chaos.faults import BOTH, DOWN, HEALTHY, NEAR, UP, Fault, Script

PIECE_BYTES: Final = 16_384
PIECES_WAITING: Final = 64
"""read and not delivered yet, per direction; then who sends has to wait, as on a real line"""
STEP_S: Final = 0.01
_RESET: Final = struct.pack("ii", 1, 0)
_LIBC: Final = ctypes.CDLL(None)


class Proxy:
    """One line to one port. All methods may be called from any thread. `counts` is for reading."""

    def __init__(self, target_port: int, *, seed: int | str = 0, port: int = 0) -> None:
        self.target_port, self.port, self.seed = target_port, port, seed
        self.fault = HEALTHY
        self.counts: Counter[str] = Counter()
        self.changed = False
        """the one byte that a fault names was changed"""
        self._resets = 0
        self._numbers = 0
        self._connections: dict[int, _Connection] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None

    # ------------------------------------------------------------ life

    def start(self) -> Proxy:
        """Listen; `port` is known when it returns."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name=f"line-{self.port}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Reset what is connected, and end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        listener = self._listener
        assert listener is not None
        asyncio.set_event_loop(self._loop)
        self._spawn(self._accept(listener))
        self._loop.run_forever()
        for connection in list(self._connections.values()):
            connection.reset()
        listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    # ------------------------------------------------------------ what is wrong

    def set(self, fault: Fault) -> None:
        """From now on this is wrong, and nothing else; returns once it is in force."""
        self._call(lambda: self._set(fault))

    def heal(self) -> None:
        """Nothing is wrong any more; what a connection has lost stays lost."""
        self.set(HEALTHY)

    def cut(self) -> None:
        """Reset every connection that stands now."""
        self._call(self._cut)

    def play(self, script: Script) -> None:
        """Let a script of faults begin now; returns at once."""
        self._call(lambda: self._spawn(self._play(script)))

    def _call(self, do: Callable[[], object]) -> None:
        done = threading.Event()

        def there() -> None:
            do()
            done.set()

        if self._thread is not None:
            self._loop.call_soon_threadsafe(there)
            done.wait(5.0)

    def _set(self, fault: Fault) -> None:
        self.fault = fault
        self._resets = 0
        self.changed = False
        for connection in list(self._connections.values()):
            connection.counted = {UP: 0, DOWN: 0}
            connection.extra = 0
            if fault.gone:
                connection.lose_side(fault.gone)

    def _cut(self) -> None:
        for connection in list(self._connections.values()):
            connection.reset()

    async def _play(self, script: Script) -> None:
        began = self._loop.time()
        for at_s, fault in script:
            await asyncio.sleep(max(0.0, began + at_s - self._loop.time()))
            self._set(fault)

    # ------------------------------------------------------------ connections

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda t: self._tasks.pop(t, None))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            near, _ = await self._loop.sock_accept(listener)
            near.setblocking(False)
            self.counts["connections"] += 1
            if self.fault.refuse:
                self.counts["refused"] += 1
                _abort(near)
            else:
                self._spawn(self._serve(near))

    async def _serve(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        far.setblocking(False)
        try:
            await self._loop.sock_connect(far, ("127.0.0.1", self.target_port))
        except OSError:
            self.counts["unreachable"] += 1
            _abort(near)
            far.close()
            return
        self._numbers += 1
        connection = _Connection(self, near, far, Random(f"{self.seed}/{self._numbers}"), self._resets * self.fault.step)
        if self.fault.reset_up_at is not None or self.fault.reset_down_at is not None:
            self._resets += 1
        self._connections[id(connection)] = connection
        if self.fault.gone:
            connection.lose_side(self.fault.gone)
        try:
            await connection.carry()
        finally:
            connection.close()
            del self._connections[id(connection)]


@dataclass(slots=True, eq=False)
class _Connection:
    """Two sockets and the four tasks between them: per direction one reads, one delivers."""

    proxy: Proxy
    near: socket.socket
    far: socket.socket
    rng: Random
    extra: int
    """bytes that this connection may carry beyond what the fault says, see `step`"""
    counted: dict[str, int] = field(default_factory=lambda: {UP: 0, DOWN: 0})
    carried: dict[str, int] = field(default_factory=lambda: {UP: 0, DOWN: 0})
    torn: dict[str, bool] = field(default_factory=lambda: {UP: False, DOWN: False})
    """something of this direction was lost"""
    lost: str = ""
    """the side that has vanished"""
    over: bool = False

    async def carry(self) -> None:
        """Until both directions have ended, or it was reset."""
        await asyncio.gather(self._direction(UP, self.near, self.far), self._direction(DOWN, self.far, self.near))

    async def _direction(self, way: str, source: socket.socket, target: socket.socket) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_WAITING)
        await asyncio.gather(self._read(way, source, queue), self._deliver(way, target, queue))

    async def _read(self, way: str, source: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop, due = asyncio.get_running_loop(), 0.0
        data = b"-"
        while data:
            try:
                data = await loop.sock_recv(source, PIECE_BYTES)
            except OSError:
                self._ended_badly()
                data = b""
            fault = self.proxy.fault
            wait_s = (fault.latency_ms + self.rng.random() * fault.jitter_ms) / 1_000
            due = max(due, loop.time() + wait_s)
            await queue.put((due, data))

    def _ended_badly(self) -> None:
        """A reset of one side is one for the other, unless the line has lost a side: then nobody is told."""
        if not self.lost:
            self.reset()

    async def _deliver(self, way: str, target: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            while self.proxy.fault.stall and not self.over:
                await asyncio.sleep(STEP_S)
            if not data:
                if not (self.lost or self.over or self.torn[way]):
                    with suppress(OSError):
                        target.shutdown(socket.SHUT_WR)
                return
            await self._pass_on(way, target, data)

    async def _pass_on(self, way: str, target: socket.socket, data: bytes) -> None:
        fault = self.proxy.fault
        if self.over or self.lost:
            self.proxy.counts["swallowed"] += len(data)
            return
        if fault.lose in (way, BOTH):
            self.torn[way] = True
            self.proxy.counts["lost"] += len(data)
            return
        if self.torn[way]:
            self.reset()  # a stream with a gap cannot go on
            return
        limit = fault.reset_up_at if way is UP else fault.reset_down_at
        room = None if limit is None else max(0, limit + self.extra - self.counted[way])
        await self._send(way, target, self._corrupted(way, data if room is None else data[:room], fault), fault)
        if room is not None and len(data) >= room:
            self.proxy.counts["resets"] += 1
            self.reset()

    async def _send(self, way: str, target: socket.socket, data: bytes, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        size = len(data) if not fault.rate_bytes_s else max(1, fault.rate_bytes_s // 50)
        try:
            for start in range(0, len(data), size or 1):
                piece = data[start : start + size]
                await loop.sock_sendall(target, piece)
                self.counted[way] += len(piece)
                self.carried[way] += len(piece)
                self.proxy.counts[way] += len(piece)
                if fault.rate_bytes_s:
                    await asyncio.sleep(len(piece) / fault.rate_bytes_s)
        except OSError:
            self._ended_badly()

    def _corrupted(self, way: str, data: bytes, fault: Fault) -> bytes:
        exact = fault.corrupt_up_at if way is UP else fault.corrupt_down_at
        if not (fault.corrupt_per_million or exact is not None):
            return data
        out = bytearray(data)
        for i in range(len(out)):
            named = exact == self.counted[way] + i and not self.proxy.changed
            if named or self.rng.random() * 1_000_000 < fault.corrupt_per_million:
                out[i] ^= self.rng.randint(1, 255)
                self.proxy.changed = self.proxy.changed or named
                self.proxy.counts["corrupted"] += 1
        return bytes(out)

    def lose_side(self, side: str) -> None:
        """One side is gone: its socket is reset, as its machine's would be; the other is told nothing."""
        if not (self.lost or self.over):
            self.lost = side
            self.proxy.counts["half_open"] += 1
            _abort_now(self.near if side == NEAR else self.far)

    def reset(self) -> None:
        """Both sides hear of it at once."""
        if not self.over:
            self.over = True
            for sock in (self.near, self.far):
                _abort_now(sock)

    def close(self) -> None:
        """Give the sockets back."""
        for sock in (self.near, self.far):
            sock.close()


def _abort(sock: socket.socket) -> None:
    """RST instead of a farewell; the socket is closed."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def _abort_now(sock: socket.socket) -> None:
    """RST while the loop still watches the socket, which therefore may not be closed yet: the connection is dissolved.

    connect(AF_UNSPEC) on a connected TCP socket sends the peer its reset, and our readers wake with an error.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    address = struct.pack("H14x", socket.AF_UNSPEC)
    if _LIBC.connect(sock.fileno(), address, len(address)) != 0:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
