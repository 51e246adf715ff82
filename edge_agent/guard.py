"""Who may call the LAN API, and the last net under it: plain ASGI around the application.

A bearer token opens everything but health, which is open. Loopback needs no token only where the configuration says so, and then the
request must also be *meant* for loopback (its Host says so) and not come from another site's page: any web page in a browser on this
machine could otherwise reach the edge, through a name that resolves to 127.0.0.1.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocols.callers import FORWARDED, is_foreign, is_loopback, is_loopback_host
from protocols.problem import BROKEN, FORBIDDEN, MEDIA_TYPE, UNAUTHORIZED, Problem
from protocols.trust import token_hash

log = logging.getLogger(__name__)

OPEN_PATHS: Final = ("/healthz", "/readyz", "/openapi.json")
_TOKEN_CHARS: Final = 256
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

Headers = dict[bytes, bytes]


class Guard:
    """ASGI middleware. `token_hashes` are what `trust.token_hash` makes of the tokens that may call."""

    def __init__(self, app: ASGIApp, token_hashes: Sequence[str], *, loopback_without_token: bool = False) -> None:
        self._app = app
        self._hashes = [text.encode() for text in token_hashes]
        self._loopback_free = loopback_without_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _send_problem(refusal, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        # boundary: whatever escapes from the application is a fault of ours; the caller hears a problem document, the log has the trace
        except Exception:
            log.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if not started:
                await _send_problem(Problem(BROKEN, "The fault is this edge's, not the request's; its log says more."), send)

    def _refusal(self, scope: Scope) -> Problem | None:
        if scope["path"] in OPEN_PATHS:
            return None
        headers: Headers = dict(scope["headers"])
        token = _bearer(headers)
        if token is not None:
            return None if self._matches(token) else _unauthorized("This token is not known here.")
        if not (self._loopback_free and _from_loopback(scope, headers)):
            return _unauthorized("No token was sent.")
        host = _text(headers, b"host") or ""
        origin, site = _text(headers, b"origin"), _text(headers, b"sec-fetch-site")
        if is_foreign(scope["method"], origin=origin, fetch_site=site, host=host) or not is_loopback_host(host):
            return Problem(FORBIDDEN, "Without a token this edge answers only to 127.0.0.1, localhost and [::1], and to no web page.")
        return None

    def _matches(self, token: bytes) -> bool:
        """Compared in constant time with each; hashing 43 characters costs less than looking up whether it was hashed before."""
        hashed = token_hash(token.decode("latin-1")).encode()
        return sum(hmac.compare_digest(hashed, known) for known in self._hashes) > 0


def _unauthorized(detail: str) -> Problem:
    remedy = "Send `Authorization: Bearer TOKEN` with the token that `longshore-edge init` wrote to api.token."
    return Problem(UNAUTHORIZED, detail, headers={"www-authenticate": 'Bearer realm="longshore"'}, remedy=remedy)


async def _send_problem(problem: Problem, send: Send) -> None:
    body = problem.body()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), *_HEADERS]
    headers += [(name.encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bearer(headers: Headers) -> bytes | None:
    """The token of the Authorization header; an unreadable one counts as a wrong one."""
    value = headers.get(b"authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(b" ")
    return token.strip()[:_TOKEN_CHARS] if scheme.lower() == b"bearer" else b""


def _from_loopback(scope: Scope, headers: Headers) -> bool:
    """Whether the caller is on this machine. What a proxy passes on comes from anywhere."""
    client: Any = scope.get("client")
    return bool(client) and is_loopback(client[0]) and not any(name.encode() in headers for name in FORWARDED)


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
