"""Whom this process of a hub speaks to, where several workers share the nodes (`hub.leasing`); a hub that is alone speaks to everybody.

Facts are taken from whoever brings them: they are on this disk and go to the store, which knows them by identity. But statements, pulls and
feeds go only to nodes whose partition is held here, so that a node hears one worker. Whose partition it is, the owner says, and may change
between two transactions; a node of another worker is simply not spoken to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hub.registry import Registry
from protocols.streams import StreamKey
from protocols.topics import Address


class Serving:
    """See the module. `only`: is this node served here? None: all are."""

    def __init__(self, registry: Registry, hub: str) -> None:
        self._registry, self._hub = registry, hub
        self.only: Callable[[Address], bool] | None = None

    def to(self, name: str) -> bool:
        """Is this node spoken to from here?"""
        if self.only is None:
            return True
        node = self._registry.get(name)
        return node is not None and self.only(node.address)

    def those(self, names: Iterable[str]) -> list[str]:
        """Of these, the ones that are."""
        return [name for name in names if self.to(name)]

    def counts(self, key: StreamKey, own: Iterable[StreamKey]) -> bool:
        """Does this worker answer for a stream in fleet and balance? `own`: the streams that this ledger itself writes."""
        if self.only is None:
            return True
        return key in own if key.node == self._hub else self.to(key.node)
