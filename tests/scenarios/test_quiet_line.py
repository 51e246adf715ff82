"""What a node and its hub need not say again: a cursor that the hub has, and what is settled of what came down, without a greeting."""

from __future__ import annotations

from protocols.codec import Kind
from protocols.downlink import Follow
from protocols.lifecycle import Status
from protocols.sync.seal import Control, unseal
from tests.sim.options import HOUR, MINUTE
from tests.sim.scene import Scene, scene


def listened(s: Scene, node: str) -> list[Control]:
    """What a node says to the hub from now on."""
    said: list[Control] = []
    real = s.world.net.up

    def up(edge: object, topic: str, payload: bytes) -> None:
        opened = unseal(payload)
        if isinstance(opened, Control) and opened.author == node:
            said.append(opened)
        real(edge, topic, payload)  # type: ignore[arg-type]

    s.world.net.up = up  # type: ignore[assignment, method-assign]
    return said


def kinds(said: list[Control]) -> list[Kind]:
    return [one.envelope.kind for one in said if one.envelope.kind in (Kind.HELLO, Kind.FOLLOW)]


def asked(said: list[Control]) -> list[int]:
    """How many streams each follow asks about."""
    follows = [one.message() for one in said if one.envelope.kind is Kind.FOLLOW]
    return [len(f.holds) for f in follows if isinstance(f, Follow)]


def test_who_greets_within_a_feed_need_not_say_its_cursor_again() -> None:
    with scene(edges=2, sites=1) as s:
        said, dock = listened(s, "dock-1"), s.docks[1]
        dock.core.uplink.ask()
        dock._perform(dock.core.effects(dock.now()), "")
        s.wait(30_000)
        assert dock.core.uplink.incarnation is not None
        assert kinds(said) == [Kind.HELLO]
        s.says(s.docks[0], "1001", Status.PLACED)
        s.wait(10_000)
        assert s.docks[1].core.ledger.book.get("acme", "1001") is not None, "the hub had its cursor all the time"
        assert kinds(said).count(Kind.FOLLOW) == 1, "what came is answered"


def test_what_came_down_before_the_store_had_it_is_asked_about_with_a_follow() -> None:
    with scene(edges=2, sites=1) as s:
        said = listened(s, "dock-1")
        s.says(s.docks[0], "1001", Status.PLACED)
        s.wait(30_000)
        custody = s.docks[1].core.custody
        assert custody.waits() and asked(said) == [0]
        s.wait()
        assert not custody.waits()
        assert asked(said) == [0, 1] and Kind.HELLO not in kinds(said)


def test_where_that_brings_nothing_a_greeting_names_each_point() -> None:
    with scene(edges=2, sites=1) as s:
        s.world.store.away(HOUR)
        said = listened(s, "dock-1")
        s.says(s.docks[0], "1001", Status.PLACED)
        s.wait(3 * MINUTE)
        assert kinds(said) == [Kind.FOLLOW, Kind.FOLLOW, Kind.HELLO] and asked(said) == [0, 1]
        s.wait(2 * HOUR)
        assert not s.docks[1].core.custody.waits()


def test_nobody_is_told_how_far_a_stream_of_another_organisation_is_settled() -> None:
    with scene(edges=4, orgs=2) as s:
        s.says(s.docks[0], "1001", Status.PLACED)
        core, key = s.hub.core, tuple(s.docks[0].core.ledger.own().key)
        for node, answers in (("dock-1", 1), ("dock-3", 0)):
            author = core.registry.get(node)
            assert author is not None
            core._act(author, Follow(core.feeds.epoch, 0, 5, (key,)), b"", 0)  # type: ignore[arg-type]
            assert len(list(core._told(0))) == answers
            core._asked_about = {}
