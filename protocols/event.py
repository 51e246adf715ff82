"""The canonical order event: what adapters, people and APIs say happened to an order, checked once where it comes in.

JSON outside (camelCase), `OrderEvent` inside (snake_case). Whatever is malformed is refused with `InvalidInput`, which names the field,
the allowed values and the remedy, and nothing is stored. What is merely *improbable* (a clock years off) is kept and marked: no clock
rejects an event (reliability.md, rule 5). Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from protocols import limits
from protocols.details import check_details, check_text, join, json_type, shown
from protocols.errors import InvalidInput, TooLarge
from protocols.lifecycle import STATUS_NAMES, Status
from protocols.merged import check_quantities
from protocols.tasks import check_assigned

if TYPE_CHECKING:
    from protocols.fact import FactRow

DAY_MS: Final = 86_400_000
CLOCKS_WORK_FROM_MS: Final = 946_684_800_000
"""2000-01-01: an earlier time was told by a clock that was never set"""
LAST_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last moment that can be written"""


class TimeQuality(IntEnum):
    """How far `happened_ms` can be believed. The codes are on the wire."""

    STATED = 0
    UNKNOWN = 1
    IMPROBABLE = 2


@dataclass(frozen=True, slots=True)
class EventDefaults:
    """What an event means when it does not say: the organisation, region and site of the node that takes it; at a phone its staff."""

    org: str
    region: str | None = None
    site: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """One thing that happened to order (org, order_id). `happened_ms` is None exactly when `quality` is UNKNOWN."""

    org: str
    order_id: str
    source: str
    status: Status
    happened_ms: int | None
    quality: TimeQuality
    region: str | None
    site: str | None
    actor: str | None
    details: dict[str, object]
    idempotency_key: str | None = None


_QUALITIES: Final = {quality.name.lower(): quality for quality in TimeQuality}
_STATUSES: Final = {status.name: status for status in Status}
FIELDS: Final = (
    "org", "orderId", "source", "status", "timestamp", "timeQuality", "region", "site", "actor", "idempotencyKey", "details",
)  # fmt: skip
_KNOWN: Final = frozenset(FIELDS)
_ORG: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{limits.ORG_CHARS - 1}}}")

_SMALLER: Final = "Send smaller batches."


# ------------------------------------------------------------------ JSON in


_JSON: Final = "Send one JSON value in UTF-8."


