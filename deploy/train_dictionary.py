"""Make a preset dictionary for the bodies of frames from canonical events, and say honestly what it is worth.

    longshore-models import scms sample > events.jsonl
    python -m deploy.train_dictionary events.jsonl --out protocols/dictionaries/2.bin

A dictionary is what zlib pretends to have seen before a frame: at most 32 kB, the likeliest last. From the front: words of the events,
rare to frequent; the words of logistics that other organisations use; whole small bodies of made-up events of such organisations and of
the real ones, which also teach the small frames their numbers. Words with three digits in a row are names of single things and left out.

Orders are split by their number (lines of one purchase order stay together): half train, the other half measures. The shipped
dictionaries are never changed or removed, because old frames need them; a better one gets the next id, and peers announce it.
Same events, same options: the same bytes, on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from protocols.codec import DICTIONARIES, DICTIONARY, deflated, pack, plain_body, preset_dictionary
from protocols.columns import LINE
from protocols.event import EventDefaults, parse_event
from protocols.fact import to_row

DICTIONARY_BYTES: Final = 32_768
FRAME_FACTS: Final = 100
SITES: Final = (("EMEA", "W8-Madrid"), ("AMERICAS", "dock-3"), ("APAC", "crossdock-1"), ("AFRICA", "hub-1"))
STARTED_MS: Final = 1_779_372_312_000

GENERAL_WORDS: Final = """
north south east west central EU US UK DE FR ES IT NL PL CN JP IN BR MX ZA NG KE LATAM AFRICA AMERICAS APAC EMEA
region-1 region-2 site-1 site-2 hub-1 edge-3 edge-2 edge-1
acme default FULFILLMENT WAREHOUSE STOREFRONT MARKETPLACE CARRIER ERP WMS TMS OMS POS EDI SAP SCANNER PHONE MANUAL
PO-# SO-#-# INV-# SHP-# TRK-# REF-# SKU-# LOT-# EAN-# staff-# driver-# operator-# dock-# truck-# #-# #,# ORD-# ORDER-# GLOBAL# # #.# #.##
EUR USD GBP CHF JPY CNY INR BRL kg lb cm pcs pallet carton box each true false yes no
FedEx UPS DHL DHL_Express DPD GLS TNT Maersk MSC USPS Royal_Mail PostNL Correos Kuehne+Nagel DB_Schenker DSV
GOLD SILVER BRONZE PLATINUM STANDARD EXPRESS ECONOMY PRIORITY NORMAL HIGH LOW URGENT
Ocean Sea Road Rail Truck Parcel Courier Air
DAMAGED LOST OUT-OF-STOCK ADDRESS-WRONG REFUSED CUSTOMS WEATHER CREDIT-HOLD PAYMENT QUALITY
reason note comment code type name status channel priority currency amount value total unit weight weightKg volume length width height
pickupAt packedAt shippedAt deliveredAt promisedAt cutoff slot dock gate bay zone aisle bin shelf temperature signature recipient
customer customerId customerTier address city postalCode country state supplier vendor manufacturer product productGroup item items sku
description quantity qty lines parcels pallets packages container containerId seal vessel voyage flight vehicle driver route stop leg
shipment shipmentId shipmentMode trackingNumber incoterm service serviceLevel carrier carrierCode lot batch serial expiry
previousStatus resolution task case conflict replaces hold warehouse fulfilVia expectedDelivery precision basis recordedDate
"""
"""Words of the trade, rare to frequent, by lines; `_` stands for a blank."""

GENERAL_DETAILS: Final[tuple[dict[str, Any], ...]] = (
    {"warehouse": "W8-Madrid", "expectedDelivery": "2026-05-25T10:00:00Z", "carrier": "FedEx", "customerTier": "GOLD"},
    {"warehouse": "W8-Madrid", "expectedDelivery": "2026-05-26T23:59:59Z", "carrier": "DHL", "customerTier": "SILVER", "quantity": 12},
    {"carrier": "UPS", "trackingNumber": "1Z999AA10123456784", "parcels": 2, "weightKg": "13.4"},
    {"warehouse": "DC-1", "quantity": 3, "sku": "SKU-20417", "currency": "EUR", "value": "129.90", "customerTier": "STANDARD"},
    {"reason": "OUT_OF_STOCK", "note": ""},
    {"reason": "CUSTOMER_REQUEST"},
    {},
)
GENERAL_STATUSES: Final = (
    "PLACED", "APPROVED", "ALLOCATED", "PICKED", "PACKED", "SHIPPED", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED", "HELD", "CANCELLED",
)  # fmt: skip

Rows = list[bytes]


def rows_of(events: Sequence[dict[str, Any]], seed: int) -> list[Rows]:
    """The events as the rows of four nodes that take turns, each with its region and site; its clock moves 0 to 3 ms per event."""
    chance = random.Random(seed)
    nodes: list[Rows] = [[] for _ in SITES]
    now_ms = [STARTED_MS + chance.randrange(1_000_000_000) for _ in SITES]
    for event in events:
        node = hashlib.blake2b(_order(event).encode(), digest_size=2).digest()[1] % len(SITES)
        region, site = SITES[node]
        now_ms[node] += chance.randint(0, 3)
        parsed = parse_event(event, defaults=EventDefaults("acme", region, site), now_ms=now_ms[node])
        nodes[node].append(pack(to_row(parsed, now_ms[node], [])))
    return nodes


def general_rows(seed: int) -> Rows:
    """Events as a retailer's systems send them: the shapes of the documentation's own examples."""
    chance = random.Random(seed)
    rows = []
    for number, status in enumerate(GENERAL_STATUSES * 2):
        happened_ms = STARTED_MS + chance.randrange(0, 86_400_000, 1_000)
        event = {
            "orderId": f"GLOBAL{1234 + number * 7}",
            "source": chance.choice(("FULFILLMENT", "STOREFRONT", "CARRIER", "WMS")),
            "status": status,
            "timestamp": "2026-05-21T14:05:12Z",
            "actor": f"staff-{chance.randint(1, 40)}",
            "details": chance.choice(GENERAL_DETAILS),
        }
        parsed = parse_event(event, defaults=EventDefaults("acme", *SITES[number % 2]), now_ms=happened_ms)
        rows.append(pack(to_row(parsed, happened_ms + 900, [])))
    return rows


def frames(nodes: Sequence[Rows], facts: int) -> Iterator[Rows]:
    """Each node's rows cut into whole frames."""
    for rows in nodes:
        for start in range(0, len(rows) - facts + 1, facts):
            yield rows[start : start + facts]


