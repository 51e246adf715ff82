"""Commands around what is carried for others: `peer`, and the sticks of `queue export` and `queue import`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, Final

from edge_agent.config import FILE_NAME, EdgeConfig, load_config

OK: Final = 0
FAILED: Final = 1

Make = Callable[..., argparse.ArgumentParser]
"""`cli._command`"""
AddConfig = Callable[[argparse.ArgumentParser], None]


def add_peer(commands: Any, make: Make, add_config: AddConfig) -> None:
    """Add `peer` to the parser."""
    group = commands.add_parser("peer", help="nodes whose frames this edge carries").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    command = make(
        group, "add", _add, "carry the frames of a node",
        "\nIt must be of the same organisation. What it signed is kept here until the central\n"
        "store has it, shown at once, and brought to the hub.",
    )  # fmt: skip
    command.add_argument("card", metavar="CARD.json", help="the node.card.json that the node's init wrote")
    add_config(command)
    add_config(make(group, "ls", _ls, "list them"))
    command = make(group, "rm", _rm, "take nothing more of a node", "What is in custody stays until it is settled.")
    command.add_argument("node", metavar="NODE", help="its name")
    add_config(command)


def add_queue(group: Any, make: Make, add_config: AddConfig) -> None:
    """Add `export` and `import` to `queue`."""
    command = make(
        group, "export", _export, "write all that another may carry into a file",
        "\nOwn facts that are not settled, and what is in custody for others, as their authors\n"
        "signed them. Nothing is freed by it. `queue import` of another edge takes the file, and\n`longshore-hub import`.",
    )  # fmt: skip
    command.add_argument("file", metavar="FILE", help="a new file")
    add_config(command)
    command = make(
        group, "import", _import, "take such a file into custody here",
        "\nOnly what peers of this edge signed (`peer ls`) is taken. What is damaged is named and\n"
        "skipped; the same file again changes nothing. Exits with 1 when something was left.",
    )  # fmt: skip
    command.add_argument("file", metavar="FILE", help="what `queue export` wrote")
    add_config(command)


def _config(args: argparse.Namespace) -> EdgeConfig:
    return load_config(args.config or FILE_NAME, os.environ)


def _say(args: argparse.Namespace, data: object, text: str) -> None:
    print(json.dumps(data, ensure_ascii=False) if args.json else text)


def _add(args: argparse.Namespace) -> int:
    from edge_agent.carrying import add

    peer = add(_config(args), args.card)
    _say(args, peer, f"{peer['node']} ({peer['site']}, {peer['fingerprint']}) is a peer: its frames are carried from now on")
    return OK


def _ls(args: argparse.Namespace) -> int:
    from edge_agent.carrying import peers

    found = peers(_config(args))
    lines = [f"{peer['node']:32}  {peer['site']:20}  {peer['fingerprint']}" for peer in found]
    _say(args, {"peers": found}, "\n".join(lines) or "no peers; `longshore-edge peer add CARD.json` adds one")
    return OK


def _rm(args: argparse.Namespace) -> int:
    from edge_agent.carrying import remove

    done = remove(_config(args), args.node)
    _say(args, done, f"{args.node} is no peer any more; what is in custody stays until it is settled")
    return OK


def _export(args: argparse.Namespace) -> int:
    from edge_agent.carrying import export

    done = export(_config(args), args.file)
    _say(args, done, f"{done['messages']:,} messages, {done['bytes']:,} bytes in {done['file']}")
    return OK


def _import(args: argparse.Namespace) -> int:
    from edge_agent.carrying import take_in

    done = take_in(_config(args), args.file)
    _say(args, done.as_json(), done.as_text())
    return FAILED if done.left else OK
