"""`longshore-edge card`: the node's public card written anew, from its key and its broker password."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.config import FILE_NAME, load_config
from protocols.errors import ConfigError
from protocols.trust import NodeKey, read_secret


def add(commands: Any, make: Callable[..., argparse.ArgumentParser], add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the command to the parser."""
    command = make(
        commands, "card", run, "write the node's card anew",
        "After the broker password was changed, or\nfor a card of an older version, which a Mosquitto cannot be told of. Then, where the\n"
        "hub is: `longshore-hub nodes add CARD`, and `longshore-hub broker passwords`.",
    )  # fmt: skip
    add_config(command)


def run(args: argparse.Namespace) -> int:
    """The command. Errors: ConfigError: key or password cannot be read, the card cannot be written."""
    from edge_agent.init import card_of

    config = load_config(args.config or FILE_NAME, os.environ)
    password = read_secret(config.storage.password_file, what="broker password").strip()
    text = card_of(NodeKey.load(config.storage.key_file), config.address, password)
    path = Path(config.storage.card_file)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.", remedy="Make room, or correct storage.card_file.") from None
    print(json.dumps({"card": str(path)}) if args.json else f"card: {path}\nnext, where the hub is: longshore-hub nodes add {path}")
    return 0
