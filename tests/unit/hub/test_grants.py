"""Who is admitted, told to whoever lets nodes in; and the words between a hub and the process of its broker."""

from __future__ import annotations

import json

from hub.broker_access import Door, NodeGrant
from hub.broker_port import BrokerCounts, BrokerSettings
from hub.broker_words import LENGTH, NewsDoor, Report, Start, grants_json, grants_of, packed, pass_on, unpacked
from hub.grants import Changes, Grants, take
from protocols.topics import Access, Address, node_acl

MADRID = NodeGrant("scrypt$of-madrid", node_acl(Address.of("acme", "EMEA", "W8", "madrid-1")))
LISBON = NodeGrant("scrypt$of-lisbon", ((Access.READ, "a/+/b"),))


def test_every_change_is_told_and_nothing_else() -> None:
    grants, told = Grants({"gone": LISBON, "stays": MADRID, "changes": MADRID}), list[Changes]()
    grants.watch(told.append)
    grants.replace({"stays": MADRID, "changes": LISBON, "new": MADRID})
    grants.put("later", LISBON)
    grants.replace(grants.all())
    assert told == [{"changes": LISBON, "new": MADRID, "gone": None}, {"later": LISBON}]
    assert ("gone" in grants, grants.get("gone"), "later" in grants, grants.get("changes")) == (False, None, True, LISBON)
    grants.unwatch(told.append)
    grants.put("unheard", LISBON)
    assert len(told) == 2


def test_who_hears_every_change_has_the_same_table() -> None:
    grants, copy = Grants({"a": MADRID}), {"a": MADRID}
    grants.watch(lambda changes: take(copy, grants_of(json.loads(json.dumps(grants_json(changes))))))
    for known in ({"b": LISBON}, {"b": MADRID, "c": LISBON}, {}, {"a": LISBON}):
        grants.replace(known)
        assert copy == grants.all() == known


def test_words_come_over_as_they_were() -> None:
    settings = BrokerSettings("0.0.0.0", 8883, "cert.pem", "key.pem", 7)
    for rules in (None, MADRID.rules):
        start = Start(settings, {"nodes": 4, "default": 5}, "secret", rules, {"madrid-1": MADRID, "é": LISBON}, 20)
        data = packed("start", start.as_json())
        word, what = unpacked(data[LENGTH.size :])
        assert LENGTH.unpack(data[: LENGTH.size]) == (len(data) - LENGTH.size,)
        assert (word, Start.of(what)) == ("start", start)
    report = Report(BrokerCounts(1, 2, 3, 4, 5, 6), 7, [["in"], ["out", "why", 8, 9]])
    assert Report.of(unpacked(packed("report", report.as_json())[LENGTH.size :])[1]) == report


def test_a_door_that_hears_the_news_shows_what_the_door_itself_would() -> None:
    """Whatever happens at it, and wherever the news are cut."""
    happens = [
        ("out", "a"),
        ("out", "b"),
        ("out", "a"),
        ("in", "b"),
        ("out", "no name"),
        ("out", "b"),
        ("in", "a"),
        ("out", "a"),
        ("in", "c"),
    ]
    for cuts in range(1 << len(happens)):
        itself, news, hears = Door(), NewsDoor(), Door()
        for number, (what, name) in enumerate(happens):
            for door in (itself, news):
                if what == "in":
                    door.enter(name)
                else:
                    door.refuse(name, f"wrong {number}", number)
            if cuts >> number & 1:
                pass_on(news.take(), hears)
        pass_on(json.loads(json.dumps(news.take())), hears)
        assert hears.turned_away() == itself.turned_away(), bin(cuts)
        assert news.take() == []


def test_totals_of_two_processes_are_one_total() -> None:
    assert BrokerCounts(1, 2, 3, 4, 5, 6).plus(BrokerCounts(10, 20, 30, 40, 50, 60)) == BrokerCounts(11, 22, 33, 44, 55, 66)
