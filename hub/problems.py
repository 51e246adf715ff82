"""Every refusal of the HTTP API as an RFC 9457 problem document; to a browser that asks for a page, as a page.

The table below is the whole vocabulary. `type` is a URN: it names the kind and promises no web page behind it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from protocols import errors

log = logging.getLogger(__name__)

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
MEDIA: Final = Kind("unsupported-media-type", 415, "The body is not JSON")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "A token is needed")
FORBIDDEN: Final = Kind("forbidden", 403, "Not from there")
FULL: Final = Kind("no-room", 507, "There is no room to store it")
UNAVAILABLE: Final = Kind("unavailable", 503, "Not now")
BROKEN: Final = Kind("internal", 500, "Something went wrong here")
KINDS: Final = (INVALID, TOO_LARGE, CONFLICT, AMBIGUOUS, NOT_FOUND, METHOD, MEDIA, UNAUTHORIZED, FORBIDDEN, FULL, UNAVAILABLE, BROKEN)

_BY_STATUS: Final = {kind.status: kind for kind in KINDS if kind is not AMBIGUOUS}
_RETRY: Final = {"retry-after": "1"}


class Problem(Exception):
    """Raised by handlers for what is no LongshoreError. `extra` are further members of the document."""

    def __init__(self, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra
        super().__init__(detail)

    def document(self) -> dict[str, Any]:
        """The members, in reading order."""
        base = {"type": self.kind.urn, "title": self.kind.title, "status": self.kind.status, "detail": self.detail}
        return base | {name: value for name, value in self.extra.items() if value}

    def response(self) -> Response:
        """As JSON."""
        body = json.dumps(self.document(), ensure_ascii=False).encode("utf-8", "replace")
        return Response(body, self.kind.status, self.headers, media_type=MEDIA_TYPE)


def as_problem(error: Exception) -> Problem:
    """The problem of any exception. Of what nobody foresaw it says nothing: no type, no text, no trace."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _http_problem(error)
    if isinstance(error, errors.InvalidInput):
        kind = TOO_LARGE if isinstance(error, errors.TooLarge) else INVALID
        return Problem(kind, error.reason, field=error.field, allowed=list(error.allowed), remedy=error.remedy)
    if isinstance(error, errors.Conflict):
        return Problem(CONFLICT, error.reason, remedy=error.remedy)
    if isinstance(error, errors.LedgerFull):
        return Problem(FULL, error.reason, remedy=error.remedy or "Nothing was stored. Send it again once there is room.")
    if isinstance(error, (errors.LedgerError, errors.TransportError)):
        return Problem(UNAVAILABLE, error.reason, headers=_RETRY, remedy=error.remedy or "Send it again in a moment.")
    return Problem(BROKEN, "The fault is the hub's, not the request's; its log says more.")


def _http_problem(error: HTTPException) -> Problem:
    kind = _BY_STATUS.get(error.status_code) or Kind(f"http-{error.status_code}", error.status_code, HTTPStatus(error.status_code).phrase)
    headers = dict(error.headers or {})
    if kind is METHOD:
        return Problem(kind, f"Allowed here: {headers.get('Allow', '')}.", headers=headers, allowed=headers.get("Allow", "").split(", "))
    detail = "No such address; /openapi.json lists them all." if kind is NOT_FOUND else str(error.detail)
    return Problem(kind, detail, headers=headers)


def wants_page(request: Request) -> bool:
    """Whether a person looks at this: not below /v1, and the browser asked for HTML."""
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


def install(app: FastAPI, page: Callable[[Request, Problem], Response]) -> None:
    """Render every error of `app`; `page` draws the ones that people see."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        if problem.kind is BROKEN:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return page(request, problem) if wants_page(request) else problem.response()

    for kind in (Problem, HTTPException, errors.LongshoreError, Exception):
        app.add_exception_handler(kind, answer)
