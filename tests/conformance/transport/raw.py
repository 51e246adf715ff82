"""MQTT 3.1.1 by hand, for what a well-behaved client would never send."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from tests.support.patience import ANSWER_S


def text(value: str) -> bytes:
    """A string as MQTT writes it."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    """A packet: first byte, remaining length, body."""
    length, header = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        header.append(low | (0x80 if length else 0))
        if not length:
            return bytes(header) + body


def connect(
    user: str, password: str, *, client_id: str = "x", keepalive_s: int = 60, clean: bool = True, will: tuple[str, bytes] | None = None
) -> bytes:
    """A CONNECT packet; the will, if any, is QoS 1 and retained."""
    flags = 0xC0 | (0x02 if clean else 0) | (0x2C if will else 0)
    payload = text(client_id)
    if will is not None:
        payload += text(will[0]) + struct.pack(">H", len(will[1])) + will[1]
    return packet(0x10, text("MQTT") + bytes([4, flags]) + struct.pack(">H", keepalive_s) + payload + text(user) + text(password))


def subscribe(topic_filter: str) -> bytes:
    """A SUBSCRIBE packet with one filter at QoS 1."""
    return packet(0x82, b"\0\1" + text(topic_filter) + b"\1")


class Raw:
    """A socket to a broker on loopback; every read has a deadline."""

    def __init__(self, port: int, *, within_s: float = ANSWER_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=within_s)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end of the stream."""
        data = b""
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data

    def ended(self) -> bool:
        """Wait for the end of the stream; whatever comes before it is passed over."""
        try:
            while self._socket.recv(65_536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True
