"""Refusals of the hub's HTTP API: problem documents (`protocols.problem`); to a browser that asks for a page, a page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from protocols import errors
from protocols.problem import AMBIGUOUS, BROKEN, KINDS, MEDIA_TYPE, METHOD, NOT_FOUND, Kind, Problem, as_problem

log = logging.getLogger(__name__)

_BY_STATUS: Final = {kind.status: kind for kind in KINDS if kind is not AMBIGUOUS}


def response(problem: Problem) -> Response:
    """As JSON."""
    return Response(problem.body(), problem.kind.status, problem.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """The problem of any exception, the framework's own among them."""
    return _http_problem(error) if isinstance(error, HTTPException) else as_problem(error)


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


def install(app: Starlette, page: Callable[[Request, Problem], Response]) -> None:
    """Render every error of `app`; `page` draws the ones that people see."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.kind is BROKEN:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return page(request, problem) if wants_page(request) else response(problem)

    for kind in (Problem, HTTPException, errors.LongshoreError, Exception):
        app.add_exception_handler(kind, answer)
