"""The first bytes of a connection: which MQTT does it speak? Bytes only; knows no library."""

from __future__ import annotations

from typing import Final

_NAME: Final = b"\0\4MQTT"
_HEAD_MOST: Final = 5
"""A byte of type, and up to four of length."""

COME_WITH_3: Final = b"\x20\x02\x00\x01"
"""A CONNACK that clients of MQTT 5 understand, too: this version is not spoken here."""


def connect_level(begun: bytes) -> int | None:
    """The protocol level of a CONNECT (4: 3.1.1, 5: 5) from its first bytes; None: more of them are needed; 0: it is no such CONNECT."""
    at = begun.find(_NAME)
    if at < 0:
        return None if len(begun) < _HEAD_MOST + len(_NAME) else 0
    level_at = at + len(_NAME)
    if not 2 <= at <= _HEAD_MOST:
        return 0
    return begun[level_at] if len(begun) > level_at else None
