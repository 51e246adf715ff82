"""Worlds with phones have what they are there for: scopes that change, roaming between gateways, and checkers that complain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hub.feeds import Feeds
from tests.sim.options import DAY
from tests.sim.phones import PhonesWorld
from tests.sim.profiles import BASES, world_of

NOTHING = {"faults": (), "plan": (), "pressed": False, "backups": False, "reports": 0, "damage": 0.0, "forgery": 0.0, "loss": 0.0}
QUIET = replace(world_of(BASES["phones"]), requests=100, duration_ms=DAY, edges=2, phones=2, **NOTHING)  # type: ignore[arg-type]


def test_in_a_quiet_world_phones_roam_and_share_what_their_staff_has_to_do() -> None:
    world = PhonesWorld(QUIET)
    try:
        world.run()
        assert all(phone.disk.copied for phone in world.phones())
        assert world.counts["phone moved"] >= 4
        assert world.counts["message at a gateway: kept"] >= 3
        followed = [phone.disk.db.one("SELECT count(*) FROM orders WHERE followed=0") for phone in world.phones()]
        assert all(row is not None and row[0] > 0 for row in followed), "orders have left"
    finally:
        world.close()


def test_a_phone_that_is_told_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Feeds.replies
    monkeypatch.setattr(Feeds, "replies", lambda self, settled: (r for r in real(self, settled) if not r[0].staff))
    world = PhonesWorld(replace(QUIET, requests=12, phones=1))
    try:
        with pytest.raises(AssertionError, match="I6 phone"):
            world.run()
    finally:
        world.close()


def test_worlds_of_phones_have_gateways_and_several_people() -> None:
    worlds = [world_of(BASES["phones"] + n) for n in range(30)]
    assert {o.phones for o in worlds} == {1, 2, 3}
    assert all(o.edges >= 2 for o in worlds) and any("clones" in o.faults for o in worlds)
