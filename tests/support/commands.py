"""The product's commands, each in a process of its own, as people and scripts run them."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.patience import WITHIN_S
from tests.support.ports import free_port
from tests.support.procs import python


def said(module: str, *args: str | Path, stdin: str = "", code: int | None = 0) -> str:
    """What a command prints. `code`: how it must end; None: in any way, but never with a traceback."""
    ran = subprocess.run(python("-m", module, *args), input=stdin, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert code in (None, ran.returncode), (args, ran.returncode, ran.stdout, ran.stderr)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout


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
