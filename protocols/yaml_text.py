"""YAML as a tree of texts with the line of each: the only module that knows the library.

Only what a table for people needs: maps, lists and texts. A plain `no` is the text "no", a number its digits; who reads the tree gives it
meaning. What YAML can do beyond that is refused, with its line: aliases and anchors (a few bytes can stand for gigabytes), tags, several
documents, a key twice in a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from protocols.errors import ConfigError

TEXT_BYTES: Final = 131_072
DEPTH: Final = 8
NODES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line it begins on, from 1. `value`: a text, a list of nodes, or a dict of nodes by text."""

    value: str | list[Node] | dict[str, Node]
    line: int

    @property
    def kind(self) -> str:
        """What people call it."""
        return "a map" if isinstance(self.value, dict) else "a list" if isinstance(self.value, list) else "text"


def read(text: str, name: str) -> Node:
    """The one document in a text. `name`: what to call it in messages. Errors: ConfigError, with name and line."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES:
        raise ConfigError(f"{name} is longer than {TEXT_BYTES} bytes.", remedy="A table of policies fits in less; look what it holds.")
    try:
        return _Reader(name, yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark is not None else name
        raise ConfigError(
            f"{where}: not YAML: {error.problem or error.context}.", remedy="Look at quotes, colons and indentation."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}.", remedy="Save it as UTF-8 text.") from None


class _Reader:
    def __init__(self, name: str, events: Iterator[Any]) -> None:
        self._name, self._events, self._nodes = name, events, 0

    def document(self) -> Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise ConfigError(f"{self._name} is empty.", remedy="Copy the shipped table and change that.")
        node = self._node(self._next(), 1)
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._bad(after, "a second document begins", "Keep one table in a file.")
        return node

    def _next(self) -> Any:
        return next(self._events)

    def _bad(self, event: Any, what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self._name}, line {event.start_mark.line + 1}: {what}.", remedy=remedy)

    def _node(self, event: Any, depth: int) -> Node:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._bad(event, "anchors and aliases are not taken", "Write the value out.")
        if event.tag is not None and event.tag != "!":
            raise self._bad(event, "tags are not taken", "Leave out what begins with an exclamation mark.")
        if depth > DEPTH or self._nodes > NODES:
            raise self._bad(event, "nested deeper or longer than any table", "Flatten it.")
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            return Node(str(event.value), line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(list(self._items(depth)), line)
        return Node(self._map(depth), line)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _map(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                raise self._bad(event, f"a key that is {key.kind}", "Keys are text.")
            if key.value in found:
                raise self._bad(event, f"{key.value[:64]!r} stands twice in one map", "Remove one of the two.")
            found[key.value] = self._node(self._next(), depth + 1)
        return found
