"""Where the edge that runs on a data directory listens, for other commands on this machine: with port 0 no configuration says it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_agent.config import EdgeConfig


def _file(config: EdgeConfig) -> Path:
    return Path(config.storage.lock_file).with_suffix(".url")


def tell(config: EdgeConfig, url: str) -> None:
    """Leave word. That it cannot be left (a full disk) keeps nothing from running."""
    with contextlib.suppress(OSError):
        _file(config).write_text(f"{url}\n", "utf-8")


def told(config: EdgeConfig) -> str | None:
    """The word that was left, if any; who left it may have been killed since."""
    try:
        return _file(config).read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def forget(config: EdgeConfig) -> None:
    """Take the word back."""
    with contextlib.suppress(OSError):
        _file(config).unlink(missing_ok=True)
