"""What a store counts beside its own word, while others write to it: of each stream as of when it last spoke of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from hub.store.pg import Server
from hub.store.pg_held import Held
from hub.store.postgres import PostgresStore
from protocols.errors import LedgerError
from protocols.lifecycle import Status
from tests.conformance.postgres.test_postgres import busy_world
from tests.conformance.store.test_exactly_once import NOW_MS
from tests.conformance.store.worlds import World
from tests.support.needs import needs

pytestmark = needs("postgres")


def test_what_it_counts_beside_its_word_is_as_of_that_word(one: Server) -> None:
    facts, chance = busy_world(3, 20, 240), Random(3)
    hub, writer = PostgresStore(one), PostgresStore(one)
    hub.statement(sorted({f.stream for f in facts}))
    assert hub.counts_said() is None
    said = dict(hub.statement().streams)
    for at in range(0, len(facts), 20):
        writer.apply(facts[at : at + 20], [], NOW_MS)
        said |= hub.statement([key for key in sorted({f.stream for f in facts}) if chance.random() < 0.5]).streams
        found = {c.stream: c.facts + c.quarantined for c in hub.counts_said() or []}
        assert found == {key: sum(r.last - r.first + 1 for r in runs) for key, runs in said.items() if runs}
    hub.statement()
    assert hub.counts_said() == writer.counts() == hub.counts()
    hub.close()
    writer.close()


def test_what_stepped_aside_since_is_counted_as_far_as_its_word_goes(one: Server) -> None:
    world = World()
    author = world.author("w1")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n in range(4)]
    hub, writer = PostgresStore(one), PostgresStore(one)
    writer.apply([facts[0]._replace(quarantined="of a later version"), facts[1]], [], NOW_MS)
    hub.statement()
    writer.apply([f._replace(quarantined="of a later version") for f in facts[2:]], [], NOW_MS)
    said, counted = (hub.counts_said() or [])[0], writer.counts()[0]
    assert (said.facts + said.quarantined, counted.facts, counted.quarantined) == (2, 1, 3)
    assert min(said.facts, said.quarantined) >= 0
    hub.statement()
    assert hub.counts_said() == [counted]
    hub.close()
    writer.close()


def test_after_a_word_that_was_cut_short_it_says_no_counts_until_the_next(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    first, second = world.author("w1"), world.author("w2")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n, author in enumerate((first, second))]
    hub, writer = PostgresStore(one), PostgresStore(one)
    writer.apply(facts[:1], [], NOW_MS)
    hub.statement()
    writer.apply(facts[1:], [], NOW_MS)

    def cut(held: Held, streams: Sequence[object], gaps: Sequence[object]) -> None:
        raise LedgerError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(Held, "_fill", cut)
        with pytest.raises(LedgerError, match="the line is cut"):
            hub.statement()
    assert hub.counts_said() is None
    hub.statement()
    assert hub.counts_said() == writer.counts()
    hub.close()
    writer.close()
