"""Facts as records of the bus, and back. Pure.

To outside readers a record is a CloudEvent with the canonical event as JSON. A projector takes the `ls_` headers and nothing else, and
believes a fact only if its hash is that of the hash before it and its row. See `hub.bridge_topics` for the headers.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from hub.bridge_topics import EVENTS, RECORDS, TELEMETRY
from hub.bus import BusRecord, Headers, Taken
from hub.store.port import StoreFact, StoreRecord
from protocols.chains import RunKind
from protocols.codec import pack, unpack
from protocols.errors import DecodeError, InvalidInput
from protocols.event import TimeQuality, format_time
from protocols.fact import HASH_BYTES, FactRow, genesis
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.reading import readable
from protocols.streams import StreamKey
from protocols.telemetry import is_telemetry, read_telemetry, reading_json
from protocols.topics import check_node
from protocols.trace import traceparent

_JSON: Final = b"application/json"
_SPEC: Final = ("ce_specversion", b"1.0")
_CONTENT: Final = ("content-type", _JSON)
_ORDER: Final = ("ce_type", b"longshore.order.event.v1")
_READING: Final = ("ce_type", b"longshore.device.telemetry.v1")
_RECORD: Final = ("ce_type", b"longshore.hub.record.v1")
_INT63: Final = 2**63 - 1
_DIGITS: Final = 19
_REASON_BYTES: Final = 1_000
_HEADER_BYTES: Final = 65_536
"""of what is no row, in a record from outside"""
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_quote: Final = json.encoder.encode_basestring
_quoted: Final = lru_cache(1_024)(_quote)
"""of texts that come again and again"""


# ------------------------------------------------------------------ out


class Encoder:
    """Makes records; remembers what all facts of a stream have in common."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, tuple[str, tuple[str, bytes], tuple[str, bytes]]] = {}

    def fact(self, f: StoreFact) -> BusRecord:
        """A fact: to the topic of its kind. What cannot be read goes with the records."""
        if f.quarantined:
            return self._aside(f, {"kind": "quarantined", "reason": f.quarantined}, [("ls_quarantined", _reason(f.quarantined))])
        if f.fact is not None:
            return self._order(f, f.fact)
        try:
            values = unpack(f.row, max_bytes=FRAME_UNPACKED_BYTES)
        except DecodeError as error:  # the store says so, too, and keeps it
            return self._aside(f, {"kind": "unreadable", "reason": error.reason}, [])
        fact, why = readable(values, f.stream, f.seq)
        if fact is not None:
            return self._order(f, fact)
        if not why and is_telemetry(values):
            return self._reading(f, values)
        return self._aside(f, {"kind": "unreadable", "reason": why} if why else {"kind": "bookkeeping"}, [])

    def _order(self, f: StoreFact, fact: FactRow) -> BusRecord:
        key = f"{fact.org}/{fact.order_id}".encode()
        when = format_time(fact.recorded_ms if fact.happened_ms is None else fact.happened_ms)
        return BusRecord(EVENTS, key, event_text(fact, when).encode(), self._headers(f, _ORDER, when, key), f.received_ms)

    def _reading(self, f: StoreFact, values: Any) -> BusRecord:
        reading, recorded_ms = read_telemetry(values)
        key = f"{f.stream.node}/{reading.device}".encode()  # a device's name is its node's: another node may have one of that name
        when = format_time(recorded_ms if reading.happened_ms is None else reading.happened_ms)
        return BusRecord(TELEMETRY, key, _encode(reading_json(reading)).encode(), self._headers(f, _READING, when, key), f.received_ms)

    def _aside(self, f: StoreFact, value: dict[str, object], more: Headers) -> BusRecord:
        """What is no event of an order or device: its value only says what it is."""
        key = stream_text(f.stream).encode()
        value |= {"node": f.stream.node, "epoch": f"{f.stream.epoch:x}", "class": f.stream.cls, "seq": f.seq, "h": f.h.hex()}
        headers = self._headers(f, _RECORD, format_time(f.received_ms), key)
        return BusRecord(RECORDS, key, _encode(value).encode(), [*headers, *more], f.received_ms)

    def record(self, r: StoreRecord) -> BusRecord:
        """An author's word on a hole."""
        text, source, stream = self._of(r.stream)
        key = stream_text(r.stream).encode()
        named = {"node": r.stream.node, "epoch": f"{r.stream.epoch:x}", "class": r.stream.cls, "first": r.first, "last": r.last}
        headers = [
            _SPEC,
            ("ce_id", f"{text}/{r.first}-{r.last}/{r.h_last.hex()}".encode()),
            _RECORD,
            source,
            ("ce_time", format_time(r.received_ms).encode()),
            ("ce_subject", key),
            _CONTENT,
            stream,
            ("ls_record", pack([r.first, r.h_before, r.last, r.h_last, int(r.kind), r.signed])),
            ("ls_received_ms", b"%d" % r.received_ms),
        ]
        return BusRecord(RECORDS, key, _encode({"kind": r.kind.name.lower(), **named}).encode(), headers, r.received_ms)

    def _of(self, key: StreamKey) -> tuple[str, tuple[str, bytes], tuple[str, bytes]]:
        known = self._streams.get(key)
        if known is None:
            source, stream = ("ce_source", f"urn:longshore:node:{key.node}".encode()), ("ls_stream", pack(list(key)))
            known = self._streams[key] = (f"{key.node}/{key.epoch:x}", source, stream)
        return known

    def _headers(self, f: StoreFact, kind: tuple[str, bytes], when: str, subject: bytes) -> Headers:
        text, source, stream = self._of(f.stream)
        return [
            _SPEC,
            ("ce_id", f"{text}/{f.seq}/{f.h.hex()}".encode()),
            kind,
            source,
            ("ce_time", when.encode()),
            ("ce_subject", subject),
            _CONTENT,
            ("traceparent", traceparent(*f.stream[:2], f.seq, f.h).encode()),
            stream,
            ("ls_seq", b"%d" % f.seq),
            ("ls_h", f.h),
            ("ls_prev", f.prev),
            ("ls_row", f.row),
            ("ls_received_ms", b"%d" % f.received_ms),
        ]


