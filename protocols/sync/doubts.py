"""What a node asks when the hub has said all of an order of an author with branches, and heads stand here that it did not name (rule 15).

Either the hub lacks them: then they are on their way to it. Or they are history to it: where branches part only the rows between tell what
came after what, and a node has none of them; and the hub, which lets go of rows, names as history of its own accord what it has rows of.
By name it can tell, by the hashes that it keeps.

What no answer comes to is asked a few times and forgotten: the next comparison finds it again. Everything is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocols.codec import pack
from protocols.downlink import DOUBTED, DOUBTS, Doubt, Feed

KEPT: Final = 2_000
"""orders that wait to be asked about"""
TIMES: Final = 3
ASK_BYTES: Final = 8_000
"""of one question: it goes along with what else is asked"""

_Name = tuple[str, str]


@dataclass(slots=True)
class _Question:
    doubt: Doubt
    times: int = 0


class Doubts:
    """See the module. Times in ms."""

    def __init__(self, retry_ms: int) -> None:
        self._retry_ms = retry_ms
        self._open: dict[_Name, _Question] = {}
        self._asked: dict[_Name, _Question] = {}
        self._since = 0
        self.asked_total = 0

    def heard(self, feed: Feed, beside: Sequence[Doubt], now: int, *, answers: bool) -> None:
        """A feed said all of some orders, and this stood here `beside` it. `answers`: to what this machine asked."""
        answered: dict[_Name, Doubt] = {}
        for order in feed.orders:
            name = (order.org, order.order_id)
            self._open.pop(name, None)
            if answers and name in self._asked:
                answered[name] = self._asked.pop(name).doubt
        for org, order_id, heads in beside:
            known = answered[org, order_id].heads if (org, order_id) in answered else ()
            left = [h for h in heads if h not in known]
            if left and len(self._open) < KEPT:
                self._open[org, order_id] = _Question(Doubt(org, order_id, tuple(left[:DOUBTED])))
                self._since = now

    def forget(self) -> None:
        """A comparison begins, which finds all of it again."""
        self._open, self._asked = {}, {}

    def due(self) -> int | None:
        """When `ask` has something to say."""
        if self._asked:
            return self._since + (self._retry_ms << max(question.times for question in self._asked.values()))
        return self._since if self._open else None

    def ask(self, now: int) -> tuple[Doubt, ...]:
        """What to ask now; nothing before the last question was answered, or had its time."""
        due = self.due()
        if due is None or now < due:
            return ()
        again = {name: question for name, question in self._asked.items() if question.times < TIMES}
        self._open, self._asked = again | self._open, {}
        room = ASK_BYTES
        for name, question in list(self._open.items())[:DOUBTS]:
            room -= len(pack(question.doubt.to_list()))
            if room < 0 and self._asked:
                break
            question.times += 1
            self._asked[name] = self._open.pop(name)
        self._since = now
        self.asked_total += len(self._asked)
        return tuple(question.doubt for question in self._asked.values())
