"""When the central store is asked what has become of facts that went to it over the bus. Pure.

Soon after the bus took something; less and less often while nothing comes of it; and never so often that the asking itself takes much of
the time. Of a backlog that several projectors apply at once an answer is long: thousands of pieces, to be compared with what was sent.
"""

from __future__ import annotations

from typing import Final

ASK_FIRST_MS: Final = 100
ASK_MOST_MS: Final = 2_000
ASK_SHARE: Final = 6
"""so many times what an answer took, from the question until it was taken in, goes by before the next question"""


class AskPace:
    """See the module. Times: ms of the owner's clock, which may be set back."""

    def __init__(self) -> None:
        self.due_ms = 0
        """the next question's time, if there is something to ask"""
        self._wait_ms = ASK_FIRST_MS
        self._first_ms = ASK_FIRST_MS
        self._asked_ms: int | None = None

    def asked(self, now_ms: int, *, something: bool = True) -> None:
        """The store is being asked; or it was time, and there was nothing to ask."""
        self._asked_ms = now_ms if something else None
        self._wait_ms = min(self._wait_ms * 2, ASK_MOST_MS)
        self.due_ms = now_ms + self._wait_ms

    def answered(self, now_ms: int) -> None:
        """Its answer was taken in."""
        if self._asked_ms is not None:
            took_ms, self._asked_ms = max(0, now_ms - self._asked_ms), None
            self._first_ms = min(max(ASK_FIRST_MS, ASK_SHARE * took_ms), ASK_MOST_MS)

    def soon(self, now_ms: int) -> None:
        """The bus took something, or the store had something new: there may be more."""
        self._wait_ms = self._first_ms
        self.due_ms = min(max(self.due_ms, now_ms), now_ms + self._first_ms)
