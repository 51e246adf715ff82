"""Telemetry: what devices say of themselves, from JSON to the canonical row and back. Facts of a stream of their own (class 1).

    telemetry    [3, device, kind, happened_ms | nil, quality, recorded_ms, values]

`values` is one flat map of text, whole numbers, booleans and decimal strings. Some keys mean the same everywhere (`KNOWN`): they are
checked where a reading is taken, so that two makes of device never say the same thing in two ways. A row that came from elsewhere is only
checked for its shape and bounds: a later version may know other words. Elements after the known ones belong to a later version.

The latest reading of a (device, kind) supersedes the earlier ones: they are the first to go where room is short.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from protocols import limits, provisioning
from protocols.details import INT64_MAX, INT64_MIN, check_details, check_text, join, json_type, packed_bytes
from protocols.errors import DecodeError, InvalidInput, TooLarge
from protocols.event import LAST_MS, TimeQuality, format_time, parse_happened, parse_time

TELEMETRY_ROW: Final = 3
_ITEMS: Final = 7
_QUALITIES: Final = {int(quality): quality for quality in TimeQuality}
FIELDS: Final = ("device", "kind", "timestamp", "timeQuality", "values", "idempotencyKey")

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one device. `happened_ms` is None where nobody knows when; `idempotency_key` stays at the node."""

    device: str
    kind: str
    happened_ms: int | None
    quality: TimeQuality
    values: dict[str, Value]
    idempotency_key: str | None = None


# ------------------------------------------------------------------ the words that mean the same everywhere

_MAC: Final = re.compile(r"[0-9a-f]{12}|[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}|([0-9a-f]{4}\.){2}[0-9a-f]{4}")
_NO_MACS: Final = ("0" * 12, "f" * 12)


def _mac(value: object, field: str) -> Value:
    """As labels and makers write it: with colons, hyphens, dots or nothing; canonical are small letters and colons."""
    text = value.strip().lower() if isinstance(value, str) else ""
    digits = re.sub("[:.-]", "", text)
    if not _MAC.fullmatch(text) or digits in _NO_MACS:
        raise InvalidInput(field, "must be six pairs of hexadecimal digits.", remedy="Write it like 02:42:ac:11:00:02.")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _text(value: object, field: str) -> Value:
    return check_text(value, field, "", limits.TEXT_CHARS)


def _state(value: object, field: str) -> Value:
    if not isinstance(value, str) or value not in provisioning.NAMES:
        raise InvalidInput(field, "is no state of a device.", allowed=provisioning.NAMES)
    return value


def _time(value: object, field: str) -> Value:
    return format_time(parse_time(value, field))


def _number(least: int, most: int, unit: str) -> Callable[[object, str], Value]:
    def check(value: object, field: str) -> Value:
        if type(value) is not int or not least <= value <= most:
            raise InvalidInput(field, f"must be a whole number from {least} to {most} ({unit}).")
        return value

    return check


@dataclass(frozen=True, slots=True)
class Word:
    """A key of `values` that means the same everywhere, and how a value is checked and brought into one form."""

    meaning: str
    schema: dict[str, object]
    check: Callable[[object, str], Value]


KNOWN: Final[dict[str, Word]] = {
    "mac": Word("hardware address", {"type": "string", "examples": ["02:42:ac:11:00:02"]}, _mac),
    "serial": Word("the maker's serial number", {"type": "string"}, _text),
    "provisioning": Word("state of the device", {"type": "string", "enum": list(provisioning.NAMES)}, _state),
    "firmware": Word("version that runs on it", {"type": "string"}, _text),
    "lastSeen": Word("when the device was last heard", {"type": "string", "format": "date-time"}, _time),
    "signalDbm": Word("strength of its radio link, dBm", {"type": "integer", "minimum": -150, "maximum": 0}, _number(-150, 0, "dBm")),
    "batteryPercent": Word("charge of its battery, percent", {"type": "integer", "minimum": 0, "maximum": 100}, _number(0, 100, "percent")),
}
"""What device provisioning asks of every device, whoever made it."""


# ------------------------------------------------------------------ JSON in and out


