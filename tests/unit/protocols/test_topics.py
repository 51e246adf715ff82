"""Topics: one table of channels, and everything else follows from it."""

from __future__ import annotations

import pytest

from protocols.errors import InvalidInput
from protocols.topics import (
    CHANNELS,
    Access,
    Address,
    Channel,
    Direction,
    allows,
    channel_filters,
    check_filter,
    check_level,
    check_node,
    check_topic,
    claims_of,
    covers,
    hub_acl,
    hub_subscriptions,
    matches,
    node_acl,
    parse_topic,
)

MADRID = Address.of("acme", "EMEA", "W8-Madrid", "madrid-1")
LISBON = Address.of("acme", "EMEA", "W9-Lisbon", "lisbon-1")


def test_the_channels_are_those_of_the_architecture() -> None:
    assert [channel.value for channel in Channel] == [
        "up/live", "up/backfill", "up/control", "down/receipt", "down/orders", "down/config", "down/command", "state", "telemetry",
    ]  # fmt: skip
    assert list(CHANNELS) == list(Channel)
    assert [channel for channel, row in CHANNELS.items() if row.retained] == [Channel.STATE]


@pytest.mark.parametrize("channel", list(Channel))
def test_every_topic_is_parsed_back_to_its_parts(channel: Channel) -> None:
    topic = MADRID.topic(channel)
    assert topic == f"longshore/v1/acme/EMEA/W8-Madrid/madrid-1/{channel.value}"
    assert parse_topic(topic) == (MADRID, channel)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "longshore/v1/acme/EMEA/W8/madrid-1",
        "longshore/v1/acme/EMEA/W8/madrid-1/",
        "longshore/v1/acme/EMEA/W8/madrid-1/up",
        "longshore/v1/acme/EMEA/W8/madrid-1/up/live/x",
        "longshore/v1/acme/EMEA/W8/madrid-1/up/live\n",
        "longshore/v2/acme/EMEA/W8/madrid-1/up/live",
        "longshore/v1/acme/EMEA/W8/Madrid/up/live",
        "longshore/v1/acme/EMEA//madrid-1/up/live",
        "longshore/v1/acme/EMEA/+/madrid-1/up/live",
        "/longshore/v1/acme/EMEA/W8/madrid-1/up/live",
    ],
)
def test_a_topic_that_is_not_ours_is_refused(topic: str) -> None:
    with pytest.raises(InvalidInput):
        parse_topic(topic)


@pytest.mark.parametrize("text", ["", "+", "#", "a/b", "a\0b", "$SYS", "a b", "ü", "-a", ".a", "a\n", "x" * 65, None, 7])
def test_a_level_with_a_meaning_of_its_own_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_level(text, "region")
    assert caught.value.field == "region"
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["a", "W8-Madrid", "eu.west_1", "x" * 64])
def test_a_plain_level_is_taken(text: str) -> None:
    assert check_level(text, "site") == text


@pytest.mark.parametrize("text", ["", "A", "-a", "a_b", "a.b", "a\n", "x" * 33, None])
def test_a_node_name_is_lower_case_and_short(text: object) -> None:
    with pytest.raises(InvalidInput, match="node"):
        check_node(text)
    assert check_node("x" * 32) == "x" * 32


@pytest.mark.parametrize("channel", list(Channel))
def test_a_node_writes_upwards_and_reads_downwards_and_the_hub_the_other_way_round(channel: Channel) -> None:
    rules, hub, topic = node_acl(MADRID), hub_acl("acme"), MADRID.topic(channel)
    upwards = channel.direction is Direction.FROM_NODE
    assert allows(rules, Access.WRITE, topic) is upwards
    assert allows(rules, Access.READ, topic) is not upwards
    assert allows(hub, Access.READ, topic) is upwards
    assert allows(hub, Access.WRITE, topic) is not upwards