def load_json(body: bytes, at: str = "body", remedy: str = _JSON) -> object:
    """The JSON value in a request or file. Raises InvalidInput (field `at`, such as the file's name: not UTF-8, not JSON, absurdly deep; or
    the key that stands twice in one object, of which a parser would silently drop one) and TooLarge. `remedy`: of what is no JSON."""
    if len(body) > limits.BATCH_BYTES:
        raise TooLarge(at, f"is {len(body)} bytes long, at most {limits.BATCH_BYTES} are taken at once.", remedy=_SMALLER)
    try:
        return json.loads(body.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InvalidInput(at, f"is not UTF-8 (byte {error.start}).", remedy=remedy) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(at, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.", remedy=remedy) from error
    except (RecursionError, ValueError) as error:
        # too deep, or a number of thousands of digits
        raise InvalidInput(at, "is JSON that no event looks like: nested or a number beyond any bound.") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput(shown(key), "stands twice in one object, and only one of the two could be kept.", remedy="Send it once.")
            seen.add(key)
    return found


def parse_batch(obj: object, *, defaults: EventDefaults, now_ms: int) -> list[OrderEvent]:
    """One event (an object) or several (a list). All or nothing: the first malformed one is raised, its field as `[3].status`."""
    if type(obj) is not list:
        return [parse_event(obj, defaults=defaults, now_ms=now_ms)]
    if not obj:
        raise InvalidInput("body", "is an empty list.", remedy="Send at least one event.")
    if len(obj) > limits.BATCH_EVENTS:
        raise TooLarge("body", f"has {len(obj)} events, at most {limits.BATCH_EVENTS} are taken at once.", remedy=_SMALLER)
    return [parse_event(item, defaults=defaults, now_ms=now_ms, at=f"[{index}]") for index, item in enumerate(obj)]


def parse_event(obj: object, *, defaults: EventDefaults, now_ms: int, at: str = "") -> OrderEvent:
    """A valid event from a JSON value, or InvalidInput naming the field (below `at`). Takes `details` over, does not copy it.

    An optional field that is null counts as left out. `now_ms` only decides what is improbable.
    """
    if type(obj) is not dict:
        raise InvalidInput(at or "body", f"must be an event (an object), not {json_type(obj)}.")
    if not obj.keys() <= _KNOWN:
        raise _unknown_field(obj, at)
    get = obj.get
    status = get("status")
    if type(status) is not str or status not in _STATUSES:
        raise _status_fault(status, at)
    happened_ms, quality = parse_happened(get("timestamp"), get("timeQuality"), now_ms, at)
    org, details = get("org"), get("details")
    region, site, actor, key = get("region"), get("site"), get("actor"), get("idempotencyKey")
    return OrderEvent(
        defaults.org if org is None else check_org(org, at),
        check_text(_required(get("orderId"), "orderId", at), "orderId", at, limits.ORDER_ID_CHARS),
        check_text(_required(get("source"), "source", at), "source", at, limits.TEXT_CHARS),
        _STATUSES[status],
        happened_ms,
        quality,
        defaults.region if region is None else check_text(region, "region", at, limits.TEXT_CHARS),
        defaults.site if site is None else check_text(site, "site", at, limits.TEXT_CHARS),
        defaults.actor if actor is None else check_text(actor, "actor", at, limits.TEXT_CHARS),
        {} if details is None else check_assigned(check_quantities(check_details(details, at), at), at),
        None if key is None else check_text(key, "idempotencyKey", at, limits.TEXT_CHARS),
    )


def check_org(value: object, at: str = "") -> str:
    """`value` if it can name an organisation: it is a topic level and half of an order's identity. Raises InvalidInput."""
    if type(value) is str and _ORG.fullmatch(value):
        return value
    check_text(value, "org", at, limits.ORG_CHARS)
    raise InvalidInput(join(at, "org"), "must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'.")


def _required(value: object, field: str, at: str) -> object:
    if value is None:
        raise InvalidInput(join(at, field), "is required.")
    return value


def _unknown_field(obj: dict[object, object], at: str) -> InvalidInput:
    name = next(str(key) for key in obj if key not in _KNOWN)
    close = _closest(name, FIELDS)
    remedy = f"Did you mean {close}?" if close else "Put what is your own inside details."
    return InvalidInput(join(at, shown(name)), "is not a field of an event.", remedy=remedy, allowed=FIELDS)


def _status_fault(value: object, at: str) -> InvalidInput:
    field = join(at, "status")
    if value is None:
        return InvalidInput(field, "is required.", allowed=STATUS_NAMES)
    if not isinstance(value, str):
        return InvalidInput(field, f"must be text, not {json_type(value)}.", allowed=STATUS_NAMES)
    close = _closest(value, STATUS_NAMES)
    remedy = f"Did you mean {close}?" if close else "Use one of the allowed values; put your own word for it inside details."
    return InvalidInput(field, f"{shown(value)!r} is not a status.", remedy=remedy, allowed=STATUS_NAMES)


def _closest(word: str, allowed: tuple[str, ...]) -> str | None:
    """The allowed word that was probably meant: compared without case, blanks, '-' and '_'; only the beginning of a very long one."""
    bare = {name.replace("_", "").lower(): name for name in allowed}
    found = get_close_matches(re.sub(r"[\s_-]", "", word[:64]).lower(), bare, n=1, cutoff=0.7)
    return bare[found[0]] if found else None


# ------------------------------------------------------------------ times

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_PLAIN: Final = _EPOCH.replace(tzinfo=None)
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-9]{2}(?:[.,][0-9]{1,12})?)?"
    r"(Z|z|[+-][0-9]{2}(?::?[0-5][0-9])?)?"
)
"""stricter than `fromisoformat`, of which some versions take weeks, 24:00 and offsets of +10:60"""
_TIME_REMEDY: Final = "Write it like 2026-05-21T14:05:12Z or 2026-05-21T16:05:12+02:00."


