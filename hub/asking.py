"""When the central store is asked what it holds, and about what; and where nothing else is asked of it, whether it is there.

Everything after each start and regularly (rule 10), of which a hub spends a twentieth of its time at the most. Among several workers also,
more often and for little, about streams in which others stored something: so what came at another worker is known here within moments.
A server that went away would else be missed only by the next fact, or at the next whole question: after a few seconds in which it had
nothing to do for the hub, it is asked for one word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from hub.engine_ports import Rhythm
from hub.serving import Serving
from hub.store.port import CentralStore, MayBeAway, Statement
from protocols.messages import RunStated
from protocols.streams import StreamKey

SHARE: Final = 20
"""one part in so many of the time goes into questions"""


@runtime_checkable
class TellsNews(Protocol):
    """A store that others write, too."""

    def news(self) -> list[StreamKey]:
        """Streams in which something was stored since the last call on this object, by whomever; at the first call none."""


Older = tuple[StreamKey, RunStated]
"""a run that the store holds and this hub does not"""


def to_take_back(serving: Serving, waiting: Sequence[Older], older: Sequence[Older], *, whole: bool) -> list[Older]:
    """What to take from the store next, the hub's own first. Where it did not speak of everything that is only asked among workers: alone,
    a hub has just handed it over."""
    if whole:
        return sorted(older, key=lambda one: not serving.is_own(one[0]))
    return list(dict.fromkeys([*waiting, *older])) if serving.only is not None else list(waiting)


class Asking:
    """See the module. Times are the owner's wall clock, ms; `at_once`: everything is asked as soon as may be."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._whole_ms = self._news_ms = self._word_ms = 0
        self._store: CentralStore | None = None

    @property
    def due_ms(self) -> int:
        """When there is something to ask next."""
        return min(self._held_ms, self._word_ms) if isinstance(self._store, MayBeAway) else self._held_ms

    @property
    def _held_ms(self) -> int:
        """When to ask what it holds."""
        return min(self._whole_ms, self._news_ms) if self._rhythm.follow_ms else self._whole_ms

    def at_once(self) -> None:
        """Something changed that only a whole statement shows."""
        self._whole_ms = 0

    def wants(self, store: CentralStore, now_ms: int) -> bool:
        """Is it time to ask what it holds?"""
        return store is not self._store or now_ms >= self._held_ms

    def answered(self, now_ms: int) -> None:
        """The store did what was asked of it, whatever that was: it is there."""
        self._word_ms = now_ms + self._rhythm.word_ms

    def word_of(self, store: CentralStore, now_ms: int) -> Callable[[], None] | None:
        """What asks it for one word, if it is time for that."""
        return store.still_there if now_ms >= self._word_ms and isinstance(store, MayBeAway) else None

    def ask(self, store: CentralStore, now_ms: Callable[[], int]) -> tuple[Statement, bool] | None:
        """What the store says, and whether that is everything; None: there is nothing to ask yet, or nothing new."""
        began_ms = now_ms()
        if store is not self._store:  # one that was opened since has said nothing yet
            self._store, self._whole_ms = store, 0
        whole = began_ms >= self._whole_ms
        if not whole and not (self._rhythm.follow_ms and began_ms >= self._news_ms):
            return None
        if whole:
            self._whole_ms = began_ms + self._rhythm.store_check_ms  # also where it fails: not again at once
        self._news_ms = began_ms + self._rhythm.follow_ms
        news = store.news() if self._rhythm.follow_ms and isinstance(store, TellsNews) else []
        said = store.statement(None if whole else news) if whole or news else None
        rest_ms = began_ms + SHARE * (now_ms() - began_ms)
        self._news_ms = max(self._news_ms, rest_ms)
        if whole:
            self._whole_ms = max(self._whole_ms, rest_ms)
        return None if said is None else (said, whole)
