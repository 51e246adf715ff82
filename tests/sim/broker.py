"""What a broker does to messages that it has acknowledged: it swallows all for hours, forgets everything at its restart, cuts the queue of
a session at a limit, hands out what has piled up in any order. Real ones do each of these (RELIABILITY.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.world import World

Delivery = tuple[Callable[..., None], tuple[Any, ...]]


class Broker:
    """See the module. `session` is who a message is for: the hub, or one machine."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("broker")
        self._life = 0
        """which start of the broker this is: what an earlier one was given is gone"""
        self._swallows_until = 0
        self._queued: dict[str, int] = {}
        self._piles: dict[str, list[Delivery]] = {}

    # ------------------------------------------------------------ its faults

    def swallow(self, for_ms: int) -> None:
        """For a while it says yes to everything and passes on nothing."""
        self._swallows_until = max(self._swallows_until, self.world.now + for_ms)

    def restart(self) -> None:
        """Everything that it was given and has not passed on is gone. Who drops the sessions is for the caller to say."""
        self._life += 1
        self._queued, self._piles = {}, {}

    # ------------------------------------------------------------ its work

    def carry(self, session: str, delay_ms: int, act: Callable[..., None], *args: Any) -> None:
        """Take a message that arrives after so long, if it arrives."""
        world, options = self.world, self.world.options
        if world.faulty and world.now < self._swallows_until:
            world.count("message acknowledged and swallowed")
            return
        if world.faulty and options.queue_limit and self._queued.get(session, 0) >= options.queue_limit:
            world.count("message cut from a full queue")
            return
        self._queued[session] = self._queued.get(session, 0) + 1
        if world.faulty and options.reorder:
            self._pile(session, (act, args))
        else:
            world.after(delay_ms, self._hand_out, self._life, session, act, args)

    def _pile(self, session: str, delivery: Delivery) -> None:
        pile = self._piles.setdefault(session, [])
        pile.append(delivery)
        if len(pile) == 1:
            self.world.after(self.world.options.reorder_ms, self._shuffled, self._life, session, pile)
        if len(pile) >= self.world.options.reorder:
            self._shuffled(self._life, session, pile)

    def _shuffled(self, life: int, session: str, pile: list[Delivery]) -> None:
        if self._piles.get(session) is not pile or life != self._life:
            return
        del self._piles[session]
        self.rng.shuffle(pile)
        self.world.count("pile of messages handed out in any order")
        for n, (act, args) in enumerate(pile):
            self.world.after(1 + n, self._hand_out, life, session, act, args)

    def _hand_out(self, life: int, session: str, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life != self._life:
            self.world.count("message forgotten by a broker that restarted")
            return
        self._queued[session] -= 1
        act(*args)