def parse_time(text: object, field: str) -> int:
    """Milliseconds since 1970 UTC from an RFC 3339 or ISO 8601 time with an offset; what is finer than 1 ms is cut off.

    Raises InvalidInput for `field`: not such a time, without an offset, a day or hour that does not exist, outside 1970 to 9999.
    """
    if type(text) is not str:
        raise InvalidInput(field, f"must be a time as text, not {json_type(text)}.", remedy=_TIME_REMEDY)
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidInput(field, f"{shown(text)!r} is not a time.", remedy=_TIME_REMEDY)
    if match[1] is None:
        raise InvalidInput(field, f"{text!r} has no offset from UTC, so it could be any of 26 hours.", remedy=_TIME_REMEDY)
    try:
        since = datetime.fromisoformat(text.upper() if text[-1] == "z" else text) - _EPOCH
    except ValueError as error:
        raise InvalidInput(field, f"{text!r} names a day, hour or offset that does not exist.", remedy=_TIME_REMEDY) from error
    happened_ms = since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000
    if not 0 <= happened_ms <= LAST_MS:
        raise InvalidInput(field, f"{text!r} is outside the years 1970 to 9999 UTC.", remedy=_TIME_REMEDY)
    return happened_ms


def format_time(ms: int) -> str:
    """`2026-05-21T14:05:12Z`, with milliseconds only where they are not zero. The inverse of `parse_time` on 0..LAST_MS."""
    seconds, rest = divmod(ms, 1_000)
    minutes, second = divmod(seconds, 60)
    return f"{_minute(minutes)}{second:02}.{rest:03}Z" if rest else f"{_minute(minutes)}{second:02}Z"


@lru_cache(4_096)
def _minute(since: int) -> str:
    """`2026-05-21T14:05:`. Facts of a backlog come minute after minute."""
    return (_EPOCH_PLAIN + timedelta(minutes=since)).isoformat(timespec="minutes") + ":"


def iso(ms: int | None) -> str | None:
    """A time in JSON that is answered: as `format_time` writes it; null stays null."""
    return None if ms is None else format_time(max(ms, 0))


def quality_of(happened_ms: int, now_ms: int) -> TimeQuality:
    """Whether a clock that says so can be believed: not before 2000, not more than a day ahead of `now_ms`."""
    if CLOCKS_WORK_FROM_MS <= happened_ms <= now_ms + DAY_MS:
        return TimeQuality.STATED
    return TimeQuality.IMPROBABLE


def parse_happened(timestamp: object, said: object, now_ms: int, at: str) -> tuple[int | None, TimeQuality]:
    """`timestamp` and `timeQuality` of a JSON object at `at`: the time, and what it is worth. Errors: InvalidInput."""
    quality = TimeQuality.STATED if said is None else _parse_quality(said, at)
    if timestamp is None:
        if quality is TimeQuality.UNKNOWN:
            return None, quality
        remedy = f'{_TIME_REMEDY} If nobody knows it, say "timeQuality": "unknown".'
        raise InvalidInput(join(at, "timestamp"), "is required.", remedy=remedy)
    if quality is TimeQuality.UNKNOWN:
        raise InvalidInput(join(at, "timestamp"), 'must be left out where "timeQuality" is "unknown".', remedy="Send one or the other.")
    happened_ms = parse_time(timestamp, join(at, "timestamp"))
    # who doubts his own clock ("improbable", as our own exports say) is not overruled
    return happened_ms, quality or quality_of(happened_ms, now_ms)


