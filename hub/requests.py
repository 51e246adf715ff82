"""What comes with a request, read within bounds: query parameters, the order that a path names. Bodies: `protocols.bodies`."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from starlette.requests import Request

from protocols import parameters
from protocols.errors import InvalidInput
from protocols.lifecycle import STATUS_NAMES
from protocols.parameters import choice

CARD_BYTES: Final = 16_384


def query(request: Request, allowed: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a request that have a value. Raises InvalidInput."""
    return parameters.query(request.query_params.multi_items(), allowed)


def flag(params: dict[str, str], name: str) -> bool | None:
    """`true` or `false`; None where it is left out."""
    text = params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise InvalidInput(name, "must be true or false.", allowed=("true", "false"))
    return text == "true"


def status(params: dict[str, str]) -> str | None:
    """A status of the lifecycle."""
    return choice(params, "status", STATUS_NAMES)


def segments(request: Request, prefix: str) -> list[str]:
    """What follows `prefix`, cut at the slashes of the address as it was sent, then decoded: an id may hold an encoded slash."""
    raw = (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1").partition("?")[0]
    rest = raw[len(request.scope.get("root_path", "")) :].removeprefix(prefix)
    return [unquote(part, errors="replace") for part in rest.split("/")]


def order_and_part(request: Request, prefix: str, parts: tuple[str, ...]) -> tuple[str, str]:
    """(order id, "" or one of `parts`) from `{prefix}{id}[/{part}]`. A slash within an id is best sent as %2F; a plain one works too,
    unless the id itself ends in one of the parts."""
    found = segments(request, prefix)
    part = found.pop() if len(found) > 1 and found[-1] in parts else ""
    return "/".join(found), part
