"""Small sabotages of what came with version 2: the way down, custody, budgets, fixes, freeing at the hub, backups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import hub.feeds
import hub.tasks
import protocols.eviction
from edge_agent.budget import Budget
from edge_agent.relay import Relay
from hub.feeds import Feeds
from hub.freeing import HubFreeing
from hub.scopes import Scopes
from hub.store.backups import Backup
from hub.store.sqlite import SqliteStore
from hub.tasks import is_staff
from hub.twins import Twins
from protocols.chains import Chain, Run
from protocols.downlink import Feed
from protocols.fixes import Fixes
from protocols.messages import StreamStated
from protocols.orderbook import OrderBook
from protocols.streams import Stream
from protocols.sync.follow import Follower
from tests.sim.sabotage import Patch, swapped

# ---------------------------------------------------------------- the way down


def feed_epoch_kept() -> Patch:
    """A hub that starts again calls its feed what it was called before."""
    real = Feeds.__init__

    def init(self: Feeds, ledger: Any, epoch: bytes, people: Any) -> None:
        real(self, ledger, b"the feed", people)

    return swapped(Feeds, "__init__", init)


def never_compared() -> Patch:
    """The tail counts as if a comparison had shown that nothing before it is missing."""

    def begin_pass(self: Follower, now: int) -> None:
        self._pass, self.whole = None, True
        self._compare_due = now + self.settings.compare_ms

    return swapped(Follower, "_begin_pass", begin_pass)


def put_in_place() -> Patch:
    """What comes down is put in place of what is here, not merged with it."""
    return swapped(OrderBook, "settle", lambda self, order, heads, history, at_ms: self.replace(order, tuple(heads), at_ms) or ())


def told_everywhere() -> Patch:
    """Every order concerns every site."""
    real = Scopes.move

    def move(self: Scopes, order: Any, taken: Sequence[Any]) -> Any:
        return real(self, order, [fact._replace(site=site) for fact in taken for site in ("W0", "W1", "W2")])

    return swapped(Scopes, "move", move)


def cursor_before_the_end() -> Patch:
    """The cursor is written down while the comparison before it is still under way."""
    real = Follower._tail

    def tail(self: Follower, f: Feed, now: int) -> None:
        real(self, f, now)
        whole, self.whole = self.whole, True
        self._save()
        self.whole = whole

    return swapped(Follower, "_tail", tail)


def twins_unknown() -> Patch:
    """Of two machines under one name each is taken to know what the other said."""
    return swapped(Twins, "__contains__", lambda self, node: False)


# ---------------------------------------------------------------- phones


def phone_compares_its_site() -> Patch:
    """A phone's digests are compared with those of the site that it calls its home, and what enters that scope goes to it."""
    return swapped(hub.feeds, "_scope", lambda node: (node.address.org, node.address.site))


def entering_is_not_sent() -> Patch:
    """What becomes somebody's task is told to their phone by the new fact alone, as if it had been theirs before."""
    real = Scopes.move

    def move(self: Scopes, order: Any, taken: Sequence[Any]) -> Any:
        before, after = real(self, order, taken)
        return (*before, *(name for name in after if is_staff(name) and name not in before)), after

    return swapped(Scopes, "move", move)


def over_is_still_a_task() -> Patch:
    """An order that is delivered stays on the phones of those who brought it there."""
    return swapped(hub.tasks, "is_over", lambda heads: False)


# ---------------------------------------------------------------- backups


def backup_counts_from_its_end() -> Patch:
    """A backup covers what the store holds when it is whole: its first bytes were copied before that."""
    real = SqliteStore.complete_backup

    def complete(self: SqliteStore, backup_id: str, now_ms: int) -> Backup:
        found = next((b for b in self.backups() if b.id == backup_id), None)
        if found is not None and found.expired_ms is None:
            self._change(lambda: self._backups.begin(backup_id, found.tool, found.place, self._verified.state(None), now_ms))
        return real(self, backup_id, now_ms)

    return swapped(SqliteStore, "complete_backup", complete)


# ---------------------------------------------------------------- relays


def custody_ends_when_received() -> Patch:
    real = Relay.believe

    def believe(self: Relay, said: StreamStated, hub_ms: int, now: int, *, backed_up: bool) -> None:
        received = tuple((run.last, run.h_last) for run in said.runs)
        real(self, replace(said, settled=received, freeable=received), hub_ms, now, backed_up=backed_up)

    return swapped(Relay, "believe", believe)


# ---------------------------------------------------------------- room, freeing


@contextmanager
def orders_evicted() -> Iterator[None]:
    """Facts of orders give way like readings."""
    with swapped(Budget, "_streams", lambda self: self._ledger.own_streams()), swapped(protocols.eviction, "ORDERS", -1):
        yield


def hub_frees_what_it_holds() -> Patch:
    """The hub lets go of what it has taken in, whatever the store has."""

    def may_go(self: HubFreeing, stream: Stream, ends: Any, stated: Any) -> int:
        return stream.chain.prefix()

    return swapped(HubFreeing, "_may_go", may_go)


def hub_never_takes_back() -> Patch:
    """What the hub freed it calls known, also when the store has lost it."""
    return swapped(HubFreeing, "lower", lambda self, key, runs: False)


# ---------------------------------------------------------------- fixes, records


def fix_holds_no_place() -> Patch:
    return swapped(Fixes, "overruled", lambda self, head: False)


def record_on_the_trunk() -> Patch:
    """A record that does not say what lies below stands on whatever comes first."""

    def below(self: Chain, seq: int) -> Run | None:
        return next((r for r in self.runs if r.last == seq - 1), None)

    return swapped(Chain, "_likely_below", below)