def words_of(nodes: Sequence[Rows]) -> list[str]:
    """The texts that stand in several frames, rare to frequent by what they save."""
    seen: Counter[str] = Counter()
    for facts in (10, FRAME_FACTS):
        for frame in frames(nodes, facts):
            seen.update(sorted(set(plain_body(frame)[0].decode().split(LINE))))
    kept = {
        word: (times * (len(word) - 2), word) for word, times in seen.items() if times > 2 < len(word) and not re.search("[0-9]{3}", word)
    }
    return sorted(kept, key=lambda word: kept[word])


def bodies_of(nodes: Sequence[Rows], total: int, seed: int) -> str:
    """Whole bodies of single facts, drawn at random."""
    singles = list(frames(nodes, 1))
    return "".join(_text(frame) for frame in random.Random(seed).sample(singles, min(total, len(singles))))


def build(nodes: Sequence[Rows], *, bodies: int = 48, seed: int = 1) -> bytes:
    """The dictionary: at most 32 kB, cut at the front, where the rarest words are."""
    words = dict.fromkeys(words_of(nodes))
    general = [word.replace("_", " ") for word in GENERAL_WORDS.split()]
    own = "".join(_text([row]) for row in general_rows(seed))
    text = LINE.join([*words, *(word for word in general if word not in words), ""]) + own + bodies_of(nodes, bodies, seed)
    return text.encode()[-DICTIONARY_BYTES:]


def _text(frame: Rows) -> str:
    texts, rest = plain_body(frame)
    return (texts + rest).decode()


def _order(event: dict[str, Any]) -> str:
    """The purchase order: its lines share a fate, and must not stand on both sides of the split."""
    return str(event["orderId"]).rsplit("-L", 1)[0]


def trains(event: dict[str, Any]) -> bool:
    """Of two halves of the orders, the one that trains."""
    return hashlib.blake2b(_order(event).encode(), digest_size=2).digest()[0] % 2 == 1


def bytes_per_fact(nodes: Sequence[Rows], dictionary: bytes, facts: int) -> float:
    """Mean size of a body at level 6, per fact."""
    sizes = [len(deflated(plain_body(frame), facts, dictionary, 6)) for frame in frames(nodes, facts)]
    return sum(sizes) / max(1, len(sizes) * facts)


def report(held_out: Sequence[Rows], dictionary: bytes) -> str:
    """A line per frame size: without, with the newest shipped, with this one, all on orders that did not train it."""
    lines = ["facts/frame      none   shipped  this one   (bytes of body per fact at level 6, orders that did not train it)"]
    for facts in (1, 10, FRAME_FACTS):
        none, shipped, this = (bytes_per_fact(held_out, tried, facts) for tried in (b"", preset_dictionary(DICTIONARY), dictionary))
        lines.append(f"{facts:11d} {none:9.2f} {shipped:9.2f} {this:9.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read events, write the dictionary, print what it is worth. 0 done, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m deploy.train_dictionary", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("events", type=Path, help="canonical events, one JSON object per line, in play order")
    parser.add_argument("--out", type=Path, help="file to write, protocols/dictionaries/ID.bin; never one that exists")
    parser.add_argument("--bodies", type=int, default=48, help="whole bodies of single facts to include (default 48)")
    options = parser.parse_args(arguments)
    if options.out and options.out.exists():
        print(f"{options.out} exists, and old frames need it: take id {DICTIONARIES[-1] + 1} for a new one.", file=sys.stderr)
        return 2
    events = [json.loads(line) for line in options.events.read_text(encoding="utf-8").splitlines() if line.strip()]
    dictionary = build(rows_of([event for event in events if trains(event)], 1), bodies=options.bodies)
    print(report(rows_of([event for event in events if not trains(event)], 2), dictionary))
    print(f"{len(dictionary)} bytes, sha256 {hashlib.sha256(dictionary).hexdigest()}")
    if options.out:
        options.out.write_bytes(dictionary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
