"""Every refusal of an HTTP API as an RFC 9457 problem document, at edge and hub alike. Pure: an error in, a value out.

The table is the whole vocabulary. `type` is a URN: it names the kind and promises no web page behind it. The shells know HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocols import errors

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:longshore:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the vocabulary."""

    slug: str
    status: int
    title: str

    @property
    def urn(self) -> str:
        """The `type` member."""
        return _URN + self.slug


INVALID: Final = Kind("invalid-input", 422, "The request cannot be taken as it is")
TOO_LARGE: Final = Kind("too-large", 413, "The request is too large")
CONFLICT: Final = Kind("conflict", 409, "The request contradicts what was said before")
AMBIGUOUS: Final = Kind("ambiguous", 409, "More than one order has this id")
NOT_FOUND: Final = Kind("not-found", 404, "There is nothing here")
METHOD: Final = Kind("method-not-allowed", 405, "This cannot be done here")
MEDIA: Final = Kind("unsupported-media-type", 415, "The body is of another type than is taken here")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "A token is needed")
FORBIDDEN: Final = Kind("forbidden", 403, "Not from there")
FULL: Final = Kind("no-room", 507, "There is no room to store it")
UNAVAILABLE: Final = Kind("unavailable", 503, "Not now")
BROKEN: Final = Kind("internal", 500, "Something went wrong here")
KINDS: Final = (INVALID, TOO_LARGE, CONFLICT, AMBIGUOUS, NOT_FOUND, METHOD, MEDIA, UNAUTHORIZED, FORBIDDEN, FULL, UNAVAILABLE, BROKEN)

_RETRY: Final = {"retry-after": "1"}


class Problem(Exception):
    """Raised by handlers for what is no LongshoreError, and what every error becomes. `extra`: further members; empty ones are left out."""

    def __init__(self, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        self.kind, self.detail, self.headers, self.extra = kind, detail, dict(headers or {}), extra
        super().__init__(detail)

    def document(self) -> dict[str, Any]:
        """The members, in reading order."""
        base = {"type": self.kind.urn, "title": self.kind.title, "status": self.kind.status, "detail": self.detail}
        return base | {name: value for name, value in self.extra.items() if value}

    def body(self) -> bytes:
        """As JSON. What a caller sent may hold lone surrogates, and comes back as `?`."""
        return json.dumps(self.document(), ensure_ascii=False).encode("utf-8", "replace")


def as_problem(error: Exception) -> Problem:
    """The problem of any error. Of what nobody foresaw it says nothing: no type, no text, no trace."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, errors.InvalidInput):
        kind = TOO_LARGE if isinstance(error, errors.TooLarge) else INVALID
        return Problem(kind, error.reason, field=error.field, allowed=list(error.allowed), remedy=error.remedy)
    if isinstance(error, errors.NotKnown):
        return Problem(NOT_FOUND, error.reason, remedy=error.remedy)
    if isinstance(error, errors.Conflict):
        return Problem(CONFLICT, error.reason, remedy=error.remedy)
    if isinstance(error, errors.LedgerFull):
        return Problem(FULL, error.reason, remedy=error.remedy or "Nothing was stored. Send it again once there is room.")
    if isinstance(error, (errors.LedgerError, errors.TransportError)):
        return Problem(UNAVAILABLE, error.reason, headers=_RETRY, remedy=error.remedy or "Send it again in a moment.")
    return Problem(BROKEN, "The fault is on this side, not in the request; the log here says more.")
