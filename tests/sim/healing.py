"""What must be true once a world has healed: everything is in the store, nothing waits, no hole, forks are known, one fold everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hub.store.port import EventView, OrderView
from protocols.clashes import State
from protocols.policy import Outcome
from tests.sim.audit import audit
from tests.sim.disks import Disk
from tests.sim.downlink import not_as_the_centre
from tests.sim.edgeproc import EdgeProc
from tests.sim.isolation import strangers_orders
from tests.sim.oracle import right
from tests.sim.truth import FactId, Mask, Order, Truth, bits

if TYPE_CHECKING:
    from tests.sim.world import World

_DISPUTED = "SELECT v.org, v.order_id FROM view v WHERE EXISTS (SELECT 1 FROM clashes c WHERE c.okey = v.okey)"


def reached(world: World) -> bool:
    """Is there nothing more to wait for? Cheap; what it cannot see `goals` says."""
    store = world.store
    for hub in world.hubs:
        if not hub.alive or not hub.core.asked_store or hub.disk.held | (hub.disk.freed & store.disk.held) != store.disk.held:
            return False
    if store.disk.held != world.check.copies() or any(any(hub.core.lacking_in_store(1)) for hub in world.hubs):
        return False
    return all(_drained(world, edge) for edge in world.edges) and next(goals(world), None) is None


def _drained(world: World, edge: EdgeProc) -> bool:
    owner = world.owner(edge)
    if not edge.alive or edge.inbox or owner is None or edge.core.uplink.incarnation != owner.core.receiver.incarnation:
        return False
    streams = edge.core.ledger.own_streams()
    return all(s.settled_seq == s.head[0] and not edge.core.uplink.unreceived(s) for s in streams)


def goals(world: World) -> Iterator[str]:
    """Every promise that is not kept (yet)."""
    yield from _all_there(world)
    yield from _holes(world)
    for edge in world.edges:
        yield from _edge_done(world, edge)
    yield from _forks(world)
    yield from _views(world)


def last_look(world: World) -> Iterator[str]:
    """What is looked at once, when all else is well: the chains on every disk, and who holds whose orders."""
    for disk in world.disks():
        yield from (f"I11 {disk.name}: {finding}" for finding in audit(disk.db))
    for edge in world.edges:
        yield from strangers_orders(edge)


def _all_there(world: World) -> Iterator[str]:
    truth, store = world.check.truth, world.store.disk
    everything = (1 << len(truth.facts)) - 1
    lost = everything & ~store.held & ~truth.excused
    lost &= ~(truth.evicted & store.recorded(truth))
    if lost:
        yield f"I1 not in the store: {truth.show(lost)}"
    late = world.check.copies() & ~store.held
    if late:
        yield f"I13 on a disk, and never reached the store: {truth.show(late)}"
    for hub in world.hubs:
        here = hub.disk.held | hub.disk.freed
        if store.held & ~here:
            yield f"I8 the {hub.name} lacks what the store has: {truth.show(store.held & ~here)}"
    odd = [truth.of[fid] for fid, row in store.everything() if row in world.check.odd_rows]
    kept = store.db.query("SELECT s.node, s.epoch, s.cls, q.seq, q.h FROM quarantine q JOIN streams s USING (sid)")
    if truth.mask(FactId(n, e, c, q, bytes(h)) for n, e, c, q, h in kept) != sum(1 << i for i in odd):
        yield "I1 the store's quarantine is not what nobody can read"


def _forks(world: World) -> Iterator[str]:
    """Where the hub holds two facts at one place, it has to know that a card was cloned or a disk restored."""
    truth = world.check.truth
    for key, hub in ((key, hub) for key in truth.forked for hub in world.hubs):
        seqs = [truth.facts[i].id.seq for i in bits(truth.streams[key] & (hub.disk.held | hub.disk.freed))]
        if len(seqs) != len(set(seqs)) and hub.alive and key.node not in hub.core.ledger.log.forked_nodes:
            yield f"I13 the {hub.name} does not know that {key.node} is forked in epoch {key.epoch % 4096:03x}"


def _holes(world: World) -> Iterator[str]:
    truth = world.check.truth
    for disk in (world.store.disk, *(hub.disk for hub in world.hubs)):
        rows = disk.held | disk.freed | disk.recorded(truth)
        missing = truth.below(disk.held) & ~rows
        if missing:
            yield f"I4 holes in the {disk.name}: {truth.show(missing)}"


def _edge_done(world: World, edge: EdgeProc) -> Iterator[str]:
    truth, store = world.check.truth, world.store.disk
    if not edge.alive:
        yield f"I8 {edge.name} is down"
        return
    uplink = edge.core.uplink
    for s in edge.core.ledger.own_streams():
        if s.settled_seq != s.head[0] or uplink.unreceived(s):
            state = f"head {s.head[0]} settled {s.settled_seq} not received {uplink.unreceived(s)}"
            yield f"I8 {edge.name} still waits: epoch {s.key.epoch % 4096:03x} {state}"
        mine = sum(1 << i for i in edge.disk.own.get(s.key, []))
        if mine & ~(store.held | store.recorded(truth)):
            yield f"I5 {edge.name} believes settled {truth.show(mine & ~store.held)}"
    current = edge.core.ledger.own().key
    strange = store.held & truth.streams.get(current, 0) & ~sum(1 << i for i in edge.disk.own.get(current, []))
    if strange:
        yield f"I13 {edge.name} goes on in an epoch that is forked: {truth.show(strange)}"


def _views(world: World) -> Iterator[str]:
    open_here = {edge.name: _open(edge) for edge in world.edges if edge.alive}
    disputed = dict.fromkeys(world.store.disk.db.query(_DISPUTED))
    for order, mask in world.check.truth.orders.items():
        centre = Centre(world, order, disputed=order in disputed)
        known = mask & world.store.disk.held
        if known and not world.check.torn(known):
            yield from _store_view(world, centre, known)
            for hub in world.hubs:
                yield from _ledger_view(world, hub.disk, order, mask, hub.name)
        for edge in world.edges:
            if not _half_told(edge) and not _left(edge, order, world.check.truth, mask):
                yield from _ledger_view(world, edge.disk, order, mask, edge.name)
            if edge.alive:
                yield from _same_outcome(edge, open_here[edge.name], centre)
    for edge in world.edges:
        yield from not_as_the_centre(world, edge)


def _half_told(edge: EdgeProc) -> bool:
    """Has it heard of its own fork, and no room for what its twin said? Which orders have become what, it is told when there is room."""
    return edge.core.full and any(stream.told_fork is not None for stream in edge.core.ledger.own_streams())


def _left(edge: EdgeProc, order: Order, truth: Truth, mask: Mask) -> bool:
    """Has an order left its scope, of which an author has branches, or is there no room to take in what became of them? It is told nothing
    more of it, or not yet, so neither where they part."""
    here = edge.core.ledger.book.get(*order)
    return here is not None and (not here.followed or edge.core.full) and any(truth.facts[i].id.stream in truth.forked for i in bits(mask))


def _store_view(world: World, centre: Centre, known: Mask) -> Iterator[str]:
    truth, order = world.check.truth, centre.order
    want, view = right(truth, known), centre.view
    if view is None:
        yield f"I6 the store does not show {order[1]}"
        return
    events, heads = centre.events, centre.heads
    if (view.status, view.conflict, view.heads) != (want.status, want.conflict, want.heads.bit_count()):
        yield f"I6 {order[1]} is shown as {view}, right is {want}: {truth.show(want.heads)}"
    if view.facts != want.facts or len(events) != want.facts:
        yield f"I3 {order[1]} has {want.facts} facts, the view counted {view.facts} and lists {len(events)}"
    names = sorted(f"{f.id.node}/{f.id.epoch:x}/{f.id.seq}/{f.id.h[:4].hex()}" for f in (truth.facts[i] for i in bits(want.heads)))
    if heads != names:
        yield f"I6 heads of {order[1]} are {heads}, right are {names}"


class Centre:
    """What the centre says of one order, asked once for all edges that are compared with it. `disputed`: has it any conflict of it?"""

    def __init__(self, world: World, order: Order, *, disputed: bool) -> None:
        self._store, self.order, self._disputed = world.store.store, order, disputed

    @cached_property
    def view(self) -> OrderView | None:
        """The order, if the centre knows it."""
        return self._store.order(*self.order)

    @cached_property
    def events(self) -> Sequence[EventView]:
        """Its facts."""
        return self._store.events(*self.order)

    @cached_property
    def heads(self) -> list[str]:
        """The names of its heads."""
        return sorted(e.fact_id for e in self.events if e.is_head)

    @cached_property
    def open(self) -> list[tuple[str, Outcome]]:
        """Its open conflicts."""
        if not self._disputed:
            return []
        return sorted((c.clash.id, c.clash.outcome) for c in self._store.disputed(*self.order).conflicts if c.clash.state is State.OPEN)


def _open(edge: EdgeProc) -> dict[int, list[tuple[str, Outcome]]]:
    """The open conflicts that an edge has written down, by the numbers of their orders."""
    edge.core.ledger.flush()
    found: dict[int, list[tuple[str, Outcome]]] = {}
    for okey, name, outcome in edge.core.ledger.db.query("SELECT okey, id, outcome FROM clashes WHERE state=0 ORDER BY id"):
        found.setdefault(okey, []).append((name, Outcome(outcome)))
    return found


def _same_outcome(edge: EdgeProc, open_here: dict[int, list[tuple[str, Outcome]]], centre: Centre) -> Iterator[str]:
    """Where an edge and the centre see the same heads, the same conflicts are open and the same orders are on hold."""
    ledger = edge.core.ledger
    here = ledger.book.get(*centre.order)
    there = centre.view if here is not None and here.followed else None
    if here is None or there is None or sorted(ledger.fact_id(head.fact) for head in here.heads) != centre.heads:
        return
    ours = open_here.get(here.okey, [])
    if (ours, here.conflict, here.held) != (centre.open, there.conflict, there.held):
        yield f"I6 {edge.name} finds {ours} open about {centre.order[1]}, the centre {centre.open}"


def _ledger_view(world: World, disk: Disk, order: Order, mask: Mask, who: str) -> Iterator[str]:
    known = mask & disk.seen
    if known and not world.check.torn(known):
        heads, want = disk.heads(world.check.truth, "orders", order), right(world.check.truth, known)
        if heads != want.heads:
            yield f"I6 {who} folds {order[1]} to {world.check.truth.show(heads)}, right is {world.check.truth.show(want.heads)}"
