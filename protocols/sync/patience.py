"""How long a sender waits for the hub's word before it asks again. Where the way is long, the word is on its way for longer than any fixed
wait, and asking again only makes it worse: each new question makes the answer to the one before worthless.

Every wait is at least what the settings say and at least twice what round trips took of late, and doubles while asking brings nothing.
"""

from __future__ import annotations

from random import Random
from typing import Final

_ASKED_KEPT: Final = 16
_DOUBLED_MOST: Final = 16


class Patience:
    """For one link. Times in ms; `least` and `most` bound every wait, `rng` draws the jitter that keeps a thousand nodes out of step."""

    def __init__(self, rng: Random, least: int, most: int) -> None:
        self._rng, self._least, self._most = rng, least, most
        self._slowest = 0
        self._unanswered = self._fruitless = 0
        self._asked: dict[bytes, int] = {}

    def reset(self) -> None:
        """A new link: nothing is known of it."""
        self._slowest = self._unanswered = self._fruitless = 0
        self._asked = {}

    # ------------------------------------------------------------ how long

    def receipt_ms(self) -> int:
        """From sending a frame to asking what became of it. What is lost once is asked for at the same pace."""
        return self._bounded(max(0, self._fruitless - 1))

    def answer_ms(self) -> int:
        """From one question to the next."""
        return self._jittered(self._bounded(self._unanswered))

    def refused_ms(self) -> int:
        """From a refusal, of what cannot be cut any smaller, to sending it again."""
        return self._jittered(self._bounded(self._fruitless))

    def _jittered(self, wait: int) -> int:
        return wait // 2 + self._rng.randrange(wait // 2 + 1)

    def _bounded(self, doubled: int) -> int:
        return min(max(self._least, 2 * self._slowest) << min(doubled, _DOUBLED_MOST), self._most)

    # ------------------------------------------------------------ what happened

    def asked(self, nonce: bytes, now: int) -> None:
        """A question went out."""
        self._unanswered += 1
        self._asked[nonce] = now
        if len(self._asked) > _ASKED_KEPT:
            del self._asked[next(iter(self._asked))]

    def heard(self, nonce: bytes, now: int) -> bool:
        """An answer came, perhaps one that is too late to be believed. False: to no question of this link, or it was heard before."""
        asked = self._asked.pop(nonce, None)
        if asked is None:
            return False
        self.took(now - asked)
        return True

    def answered(self) -> None:
        """That was the answer to the latest question."""
        self._unanswered = 0

    def fruitless(self) -> None:
        """A frame was refused, or its receipt did not come in its time."""
        self._fruitless += 1

    def progress(self) -> None:
        """The hub holds more than it did."""
        self._unanswered = self._fruitless = 0

    def took(self, ms: int) -> None:
        """A round trip. The slowest of late counts, and is forgotten by and by."""
        self._slowest = max(min(ms, self._most // 2), self._slowest - self._slowest // 8)