def parse_readings(obj: object, *, now_ms: int) -> list[Reading]:
    """One reading (an object) or several (a list). All or nothing. Errors: InvalidInput for a field such as `[3].values.mac`; TooLarge."""
    if type(obj) is not list:
        return [parse_reading(obj, now_ms=now_ms)]
    if not obj:
        raise InvalidInput("body", "is an empty list.", remedy="Send at least one reading.")
    if len(obj) > limits.BATCH_EVENTS:
        raise TooLarge("body", f"has {len(obj)} readings, at most {limits.BATCH_EVENTS} are taken at once.", remedy="Send smaller batches.")
    return [parse_reading(item, now_ms=now_ms, at=f"[{index}]") for index, item in enumerate(obj)]


def parse_reading(obj: object, *, now_ms: int, at: str = "") -> Reading:
    """A valid reading from a JSON value. The rules of time are those of an event; `now_ms` only decides what is improbable."""
    if type(obj) is not dict:
        raise InvalidInput(at or "body", f"must be a reading (an object), not {json_type(obj)}.")
    for name in obj:
        if name not in FIELDS:
            raise InvalidInput(join(at, str(name)[:64]), "is not a field of a reading.", remedy="Put it inside values.", allowed=FIELDS)
    happened_ms, quality = parse_happened(obj.get("timestamp"), obj.get("timeQuality"), now_ms, at)
    key = obj.get("idempotencyKey")
    kind = check_text(_required(obj.get("kind"), "kind", at), "kind", at, limits.TEXT_CHARS)
    values = _values(obj.get("values"), at)
    if kind == provisioning.KIND:
        provisioning.check_record(values, join(at, "values"))
    return Reading(
        check_text(_required(obj.get("device"), "device", at), "device", at, limits.TEXT_CHARS),
        kind,
        happened_ms,
        quality,
        values,
        None if key is None else check_text(key, "idempotencyKey", at, limits.TEXT_CHARS),
    )


def _required(value: object, field: str, at: str) -> object:
    if value is None:
        raise InvalidInput(join(at, field), "is required.")
    return value


def _values(values: object, at: str) -> dict[str, Value]:
    where = join(at, "values")
    if type(values) is not dict or not values:
        raise InvalidInput(where, "must be an object with at least one value.", remedy='Write it like {"batteryPercent": 87}.')
    _flat(values, where)
    return {key: KNOWN[key].check(value, f"{where}.{key}") if key in KNOWN else value for key, value in values.items()}


def _flat(values: dict[str, Any], where: str) -> None:
    """Text, whole numbers and booleans, within the bounds of details. Errors: InvalidInput, TooLarge."""
    for key, value in values.items():
        if type(value) is float:
            remedy = 'Send it as a decimal string, such as "21.5".'
            raise InvalidInput(f"{where}.{str(key)[:64]}", "is a floating-point number.", remedy=remedy)
        if type(value) not in (str, int, bool):
            raise InvalidInput(f"{where}.{str(key)[:64]}", f"must be text, a whole number or true or false, not {json_type(value)}.")
        if type(value) is int and not INT64_MIN <= value <= INT64_MAX:
            raise InvalidInput(f"{where}.{str(key)[:64]}", "does not fit in 64 bit.", remedy="Send it as text.")
    try:
        check_details(values)
    except InvalidInput as error:
        kind = TooLarge if isinstance(error, TooLarge) else InvalidInput
        field = where + error.field.removeprefix("details")
        raise kind(field, error.reason.removeprefix(f"{error.field}: "), remedy=error.remedy) from None
    if packed_bytes(values) > limits.TELEMETRY_BYTES:
        raise TooLarge(where, f"takes {packed_bytes(values)} bytes, at most {limits.TELEMETRY_BYTES} are taken.")


def reading_json(r: Reading) -> dict[str, object]:
    """The reading as JSON for the outside: `parse_reading` reads it back as the same reading. Fields without a value are left out."""
    out: dict[str, object] = {"device": r.device, "kind": r.kind}
    if r.happened_ms is not None:
        out["timestamp"] = format_time(r.happened_ms)
    if r.quality is not TimeQuality.STATED:
        out["timeQuality"] = r.quality.name.lower()
    if r.idempotency_key is not None:
        out["idempotencyKey"] = r.idempotency_key
    return out | {"values": r.values}


