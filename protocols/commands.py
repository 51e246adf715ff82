"""A parser for programs of several commands: what argparse says badly is said clearly here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """Where a command is to follow and an option stands in its place, it says so: argparse takes the option's value for the command.

    Parsers of commands are of this class, too, as argparse makes them of their parent's.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse`. Ends the program with exit code 2 where the line is wrong."""
        if args is not None and self._subparsers is not None:
            self._check_first(list(args))
        return super().parse_known_args(args, namespace)

    def _check_first(self, args: Sequence[str]) -> None:
        first = args[0] if args else ""
        if len(first) > 1 and first.startswith("-") and first.partition("=")[0] not in self._option_string_actions:
            names = [name for action in self._actions if isinstance(action, argparse._SubParsersAction) for name in action.choices]
            self.error(f"a command comes before {first.partition('=')[0]}: {self.prog} {{{','.join(names)}}} {first} ...")


def as_commands(text: str, commands: Mapping[str, str]) -> str:
    """What an API tells its callers, for somebody at a command line: addresses become the commands that ask there. `commands`: by address;
    of two where one begins the other, the longer one is meant where it stands."""
    for address in sorted(commands, key=len, reverse=True):
        text = text.replace(address, commands[address])
    return text