def event_text(fact: FactRow, when: str) -> str:
    """`event_json` as compact JSON, written at once: there is one for each event of a backlog. `when`: `happened_ms` in words, if known."""
    return "".join([
        f'{{"org":{_quoted(fact.org)},"orderId":{_quote(fact.order_id)},"source":{_quoted(fact.source)},"status":"{fact.status.name}"',
        "" if fact.happened_ms is None else f',"timestamp":"{when}"',
        "" if fact.quality is TimeQuality.STATED else f',"timeQuality":"{fact.quality.name.lower()}"',
        "" if fact.region is None else f',"region":{_quoted(fact.region)}',
        "" if fact.site is None else f',"site":{_quoted(fact.site)}',
        "" if fact.actor is None else f',"actor":{_quoted(fact.actor)}',
        f',"details":{_details(fact.details)}}}' if fact.details else "}",
    ])  # fmt: skip


def _details(details: dict[str, object]) -> str:
    parts = [f"{_quoted(name)}:{_quote(item)}" for name, item in details.items() if type(item) is str]
    return f"{{{','.join(parts)}}}" if len(parts) == len(details) else _encode(details)


def stream_text(key: StreamKey) -> str:
    """A stream as people see it, and as the key of what is said of it."""
    return f"{key.node}/{key.epoch:x}/{key.cls}"


def _reason(text: str) -> bytes:
    return text.encode()[:_REASON_BYTES]


# ------------------------------------------------------------------ in