def _parse_quality(said: object, at: str) -> TimeQuality:
    if type(said) is str and said in _QUALITIES:
        return _QUALITIES[said]
    reason = f"{shown(said)!r} is not a time quality." if isinstance(said, str) else f"must be text, not {json_type(said)}."
    raise InvalidInput(join(at, "timeQuality"), reason, allowed=tuple(_QUALITIES))


# ------------------------------------------------------------------ JSON out


def event_json(event: OrderEvent | FactRow) -> dict[str, object]:
    """The event as JSON for the outside: `parse_event` reads it back as the same event. Fields without a value are left out."""
    out: dict[str, object] = {"org": event.org, "orderId": event.order_id, "source": event.source, "status": event.status.name}
    if event.happened_ms is not None:
        out["timestamp"] = format_time(event.happened_ms)
    if event.quality is not TimeQuality.STATED:
        out["timeQuality"] = event.quality.name.lower()
    optional = (("region", event.region), ("site", event.site), ("actor", event.actor), ("idempotencyKey", event.idempotency_key))
    out.update((name, value) for name, value in optional if value is not None)
    if event.details:
        out["details"] = event.details
    return out


EXAMPLES: Final[tuple[dict[str, object], ...]] = (
    {
        "org": "acme", "orderId": "GLOBAL1234", "source": "FULFILLMENT", "status": "SHIPPED", "timestamp": "2026-05-21T14:05:12Z",
        "region": "EMEA", "site": "W8-Madrid", "actor": "staff-17", "idempotencyKey": "scan-20260521-000317",
        "details": {"carrier": "FedEx", "expectedDelivery": "2026-05-25T10:00:00Z", "weightKg": "12.50", "parcels": 3},
    },
    {"orderId": "GLOBAL1235", "source": "ERP", "status": "CANCELLED", "timeQuality": "unknown"},
)  # fmt: skip


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of one event, for OpenAPI. What it cannot say (bytes, nesting, improbable times) its descriptions do."""
    return {
        "title": "OrderEvent",
        "type": "object",
        "required": ["orderId", "source", "status"],
        "additionalProperties": False,
        "anyOf": [
            {"required": ["timestamp"], "not": {"required": ["timeQuality"], "properties": {"timeQuality": {"const": "unknown"}}}},
            {"required": ["timeQuality"], "properties": {"timeQuality": {"const": "unknown"}}, "not": {"required": ["timestamp"]}},
        ],
        "properties": _schema_properties(),
        "examples": list(EXAMPLES),
    }


def _schema_properties() -> dict[str, object]:
    details = (
        f"Anything else that matters: text, whole numbers within 64 bit, booleans, null, lists and objects; no floating-point numbers "
        f'(send "12.50"). At most {limits.DETAILS_BYTES} bytes, {limits.DETAILS_KEYS} keys per object, {limits.NESTING} levels.'
    )
    return {
        "org": {"type": "string", "pattern": f"^{_ORG.pattern}$", "description": "Who the order belongs to. Default: the node's own."},
        "orderId": _text_schema("The order's number within its organisation.", limits.ORDER_ID_CHARS),
        "source": _text_schema("The system or role that says so."),
        "status": {"type": "string", "enum": list(STATUS_NAMES), "description": "The milestone that was reached."},
        "timestamp": {"type": "string", "format": "date-time", "description": "When it happened, with an offset from UTC."},
        "timeQuality": {
            "type": "string",
            "enum": list(_QUALITIES),
            "default": "stated",
            "description": "unknown: nobody knows when, and timestamp is left out. An improbable time is kept and marked.",
        },
        "region": _text_schema("Default: the node's own."),
        "site": _text_schema("Default: the node's own."),
        "actor": _text_schema("The person or machine at hand. Default: the staff of a phone."),
        "idempotencyKey": _text_schema("The same key again with the same content returns the first ids."),
        "details": {"type": "object", "maxProperties": limits.DETAILS_KEYS, "description": details},
    }


def _text_schema(description: str, most_chars: int = limits.TEXT_CHARS) -> dict[str, object]:
    return {"type": "string", "minLength": 1, "maxLength": most_chars, "description": description}
