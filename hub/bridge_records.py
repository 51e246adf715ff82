"""Facts as records of the bus, and back. Pure.

To outside readers a record is a CloudEvent with the canonical event as JSON. A projector takes the `ls_` headers and nothing else, and
believes a fact only if its hash is that of the hash before it and its row. See `hub.bridge_topics` for the headers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple

from hub.bridge_topics import EVENTS, FACT, RECORDS, TELEMETRY
from hub.bus import BusRecord, Taken
from hub.kafka_record import SIZES, Packed, Whole, header, named, varint
from hub.store.port import StoreFact, StoreRecord
from protocols.chains import RunKind
from protocols.codec import pack, unpack
from protocols.errors import DecodeError, InvalidInput
from protocols.event import TimeQuality, format_time
from protocols.fact import HASH_BYTES, FactRow, genesis
from protocols.lifecycle import Status
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.reading import readable
from protocols.streams import StreamKey
from protocols.telemetry import is_telemetry, read_telemetry, reading_json
from protocols.topics import check_node
from protocols.trace import stream_part, trace_id_in

_JSON: Final = b"application/json"
_PLACE: Final = Struct(">QQ8s8sB")
"""at the front of `ls_fact`: seq, received_ms, h, prev, length of the stream; then the stream, as in `ls_stream`, and the row"""
_INT63: Final = 2**63 - 1
_DIGITS: Final = 19
_fact: Final = partial(tuple.__new__, StoreFact)
_REASON_BYTES: Final = 1_000
_HEADER_BYTES: Final = 65_536
"""of what is no row, in a record from outside"""
_quote: Final = json.encoder.encode_basestring
_BYTES: Final = "latin-1"
"""each byte as a character: headers are written as text, which is joined in one go"""
_HEX: Final = 2 * HASH_BYTES


# ------------------------------------------------------------------ out


def _begins(kind: bytes, count: int) -> str:
    """What all records of a kind have in common; they have so many headers. Bytes, as characters."""
    same = (("ce_specversion", b"1.0"), ("ce_type", kind), ("content-type", _JSON))
    return (varint(count) + b"".join([header(name, value) for name, value in same])).decode(_BYTES)


_ORDER: Final = _begins(b"longshore.order.event.v1", 10)
_READING: Final = _begins(b"longshore.device.telemetry.v1", 10)
_ASIDE: Final = _begins(b"longshore.hub.record.v1", 10)
_REFUSED: Final = _begins(b"longshore.hub.record.v1", 11)
_RECORD: Final = _begins(b"longshore.hub.record.v1", 10)
_TIME, _SUBJECT, _SEQ, _IN_ONE = (named(name).decode(_BYTES) for name in ("ce_time", "ce_subject", "ls_seq", FACT))
_TRACE: Final = (named("traceparent") + varint(55)).decode(_BYTES)
"""its value is always as long"""


_made: Final = partial(tuple.__new__, BusRecord)


class _OfStream(NamedTuple):
    """What all facts of a stream have in common: how their identity begins; the header that names their source, as bytes and, with what
    follows it, as characters; the stream itself; how their traces begin; how long an identity is beside its seq."""

    text: str
    source: bytes
    begins: str
    packed: bytes
    trace: bytes
    identity_bytes: int


class Encoder:
    """Makes records; remembers what all facts of a stream have in common."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, _OfStream] = {}

    def fact(self, f: StoreFact) -> BusRecord:
        """A fact: to the topic of its kind. What cannot be read goes with the records."""
        if f.fact is not None and not f.quarantined:
            return self._order(f, f.fact)
        if f.quarantined:
            why = header("ls_quarantined", _reason(f.quarantined))
            return self._aside(f, {"kind": "quarantined", "reason": f.quarantined}, _REFUSED, why)
        try:
            values = unpack(f.row, max_bytes=FRAME_UNPACKED_BYTES)
        except DecodeError as error:  # the store says so, too, and keeps it
            return self._aside(f, {"kind": "unreadable", "reason": error.reason})
        fact, why_not = readable(values, f.stream, f.seq)
        if fact is not None:
            return self._order(f, fact)
        if not why_not and is_telemetry(values):
            return self._reading(f, values)
        return self._aside(f, {"kind": "unreadable", "reason": why_not} if why_not else {"kind": "bookkeeping"})

    def _order(self, f: StoreFact, fact: FactRow) -> BusRecord:
        key = f"{fact.org}/{fact.order_id}".encode()
        when = format_time(fact.recorded_ms if fact.happened_ms is None else fact.happened_ms)
        value = event_text(fact, when).encode()
        key_size, value_size = varint(len(key)), varint(len(value))
        record = b"".join((key_size, key, value_size, value, *self._headers(f, _ORDER, when, key)))
        at = len(key_size) + len(key) + len(value_size) + len(value)
        return _made((EVENTS, key, value, Whole(record, at), f.received_ms))

    def _reading(self, f: StoreFact, values: Any) -> BusRecord:
        reading, recorded_ms = read_telemetry(values)
        key = f"{f.stream.node}/{reading.device}".encode()  # a device's name is its node's: another node may have one of that name
        when = format_time(recorded_ms if reading.happened_ms is None else reading.happened_ms)
        headers = Packed(b"".join(self._headers(f, _READING, when, key)))
        return BusRecord(TELEMETRY, key, encode(reading_json(reading)).encode(), headers, f.received_ms)

    def _aside(self, f: StoreFact, value: dict[str, object], begins: str = _ASIDE, more: bytes = b"") -> BusRecord:
        """What is no event of an order or device: its value only says what it is."""
        key = stream_text(f.stream).encode()
        value |= {"node": f.stream.node, "epoch": f"{f.stream.epoch:x}", "class": f.stream.cls, "seq": f.seq, "h": f.h.hex()}
        headers = Packed(b"".join((*self._headers(f, begins, format_time(f.received_ms), key), more)))
        return BusRecord(RECORDS, key, encode(value).encode(), headers, f.received_ms)

    def record(self, r: StoreRecord) -> BusRecord:
        """An author's word on a hole."""
        of = self._of(r.stream)
        key = stream_text(r.stream).encode()
        said = {"node": r.stream.node, "epoch": f"{r.stream.epoch:x}", "class": r.stream.cls, "first": r.first, "last": r.last}
        headers = [
            _RECORD.encode(_BYTES),
            of.source,
            header("ce_id", f"{of.text}/{r.first}-{r.last}/{r.h_last.hex()}".encode()),
            header("ce_time", format_time(r.received_ms).encode()),
            header("ce_subject", key),
            header("ls_stream", of.packed),
            header("ls_record", pack([r.first, r.h_before, r.last, r.h_last, int(r.kind), r.signed])),
            header("ls_received_ms", b"%d" % r.received_ms),
        ]
        value = encode({"kind": r.kind.name.lower(), **said}).encode()
        return BusRecord(RECORDS, key, value, Packed(b"".join(headers)), r.received_ms)

    def _of(self, key: StreamKey) -> _OfStream:
        known = self._streams.get(key)
        if known is None:
            source, text = header("ce_source", f"urn:longshore:node:{key.node}".encode()), f"{key.node}/{key.epoch:x}"
            begins = (source + named("ce_id")).decode(_BYTES)
            known = _OfStream(text, source, begins, pack(list(key)), stream_part(key.node, key.epoch), len(text) + _HEX + 2)
            self._streams[key] = known
        return known

    def _headers(self, f: StoreFact, begins: str, when: str, subject: bytes) -> tuple[bytes, ...]:
        """Of a fact, to be joined. Most of it is plain characters and is written at once: pairs in a list took half of a bridge's time."""
        stream, seq, h, prev, row, received_ms = f[:6]
        of = self._streams.get(stream) or self._of(stream)
        number, digits, key, sizes = str(seq), h.hex(), of.packed, SIZES
        size = len(number)
        first = (
            f"{begins}{of.begins}{sizes[of.identity_bytes + size]}{of.text}/{number}/{digits}{_TIME}{sizes[len(when)]}{when}"
            f"{_SUBJECT}{sizes[len(subject)]}"
        )
        second = f"{_TRACE}00-{trace_id_in(of.trace, seq, h)}-{digits}-01{_SEQ}{sizes[size]}{number}{_IN_ONE}"
        place = _PLACE.pack(seq, received_ms, h, prev, len(key))
        return first.encode(_BYTES), subject, second.encode(_BYTES), varint(_PLACE.size + len(key) + len(row)), place, key, row


