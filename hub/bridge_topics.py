"""The topics of the bus, their keys and settings, and the headers of a record: tables, from which everything else is made.

A record's value is JSON for everybody; the projectors, which carry facts into the central store, read the `ls_` headers alone: the fact as
its author chained it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from hub.bus import TopicFound, TopicPlan

EVENTS: Final = "longshore.orders.events.v1"
JEOPARDY: Final = "longshore.orders.jeopardy.v1"
TELEMETRY: Final = "longshore.devices.telemetry.v1"
RECORDS: Final = "longshore.hub.records.v1"
DEAD: Final = ".dlq"
PROJECTED: Final = (EVENTS, TELEMETRY, RECORDS)
"""what projectors read"""

FACT: Final = "ls_fact"
"""the header that holds a fact; the last one where there is nothing else to say of it"""
RECORD_BYTES: Final = 4_194_304
"""the largest record or batch of a topic: a fact in quarantine takes up to 1 MB, and its value as much again"""
DEAD_RETENTION_DAYS: Final = 30
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A row of the table. `compacted`: the last record of each key says it all, and stays for ever."""

    name: str
    key: str
    holds: str
    compacted: bool = False

    @property
    def dead(self) -> str:
        """Where records of it go that nobody can read."""
        return self.name + DEAD


TOPICS: Final = (
    Topic(EVENTS, "org/orderId", "events of orders, as JSON"),
    Topic(JEOPARDY, "org/orderId", "how much an order is in jeopardy, the latest word for each order", compacted=True),
    Topic(TELEMETRY, "node/device", "readings of devices, as JSON"),
    Topic(RECORDS, "stream", "what is no event and belongs into the central store: words on holes, facts in quarantine, bookkeeping"),
)


class Header(NamedTuple):
    """A header of a record: its name, how its value is written, what it means."""

    name: str
    form: str
    meaning: str


HEADERS: Final = (
    Header("ce_specversion", "1.0", "CloudEvents, binary mode"),
    Header("ce_id", "node/epoch/seq/hash", "the fact's identity; a record that comes twice has the same"),
    Header("ce_type", "text", "longshore.order.event.v1, longshore.device.telemetry.v1, longshore.hub.record.v1"),
    Header("ce_source", "URI", "urn:longshore:node:NAME, the author"),
    Header("ce_time", "RFC 3339", "when it happened; when it was recorded where nobody knows that"),
    Header("ce_subject", "text", "the key: org/orderId, or node/device"),
    Header("content-type", "application/json", "of the value"),
    Header("traceparent", "W3C trace context", "the same for a fact from its author's commit to the store"),
    Header("ls_seq", "decimal", "the fact's number in its author's stream"),
    Header(
        FACT,
        "u64 seq, u64 ms, 8 bytes h, 8 bytes prev, u8 length, stream, row; big-endian",
        "the fact as its author chained it: when the hub received it (ms since 1970), the chain hashes at it and before it, its stream as "
        "in ls_stream, the canonical row that is hashed (opaque bytes where ls_quarantined says why)",
    ),
    Header("ls_stream", "msgpack [node, epoch, class]", "of a record: whose stream"),
    Header("ls_received_ms", "decimal", "of a record: when the hub received it, ms since 1970"),
    Header("ls_quarantined", "text", "only of a fact that nobody can read: why"),
    Header("ls_record", "msgpack [first, h_before, last, h_last, kind, signed]", "an author's word on a hole, in place of a fact"),
)

DEAD_HEADERS: Final = (
    Header("dlq_topic", "text", "where the record lay"),
    Header("dlq_partition", "decimal", "in which partition"),
    Header("dlq_offset", "decimal", "at which offset"),
    Header("dlq_error", "text", "why it cannot be taken"),
    Header("dlq_time_ms", "decimal", "when it was set aside, ms since 1970"),
)


def origin(name: str) -> str:
    """The topic whose dead letters these are."""
    return name.removesuffix(DEAD)


def plans(partitions: int, replicas: int, retention_days: int) -> list[TopicPlan]:
    """Every topic as it should be, dead letters beside each."""
    out = []
    for topic in TOPICS:
        out.append(TopicPlan(topic.name, partitions, replicas, _settings(replicas, retention_days, compacted=topic.compacted)))
        out.append(TopicPlan(topic.dead, 1, replicas, _settings(replicas, DEAD_RETENTION_DAYS, compacted=False)))
    return out


def _settings(replicas: int, retention_days: int, *, compacted: bool) -> dict[str, str]:
    """Retention is stated, also where it is the broker's default: nobody should have to look it up."""
    keep_ms = str(retention_days * _DAY_MS)
    cleaning = (
        {"cleanup.policy": "compact", "min.compaction.lag.ms": keep_ms}
        if compacted
        else {"cleanup.policy": "delete", "retention.ms": keep_ms}
    )
    return {**cleaning, "max.message.bytes": str(RECORD_BYTES), "min.insync.replicas": str(max(1, replicas - 1))}


def shown_state(plan: TopicPlan, found: TopicFound) -> str:
    """A topic as it should be, in words for people."""
    more = found.partitions > plan.partitions
    return f"as configured; more partitions than {plan.partitions} are fine" if more else "as configured"


def differences(plan: TopicPlan, found: TopicFound) -> list[str]:
    """What of a topic is not as it should be, for people. More partitions than planned are fine: they were added for more projectors."""
    out = []
    if found.partitions < plan.partitions:
        out.append(f"partitions is {found.partitions}, not {plan.partitions}")
    if found.replicas < plan.replicas:
        out.append(f"replicas is {found.replicas}, not {plan.replicas}")
    out += [f"{name} is {found.settings.get(name, 'not told')}, not {value}" for name, value in plan.settings.items()
            if found.settings.get(name) != value]  # fmt: skip
    return out
