"""What is checked of the downlink can fail: an edge that is told nothing, and one that is told what is none of its business."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hub.feeds import Feeds
from hub.scopes import Scopes
from tests.sim.options import draw
from tests.sim.world import play

QUIET = replace(draw(0), faults=(), plan=(), requests=60, edges=3, pressed=False, backups=False, budget_bytes=10**9)


def test_in_a_quiet_world_edges_share_what_happens_at_their_sites() -> None:
    world = play(QUIET)
    assert any(edge.disk.copied for edge in world.edges)


def test_an_edge_that_is_told_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feeds, "replies", lambda self, settled: iter(()))
    monkeypatch.setattr(Feeds, "busy", False)
    with pytest.raises(AssertionError, match="I6 dock"):
        play(QUIET)


def test_an_edge_that_is_told_of_other_sites_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scopes.move

    def everywhere(self: Scopes, order: Any, taken: Any) -> Any:
        return real(self, order, [fact._replace(site=site) for fact in taken for site in ("W0", "W1", "W2")])

    monkeypatch.setattr(Scopes, "move", everywhere)
    with pytest.raises(AssertionError, match="I10"):
        play(QUIET)