def event_text(fact: FactRow, when: str) -> str:
    """`event_json` as compact JSON, written at once: there is one for each event of a backlog. `when`: `happened_ms` in words, if known."""
    org, order_id, source, status, happened_ms, quality, region, site, actor, details = fact[:10]
    begins, middle, ends = _around(org, source, status, quality, region, site, actor)
    time = "" if happened_ms is None else f',"timestamp":"{when}"'
    if details:
        ends = f'{ends},"details":{encode(details)}'
    return f"{begins}{_quote(order_id)}{middle}{time}{ends}}}"


@lru_cache(1_024)
def _around(
    org: str, source: str, status: Status, quality: TimeQuality, region: str | None, site: str | None, actor: str | None
) -> tuple[str, str, str]:
    """What stands before an event's order, behind it, and behind its time: the same for many."""
    ends = [
        "" if quality is TimeQuality.STATED else f',"timeQuality":"{quality.name.lower()}"',
        "" if region is None else f',"region":{_quote(region)}',
        "" if site is None else f',"site":{_quote(site)}',
        "" if actor is None else f',"actor":{_quote(actor)}',
    ]
    return f'{{"org":{_quote(org)},"orderId":', f',"source":{_quote(source)},"status":"{status.name}"', "".join(ends)


def _encoder() -> Callable[[dict[str, Any]], str]:
    """Objects as compact JSON. The library makes its inner encoder anew for every value, which takes as long as encoding some details."""
    inner = getattr(json.encoder, "c_make_encoder", None)
    if inner is None:
        return json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
    parts = inner(None, None, _quote, None, ":", ",", False, False, True)
    return lambda value: "".join(parts(value, 0))


