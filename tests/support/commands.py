"""The product's commands, as people and scripts run them: to their end, with what they print and how they exit.

Those that look into files, copy them or ask a running process (`HERE`) run in the process of the test: that is half a second of imports
less for each, and there are hundreds. All others have a process of their own.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.support.patience import WITHIN_S
from tests.support.ports import free_port
from tests.support.procs import python

HERE: Final = (
    "audit", "backup", "backups", "balance", "broker", "conflicts", "dlq", "events", "fleet", "init", "nodes", "orders", "peer",
    "queue", "restore", "status", "store", "topics", "verify", "workers",
)  # fmt: skip


class Ran(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def ran(module: str, *args: str | Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
    """A command to its end, here or in a process of its own (always, where it has an environment of its own)."""
    if env is None and (args[:1] in [(name,) for name in HERE] or args[1:] == ("--help",)):
        return _ran_here(module, *args, stdin=stdin)
    ended = subprocess.run(
        python("-m", module, *args),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def _ran_here(module: str, *args: str | Path, stdin: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as typed, redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", typed):
        typed.write(stdin)
        typed.seek(0)
        try:
            code = importlib.import_module(module).main([str(arg) for arg in args])
        except SystemExit as ended:  # of argparse
            code = ended.code
    return Ran(int(code or 0), out.getvalue(), err.getvalue())


def said(module: str, *args: str | Path, stdin: str = "", code: int | None = 0) -> str:
    """What a command prints. `code`: how it must end; None: in any way, but never with a traceback."""
    ended = ran(module, *args, stdin=stdin)
    assert code in (None, ended.returncode), (args, *ended)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


def done(module: str, *args: str | Path, stdin: str = "", code: int | None = 0) -> Any:
    """A command to its end; its JSON where it was asked for any."""
    text = said(module, *args, stdin=stdin, code=code)
    return json.loads(text) if "--json" in args else text


def done_at_last(module: str, *args: str | Path, again: int = 6) -> Any:
    """The same of one that may be asked again while it ends with `again`: whom it asks does not answer, or not soon enough."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            return done(module, *args)
        except AssertionError as error:
            if error.args[0][1] != again or time.monotonic() > deadline:
                raise


def as_json(module: str, *args: str | Path, stdin: str = "", code: int | None = 0) -> Any:
    """What a command says with `--json`; None where it says nothing."""
    text = said(module, *args, "--json", stdin=stdin, code=code)
    return json.loads(text) if text.strip() else None


def new_pair(folder: Path, *more: str | Path, broker_port: int = 0) -> tuple[Path, Path]:
    """The folders of a hub and of an edge (dock-7) that it has admitted. `more`: of the hub's `init`."""
    hub, edge = folder / "hub", folder / "edge"
    ports = ("--api-port", "0", "--broker-port", str(broker_port or free_port()))
    made = done("hub.cli", "init", hub, *ports, *more, "--loopback-without-token", "--json")
    place = ("--node", "dock-7", "--site", "S", "--region", "R", "--port", "0", "--loopback-without-token")
    done("edge_agent.cli", "init", edge, "--hub", made["address"], *place)
    done("hub.cli", "nodes", "add", edge / "node.card.json", "--dir", hub)
    return hub, edge
