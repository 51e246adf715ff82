"""What the embedded broker keeps in tables, and what of it may be retained."""

from __future__ import annotations

from typing import Any

from protocols.errors import InvalidInput
from protocols.topics import CHANNELS, parse_topic


class Filters(dict[str, Any]):
    """Subscriptions by filter. amqtt makes a text of all of them at each new one, for a log that nobody reads: a thousand nodes that come
    at once would wait for that."""

    def __repr__(self) -> str:
        return f"<{len(self)} filters>"


def is_retained(topic: str) -> bool:
    """Does the table of channels say that the last message of a topic is kept for newcomers?"""
    try:
        return CHANNELS[parse_topic(topic)[1]].retained
    except InvalidInput:
        return False
