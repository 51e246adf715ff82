"""Nodes whose frames this edge may carry: an operator admits each by its card. Pure but for the database; methods that write run inside
the owner's transaction."""

from __future__ import annotations

import json
from typing import Any, Final

from protocols.errors import InvalidInput, LongshoreError
from protocols.sqlite import Db
from protocols.trust import NodeCard, parse_card

PEERS_MOST: Final = 1_000


class Peers:
    """See the module. `org`, `node` and `hub` are this edge's own."""

    def __init__(self, db: Db, *, org: str, node: str, hub: str) -> None:
        self._db, self._org, self._reserved = db, org, (node, hub)
        self._cards: dict[str, NodeCard] = {}
        self._added_ms: dict[str, int] = {}
        for name, text, added_ms in db.query("SELECT node, card, added_ms FROM peers ORDER BY node"):
            try:
                self._cards[name], self._added_ms[name] = parse_card(json.loads(text)), added_ms
            except (LongshoreError, ValueError):
                continue  # of a later version, or damaged: whoever cannot be verified is nobody's peer

    def get(self, node: str) -> NodeCard | None:
        """The card of a peer."""
        return self._cards.get(node)

    def all(self) -> list[tuple[NodeCard, int]]:
        """Every peer and when it was added, by name."""
        return [(self._cards[name], self._added_ms[name]) for name in sorted(self._cards)]

    def add(self, card: object, now_ms: int) -> NodeCard:
        """Admit a peer by its card, a JSON object; the same card again is harmless. Errors: InvalidInput: not a good card, of another
        organisation, a name that is taken, too many."""
        peer = parse_card(card)
        known = self._cards.get(peer.node)
        if peer.org != self._org:
            raise InvalidInput(
                "org", f"is {peer.org}, and this edge carries for {self._org} only.", remedy="Take a card of that organisation."
            )
        if peer.node in self._reserved or (known is not None and known.public_key != peer.public_key):
            raise InvalidInput(
                "node", f"the name {peer.node!r} is taken by another key.", remedy="Remove that peer first, if this one replaces it."
            )
        if known is None and len(self._cards) >= PEERS_MOST:
            raise InvalidInput("node", f"there are {PEERS_MOST} peers already.", remedy="Remove those that are gone.")
        if known is None:
            text = json.dumps(card, ensure_ascii=False, sort_keys=True)
            self._db.run("INSERT OR REPLACE INTO peers (node, card, added_ms) VALUES (?, ?, ?)", (peer.node, text, now_ms))
            self._added_ms[peer.node] = now_ms
            self._cards[peer.node] = peer
        return peer

    def remove(self, node: str) -> bool:
        """Take nothing more of a peer; what is in custody stays until it is settled. False when it was none."""
        if self._cards.pop(node, None) is None:
            return False
        self._db.run("DELETE FROM peers WHERE node=?", (node,))
        del self._added_ms[node]
        return True


def peer_json(card: NodeCard, added_ms: int) -> dict[str, Any]:
    """A peer as people and JSON see it."""
    return {
        "node": card.node, "org": card.org, "region": card.region, "site": card.site, "fingerprint": card.fingerprint, "addedMs": added_ms,
    }  # fmt: skip