encode: Final = _encoder()


def stream_text(key: StreamKey) -> str:
    """A stream as people see it, and as the key of what is said of it."""
    return f"{key.node}/{key.epoch:x}/{key.cls}"


def _reason(text: str) -> bytes:
    return text.encode()[:_REASON_BYTES]


# ------------------------------------------------------------------ in


def read(taken: Taken) -> StoreFact | StoreRecord:
    """What a record carries. Raises only DecodeError, whose reason fits a header."""
    if taken.headers and taken.headers[-1][0] == FACT:
        return _read_fact(taken.headers[-1][1])
    headers = dict(taken.headers)
    if FACT in headers:
        return _read_fact(headers[FACT], headers.get("ls_quarantined"))
    if not any(name in headers for name in ("ls_stream", "ls_record", "ls_row")):
        _one(headers, FACT)  # nor is it one of an earlier hub
    key = _stream(_one(headers, "ls_stream"))
    received_ms = _number(headers, "ls_received_ms", least=0)
    if "ls_record" in headers:
        return _read_record(key, headers["ls_record"], received_ms)
    seq, h, prev, row = _number(headers, "ls_seq", least=1), _hash(headers, "ls_h"), _hash(headers, "ls_prev"), _one(headers, "ls_row")
    return _checked(StoreFact(key, seq, h, prev, row, received_ms), headers.get("ls_quarantined"))


def read_all(taken: Sequence[Taken]) -> tuple[list[StoreFact], list[StoreRecord], list[tuple[Taken, str]]]:
    """`read` of each; and what cannot be read, with the reason. Nearly all are good facts: those are looked at once, on the spot."""
    facts: list[StoreFact] = []
    records: list[StoreRecord] = []
    dead: list[tuple[Taken, str]] = []
    for one in taken:
        try:
            if one.headers and one.headers[-1][0] == FACT and len(data := one.headers[-1][1]) >= _PLACE.size:
                seq, received_ms, h, prev, size = _PLACE.unpack_from(data)
                at = _PLACE.size + size
                row = data[at:]
                good = 1 < seq <= _INT63 and received_ms <= _INT63 and len(row) <= FRAME_UNPACKED_BYTES
                if good and blake2b(prev + row, digest_size=HASH_BYTES).digest() == h:
                    facts.append(_fact((_stream(data[_PLACE.size : at]), seq, h, prev, row, received_ms, "", None)))
                    continue
            found = read(one)
        except DecodeError as error:
            dead.append((one, error.reason))
        else:
            if isinstance(found, StoreFact):
                facts.append(found)
            else:
                records.append(found)
    return facts, records, dead


def _read_fact(data: bytes, why: bytes | None = None) -> StoreFact:
    """A fact in one header. Earlier hubs wrote one for each of its parts."""
    if len(data) < _PLACE.size:
        raise DecodeError("ls_fact: it ends early")
    seq, received_ms, h, prev, size = _PLACE.unpack_from(data)
    at = _PLACE.size + size
    if not 1 <= seq <= _INT63 or received_ms > _INT63:
        raise DecodeError("ls_fact: seq or time is no number from 1 to 2^63-1")
    return _checked(StoreFact(_stream(data[_PLACE.size : at]), seq, h, prev, data[at:], received_ms), why)


def _checked(f: StoreFact, why: bytes | None) -> StoreFact:
    """The fact, if it stands where it says. `why`: it is in quarantine, and only bytes."""
    if len(f.row) > FRAME_UNPACKED_BYTES:
        raise DecodeError(f"row: {len(f.row)} bytes, at most {FRAME_UNPACKED_BYTES}")
    if f.seq == 1 and f.prev != genesis(*f.stream):
        raise DecodeError("prev: the first fact of a stream does not follow its genesis hash")
    if why is not None:
        return f._replace(quarantined=_text(why, "ls_quarantined") or "quarantined")
    if blake2b(f.prev + f.row, digest_size=HASH_BYTES).digest() != f.h:
        raise DecodeError("h: not the hash of prev and row")
    return f


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
