"""What is fuzzed. A target takes any bytes; whatever they are, only the errors of its contract may come out, in bounded time and memory.

Some go further than not to crash: what was read must mean the same when it is written and read again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final

from edge_agent.core import EdgeCore, EdgeIdentity, Now
from hub.core import HubCore, HubIdentity
from protocols import policies, yaml_text
from protocols.codec import FrameHeader, Kind, decode_body, encode_body, envelope, open_envelope, pack, unpack
from protocols.copies import Copies
from protocols.downlink import Feed
from protocols.errors import DecodeError, LongshoreError
from protocols.event import EventDefaults, load_json, parse_batch
from protocols.fact import chain, genesis, to_row
from protocols.ledger import Ledger
from protocols.limits import FRAME_WIRE_BYTES
from protocols.messages import Message, parse_message
from protocols.reading import readable
from protocols.sqlite import Db
from protocols.stick import read_stick, write_stick
from protocols.sync.frames import open_frame
from protocols.sync.parcel import read_parcel
from protocols.sync.seal import Control, unseal
from protocols.telemetry import parse_readings, read_telemetry
from protocols.topics import Address, parse_topic
from protocols.trust import NodeKey, hash_password, make_card, parse_address, parse_card, verify
from tests.unit.protocols.test_messages import MESSAGES

NOW_MS: Final = 1_780_000_000_000
DEFAULTS: Final = EventDefaults("acme", "EMEA", "Madrid")
_CONTROL: Final = [kind for kind in Kind if kind is not Kind.FRAME]


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder. `seeds`: good inputs to begin with."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def _only(*allowed: type[Exception]) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """The errors that a decoder may raise; anything else is a finding."""

    def wrap(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def guarded(data: bytes) -> None:
            try:
                run(data)
            except allowed:
                return

        return guarded

    return wrap


# ------------------------------------------------------------ the wire


@_only(DecodeError)
def _envelope(data: bytes) -> None:
    opened = unseal(data)
    if isinstance(opened, Control):
        opened.message()
    else:
        open_frame(opened[1], opened[0].body)


def _rows() -> list[bytes]:
    event = parse_batch(load_json(_events_json()[0]), defaults=DEFAULTS, now_ms=NOW_MS)[0]
    return [pack(to_row(event, NOW_MS + n, [["dock-2", 7, n + 1, b"abcd"]] if n % 2 else [])) for n in range(6)]


def _frame() -> bytes:
    rows = _rows()
    before = genesis("dock-1", 5, 0)
    header = FrameHeader("dock-1", 5, 0, 1, len(rows), before, chain(before, rows)[-1], 1)
    return envelope(Kind.FRAME, header.to_list(), encode_body(rows, dictionary=1)) + bytes(64)


def _messages() -> list[bytes]:
    return [envelope(m.KIND, ["dock-1", "hub"], pack(m.to_list())) + bytes(64) for m in MESSAGES]


@_only(DecodeError)
def _message(data: bytes) -> None:
    """The first byte says the kind; what was read says the same when it is written and read again."""
    kind = _CONTROL[data[0] % len(_CONTROL)] if data else Kind.HELLO
    said = parse_message(kind, unpack(data[1:], max_bytes=FRAME_WIRE_BYTES))
    again = parse_message(kind, unpack(pack(said.to_list()), max_bytes=2 * FRAME_WIRE_BYTES))
    assert again == said, "a message that is not the same when it is read again"


def _message_seed(m: Message) -> bytes:
    kinds: list[Kind] = list(_CONTROL)
    return bytes((kinds.index(m.KIND),)) + pack(m.to_list())


@_only(DecodeError)
def _body(data: bytes) -> None:
    """Rows come back byte for byte when they are packed into another frame."""
    if len(data) < 2:
        return
    count, dictionary = data[0] + 1, data[1] % 2
    rows = [row for row, _ in decode_body(data[2:], count, dictionary)]
    assert [row for row, _ in decode_body(encode_body(rows, dictionary=1), count, 1)] == rows, "rows changed on their way"


@_only(DecodeError)
def _row(data: bytes) -> None:
    values = unpack(data, max_bytes=FRAME_WIRE_BYTES)
    readable(values)
    read_telemetry(values)


@_only(DecodeError)
def _parcel(data: bytes) -> None:
    read_parcel(data)


@_only(LongshoreError)
def _stick(data: bytes) -> None:
    for part in read_stick(io.BytesIO(data)):
        assert part is not None


def _sticks() -> list[bytes]:
    file = io.BytesIO()
    write_stick(file, [_frame(), *_messages()])
    return [file.getvalue()]


# ------------------------------------------------------------ cores: any bytes, and the ledger is as it was or well-formed


@cache
def _key(name: str) -> NodeKey:
    return NodeKey(name.encode().ljust(32, b"-"))


def _hub_core(data: bytes) -> None:
    """Bytes that bear the good signature of an admitted node, so that what lies behind the signature is reached."""
    hub_key, key = _key("hub"), _key("dock-1")
    core = HubCore(Db(":memory:"), HubIdentity("acme", "EMEA", "hub", hub_key.public), hub_key.sign, verify, Random(1))
    card = make_card(key, node="dock-1", org="acme", region="EMEA", site="Madrid", password_hash=_hashed())
    core.begin()
    core.take_card(parse_card(card), NOW_MS)
    core.take_message("dock-1", data[:-64] + key.sign(data[:-64]), NOW_MS)
    core.commit()
    core.effects(NOW_MS)
    core.ledger.db.close()


@cache
def _hashed() -> str:
    return hash_password("x", n=2)


def _edge_core(data: bytes) -> None:
    hub_key, key = _key("hub"), _key("dock-1")
    identity = EdgeIdentity(Address("acme", "EMEA", "Madrid", "dock-1"), "hub", hub_key.public)
    core = EdgeCore(Db(":memory:"), identity, key.sign, verify, Random(1))
    core.begin()
    core.take_up(Now(NOW_MS, 0))
    core.take_message(data[:-64] + hub_key.sign(data[:-64]), Now(NOW_MS, 1))
    core.commit()
    core.effects(Now(NOW_MS, 2))
    core.ledger.db.close()


def _downs() -> list[bytes]:
    return [envelope(m.KIND, ["hub", "dock-1"], pack(m.to_list())) + bytes(64) for m in MESSAGES]


@_only(DecodeError)
def _feed(data: bytes) -> None:
    ledger = Ledger(Db(":memory:"), node="dock-1", new_epoch=lambda: 5)
    feed = Feed.parse(unpack(data, max_bytes=FRAME_WIRE_BYTES))
    ledger.begin()
    try:
        Copies(ledger).take(feed, NOW_MS)
        ledger.commit()
    finally:
        ledger.db.rollback()
        ledger.db.close()


def _feeds() -> list[bytes]:
    rows = _rows()
    places = tuple((0, n + 1, bytes(8)) for n in range(len(rows)))
    whole = Feed(b"feedfeed", True, 0, 9, False, (("dock-2", 7, 0, 0),), places, 1, encode_body(rows, dictionary=1))
    return [pack(whole.to_list()), *(pack(m.to_list()) for m in MESSAGES if isinstance(m, Feed))]


# ------------------------------------------------------------ what people and programs send


@_only(LongshoreError)
def _events(data: bytes) -> None:
    for event in parse_batch(load_json(data), defaults=DEFAULTS, now_ms=NOW_MS):
        row = pack(to_row(event, NOW_MS, []))
        fact, why = readable(unpack(row, max_bytes=FRAME_WIRE_BYTES))
        assert fact is not None, f"taken, and not readable: {why}"


def _events_json() -> list[bytes]:
    one = (
        b'{"orderId":"A-1","source":"WMS","status":"SHIPPED","timestamp":"2026-05-21T14:05:12Z","site":"Madrid",'
        b'"idempotencyKey":"k","details":{"carrier":"FedEx","lines":[{"sku":"x","quantity":3}],"notes":"n"}}'
    )
    return [one, b'{"events":[' + one + b"]}", b"[" + one + b"]"]


@_only(LongshoreError)
def _readings(data: bytes) -> None:
    parse_readings(load_json(data), now_ms=NOW_MS)


@_only(LongshoreError)
def _card(data: bytes) -> None:
    parse_card(load_json(data))


def _cards() -> list[bytes]:
    import json

    return [json.dumps(make_card(_key("dock-1"), node="dock-1", org="acme", region="EMEA", site="M", password_hash=_hashed())).encode()]


@_only(LongshoreError)
def _texts(data: bytes) -> None:
    """One line each: a topic, an address."""
    text = data.decode(errors="surrogateescape")
    for read in (parse_topic, parse_address):
        _only(LongshoreError)(lambda _, read=read: read(text))(data)  # type: ignore[misc,operator]


@_only(LongshoreError)
def _policy(data: bytes) -> None:
    text = data.decode(errors="replace")
    yaml_text.read(text, "fuzz.yaml")
    policies.parse(text, "fuzz.yaml")


def _policy_seeds() -> list[bytes]:
    from importlib import resources

    return [resources.files("protocols").joinpath("policies.yaml").read_bytes()]


@_only(DecodeError)
def _opened(data: bytes) -> None:
    open_envelope(data)


def _known(*seeds: bytes) -> Callable[[], Sequence[bytes]]:
    return lambda: seeds


TARGETS: Final[dict[str, Target]] = {
    t.name: t
    for t in (
        Target("envelope", _envelope, lambda: [_frame(), *_messages()]),
        Target("header", _opened, lambda: [_frame()]),
        Target("message", _message, lambda: [_message_seed(m) for m in MESSAGES]),
        Target("body", _body, lambda: [b"\x05\x01" + encode_body(_rows(), dictionary=1), b"\x05\x00" + encode_body(_rows(), dictionary=0)]),
        Target("row", _row, lambda: [*_rows(), pack([2, 1, 1, bytes(8)]), pack([3, "d", "k", None, 1, NOW_MS, {"a": 1}])]),
        Target("feed", _feed, _feeds),
        Target("parcel", _parcel, _known(b"", pack([b"x", b"y"]))),
        Target("stick", _stick, _sticks),
        Target("hub", _hub_core, lambda: [_frame(), *_messages()]),
        Target("edge", _edge_core, _downs),
        Target("events", _events, _events_json),
        Target("readings", _readings, _known(b'{"device":"d","kind":"k","values":{"battery":"3.1"}}')),
        Target("card", _card, _cards),
        Target("texts", _texts, _known(b"longshore/v1/acme/EMEA/Madrid/dock-1/up/live", b"longshore://127.0.0.1:1883/acme/hub#key")),
        Target("policy", _policy, _policy_seeds),
    )
}


def run(name: str, data: bytes) -> None:
    """One input to one target; raises whatever is a finding."""
    TARGETS[name].run(data)


def any_target(name: str) -> Any:
    """The target, or a sentence for who misspelt it."""
    if name not in TARGETS:
        raise SystemExit(f"no target {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]
