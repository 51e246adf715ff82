"""Several signed envelopes in one HTTP body: each behind its length, four bytes, the highest first. The same bytes as on any other way.

parcel = (u32 length | envelope)*
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocols.errors import DecodeError, InvalidInput, TooLarge
from protocols.limits import FRAME_WIRE_BYTES

MEDIA_TYPE: Final = "application/vnd.longshore.sync"
PARCEL_BYTES: Final = 1_000_000
PARCEL_MESSAGES: Final = 256
WAIT_MOST_S: Final = 25
"""how long an answer may be waited for; proxies cut after 30 and more"""
PREFIX: Final = 4
SENT_BYTES: Final = 200_000
"""what a sender puts into one parcel: it is taken in one transaction, and others wait for that"""


def write_parcel(payloads: Iterable[bytes]) -> bytes:
    """The body. Who fills it minds the bounds; `room_in` says what fits."""
    return b"".join(len(payload).to_bytes(PREFIX, "big") + payload for payload in payloads)


def read_parcel(body: bytes) -> list[bytes]:
    """The envelopes, none of them looked at. Errors: DecodeError: beyond the bounds, or it does not end where an envelope ends."""
    if len(body) > PARCEL_BYTES:
        raise DecodeError(f"{len(body)} bytes, at most {PARCEL_BYTES} are taken at once")
    payloads: list[bytes] = []
    at = 0
    while at < len(body):
        length = int.from_bytes(body[at : at + PREFIX], "big")
        payload = body[at + PREFIX : at + PREFIX + length]
        if length > FRAME_WIRE_BYTES or len(payload) != length or len(body) < at + PREFIX:
            raise DecodeError(f"message {len(payloads)} of the body is cut off, or longer than {FRAME_WIRE_BYTES} bytes")
        payloads.append(payload)
        at += PREFIX + length
        if len(payloads) > PARCEL_MESSAGES:
            raise DecodeError(f"more than {PARCEL_MESSAGES} messages, at most so many are taken at once")
    return payloads


def room_in(size: int, messages: int, payload: bytes) -> bool:
    """Does one more fit into a parcel of so many bytes and messages, for a sender?"""
    return messages == 0 or (messages < PARCEL_MESSAGES and size + PREFIX + len(payload) <= SENT_BYTES)


def parse_wait(params: dict[str, str]) -> int:
    """How long the caller would wait, in seconds. Errors: InvalidInput."""
    text = params.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= WAIT_MOST_S):
        raise InvalidInput("wait", f"is not a whole number of seconds from 0 to {WAIT_MOST_S}.")
    return int(text)


def parcel_of(body: bytes) -> list[bytes]:
    """The messages of a body. Errors: InvalidInput, TooLarge."""
    if len(body) > PARCEL_BYTES:
        raise TooLarge("body", f"is too long: at most {PARCEL_BYTES} bytes are taken at once.", remedy="Send less at once.")
    try:
        return read_parcel(body)
    except DecodeError as error:
        raise InvalidInput("body", f"is no {MEDIA_TYPE}: {error.reason}.") from None
