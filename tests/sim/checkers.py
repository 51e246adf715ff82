"""The checkers, outside of everything: they believe no return value, keep their own list of what was committed and said, and read the
databases with plain SQL. Each complaint begins with the number of the invariant that it breaks (`invariants.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hub.store.port import StoreFact
from protocols.downlink import Feed
from protocols.errors import Conflict, LongshoreError
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.messages import Answer, Receipt, StreamStated
from protocols.streams import StreamKey
from protocols.topics import Address
from tests.sim.bounds import exceeded
from tests.sim.devices import Measured
from tests.sim.disks import Disk
from tests.sim.downlink import all_came_down, came_down, changed_orders, in_custody, wrong_in_feed
from tests.sim.invariants import INVARIANTS
from tests.sim.oracle import right
from tests.sim.truth import FactId, Mask, Order, Truth, bits

if TYPE_CHECKING:
    from tests.sim.world import World

Answered = Sequence[Appended] | LongshoreError


class Violation(AssertionError):
    """The product broke a promise: the one whose number the text begins with."""

    def __init__(self, what: str) -> None:
        assert what.split()[0] in INVARIANTS, f"which invariant is that? {what}"
        super().__init__(what)


def demand(fine: bool, what: str) -> None:
    """Complain unless it is so."""
    if not fine:
        raise Violation(what)


class Checker:
    """See the module. Called by the processes of the world at each commit, message and disk that goes."""

    def __init__(self, world: World) -> None:
        self.world, self.truth = world, Truth()
        self.ever: dict[bytes, Mask] = {}
        """per incarnation of the hub, what its disk has held since that start"""
        self.last_seen: dict[bytes, int] = {}
        """until when an incarnation was the hub's"""
        self._incarnations: dict[str, bytes] = {}
        """what each hub calls itself now"""
        self.stored: Mask = 0
        """facts for which the store had a row at some moment"""
        self._settled_right: dict[tuple[StreamKey, tuple[tuple[int, bytes], ...]], None] = {}
        """what was called settled of a stream, and was in the store"""
        self.asked: dict[FactId, OrderEvent] = {}
        self.odd_rows: dict[bytes, None] = {}
        """rows of a later version that the workload put into a ledger"""

    # ------------------------------------------------------------ a node's own facts

    def own_committed(self, disk: Disk, who: str) -> Mask:
        """After any transaction, also one that failed: what is new in the node's own streams is durable now."""
        new = 0
        moved = disk.moved("own", "streams", "log")
        for sid, node, epoch, cls in disk.db.query("SELECT sid, node, epoch, cls FROM streams WHERE own=1 ORDER BY sid") if moved else ():
            key = StreamKey(node, epoch, cls)
            own = disk.own.setdefault(key, [])
            branch = self.truth.facts[own[-1]].id if own else None
            for fid, prev, row in disk.logged_after(sid, key, len(own)):
                if branch is not None and (fid.seq, prev) != (branch.seq + 1, branch.h):
                    continue  # a twin of another branch, given back by the store
                i = self.truth.add(fid, prev, row, disk.seen)
                own.append(i)
                branch = fid
                disk.seen |= 1 << i
                disk.held |= 1 << i
                new |= 1 << i
        self.world.note(f"{who} commits", new)
        return new

    def requests_done(self, disk: Disk, who: str, done: Iterable[tuple[Sequence[OrderEvent], Answered]]) -> None:
        """What each request was promised, against what lies on the disk (I3: one key, one fact)."""
        for events, answer in done:
            if isinstance(answer, LongshoreError):
                known = any(e.idempotency_key in disk.keys for e in events)
                demand(not isinstance(answer, Conflict) or known, f"I3 {who} calls a new key a conflict")
                continue
            for event, said in zip(events, answer, strict=True):
                self._said_yes(disk, who, event, said)

    def _said_yes(self, disk: Disk, who: str, event: OrderEvent, said: Appended) -> None:
        fid = FactId(*said.stream, said.seq, said.h)
        i = self.truth.of.get(fid, -1)
        demand(i >= 0 and bool(disk.seen >> i & 1), f"I1 {who} says yes to {fid}, which is on no disk")
        content = (event.org, event.order_id, int(event.status), event.source, tuple(sorted(event.details.items(), key=str)))
        key = event.idempotency_key
        if key is not None:
            earlier = disk.keys.setdefault(key, (content, i))
            demand(earlier == (content, i), f"I3 {who} answers key {key} with {fid}, and before with {self.truth.facts[earlier[1]].id}")
        self.asked.setdefault(fid, event)
        fact = self.truth.facts[i]
        demand(fact.order == (event.org, event.order_id) and fact.status == int(event.status), f"I2 {who} stored something else as {fid}")

    def measured(self, disk: Disk, who: str, done: Sequence[Measured]) -> None:
        """Readings that were answered with yes are on the disk too."""
        for reports in done:
            if reports.answer is not None and not isinstance(reports.answer, LongshoreError):
                for said in reports.answer:
                    i = self.truth.of.get(FactId(*said.stream, said.seq, said.h), -1)
                    demand(i >= 0 and bool(disk.seen >> i & 1), f"I1 {who} says yes to a reading that is on no disk")

    def told(self, answer: Answered) -> None:
        """Somebody outside knows this yes now."""
        if not isinstance(answer, LongshoreError):
            self.truth.told |= self.truth.mask(FactId(*a.stream, a.seq, a.h) for a in answer)

    # ------------------------------------------------------------ edges

    def edge_moved(self, disk: Disk, who: str) -> None:
        """Settled ⊆ the store's rows; freed ⊆ the store and every restorable backup of it; evicted only telemetry, with a record."""
        if not disk.moved("settled", "streams", "log", "runs"):
            return  # and what the store and its backups had then they have still, or it was said to be destroyed
        self._evicted(disk, who)
        self._carried_freed(disk, who)
        for node, epoch, cls, settled, freed in disk.db.query("SELECT node, epoch, cls, settled_seq, freed_seq FROM streams WHERE own=1"):
            own = disk.own.get(StreamKey(node, epoch, cls), [])
            below = self.truth.up_to(own, min(settled, len(own)))
            if settled > len(own) or below & ~self.stored:
                raise Violation(f"I5 {who} believes settled {settled} of {len(own)}: {self.truth.show(below & ~self.stored)}")
            gone = self.truth.up_to(own, min(freed, len(own))) & disk.held
            if gone:
                unsafe = gone & ~self._safe() & ~self.truth.evicted
                if unsafe:
                    raise Violation(f"I1 {who} freed {self.truth.show(unsafe)}, which the store or a backup of it lacks")
                disk.held &= ~gone
                self.truth.freed |= gone

    def _carried_freed(self, disk: Disk, who: str) -> None:
        """Others' facts that an edge had in its log and let go: freed ⊆ the store and every restorable backup of it, whoever frees."""
        for node, epoch, cls, seq, h in disk.db.query(
            "SELECT node, epoch, cls, freed_seq, freed_h FROM streams WHERE own=0 AND freed_seq > 0"
        ):
            at = self.truth.of.get(FactId(node, epoch, cls, seq, bytes(h)))
            gone = self.truth.facts[at].chain & disk.held if at is not None else 0
            unsafe = gone & ~self._safe()
            if unsafe:
                raise Violation(f"I1 {who} freed {self.truth.show(unsafe)} of another, which the store or a backup of it lacks")
            disk.held &= ~gone

    def _evicted(self, disk: Disk, who: str) -> None:
        """What an edge gave up for want of room: readings only, and its chain says so."""
        gone = disk.evicted(self.truth) & disk.held
        if gone:
            orders = sum(1 << i for i in bits(gone) if self.truth.facts[i].id.cls == 0)
            demand(not orders, f"I1 {who} evicted facts of orders: {self.truth.show(orders)}")
            disk.held &= ~gone
            self.truth.evicted |= gone
            self.world.count("readings evicted for want of room", gone.bit_count())

    def _safe(self) -> Mask:
        safe = self.world.store.disk.held
        for backup in self.world.store.backups:
            safe &= backup.held
        return safe

    def edge_believes(self, disk: Disk, who: str, incarnation: bytes | None, received: dict[StreamKey, list[tuple[int, int]]]) -> None:
        """Believed received ⊆ what that incarnation durably held."""
        if incarnation is None:
            return
        held = self.ever.get(incarnation, 0) | self.truth.freed | self.truth.evicted
        for key, ranges in received.items():
            own = disk.own.get(key, [])
            for first, last in ranges:
                believed = sum(1 << i for i in own[first - 1 : last]) & ~held
                if believed:
                    raise Violation(f"I5 {who} believes received what the hub never held: {self.truth.show(believed)}")

    # ------------------------------------------------------------ the hub

    def hub_started(self, incarnation: bytes, disk: Disk, who: str = "hub") -> None:
        """A new incarnation, and what it begins with."""
        self.ever[incarnation] = disk.held
        self.last_seen[self._incarnations.get(who, b"")] = self.world.now
        self._incarnations[who] = incarnation
        for edge in self.world.edges:
            if edge.alive and edge.core.uplink.incarnation == incarnation:
                self.edge_believes(edge.disk, edge.name, incarnation, edge.received())

    def edge_adopts(self, who: str, incarnation: bytes | None, hello_at: int) -> None:
        """Rule 6: the answer to the latest hello counts, so what is believed was alive when that was said."""
        if incarnation is not None and incarnation not in self._incarnations.values():
            demand(self.last_seen.get(incarnation, -1) >= hello_at, f"I5 {who} believes an incarnation that was gone when it said hello")

    def hub_holds(self, disk: Disk, incarnation: bytes, key: StreamKey, first: int, last: int, who: str = "hub") -> Mask:
        """After a commit: facts of this stretch that lie in the hub's log (I2: all of them were said by their author)."""
        new = 0
        for fid, _, row in disk.logged(key, first, last):
            new |= 1 << self._committed(fid, row, who)
        new &= ~disk.held
        disk.seen |= new
        disk.held |= new
        self.ever[incarnation] |= disk.held
        return new

    def _committed(self, fid: FactId, row: bytes, who: str) -> int:
        """The number of a fact that somebody holds (I2)."""
        i = self.truth.of.get(fid, -1)
        if i < 0 or row != self.truth.facts[i].row:
            raise Violation(f"I2 {who} holds {fid}, which nobody ever committed{' with these bytes' if i >= 0 else ''}")
        return i

    def hub_freed(self, disk: Disk, incarnation: bytes) -> None:
        """After the hub let go of facts, or took that back: freed ⊆ the store and every restorable backup of it."""
        real = self.truth.mask(fid for fid, _ in disk.everything())
        gone = disk.held & ~real
        unsafe = gone & ~self._safe()
        demand(not unsafe, f"I1 the hub freed {self.truth.show(unsafe)}, which the store or a backup of it lacks")
        disk.held &= real
        disk.freed = disk.freed_now(self.truth)
        self.truth.freed |= gone
        self.world.note("hub frees", gone)

    def hub_says(self, disk: Disk, message: Answer | Receipt) -> None:
        """I5: what a receipt says is on the disk of the hub that says it, and what it calls settled was in the store."""
        for s in message.streams:
            key = StreamKey(s.node, s.epoch, s.cls)
            for run in s.runs:
                mask = self.truth.run(key, run) if run.kind == 0 else 0
                if mask is None:
                    raise Violation(f"I2 the hub speaks of facts of {s.node} that nobody committed: {run}")
                held = disk.held | disk.freed & self.stored
                if mask & ~held:
                    raise Violation(f"I5 the hub says it holds {self.truth.show(mask & ~held)}")
            self._settled_said(key, s)

    def hub_feeds(self, to: Address, feed: Feed) -> None:
        """A feed on its way down."""
        for what in wrong_in_feed(self.world, to, feed):
            raise Violation(what)

    def _settled_said(self, key: StreamKey, s: StreamStated) -> None:
        """What was right to say once is right for good: `stored` only grows."""
        if (key, s.settled) in self._settled_right:
            return
        self._settled_right[key, s.settled] = None
        for seq, h in s.settled:
            at = self.truth.of.get(FactId(*key, seq, h))
            missing = self.truth.facts[at].chain & ~self.stored if at is not None else 0
            if at is None or missing:
                raise Violation(f"I5 the hub says settled of {s.node} up to {seq}, the store lacks {self.truth.show(missing)}")

    # ------------------------------------------------------------ the store

    def store_applied(self, disk: Disk, facts: Sequence[StoreFact]) -> None:
        """After an apply, also one that failed: what is in the store's log now."""
        spans: dict[StreamKey, tuple[int, int]] = {}
        for f in facts:
            low, high = spans.get(f.stream, (f.seq, f.seq))
            spans[f.stream] = (min(low, f.seq), max(high, f.seq))
        new = 0
        for key, (first, last) in spans.items():
            for fid, _, row in disk.logged(key, first, last):
                new |= 1 << self._committed(fid, row, "the store")
        new &= ~disk.held
        disk.seen |= new
        disk.held |= new
        self.stored |= disk.held | disk.recorded(self.truth)
        self.world.note("store applies", new)
        self.views(disk, "view", new, "store")

    # ------------------------------------------------------------ views (I4)

    def views(self, disk: Disk, table: str, new: Mask, who: str) -> None:
        """Look at the orders of these new facts as they are written down (I4, I6)."""
        orders: dict[Order, None] = {}
        for i in bits(new):
            order = self.truth.facts[i].order
            if order is not None:
                orders[order] = None
        for order in orders:
            self._view(disk, table, order, who)

    def _view(self, disk: Disk, table: str, order: Order, who: str) -> None:
        """No head is ever replaced by its ancestor; where no author is forked, the heads are right at every moment."""
        old, heads = disk.views.get(order, 0), disk.heads(self.truth, table, order)
        disk.views[order] = heads
        for j in bits(old & ~heads):
            gone = self.truth.facts[j]
            succeeded = any(self.truth.facts[i].past >> j & 1 for i in bits(heads))
            instead = gone.past & heads & ~old
            if instead and not succeeded:
                raise Violation(f"I4 {who} replaces {gone.id} by its ancestor {self.truth.show(instead)}")
        known = self.truth.orders[order] & disk.seen
        if not self.branched(known):
            want = self.truth.heads(known)
            if heads != want:
                raise Violation(f"I6 {who} shows {order[1]} as {self.truth.show(heads)}, right is {self.truth.show(want)}")

    def came_down(self, disk: Disk, who: str) -> None:
        """After a commit in which feeds were merged: what an edge has seen now, and how it shows the orders that changed."""
        for what in came_down(disk, self.truth, who):
            raise Violation(what)
        for order in changed_orders(disk):
            heads = disk.heads(self.truth, "orders", order)
            disk.seen |= self.truth.closure(heads)
            if heads:
                self._view(disk, "orders", order, who)

    def branched(self, known: Mask) -> bool:
        """Is an author of these facts, or of what they had seen, forked?"""
        if not self.truth.forked:
            return False
        nodes = [key.node for key in self.truth.forked]
        return any(self.truth.facts[i].id.node in nodes for i in bits(self.truth.closure(known)))

    def torn(self, known: Mask) -> bool:
        """Is the chain of a forked author of these facts broken by facts that went with a disk? What its branches had seen can then not be
        told."""
        return bool(self.truth.excused) and self.branched(known) and bool(self.truth.below(self.truth.closure(known)) & self.truth.excused)

    def centre_heads(self, order: Order) -> Mask:
        """The heads that everybody must show: the fold of what is in the store; where no fold can be told, those that the centre shows."""
        store = self.world.store.disk
        known = self.truth.orders[order] & store.held
        return store.heads(self.truth, "view", order) if self.torn(known) else right(self.truth, known).heads

    # ------------------------------------------------------------ disks that go, and everything at once

    def copies(self) -> Mask:
        """Facts that are on some disk that is alive."""
        out = self.world.store.disk.held
        for hub in self.world.hubs:
            out |= hub.disk.held
        for edge in self.world.edges:
            out |= edge.disk.held
            if edge.disk.seen:  # a blank one has no tables yet
                out |= in_custody(edge.disk, self.truth)
        return out

    def _recorded(self) -> Mask:
        """Facts of whose places some disk that is alive says that there is no data."""
        out = self.world.store.disk.recorded(self.truth)
        for hub in self.world.hubs:
            out |= hub.disk.recorded(self.truth)
        for edge in self.world.edges:
            if edge.disk.seen:  # a blank one has no tables yet
                out |= edge.disk.evicted(self.truth)
        return out

    def destroyed(self) -> None:
        """The scenario destroyed a disk: what was only there is excused, unless a rule had freed another copy."""
        lost = ((1 << len(self.truth.facts)) - 1) & ~self.copies() & ~self.truth.excused & ~(self.truth.evicted & self._recorded())
        demand(not lost & self.truth.freed & ~self.truth.evicted, f"I1 freed and gone: {self.truth.show(lost & self.truth.freed)}")
        self.truth.excused |= lost
        if lost:
            self.world.say("scenario", f"destroys the only copy of {self.truth.show(lost)}")

    def everything(self) -> None:
        """Each yes is on some disk; the mirrors of the disks are right; nothing is held that nobody said; bounds hold (I1, I2, I7)."""
        for what in exceeded(self.world):
            raise Violation(what)
        lost = ((1 << len(self.truth.facts)) - 1) & ~self.copies() & ~self.truth.excused & ~self.truth.evicted
        demand(not lost, f"I1 on no disk and in no record: {self.truth.show(lost)}")
        for edge in self.world.edges:
            for what in all_came_down(edge.disk, self.truth, edge.name) if edge.disk.seen else ():  # a blank one has no tables yet
                raise Violation(what)
        for disk in self.world.disks():
            real = 0
            for fid, row in disk.everything():
                real |= 1 << self._committed(fid, row, disk.name)
            demand(
                real == disk.held, f"I1 {disk.name} lost {self.truth.show(disk.held & ~real)}, gained {self.truth.show(real & ~disk.held)}"
            )
