"""Who may call, and what every answer says to browsers: plain ASGI around the application, so that streams stay streams.

A bearer token opens everything. The cookie that the sign-in page sets holds the same token and opens only what changes nothing: a form on
somebody else's page can make a browser send a cookie, but not a header. Loopback needs no token only where the facade says so; then the
request must also be *meant* for loopback (its Host says so), or any web page could reach the hub through a name that resolves to 127.0.0.1.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.problems import response, wants_page
from protocols.callers import FORWARDED, SAFE_METHODS, is_foreign, is_loopback, is_loopback_host
from protocols.problem import FORBIDDEN, UNAUTHORIZED, Problem

COOKIE: Final = "longshore_token"
OPEN_PATHS: Final = ("/healthz", "/readyz", "/openapi.json", "/sign-in", "/sign-out")
OPEN_PREFIX: Final = "/static/"
SYNC_PATH: Final = "/v1/sync"
"""also opened by a node's name and password, which its handler checks: that takes too long for here"""
_TOKEN_CHARS: Final = 256
_BASIC_CHARS: Final = 1_024

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)

CheckToken = Callable[[str | None, bool], bool]
DrawRefusal = Callable[[Request, Problem], Response]


class Guard:
    """ASGI middleware. `check_token(token, client_is_loopback)` decides; `page` draws a refusal that a person sees."""

    def __init__(self, app: ASGIApp, check_token: CheckToken, page: DrawRefusal) -> None:
        self._app = app
        self._check = check_token
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif refusal.kind is UNAUTHORIZED and request.method in SAFE_METHODS and wants_page(request):
            await RedirectResponse(sign_in_url(request), 303)(scope, receive, _with_headers(send))
        else:
            answer = self._page(request, refusal) if wants_page(request) else response(refusal)
            await answer(scope, receive, _with_headers(send))

    def _refusal(self, request: Request) -> Problem | None:
        path = request.url.path
        if _foreign(request):
            return Problem(FORBIDDEN, "A page of another site may not do this in your name.")
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX) or (path == SYNC_PATH and is_basic(request.headers)):
            return None
        token = bearer(request.headers)
        if token is None and request.method in SAFE_METHODS:
            token = cookie_token(request.headers)
        loopback = is_loopback_client(request)
        if not self._check(token, loopback):
            return _unauthorized(token)
        if loopback and not is_loopback_host(request.headers.get("host", "")) and not self._check(token, False):
            names = "127.0.0.1, localhost or [::1]"
            return Problem(FORBIDDEN, f"Without a token the hub answers only as {names}.", remedy="Use one of these names.")
        return None


def _unauthorized(token: str | None) -> Problem:
    detail = "No token was sent." if token is None else "This token is not known here."
    remedy = "Send `Authorization: Bearer TOKEN` with the token that `longshore-hub init` wrote to api.token."
    return Problem(UNAUTHORIZED, detail, headers={"www-authenticate": 'Bearer realm="longshore"'}, remedy=remedy)


def sign_in_url(request: Request) -> str:
    """Where to sign in, and to come back from there."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    target = raw.decode("latin-1").partition("?")[0] + (f"?{request.url.query}" if request.url.query else "")
    return f"/sign-in?next={quote(target, safe='')}"


def local_target(text: str) -> str:
    """`text` if it is a path on this hub, "/" for anything a browser could take for another host."""
    plain = text.isascii() and text.isprintable() and text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if plain else "/"


def bearer(headers: Headers) -> str | None:
    """The token of the Authorization header; an unreadable one counts as a wrong one."""
    value = headers.get("authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return token.strip()[:_TOKEN_CHARS] if scheme.lower() == "bearer" else ""


def is_basic(headers: Headers) -> bool:
    """Whether a name and a password were sent (RFC 7617)."""
    return headers.get("authorization", "").partition(" ")[0].lower() == "basic"


def basic(headers: Headers) -> tuple[str, str]:
    """The name and the password that were sent; two empty texts for what is none."""
    try:
        text = base64.b64decode(headers.get("authorization", "").partition(" ")[2][:_BASIC_CHARS].strip(), validate=True).decode()
    except ValueError:  # also what is no base64, and no UTF-8
        return "", ""
    name, _, password = text.partition(":")
    return name, password


def cookie_token(headers: Headers) -> str | None:
    """The token in our cookie."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value[:_TOKEN_CHARS] if morsel is not None and morsel.value else None


def is_loopback_client(request: Request) -> bool:
    """Whether the caller is on this machine. What a proxy passes on comes from anywhere."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    return is_loopback(request.client.host)


def _foreign(request: Request) -> bool:
    h = request.headers
    return is_foreign(request.method, origin=h.get("origin"), fetch_site=h.get("sec-fetch-site"), host=h.get("host", ""))


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS:
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return wrapped
