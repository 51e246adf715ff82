"""The commands of `longshore-edge` are rows of tables; and what they all do alike: read the configuration, answer in text or JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_agent.config import FILE_NAME, EdgeConfig, load_config
from protocols.errors import ConfigError

OK: Final = 0
FAILED: Final = 1


class Arg(NamedTuple):
    """One argument of a command, as `argparse` takes it."""

    names: tuple[str, ...]
    how: dict[str, Any]


def arg(*names: str, **how: Any) -> Arg:
    """What `add_argument` would be called with."""
    return Arg(names, how)


CONFIG: Final = arg("--config", metavar="FILE", help=f"the configuration that init wrote (default: {FILE_NAME} here)")


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run` returns its exit code; `text`: one line for the list of commands; `more`: what else its own help says.

    Every command takes `--json`; `args` in the order in which help shows them.
    """

    name: str
    run: Callable[[argparse.Namespace], int]
    text: str
    more: str = ""
    args: Sequence[Arg] = (CONFIG,)


def add(commands: Any, rows: Sequence[Command]) -> None:
    """Add commands to a parser's, or to a group."""
    for row in rows:
        command = commands.add_parser(
            row.name,
            help=row.text,
            description=f"{row.text[0].upper()}{row.text[1:]}. {row.more}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="answers and errors as JSON")
        command.set_defaults(run=row.run)
        for names, how in row.args:
            command.add_argument(*names, **how)


def group(commands: Any, name: str, text: str) -> Any:
    """A word that commands follow: to be given to `add`."""
    return commands.add_parser(name, help=text).add_subparsers(title="commands", required=True, metavar="COMMAND")


def config_of(args: argparse.Namespace) -> EdgeConfig:
    """What `--config` names, and what the environment overrides in it. Errors: ConfigError."""
    return load_config(args.config or FILE_NAME, os.environ)


def say(args: argparse.Namespace, data: object, text: str) -> int:
    """The answer of a command that did what it was asked to."""
    print(json.dumps(data, ensure_ascii=False) if args.json else text)
    return OK


def write_whole(path: Path, text: str, remedy: str) -> None:
    """Write a file of which a reader sees all or nothing. Errors: ConfigError, with the `remedy`."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.", remedy=remedy) from None
