"""Whom this process of a hub speaks to, where several workers share the nodes (`hub.leasing`); a hub that is alone speaks to everybody.

Facts are taken from whoever brings them: they are on this disk and go to the store, which knows them by identity. But statements, pulls and
feeds go only to nodes whose partition is held here, so that a node hears one worker. Whose partition it is, the owner says, and may change
between two transactions; a node of another worker is simply not spoken to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hub.registry import Registry
from protocols.ledger import Ledger
from protocols.streams import StreamKey
from protocols.topics import Address


class Serving:
    """See the module. `only`: is this node served here? None: all are."""

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self._registry, self._ledger = registry, ledger
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

    def is_own(self, key: StreamKey) -> bool:
        """Did this process write this stream? Alone, it wrote all of the hub's; among workers each has epochs of its own."""
        return key.node == self._ledger.node and (self.only is None or any(stream.key == key for stream in self._ledger.own_streams()))

    def counts(self, key: StreamKey) -> bool:
        """Does this worker answer for a stream in fleet and balance?"""
        return self.only is None or (self.is_own(key) if key.node == self._ledger.node else self.to(key.node))
