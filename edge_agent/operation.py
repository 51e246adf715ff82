"""One address and method of the LAN API as its OpenAPI document tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Param:
    """A query or path parameter."""

    name: str
    description: str
    schema: Json
    example: str = ""
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """One address and method. `answers`: status -> (description, example)."""

    method: str
    path: str
    id: str
    summary: str
    description: str
    answers: dict[int, tuple[str, Any]]
    params: Sequence[Param] = ()
    problems: Sequence[int] = (401, 403, 503)
    open: bool = False
    body: str = ""
    """the schema of one of what is sent, or a media type that is not JSON"""
    media: str = "application/json"
