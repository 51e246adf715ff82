"""The line does exactly what it is told: each fault seen from both of its ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest

from tests.chaos.faults import BOTH, DOWN, FAR, HEALTHY, NEAR, UP, Fault, draw
from tests.chaos.proxy import Proxy
from tests.support.patience import WITHIN_S


class Echo:
    """Says back what it hears, in its own threads; `heard` is per connection, in the order of their coming."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard: list[bytearray] = []
        self.ended: list[str] = []
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self._changed:
                self.heard.append(bytearray())
                self.ended.append("")
                self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock, len(self.heard) - 1), daemon=True).start()

    def _serve(self, sock: socket.socket, n: int) -> None:
        end = "closed"
        try:
            while data := sock.recv(4_096):
                self._note(n, data)
                sock.sendall(data)
        except OSError:
            end = "reset"
        with self._changed:
            self.ended[n] = end
            self._changed.notify_all()
        sock.close()

    def _note(self, n: int, data: bytes) -> None:
        with self._changed:
            self.heard[n] += data
            self._changed.notify_all()

    def until(self, n: int, data: bytes) -> bytes:
        """What connection n brought, once it is `data` or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.heard) > n and bytes(self.heard[n]) == data, WITHIN_S)
            return bytes(self.heard[n]) if len(self.heard) > n else b""

    def until_ended(self, n: int) -> str:
        with self._changed:
            self._changed.wait_for(lambda: len(self.ended) > n and self.ended[n] != "", WITHIN_S)
            return self.ended[n] if len(self.ended) > n else ""

    def close(self) -> None:
        for sock in (self.listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def line(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port, seed=7) as made:
        yield made


def dial(line: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=WITHIN_S)


def hear(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer when the connection ends."""
    out = b""
    try:
        while len(out) < size and (data := sock.recv(size - len(out))):
            out += data
    except ConnectionError:
        return out
    return out


def reset(sock: socket.socket) -> bool:
    """Whether the connection ends with a reset and not with a farewell."""
    try:
        while sock.recv(64):
            continue
    except ConnectionError:
        return True
    return False


def turned_away(line: Proxy) -> bool:
    """Whether who comes now is reset."""
    try:
        with dial(line) as sock:
            sock.sendall(b"x")
            return reset(sock)
    except ConnectionError:
        return True


def silent(sock: socket.socket, seconds: float = 0.2) -> bool:
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    return False


def test_a_healthy_line_carries_everything_both_ways_and_the_farewell(line: Proxy, echo: Echo) -> None:
    data = Random(1).randbytes(300_000)
    with dial(line) as sock:
        threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
        assert hear(sock, len(data)) == data
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert echo.until_ended(0) == "closed"
    assert line.counts[UP] == line.counts[DOWN] == len(data)


@pytest.mark.parametrize("at", [0, 1, 17, 39, 40])
def test_a_reset_lets_exactly_so_many_bytes_through_and_both_ends_hear_of_it(line: Proxy, echo: Echo, at: int) -> None:
    line.set(Fault(reset_up_at=at))
    data = bytes(range(40))
    with dial(line) as sock:
        sock.sendall(data)
        assert reset(sock)
    assert echo.until(0, data[:at]) == data[:at]
    assert echo.until_ended(0) == "reset"


def test_a_reset_on_the_way_down_too(line: Proxy) -> None:
    line.set(Fault(reset_down_at=5))
    with dial(line) as sock:
        sock.sendall(b"0123456789")
        assert hear(sock, 10) == b"01234"


def test_resets_walk_through_a_frame_byte_by_byte(line: Proxy, echo: Echo) -> None:
    line.set(Fault(reset_up_at=3, step=1))
    data = bytes(range(30))
    for n in range(20):
        with dial(line) as sock:
            sock.sendall(data)
            hear(sock, 30)
        assert echo.until_ended(n) == "reset"
        assert bytes(echo.heard[n]) == data[: 3 + n]


