"""Which contract documents there are, and where they lie: beside the code of `protocols`, so that an installation has them, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import protocols
from deploy.contracts import kafka, mqtt, schemas
from edge_agent import openapi as edge_openapi
from hub import openapi as hub_openapi

FOLDER: Final = Path(protocols.__file__).with_name("contracts")
Json = dict[str, Any]


def documents() -> dict[str, Json]:
    """Every document by its file's name."""
    return {
        "openapi-edge.json": edge_openapi.document(),
        "openapi-hub.json": hub_openapi.document(),
        "asyncapi-mqtt.json": mqtt.document(),
        "asyncapi-kafka.json": kafka.document(),
        **{f"{name}.schema.json": schema for name, schema in schemas.documents().items()},
    }


def text(document: Json) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Files that are missing, not as the code has them, or nobody's any more."""
    wanted = documents()
    there = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    old = [name for name, document in wanted.items() if name not in there or not same(json.loads(there[name]), document)]
    return sorted([*old, *(name for name in there if name not in wanted)])


def same(one: object, other: object) -> bool:
    """Are they the same document? Compressed bytes apart: builds of zlib differ in them, and both are right (see tests/golden)."""
    return _plain(one) == _plain(other)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key != mqtt.WIRE}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def write(folder: Path = FOLDER) -> None:
    """Write what is not as the code has it; take away what is nobody's."""
    wanted = documents()
    for name in stale(folder):
        path = folder / name
        if name in wanted:
            path.write_text(text(wanted[name]), "utf-8")
        else:
            path.unlink()
