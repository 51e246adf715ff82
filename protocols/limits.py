"""Every bound on what comes from outside, in one place (reliability.md, rule 9). Units are in the names."""

from __future__ import annotations

from typing import Final

FRAME_WIRE_BYTES: Final = 100_000
FRAME_UNPACKED_BYTES: Final = 1_000_000
FRAME_FACTS: Final = 1_000
NESTING: Final = 8

NODE_CHARS: Final = 32
TOPIC_LEVEL_CHARS: Final = 64
ORG_CHARS: Final = 64
ORDER_ID_CHARS: Final = 128
TEXT_CHARS: Final = 128
"""source, region, site, actor, idempotencyKey"""
DETAILS_BYTES: Final = 8_192
"""of the packed map"""
DETAILS_KEYS: Final = 64
BATCH_EVENTS: Final = 1_000
"""events or readings in one request"""
BATCH_BYTES: Final = 4_000_000

TELEMETRY_BYTES: Final = 2_048
"""of the packed values of one reading"""
DEVICES_KEPT: Final = 20_000
"""(device, kind) whose latest reading one database remembers"""

CONTEXT_ENTRIES: Final = 256
SEGMENTS_STATED: Final = 64
"""runs of one stream named in an answer or a receipt; what is not named is not held, so a bound costs time only"""
STREAMS_STATED: Final = 64
RUNS_HELD: Final = 256
"""runs of one stream that are held; facts that would add another wait for those between, which their author sends again"""
STREAMS_MENTIONED: Final = 10_000
"""streams of which a database holds nothing and knows by others' contexts alone; a fact that names more is quarantined"""
WAITING_BYTES: Final = 4_000_000
"""frames of one unknown node that wait for its admission"""
WAITING_NODES: Final = 64
REFUSED_KEPT: Final = 1_000
"""frames kept as evidence after a refusal"""
