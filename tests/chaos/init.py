"""Make the directories of a hub and its edges with the commands that people type, all in one process: `python -m tests.chaos.init SITE`.

SITE is JSON: {"hub": DIR, "api_port": n, "broker_port": n, "edges": [{"dir": …, "node": …, "site": …, "line": port, "port": port}]}.
`line` is the port by which the edge reaches the broker. `hub_more`: further arguments of the hub's `init`; `hub_drop`: what
lies in its hub.toml.d; `workers`: [{"dir": …, "api_port": n, "hub_drop": …}], which share its key. `gateways` (of a phone): directories of
edges that carry for it.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import edge_agent.cli
from hub.cli import main as hub_main

ORG: Final = "acme"
REGION: Final = "EMEA"


def make(site: dict[str, Any]) -> None:
    """All of it. Errors: SystemExit with what a command said."""
    said = _hub(site, site)
    for worker in site.get("workers", ()):
        _hub(site, {**worker, "hub": worker["dir"]})
        shutil.copyfile(f"{site['hub']}/hub.key", f"{worker['dir']}/hub.key")
    _admit(site, json.loads(said)["address"])


def _hub(site: dict[str, Any], hub: dict[str, Any]) -> str:
    said = _run(
        hub_main, "init", hub["hub"], "--org", ORG, "--region", REGION, "--api-port", hub["api_port"],
        "--broker-port", site["broker_port"], "--loopback-without-token", *site.get("hub_more", ()), "--json",
    )  # fmt: skip
    if hub.get("hub_drop"):
        folder = Path(hub["hub"]) / "hub.toml.d"
        folder.mkdir()
        (folder / "more.toml").write_text(hub["hub_drop"])
    return said


def _admit(site: dict[str, Any], address: str) -> None:
    for edge in site["edges"]:
        through = address.replace(f":{site['broker_port']}/", f":{edge['line']}/")
        _run(
            edge_agent.cli.main, "init", edge["dir"], "--node", edge["node"], "--site", edge["site"], "--region", REGION,
            "--hub", through, "--port", edge["port"], "--loopback-without-token",
        )  # fmt: skip
        _run(hub_main, "nodes", "add", f"{edge['dir']}/node.card.json", "--dir", site["hub"])
    for edge in site["edges"]:
        for gateway in edge.get("gateways", ()):
            _run(edge_agent.cli.main, "peer", "add", f"{edge['dir']}/node.card.json", "--config", f"{gateway}/edge.toml")


def _run(command: Any, *args: object) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command([str(arg) for arg in args])
    if code:
        raise SystemExit(f"{' '.join(map(str, args[:2]))} ended with {code}: {out.getvalue()}")
    return out.getvalue()


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
