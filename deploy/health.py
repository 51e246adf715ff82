"""`python -m deploy.health URL`: exit 0 when it answers 2xx within three seconds, else 1. For the health checks of containers."""

from __future__ import annotations

import sys
from typing import Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

WITHIN_S: Final = 3.0


def healthy(url: str) -> bool:
    """Whether it answers, asked without any proxy."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=WITHIN_S) as answer:
            return 200 <= answer.status < 300
    except (URLError, OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(0 if len(sys.argv) == 2 and healthy(sys.argv[1]) else 1)
