"""What the embedded broker keeps in tables, and what of it may be retained."""

from __future__ import annotations

from typing import Any

from protocols.errors import InvalidInput
from protocols.topics import CHANNELS, parse_topic


class Filters(dict[str, Any]):
    """Subscriptions by filter. amqtt makes a text of all of them at each new one, for a log that nobody reads: a thousand nodes that come
    at once would wait for that. It also looks through all of them when anybody comes or goes: `note` and `gone` know whose is which."""

    def __init__(self) -> None:
        super().__init__()
        self._own: dict[str, dict[str, None]] = {}

    def note(self, client_id: str, a_filter: str) -> None:
        """Somebody subscribed."""
        self._own.setdefault(client_id, {})[a_filter] = None

    def has(self, client_id: str, a_filter: str) -> bool:
        """Did this one subscribe to that?"""
        return a_filter in self._own.get(client_id, ())

    def gone(self, client_id: str) -> list[str]:
        """What somebody who has left had subscribed to."""
        return list(self._own.pop(client_id, ()))

    def __repr__(self) -> str:
        return f"<{len(self)} filters>"


def is_retained(topic: str) -> bool:
    """Does the table of channels say that the last message of a topic is kept for newcomers?"""
    try:
        return CHANNELS[parse_topic(topic)[1]].retained
    except InvalidInput:
        return False