def test_a_standing_connection_counts_from_the_moment_of_the_fault(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        sock.sendall(b"before")
        assert hear(sock, 6) == b"before"
        line.set(Fault(reset_up_at=2))
        sock.sendall(b"after")
        hear(sock, 5)
    assert echo.until(0, b"beforeaf") == b"beforeaf"


def test_latency_holds_each_byte_back_and_keeps_the_order(line: Proxy) -> None:
    line.set(Fault(latency_ms=80, jitter_ms=60))
    with dial(line) as sock:
        began = time.monotonic()
        for n in range(20):
            sock.sendall(bytes([n]))
        assert hear(sock, 20) == bytes(range(20))
        assert time.monotonic() - began >= 0.16  # there and back


def test_a_narrow_line_takes_its_time(line: Proxy) -> None:
    line.set(Fault(rate_bytes_s=2_000))
    with dial(line) as sock:
        began = time.monotonic()
        sock.sendall(bytes(400))
        assert hear(sock, 400) == bytes(400)
        assert time.monotonic() - began >= 0.18


def test_a_stall_loses_nothing(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        line.set(Fault(stall=True))
        sock.sendall(b"held")
        assert silent(sock)
        line.heal()
        sock.settimeout(WITHIN_S)
        assert hear(sock, 4) == b"held"


def test_one_way_loses_a_direction_and_the_connection_cannot_go_on_after_it(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        line.set(Fault(lose=DOWN))
        sock.sendall(b"said")
        assert echo.until(0, b"said") == b"said"
        assert silent(sock)
        line.heal()
        sock.settimeout(WITHIN_S)
        sock.sendall(b"more")
        assert hear(sock, 1) == b""


def test_both_ways_lost_is_a_cable_that_was_pulled(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        line.set(Fault(lose=BOTH))
        sock.sendall(b"said")
        assert silent(sock)
        assert line.counts["lost"] == 4
    assert echo.heard == [b""]


def test_a_far_end_that_is_gone_leaves_the_near_one_waiting_also_after_healing(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        sock.sendall(b"hi")
        assert hear(sock, 2) == b"hi"
        line.set(Fault(gone=FAR))
        assert echo.until_ended(0) == "reset"
        line.heal()
        sock.sendall(b"anybody?")
        assert silent(sock)
    with dial(line) as sock:
        sock.sendall(b"again")
        assert hear(sock, 5) == b"again"


def test_a_near_end_that_is_gone_is_a_reset_to_it_and_nothing_to_the_far_one(line: Proxy, echo: Echo) -> None:
    with dial(line) as sock:
        sock.sendall(b"hi")
        assert hear(sock, 2) == b"hi"
        line.set(Fault(gone=NEAR))
        with pytest.raises(ConnectionError):
            sock.recv(1)
    assert echo.ended == [""]


def test_corruption_hits_the_byte_it_was_told_and_as_many_as_it_was_told(line: Proxy, echo: Echo) -> None:
    line.set(Fault(corrupt_up_at=3))
    data = bytes(10)
    with dial(line) as sock:
        sock.sendall(data)
        came = hear(sock, 10)
    assert [i for i in range(10) if came[i]] == [3]
    with dial(line) as sock:
        sock.sendall(data)
        assert hear(sock, 10) == data
    line.set(Fault(corrupt_per_million=100_000))
    with dial(line) as sock:
        sock.sendall(bytes(10_000))
        came = hear(sock, 10_000)
    assert 1_000 < sum(byte != 0 for byte in came) < 3_000  # a tenth, twice


def test_refusing_resets_who_comes_and_leaves_who_is_there(line: Proxy) -> None:
    with dial(line) as old:
        old.sendall(b"a")
        assert hear(old, 1) == b"a"
        line.set(Fault(refuse=True))
        assert turned_away(line)
        old.sendall(b"b")
        assert hear(old, 1) == b"b"


def test_a_cut_resets_what_stands(line: Proxy) -> None:
    with dial(line) as sock:
        sock.sendall(b"a")
        assert hear(sock, 1) == b"a"
        line.cut()
        with pytest.raises(ConnectionError):
            sock.recv(1)


def test_a_target_that_is_not_there_is_a_reset(echo: Echo) -> None:
    echo.close()
    with Proxy(echo.port) as line:
        assert turned_away(line)


def test_a_script_plays_by_itself(line: Proxy) -> None:
    line.play([(0.0, Fault(refuse=True)), (0.3, HEALTHY)])
    deadline, answers = time.monotonic() + WITHIN_S, [b""]
    while answers[-1] != b"x" and time.monotonic() < deadline:
        try:
            with dial(line) as sock:
                sock.sendall(b"x")
                answers.append(hear(sock, 1))
        except ConnectionError:
            answers.append(b"")
    assert line.counts["refused"] > 0
    assert answers[-1] == b"x"


def test_the_same_seed_corrupts_the_same_bytes(echo: Echo) -> None:
    came = []
    for _ in range(2):
        with Proxy(echo.port, seed=3) as line:
            line.set(Fault(corrupt_per_million=50_000))
            with dial(line) as sock:
                sock.sendall(bytes(500))
                hear(sock, 500)
        came.append(bytes(echo.heard[-1]))
    assert came[0] == came[1] != bytes(500)


def test_a_fault_goes_through_a_journal_unchanged_and_a_client_line_is_never_corrupted() -> None:
    rng = Random(5)
    drawn = [draw(rng, integrity=n % 2 == 0) for n in range(400)]
    assert [Fault.from_json(fault.as_json()) for fault in drawn] == drawn
    assert any(fault.corrupt_per_million for fault in drawn)
    assert not any(fault.corrupt_per_million for fault in drawn[1::2])
    assert HEALTHY not in drawn
