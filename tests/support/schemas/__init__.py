"""Documents held against JSON Schemas: our own, and those of others that lie beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator

from protocols.errors import InvalidInput
from protocols.event import parse_time

FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=InvalidInput)
def _time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value, "time") >= 0


def theirs(name: str) -> Any:
    """A schema that lies here."""
    return json.loads((Path(__file__).parent / name).read_text("utf-8"))


def complaints(schema: Any, value: object) -> list[str]:
    """What is wrong with a value, each with its place; [] where nothing is. Errors: SchemaError, where the schema itself is none."""
    validator = _dialect(schema)
    validator.check_schema(schema)
    found = validator(schema, format_checker=FORMATS).iter_errors(value)
    return [f"{error.json_path}: {error.message[:300]}" for error in found]


def _dialect(schema: Any) -> type[Validator]:
    old = isinstance(schema, dict) and "draft-07" in schema.get("$schema", "")
    return Draft7Validator if old else Draft202012Validator
