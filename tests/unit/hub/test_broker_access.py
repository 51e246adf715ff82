"""Access to the embedded broker, without a broker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hub import broker_access
from hub.broker_access import HUB_USER, NO_NAME, UNKNOWN_NODE, Door, Gatekeeper, Member, NodeGrant, Seldom
from protocols.topics import Access, Address, Channel, node_acl
from protocols.trust import hash_password

MADRID = Address.of("acme", "EMEA", "W8-Madrid", "madrid-1")
GRANT = NodeGrant(hash_password("right", n=2), node_acl(MADRID))


def test_a_node_is_known_by_name_and_password() -> None:
    async def logins() -> list[Member | str]:
        gate = Gatekeeper({"madrid-1": GRANT, "old": NodeGrant("nonsense", ())}.get)
        try:
            logins = [("madrid-1", "right"), ("madrid-1", "x"), ("nobody", "right"), ("old", "x")]
            return [await gate.admit_node(*login) for login in logins]
        finally:
            gate.close()

    let_in, wrong, unknown, damaged = asyncio.run(logins())
    assert isinstance(let_in, Member) and not let_in.is_hub
    assert (wrong, unknown) == ("wrong password", UNKNOWN_NODE)
    assert isinstance(damaged, str) and "passwordHash" in damaged


def test_the_hub_is_known_by_its_secret_alone() -> None:
    gate = Gatekeeper(lambda _node: GRANT, hub_secret="of the hub")
    try:
        let_in = gate.admit_hub(HUB_USER, "of the hub")
        assert isinstance(let_in, Member) and let_in.is_hub
        assert not isinstance(gate.admit_hub("madrid-1", "of the hub"), Member)
        assert not isinstance(gate.admit_hub(HUB_USER, "é"), Member)
    finally:
        gate.close()


def test_logins_that_wait_for_a_hash_are_bounded_and_do_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(broker_access, "password_matches", lambda _password, _encoded: release.wait(10))
    monkeypatch.setattr(broker_access, "_HASHING_WAITS", 3)

    async def herd() -> list[Member | str]:
        gate = Gatekeeper(lambda _node: GRANT)
        logins = [asyncio.create_task(gate.admit_node("madrid-1", f"guess {i}")) for i in range(5)]
        done, waiting = await asyncio.wait(logins, timeout=0.1)
        assert (len(done), len(waiting)) == (2, 3), "the loop went on, and two were sent away"
        release.set()
        try:
            return list(await asyncio.gather(*logins))
        finally:
            gate.close()

    assert sum(isinstance(answer, Member) for answer in asyncio.run(herd())) == 3


def test_verdicts_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_access, "_VERDICTS", 2)
    member = Member("madrid-1", GRANT.rules)
    for _ in range(2):
        for channel in Channel:
            assert member.may(Access.WRITE, MADRID.topic(channel)) is (channel.value.startswith(("up/", "state", "tele")))
            assert len(member._verdicts) <= 2


def test_the_door_names_who_was_turned_away_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_access, "_TURNED_AWAY", 3)
    door = Door()
    for at_ms, name in enumerate(("dock-7", "\x1b[2J", "a b", "n" * 10_000, "", "dock-7")):
        door.refuse(name, UNKNOWN_NODE, at_ms)
    assert door.turned_away() == [
        {"node": "dock-7", "count": 2, "atMs": 5, "reason": UNKNOWN_NODE},
        {"node": NO_NAME, "count": 4, "atMs": 4, "reason": UNKNOWN_NODE},
    ]
    for number in range(50):
        door.refuse(f"x-{number}", UNKNOWN_NODE, 10)
    assert [one["node"] for one in door.turned_away()] == ["x-49", "x-48", "x-47"]
    door.enter("x-48")
    assert [one["node"] for one in door.turned_away()] == ["x-49", "x-47"]


def test_seldom_says_yes_once_per_period_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("hub.broker_access.time.monotonic", lambda: now_s[0])
    seldom = Seldom(period_s=30.0)
    assert [seldom.ask("a"), seldom.ask("a"), seldom.ask("b"), seldom.ask("a")] == [0, None, 0, None]
    now_s[0] += 30.0
    assert [seldom.ask("a"), seldom.ask("b")] == [2, 0]
