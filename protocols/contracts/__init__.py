"""Contracts for other programs, as data: written by `python -m deploy.contracts` from the code, held against it by tests."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def read(name: str) -> dict[str, Any]:
    """A document by its file's name, such as `order-event.schema.json`. Errors: FileNotFoundError."""
    found: dict[str, Any] = json.loads(resources.files(__name__).joinpath(name).read_text("utf-8"))
    return found
