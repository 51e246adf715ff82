"""Who is admitted, for whoever lets nodes in: read on the broker's loop, changed by the engine's worker and the hub's loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from hub.broker_access import NodeGrant

Changes = Mapping[str, NodeGrant | None]
"""From a node's id to what it may do from now on; None: nothing any more."""


class Grants:
    """See the module. Thread-safe; who `watch`es is called from the thread that changes something, and must not block."""

    def __init__(self, known: Mapping[str, NodeGrant] | None = None) -> None:
        self._known = dict(known or {})
        self._lock = threading.Lock()
        self._watchers: list[Callable[[Changes], None]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def get(self, name: str) -> NodeGrant | None:
        """What a node may do; None: it is not admitted."""
        return self._known.get(name)

    def all(self) -> dict[str, NodeGrant]:
        """A copy of everything."""
        with self._lock:
            return dict(self._known)

    def put(self, name: str, grant: NodeGrant) -> None:
        """Somebody was admitted, or may now do something else."""
        with self._lock:
            self._change({name: grant})

    def replace(self, known: Mapping[str, NodeGrant]) -> None:
        """This is everything: who is not in it is admitted no more."""
        with self._lock:
            gone = [name for name in self._known if name not in known]
            self._change({name: grant for name, grant in known.items() if self._known.get(name) != grant} | dict.fromkeys(gone))

    def _change(self, changes: Changes) -> None:
        if changes:
            take(self._known, changes)
            for tell in self._watchers:
                tell(changes)

    def watch(self, tell: Callable[[Changes], None]) -> None:
        """Hear of every change from now on."""
        with self._lock:
            self._watchers.append(tell)

    def unwatch(self, tell: Callable[[Changes], None]) -> None:
        """Hear no more. Idempotent."""
        with self._lock:
            self._watchers = [one for one in self._watchers if one != tell]


def take(known: dict[str, NodeGrant], changes: Changes) -> None:
    """Change a table."""
    for name, grant in changes.items():
        if grant is None:
            known.pop(name, None)
        else:
            known[name] = grant
