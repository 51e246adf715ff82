"""Logs on standard error: JSON for the journal, short lines for people at a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from protocols.trace_log import said_of, switch


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= said_of(record)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class LineFormatter(logging.Formatter):
    """`14:05:12 warning: text`, in the local time of whoever looks."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{moment} {level}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def setup(level: str, style: str, stream: TextIO | None = None, *, trace: bool = False) -> None:
    """Send all logs of this process to `stream` (standard error). `style`: auto, text or json. `trace`: a line per fact."""
    switch(trace)
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    plain = style == "text" or (style == "auto" and stream.isatty())
    handler.setFormatter(LineFormatter() if plain else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn", "httpx"):  # a line per request; a node that syncs over HTTP asks all day long
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
