"""Where an HTTP request comes from, judged by what its headers say: the same rules at edge and hub. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")
"""headers of a proxy: what it passes on comes from anywhere"""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_host(header: str) -> bool:
    """Whether a Host header names this machine itself: any web page can reach it through a name that resolves to 127.0.0.1."""
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def is_foreign(method: str, *, origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Whether a browser says that another site's page sent a request that may change something.

    `fetch_site` is the browser's own word, which no page can forge; the origin of a page whose policy names no referrer is "null", also
    where the page is ours. Only browsers that do not say it are judged by the origin."""
    if method in SAFE_METHODS or fetch_site == "same-origin":
        return False
    if (fetch_site or "none") != "none":
        return True
    return origin is not None and origin.partition("://")[2].lower() != host.lower()
