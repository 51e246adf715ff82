"""MQTT topics: built, parsed, and the access rules that they imply.

    longshore/v1/{org}/{region}/{site}/{node}/{channel}

Identity comes before the verb, so that one prefix is one device. `CHANNELS` is the table: every list below is derived from it.

Beside these is one topic of a hub's own, on which its workers speak to each other and nobody else reads or writes (`protocols.claims`):

    longshore/hub/v1/{org}/{hub}/claim/{partition}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from protocols.errors import InvalidInput
from protocols.limits import NODE_CHARS, TOPIC_LEVEL_CHARS

ROOT: Final = "longshore/v1"
_ROOT_LEVELS: Final = ROOT.split("/")
HUB_ROOT: Final = "longshore/hub/v1"
"""of what concerns hubs alone; no rule of a node reaches in here"""
TOPICS_KEPT: Final = 16_384
"""topics whose parts are remembered: those of some thousand nodes, each of which speaks on the same few again and again"""

_LEVEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{TOPIC_LEVEL_CHARS - 1}}}")
_LEVEL_REMEDY: Final = f"Use 1 to {TOPIC_LEVEL_CHARS} of A-Z a-z 0-9 _ . - and begin with a letter or digit."
_NODE = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{NODE_CHARS - 1}}}")


class Direction(Enum):
    """Who publishes on a channel. The other end reads it."""

    FROM_NODE = "from node"
    TO_NODE = "to node"


class Channel(Enum):
    """The last levels of a topic: what is said."""

    LIVE = "up/live"
    BACKFILL = "up/backfill"
    CONTROL = "up/control"
    RECEIPT = "down/receipt"
    ORDERS = "down/orders"
    CONFIG = "down/config"
    COMMAND = "down/command"
    STATE = "state"
    TELEMETRY = "telemetry"

    @property
    def direction(self) -> Direction:
        """Who publishes here."""
        return CHANNELS[self].direction


class Access(Enum):
    """What an access rule allows. `WRITE` publishes; `READ` subscribes and receives."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One row of the table of channels. `retained`: the broker keeps the last message for those who subscribe later."""

    direction: Direction
    retained: bool
    duty: str


CHANNELS: Final[dict[Channel, ChannelRow]] = {
    Channel.LIVE: ChannelRow(Direction.FROM_NODE, False, "frames of facts just captured"),
    Channel.BACKFILL: ChannelRow(Direction.FROM_NODE, False, "frames of older facts that the hub lacks"),
    Channel.CONTROL: ChannelRow(Direction.FROM_NODE, False, "hello, pull, heartbeat, records about holes"),
    Channel.RECEIPT: ChannelRow(Direction.TO_NODE, False, "answers to hello, receipts, refusals, credit"),
    Channel.ORDERS: ChannelRow(Direction.TO_NODE, False, "frames of others' facts in the node's scope"),
    Channel.CONFIG: ChannelRow(Direction.TO_NODE, False, "settings and bundles for the node"),
    Channel.COMMAND: ChannelRow(Direction.TO_NODE, False, "requests to the node, such as: say hello"),
    Channel.STATE: ChannelRow(Direction.FROM_NODE, True, "birth and will: whether the node is connected, and in which epoch"),
    Channel.TELEMETRY: ChannelRow(Direction.FROM_NODE, False, "figures about the machine, lossy"),
}


def check_level(text: object, field: str) -> str:
    """`text` if it may stand as the org, region or site of a node; raises InvalidInput naming `field`. No wildcard, slash or NUL."""
    if not isinstance(text, str) or _LEVEL.fullmatch(text) is None:
        raise InvalidInput(field, "cannot be a level of a topic.", remedy=_LEVEL_REMEDY)
    return text


def is_node(text: object) -> bool:
    """Whether `text` may name a node."""
    return isinstance(text, str) and _NODE.fullmatch(text) is not None


