"""Commands around what is carried for others: `peer`, and the sticks of `queue export` and `queue import`."""

from __future__ import annotations

import argparse
from typing import Final

from edge_agent.cli_table import CONFIG, FAILED, OK, Command, arg, config_of, say


def _add(args: argparse.Namespace) -> int:
    from edge_agent.carrying import add

    peer = add(config_of(args), args.card)
    return say(args, peer, f"{peer['node']} ({peer['site']}, {peer['fingerprint']}) is a peer: its frames are carried from now on")


def _ls(args: argparse.Namespace) -> int:
    from edge_agent.carrying import peers

    found = peers(config_of(args))
    lines = [f"{peer['node']:32}  {peer['site']:20}  {peer['fingerprint']}" for peer in found]
    return say(args, {"peers": found}, "\n".join(lines) or "no peers; `longshore-edge peer add CARD.json` adds one")


def _rm(args: argparse.Namespace) -> int:
    from edge_agent.carrying import remove

    done = remove(config_of(args), args.node)
    return say(args, done, f"{args.node} is no peer any more; what is in custody stays until it is settled")


def _export(args: argparse.Namespace) -> int:
    from edge_agent.carrying import export

    done = export(config_of(args), args.file)
    return say(args, done, f"{done['messages']:,} message{'' if done['messages'] == 1 else 's'}, {done['bytes']:,} bytes in {done['file']}")


def _import(args: argparse.Namespace) -> int:
    from edge_agent.carrying import take_in

    done = take_in(config_of(args), args.file)
    say(args, done.as_json(), done.as_text())
    return FAILED if done.left else OK


PEER: Final = (
    Command(
        "add", _add, "carry the frames of a node",
        "\nIt must be of the same organisation. What it signed is kept here until the central\n"
        "store has it, shown at once, and brought to the hub.",
        (arg("card", metavar="CARD.json", help="the node.card.json that the node's init wrote"), CONFIG),
    ),
    Command("ls", _ls, "list them"),
    Command(
        "rm", _rm, "take nothing more of a node", "What is in custody stays until it is settled.",
        (arg("node", metavar="NODE", help="its name"), CONFIG),
    ),
)  # fmt: skip
QUEUE: Final = (
    Command(
        "export", _export, "write all that another may carry into a file",
        "\nOwn facts that are not settled, and what is in custody for others, as their authors\n"
        "signed them. Nothing is freed by it. `queue import` of another edge takes the file, and\n`longshore-hub import`.",
        (arg("file", metavar="FILE", help="a new file"), CONFIG),
    ),
    Command(
        "import", _import, "take such a file into custody here",
        "\nOnly what peers of this edge signed (`peer ls`) is taken. What is damaged is named and\n"
        "skipped; the same file again changes nothing. Exits with 1 when something was left.",
        (arg("file", metavar="FILE", help="what `queue export` wrote"), CONFIG),
    ),
)  # fmt: skip
