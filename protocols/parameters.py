"""Query parameters of the HTTP APIs, read within bounds: the same rules at edge and hub. Pure: pairs of texts in, checked values out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocols import limits
from protocols.errors import InvalidInput

PAGE_DEFAULT: Final = 50
PAGE_MOST: Final = 500
_PARAMETER_CHARS: Final = 512


def query(items: Iterable[tuple[str, str]], allowed: tuple[str, ...]) -> dict[str, str]:
    """The parameters that have a value. Raises InvalidInput for one that is unknown (a filter that silently filters nothing misleads),
    comes twice, or is longer than anything it could match."""
    found: dict[str, str] = {}
    for name, value in items:
        if name not in allowed:
            raise InvalidInput(name[: limits.TEXT_CHARS], "is not a parameter of this address.", allowed=allowed)
        if name in found:
            raise InvalidInput(name, "is given twice.")
        if len(value) > _PARAMETER_CHARS:
            raise InvalidInput(name, f"is {len(value)} characters long, at most {_PARAMETER_CHARS} are taken.")
        if value:
            found[name] = value
    return found


def page_size(params: dict[str, str], default: int = PAGE_DEFAULT, most: int = PAGE_MOST) -> int:
    """`limit`, a whole number from 1 to `most`."""
    text = params.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
        raise InvalidInput("limit", f"must be a whole number from 1 to {most}.")
    return int(text)


def choice(params: dict[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    """One of a few words; None where it is left out."""
    text = params.get(name)
    if text is not None and text not in allowed:
        raise InvalidInput(name, "is none of the values known here.", allowed=allowed)
    return text