def fact_json(r: Reading, *, node: str, recorded_ms: int) -> dict[str, object]:
    """A telemetry fact as others read it, on a bus or in a file: the reading, who told of it, and when that was. Devices' names are unique
    at one node only; (`node`, `device`) is a name everywhere."""
    return {"node": node, **reading_json(r), "recordedAt": format_time(recorded_ms)}


EXAMPLES: Final[tuple[dict[str, object], ...]] = (
    {
        "device": "scanner-7", "kind": "health", "timestamp": "2026-05-21T14:05:12Z",
        "values": {"batteryPercent": 87, "signalDbm": -61, "temperature": "21.5"},
    },
    {
        "device": "scanner-7", "kind": "provisioning", "timeQuality": "unknown",
        "values": {"mac": "02:42:ac:11:00:02", "serial": "SN-0042", "provisioning": "active", "firmware": "2.4.1"},
    },
)  # fmt: skip


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of one reading, for OpenAPI."""
    text: dict[str, object] = {"type": "string", "minLength": 1, "maxLength": limits.TEXT_CHARS}
    known = {name: word.schema | {"description": word.meaning} for name, word in KNOWN.items()}
    return {
        "title": "Reading",
        "type": "object",
        "required": ["device", "kind", "values"],
        "additionalProperties": False,
        "properties": {
            "device": text | {"description": "Which device, by the name it has at this site."},
            "kind": text
            | {
                "description": "What is read of it; a later reading of the same kind supersedes the earlier ones. "
                f"`{provisioning.KIND}`: who the device is; its values need `provisioning`, and `serial` or `mac`."
            },
            "timestamp": {"type": "string", "format": "date-time", "description": "When, with an offset from UTC."},
            "timeQuality": {"type": "string", "enum": [q.name.lower() for q in TimeQuality], "default": "stated"},
            "values": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": limits.DETAILS_KEYS,
                "properties": known,
                "additionalProperties": {"type": ["string", "integer", "boolean"]},
                "description": f'Flat; no floating-point numbers (send "21.5"). At most {limits.TELEMETRY_BYTES} bytes.',
            },
            "idempotencyKey": text | {"description": "The same key again with the same content returns the first ids."},
        },
        "examples": list(EXAMPLES),
    }


# ------------------------------------------------------------------ rows


def telemetry_row(r: Reading, recorded_ms: int) -> list[Any]:
    """The row of a new fact. `recorded_ms`: when its author took it in, by the author's clock."""
    return [TELEMETRY_ROW, r.device, r.kind, r.happened_ms, int(r.quality), recorded_ms, r.values]


def is_telemetry(row: object) -> bool:
    """Does this row say that it is one of telemetry?"""
    return type(row) is list and bool(row) and type(row[0]) is int and row[0] == TELEMETRY_ROW


def read_telemetry(row: object) -> tuple[Reading, int]:
    """The reading in a row from outside, and when it was recorded, every element checked. Raises only DecodeError."""
    if type(row) is not list or len(row) < _ITEMS or not is_telemetry(row):
        raise DecodeError("not a telemetry fact")
    _, device, kind, happened_ms, quality, recorded_ms, values = row[:_ITEMS]
    if type(recorded_ms) is not int or not 0 <= recorded_ms <= LAST_MS:
        raise DecodeError("recorded_ms: not a time")
    if type(quality) is not int or quality not in _QUALITIES:
        raise DecodeError("quality: no code known here")
    if happened_ms is not None and (type(happened_ms) is not int or not 0 <= happened_ms <= LAST_MS):
        raise DecodeError("happened_ms: not a time")
    if type(values) is not dict:
        raise DecodeError("values: not a map")
    try:
        _flat(values, "values")
        check_text(device, "device", "", limits.TEXT_CHARS)
        check_text(kind, "kind", "", limits.TEXT_CHARS)
    except InvalidInput as error:
        raise DecodeError(error.reason) from error
    return Reading(device, kind, happened_ms, _QUALITIES[quality], values), recorded_ms