def check_node(text: object, field: str = "node") -> str:
    """`text` if it may name a node; raises InvalidInput naming `field`."""
    if not isinstance(text, str) or not is_node(text):
        raise InvalidInput(field, "cannot name a node.", remedy=f"Use 1 to {NODE_CHARS} of a-z 0-9 - and begin with a letter or digit.")
    return text


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node stands in the tree of topics. Construct through `Address.of` where the parts come from outside."""

    org: str
    region: str
    site: str
    node: str

    @classmethod
    def of(cls, org: object, region: object, site: object, node: object) -> Address:
        """Checked parts. Raises InvalidInput naming the part."""
        return cls(check_level(org, "org"), check_level(region, "region"), check_level(site, "site"), check_node(node))

    @property
    def prefix(self) -> str:
        """All topics of this node begin with this and a slash."""
        return f"{ROOT}/{self.org}/{self.region}/{self.site}/{self.node}"

    def topic(self, channel: Channel) -> str:
        """The full topic of one channel of this node."""
        return f"{self.prefix}/{channel.value}"

    def subscriptions(self) -> tuple[str, ...]:
        """What this node reads: each of its own down channels by name."""
        return tuple(self.topic(channel) for channel, row in CHANNELS.items() if row.direction is Direction.TO_NODE)


_PARSE = re.compile(rf"{ROOT}/([^/]+)/([^/]+)/([^/]+)/([^/]+)/(.+)", re.DOTALL)


@lru_cache(maxsize=TOPICS_KEPT)
def parse_topic(topic: str) -> tuple[Address, Channel]:
    """The node and the channel that a topic names. Raises InvalidInput("topic", …) for anything else."""
    match = _PARSE.fullmatch(topic)
    if match is None:
        raise InvalidInput("topic", f"is not {ROOT}/ORG/REGION/SITE/NODE/CHANNEL.")
    address = Address.of(match[1], match[2], match[3], match[4])
    try:
        return address, Channel(match[5])
    except ValueError:
        raise InvalidInput("topic", "ends in no known channel.", allowed=tuple(c.value for c in Channel)) from None


def hub_subscriptions(org: str | None = None) -> tuple[str, ...]:
    """What a hub reads of all the nodes of one org (of every org if None): one filter per channel."""
    return tuple(_all_nodes(org, channel) for channel, row in CHANNELS.items() if row.direction is Direction.FROM_NODE)


def site_subscriptions(org: str, site: str) -> tuple[str, ...]:
    """What a worker of a hub reads of all the nodes of one site, in whatever region: one filter per channel that bears anything for it."""
    place = f"{ROOT}/{check_level(org, 'org')}/+/{check_level(site, 'site')}/+"
    return tuple(f"{place}/{channel.value}" for channel in (Channel.LIVE, Channel.BACKFILL, Channel.CONTROL, Channel.STATE))


def claims_of(org: str, hub: str, partition: int | None = None) -> str:
    """The topic of a worker's claim to a partition; without one, the filter of all claims of this hub's workers."""
    level = "+" if partition is None else str(partition)
    return f"{HUB_ROOT}/{check_level(org, 'org')}/{check_node(hub, 'hub')}/claim/{level}"


def channel_filters(node: str, org: str | None = None) -> list[tuple[Direction, str]]:
    """A filter per channel of the nodes that `node` stands for (a name, `+`, or a broker's placeholder), wherever they are."""
    level = "+" if org is None else check_level(org, "org")
    return [(row.direction, f"{ROOT}/{level}/+/+/{node}/{channel.value}") for channel, row in CHANNELS.items()]


def _all_nodes(org: str | None, channel: Channel) -> str:
    level = "+" if org is None else check_level(org, "org")
    return f"{ROOT}/{level}/+/+/+/{channel.value}"


# --- access ----------------------------------------------------------------------------------------------------------------------

Rule = tuple[Access, str]
"""What is allowed, and the topic filter for which it is."""


def node_acl(address: Address) -> tuple[Rule, ...]:
    """All that a node may do at a broker: publish on its own up channels, read its own down channels. No wildcards."""
    own = {Direction.FROM_NODE: Access.WRITE, Direction.TO_NODE: Access.READ}
    return tuple((own[row.direction], address.topic(channel)) for channel, row in CHANNELS.items())


def hub_acl(org: str | None = None) -> tuple[Rule, ...]:
    """All that a hub may do at a broker: the mirror image of its nodes' rules, for one org or for every org, and the claims of workers."""
    mirror = {Direction.FROM_NODE: Access.READ, Direction.TO_NODE: Access.WRITE}
    claims = f"{HUB_ROOT}/{'+' if org is None else check_level(org, 'org')}/+/claim/+"
    rules = [(mirror[row.direction], _all_nodes(org, channel)) for channel, row in CHANNELS.items()]
    return (*rules, (Access.READ, claims), (Access.WRITE, claims))


def allows(rules: Iterable[Rule], access: Access, topic_filter: str) -> bool:
    """Whether `rules` allow `access` to every topic that `topic_filter` (a plain topic is one, too) can match."""
    return any(access is allowed and covers(pattern, topic_filter) for allowed, pattern in rules)


def covers(pattern: str, topic_filter: str) -> bool:
    """Whether each topic matched by `topic_filter` is also matched by `pattern`. Both may hold `+` and a final `#`."""
    wide, narrow = pattern.split("/"), topic_filter.split("/")
    for i, level in enumerate(wide):
        if level == "#":
            return True
        if i >= len(narrow) or narrow[i] == "#" or (level != "+" and level != narrow[i]):
            return False
    return len(wide) == len(narrow)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a broker delivers `topic` to a subscriber of `topic_filter` (MQTT 3.1.1, 4.7): wildcards never match a leading `$`."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    return covers(topic_filter, topic)


def check_filter(topic_filter: str) -> str:
    """`topic_filter` if a broker may take it as a subscription (MQTT 3.1.1, 4.7.1); raises InvalidInput("topic", …)."""
    levels = topic_filter.split("/")
    bad_hash = any("#" in level and (level != "#" or i != len(levels) - 1) for i, level in enumerate(levels))
    bad_plus = any("+" in level and level != "+" for level in levels)
    if not topic_filter or "\0" in topic_filter or bad_hash or bad_plus or len(topic_filter.encode()) > 65_535:
        raise InvalidInput("topic", "is not a topic filter.", remedy="+ stands for one whole level, # for all the rest at the end.")
    return topic_filter


def check_topic(topic: str) -> str:
    """`topic` if it may be published to; raises InvalidInput("topic", …) for wildcards, NUL, `$…`, empty or over-long text."""
    if not topic or topic.startswith("$") or any(c in topic for c in "+#\0") or len(topic.encode()) > 65_535:
        raise InvalidInput("topic", "cannot be published to.", remedy="No wildcards, no NUL, no leading $.")
    return topic