def read(taken: Taken) -> StoreFact | StoreRecord:
    """What a record carries. Raises only DecodeError, whose reason fits a header."""
    headers = dict(taken.headers)
    key = _stream(_one(headers, "ls_stream"))
    received_ms = _number(headers, "ls_received_ms", least=0)
    if "ls_record" in headers:
        return _read_record(key, headers["ls_record"], received_ms)
    seq, h, prev, row = _number(headers, "ls_seq", least=1), _hash(headers, "ls_h"), _hash(headers, "ls_prev"), _one(headers, "ls_row")
    if len(row) > FRAME_UNPACKED_BYTES:
        raise DecodeError(f"ls_row: {len(row)} bytes, at most {FRAME_UNPACKED_BYTES}")
    if seq == 1 and prev != genesis(*key):
        raise DecodeError("ls_prev: the first fact of a stream does not follow its genesis hash")
    why = headers.get("ls_quarantined")
    if why is not None:
        return StoreFact(key, seq, h, prev, row, received_ms, _text(why, "ls_quarantined") or "quarantined")
    if blake2b(prev + row, digest_size=HASH_BYTES).digest() != h:
        raise DecodeError("ls_h: not the hash of ls_prev and ls_row")
    return StoreFact(key, seq, h, prev, row, received_ms)


def _read_record(key: StreamKey, data: bytes, received_ms: int) -> StoreRecord:
    said = unpack(data, max_bytes=_HEADER_BYTES * 4)
    if type(said) is not list or len(said) < 6:
        raise DecodeError("ls_record: [first, h_before, last, h_last, kind, signed] is expected")
    first, h_before, last, h_last, kind, signed = said[:6]
    if type(first) is not int or type(last) is not int or not 1 <= first <= last <= _INT63:
        raise DecodeError("ls_record: not a range")
    if type(h_last) is not bytes or len(h_last) != HASH_BYTES or type(h_before) is not bytes or len(h_before) not in (0, HASH_BYTES):
        raise DecodeError("ls_record: not a hash")
    if type(signed) is not bytes or type(kind) is not int or kind not in _KINDS:
        raise DecodeError("ls_record: not a kind of record")
    return StoreRecord(key, first, h_before, last, h_last, _KINDS[kind], signed, received_ms)


_KINDS: Final = {int(kind): kind for kind in RunKind if kind is not RunKind.DATA}


def _one(headers: dict[str, bytes], name: str) -> bytes:
    value = headers.get(name)
    if value is None:
        raise DecodeError(f"{name}: missing; this is no record of a hub")
    return value


@lru_cache(4_096)
def _stream(data: bytes) -> StreamKey:
    if len(data) > _HEADER_BYTES:
        raise DecodeError("ls_stream: too long")
    said = unpack(data, max_bytes=_HEADER_BYTES)
    if type(said) is not list or len(said) != 3 or type(said[0]) is not str:
        raise DecodeError("ls_stream: [node, epoch, class] is expected")
    node, epoch, cls = said
    if type(epoch) is not int or type(cls) is not int or not 1 <= epoch <= _INT63 or not 0 <= cls <= 255:
        raise DecodeError("ls_stream: epoch or class is no number of a stream")
    try:
        return StreamKey(check_node(node, "ls_stream"), epoch, cls)
    except InvalidInput as error:
        raise DecodeError(error.reason) from error


def _number(headers: dict[str, bytes], name: str, *, least: int) -> int:
    data = _one(headers, name)
    if not data.isdigit() or len(data) > _DIGITS or not least <= int(data) <= _INT63:
        raise DecodeError(f"{name}: not a number from {least}")
    return int(data)


def _hash(headers: dict[str, bytes], name: str) -> bytes:
    data = _one(headers, name)
    if len(data) != HASH_BYTES:
        raise DecodeError(f"{name}: {HASH_BYTES} bytes are expected")
    return data


def _text(data: bytes, name: str) -> str:
    try:
        return data[:_REASON_BYTES].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"{name}: not UTF-8") from error
