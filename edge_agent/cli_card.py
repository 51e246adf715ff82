"""`longshore-edge card`: the node's public card written anew, from its key and its broker password."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from edge_agent.cli_table import Command, config_of, say, write_whole
from protocols.trust import NodeKey, read_secret


def run(args: argparse.Namespace) -> int:
    """The command. Errors: ConfigError: key or password cannot be read, the card cannot be written."""
    from edge_agent.init import card_of

    config = config_of(args)
    password = read_secret(config.storage.password_file, what="broker password").strip()
    path = Path(config.storage.card_file)
    card = card_of(NodeKey.load(config.storage.key_file), config.address, password, config.node.staff)
    write_whole(path, card, "Make room, or correct storage.card_file.")
    return say(args, {"card": str(path)}, f"card: {path}\nnext, where the hub is: longshore-hub nodes add {path}")


CARD: Final = (
    Command(
        "card", run, "write the node's card anew",
        "After the broker password or the\nstaff of a phone was changed, or for a card of an older version, which a Mosquitto\n"
        "cannot be told of. Then, where the hub is: `longshore-hub nodes add CARD`, and `longshore-hub broker passwords`.",
    ),
)  # fmt: skip
