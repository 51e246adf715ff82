"""Write the golden frames that are missing: python -m tests.golden.frames.make. What exists is never touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from models.importers.report import Report
from models.importers.scms import play_order, read_events
from models.samples import open_scms
from protocols.codec import FrameHeader, Kind, encode_body, envelope, pack, plain_body, unpack
from protocols.errors import DecodeError
from protocols.event import EventDefaults, parse_event
from protocols.fact import chain, genesis, to_row
from protocols.trust import NodeKey

HERE: Final = Path(__file__).parent
KEY: Final = NodeKey(b"longshore golden frames, no node")
NODE, EPOCH = "w8-madrid", 4_611_686_018_427_387_905
T0: Final = 1_779_372_312_000

EXAMPLE: Final = {"warehouse": "W8-Madrid", "expectedDelivery": "2026-05-25T10:00:00Z", "carrier": "FedEx", "customerTier": "GOLD"}


def event(number: int, status: int, details: dict[str, Any], **other: Any) -> list[Any]:
    """A row of an order event; `other` replaces elements by name."""
    row = {
        "kind": 1,
        "org": "acme",
        "order_id": f"GLOBAL{1234 + number}",
        "source": "FULFILLMENT",
        "status": status,
        "happened_ms": T0 + number * 61_000,
        "quality": 0,
        "recorded_ms": T0 + 900 + number * 61_003,
        "region": "EMEA",
        "site": "W8-Madrid",
        "actor": "staff-17",
        "details": details,
        "context": [],
    }
    return list((row | other).values())


def example() -> list[bytes]:
    """The event of the documentation."""
    return [pack(event(0, 5, EXAMPLE))]


def retail() -> list[bytes]:
    """A dozen of them: several shapes, statuses, actors."""
    details: list[dict[str, Any]] = [
        EXAMPLE,
        {"carrier": "UPS", "parcels": 2, "weightKg": "13.40"},
        {"reason": "OUT_OF_STOCK", "hold": True},
    ]
    return [pack(event(n, n % 9, details[n % 3], actor=f"staff-{n % 4}" if n % 5 else None)) for n in range(12)]


def history() -> list[bytes]:
    """A hundred real events in the order in which they became known."""
    with open_scms() as stream:
        timed = play_order(read_events(stream, Report()))[6_000:6_100]
    defaults = EventDefaults("usaid", "AFRICA", "hub-1")
    parsed = [parse_event(one.event, defaults=defaults, now_ms=T0) for one in timed]
    return [pack(to_row(one, T0 + number * 2 + number // 7, [])) for number, one in enumerate(parsed)]


def contexts() -> list[bytes]:
    """Facts that had seen others' facts, on several branches."""
    seen = [
        [],
        [["edge-1", 77, 5, b"\x01\x02\x03\x04"]],
        [["edge-1", 77, 5, b"\x01\x02\x03\x04"], ["hub", 2**62, 90_000, b"\xff\xff\xff\xff"]],
    ]
    return [pack(event(n, 8, {}, context=seen[n % 3])) for n in range(9)]


def times() -> list[bytes]:
    """Times of every precision, absent ones, impossible dates, negative and large numbers."""
    moments = ["2026-05-25", "2026-05-25T10:00:00Z", "2026-05-25T10:00:00.250Z", "2026-02-30", "0001-01-01", "9999-12-31T23:59:59Z"]
    rows = [event(n, 4, {"at": moment, "n": (-1) ** n * 3**n}) for n, moment in enumerate(moments)]
    rows += [event(n, 4, {"due": f"2026-06-{n:02d}T10:30:00Z", "n": 2**63 + n}, happened_ms=None, quality=1) for n in range(10, 20)]
    return [pack(row) for row in rows]


def strangers() -> list[bytes]:
    """What no column can hold, between what fits: later versions, other kinds, odd types, bytes that nobody can read."""
    odd = [
        pack([2, EPOCH, 17, b"8 bytes."]), pack([*event(1, 5, EXAMPLE), "of a later version"]), pack([99, {"new": [1, 2.5, None]}]),
        pack(event(2, 5, {"line\nend": 1})), pack(event(3, True, {})), pack(event(4, 5, {"list": [1, {"a": None}], "text": "a\nb#1"})),
        b"\xc1 not msgpack", pack("not an array"), b"\xdc\x00\x01\x05", pack(event(5, 5, {"ratio": 0.5}, actor="a#1")),
    ]  # fmt: skip
    between = [pack(event(n, 5, EXAMPLE)) for n in range(len(odd))]
    return [row for pair in zip(between, odd, strict=True) for row in pair]


FRAMES: Final = {
    "example": (example, 1),
    "example-plain": (example, 0),
    "retail": (retail, 1),
    "history": (history, 1),
    "history-plain": (history, 0),
    "contexts": (contexts, 1),
    "times": (times, 1),
    "strangers": (strangers, 1),
}


def frame(rows: list[bytes], dictionary: int) -> tuple[FrameHeader, bytes]:
    """Header and wire bytes of a signed frame of the rows, as the first of their stream."""
    before = genesis(NODE, EPOCH, 0)
    header = FrameHeader(NODE, EPOCH, 0, 1, len(rows), before, chain(before, rows)[-1], dictionary)
    signed = envelope(Kind.FRAME, header.to_list(), encode_body(rows, dictionary=dictionary))
    return header, signed + KEY.sign(signed)


def for_people(row: bytes) -> Any:
    """The values of a row as far as JSON can say them."""
    try:
        return json.loads(json.dumps(unpack(row, max_bytes=len(row)), default=bytes.hex))
    except DecodeError as error:
        return str(error)


def main() -> None:
    """Write the missing ones and name them."""
    for name, (make_rows, dictionary) in FRAMES.items():
        wire_path, about_path = HERE / f"v1-{name}.bin", HERE / f"v1-{name}.json"
        if wire_path.exists():
            continue
        rows = make_rows()
        header, wire = frame(rows, dictionary)
        about = {
            "about": make_rows.__doc__,
            "encodes": True,
            "public": KEY.public.hex(),
            "header": [item.hex() if isinstance(item, bytes) else item for item in header.to_list()],
            "plain": b"".join(plain_body(rows)).hex(),
            "rows": [{"hex": row.hex(), "values": for_people(row)} for row in rows],
        }
        wire_path.write_bytes(wire)
        about_path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{wire_path.name}: {len(rows)} facts, {len(wire)} bytes")


if __name__ == "__main__":
    main()