@pytest.mark.parametrize("channel", list(Channel))
def test_a_node_can_do_nothing_with_the_topics_of_another(channel: Channel) -> None:
    for access in Access:
        assert not allows(node_acl(MADRID), access, LISBON.topic(channel))


WILD = ["#", "+/#", "longshore/#", f"{MADRID.prefix}/#", f"{MADRID.prefix}/down/+", f"{MADRID.prefix}/down/#"]


@pytest.mark.parametrize("topic_filter", WILD)
def test_a_node_subscribes_by_name_never_by_wildcard(topic_filter: str) -> None:
    assert not allows(node_acl(MADRID), Access.READ, topic_filter)


def test_the_claims_of_a_hubs_workers_are_for_hubs_alone() -> None:
    topic, everything = claims_of("acme", "hub", 17), claims_of("acme", "hub")
    assert topic == "longshore/hub/v1/acme/hub/claim/17" and matches(everything, topic)
    assert not matches(claims_of("acme", "hub-2"), topic) and not matches(claims_of("rival", "hub"), topic)
    for access in Access:
        assert allows(hub_acl(), access, topic) and allows(hub_acl("acme"), access, everything)
        assert not allows(hub_acl("rival"), access, topic)
        for node in ("madrid-1", "hub", "claim"):
            own = [(Access.READ if to is Direction.TO_NODE else Access.WRITE, text) for to, text in channel_filters(node)]
            assert not allows(own, access, topic) and not allows(node_acl(Address.of("acme", "hub", "claim", node)), access, topic)
    with pytest.raises(InvalidInput):
        parse_topic(topic)


def test_subscriptions_are_allowed_by_the_rules_they_come_from() -> None:
    assert all(allows(node_acl(MADRID), Access.READ, topic) for topic in MADRID.subscriptions())
    assert all(allows(hub_acl("acme"), Access.READ, topic) for topic in hub_subscriptions("acme"))
    assert all(allows(hub_acl(), Access.READ, topic) for topic in hub_subscriptions())
    assert not any(allows(hub_acl("acme"), Access.READ, topic) for topic in hub_subscriptions())


def test_the_hub_of_one_org_hears_nothing_of_another() -> None:
    other = Address.of("rival", "EMEA", "W8-Madrid", "madrid-1")
    heard = [t for t in hub_subscriptions("acme") for channel in Channel if matches(t, other.topic(channel))]
    assert heard == []
    assert sum(matches(t, MADRID.topic(channel)) for t in hub_subscriptions("acme") for channel in Channel) == 5


@pytest.mark.parametrize(
    ("pattern", "narrow", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a/#", False),
        ("a/b", "a/+", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a/+/c", True),
        ("a/#", "a/#", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("#", "+/+", True),
        ("+/b", "#", False),
    ],
)
def test_a_pattern_covers_a_filter_only_if_it_matches_all_that_the_filter_can(pattern: str, narrow: str, covered: bool) -> None:
    assert covers(pattern, narrow) is covered


@pytest.mark.parametrize(
    ("topic_filter", "topic", "hit"),
    [("#", "$SYS/a", False), ("+/a", "$SYS/a", False), ("$SYS/#", "$SYS/a", True), ("#", "a/b", True), ("a/#", "a", True)],
)
def test_wildcards_do_not_reach_the_brokers_own_topics(topic_filter: str, topic: str, hit: bool) -> None:
    assert matches(topic_filter, topic) is hit


def test_malformed_filters_and_topics_are_refused() -> None:
    for bad in ("", "a/#/b", "a#", "a+/b", "a\0"):
        with pytest.raises(InvalidInput):
            check_filter(bad)
    for bad in ("", "a/#", "a/+", "$SYS/a", "a\0", "x" * 65_536):
        with pytest.raises(InvalidInput):
            check_topic(bad)
    assert check_filter("+/a/#") == "+/a/#"
    assert check_topic("a/b") == "a/b"
