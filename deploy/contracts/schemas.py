"""JSON Schema (2020-12) of the events, with examples that the code itself wrote."""

from __future__ import annotations

from typing import Any, Final

from protocols import event, limits, telemetry

Json = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
NOW_MS: Final = 1_779_372_400_000
"""a moment after that of the examples, so that none of them is improbable"""


def documents() -> dict[str, Json]:
    """Every schema by its name."""
    return {"order-event": order_event(), "telemetry": reading(), "jeopardy": jeopardy()}


def _named(name: str, schema: Json, description: str) -> Json:
    return {"$schema": DIALECT, "$id": f"urn:longshore:schema:{name}:1", "description": description} | schema


def order_event() -> Json:
    """What the APIs take."""
    said = "What happened to an order. What a schema cannot say (bytes, nesting, times that are improbable but kept) descriptions do."
    return _named("order-event", event.json_schema(), said) | {"examples": event_examples()}


def order_event_out() -> Json:
    """What is given out: the organisation is always named, and the sender's key stays with the node that took it."""
    schema = event.json_schema()
    properties = {name: inner for name, inner in schema["properties"].items() if name != "idempotencyKey"}  # type: ignore[attr-defined]
    required = ["org", *schema["required"]]  # type: ignore[misc]
    told = [{name: value for name, value in example.items() if name != "idempotencyKey"} for example in event_examples()]
    return schema | {"title": "OrderEventOut", "properties": properties, "required": required, "examples": told}


def event_examples() -> list[Json]:
    """The examples as the code reads them and writes them again."""
    defaults = event.EventDefaults("acme", "EMEA", "W8-Madrid")
    return [event.event_json(event.parse_event(dict(example), defaults=defaults, now_ms=NOW_MS)) for example in event.EXAMPLES]


def reading() -> Json:
    """What the APIs take of devices."""
    return _named("telemetry", telemetry.json_schema(), "What a device says of itself.") | {"examples": reading_examples()}


def reading_out() -> Json:
    """What is given out of devices."""
    schema = telemetry.json_schema()
    properties = {name: inner for name, inner in schema["properties"].items() if name != "idempotencyKey"}  # type: ignore[attr-defined]
    return schema | {"title": "ReadingOut", "properties": properties, "examples": reading_examples()}


def reading_examples() -> list[Json]:
    """The examples as the code reads them and writes them again."""
    return [telemetry.reading_json(telemetry.parse_reading(dict(example), now_ms=NOW_MS)) for example in telemetry.EXAMPLES]


def jeopardy() -> Json:
    """Room for the scores to come: whose they are is settled, the rest is not, and a reader must not mind more."""
    text = {"type": "string", "minLength": 1}
    schema: Json = {
        "title": "Jeopardy",
        "type": "object",
        "required": ["org", "orderId"],
        "properties": {
            "org": text | {"maxLength": limits.ORG_CHARS},
            "orderId": text | {"maxLength": limits.ORDER_ID_CHARS},
            "jeopardy": {"type": "string", "enum": ["Low", "Medium", "High", "Critical"]},
        },
        "additionalProperties": True,
    }
    return _named(
        "jeopardy", schema, "Reserved. Nothing scores orders yet; later versions add members, and readers ignore what they do not know."
    )
