"""What comes down to an edge: feeds on their way, copies that it keeps, and the orders that it must know in the end (I2, I6, I10)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from protocols.codec import decode_body
from protocols.downlink import Feed
from protocols.topics import Address
from tests.sim.disks import Disk
from tests.sim.staff import ever_theirs, tasks_of
from tests.sim.truth import FactId, Mask, Order, Truth, bits

if TYPE_CHECKING:
    from tests.sim.edgeproc import EdgeProc
    from tests.sim.world import World


def wrong_in_feed(world: World, to: Address, feed: Feed) -> Iterator[str]:
    """Facts that nobody committed, and orders that are none of the node's business: another organisation's, or never at its site; for a
    phone, never its staff's."""
    truth = world.check.truth
    theirs = f"{world.staff[to.node]}'s" if to.node in world.staff else f"at {to.site} of {to.org}"
    for row, _ in decode_body(feed.body, len(feed.places), feed.dictionary) if feed.places else []:
        about = truth.rows.get(row)
        if about is None:
            yield f"I2 a feed for {to.node} bears a row that nobody committed as an event of an order"
        elif not _concerned(world, to, about):
            yield f"I10 a feed for {to.node}, {theirs}, bears {about[1]} of {about[0]}"
    for order in feed.orders:
        if not _concerned(world, to, (order.org, order.order_id)):
            yield f"I10 a feed for {to.node}, {theirs}, speaks of {order.order_id} of {order.org}"


def _concerned(world: World, to: Address, order: Order) -> bool:
    staff = world.staff.get(to.node)
    if staff is not None:
        return order[0] == to.org and ever_theirs(world, order, staff)
    return order[0] == to.org and to.site in world.check.truth.sites.get(order, {})


def came_down(disk: Disk, truth: Truth, who: str) -> Iterator[str]:
    """Look at the copies that an edge keeps, of the orders whose copies changed since the last look. After the look at its own facts."""
    orders, disk.db.copied = disk.db.copied, {}
    if orders is not None and not orders:
        return
    sql = "SELECT okey, sid, seq, h, row FROM copies"
    if orders is None:
        disk.copies, found = {}, disk.db.query(sql)
    else:
        disk.copies.update(dict.fromkeys(orders, 0))
        found = [copy for okey in orders for copy in disk.db.query(f"{sql} WHERE okey=?", (okey,))]
    for okey, sid, seq, h, row in found:
        fid = FactId(*disk.stream(sid), seq, bytes(h))
        i = truth.of.get(fid, -1)
        if i < 0 or truth.facts[i].row != bytes(row):
            yield f"I2 {who} keeps a copy of {fid}, which nobody committed"
            return
        disk.copies[okey] = disk.copies.get(okey, 0) | 1 << i
    copied = reduce(or_, disk.copies.values(), 0)
    disk.seen |= truth.closure(copied & ~disk.copied)
    disk.copied = copied


def all_came_down(disk: Disk, truth: Truth, who: str) -> Iterator[str]:
    """The same of every order, whether anything was written or not."""
    disk.db.copied = None
    yield from came_down(disk, truth, who)


def changed_orders(disk: Disk) -> list[Order]:
    """The orders of an edge whose heads are not those of the last look."""
    if not disk.moved("orders", "orders"):
        return []
    found: dict[Order, bytes] = {(org, oid): bytes(heads) for org, oid, heads in disk.db.query("SELECT org, order_id, heads FROM orders")}
    changed = [order for order, heads in found.items() if disk.shown.get(order) != heads]
    disk.shown = found
    return changed


def in_custody(disk: Disk, truth: Truth) -> Mask:
    """Facts of others whose signed bytes an edge keeps until they are settled."""
    out = 0
    for node, epoch, cls, first, last, h_last in disk.db.query("SELECT node, epoch, cls, first, last, h_last FROM custody_spans"):
        at = truth.of.get(FactId(node, epoch, cls, last, bytes(h_last)))
        while at is not None and (seq := truth.facts[at].id.seq) >= first:
            out |= 1 << at
            at = truth.below_of(at) if seq > first else None
    return out


def must_know(world: World, edge: EdgeProc) -> Iterator[tuple[Order, Mask]]:
    """Orders that an edge has to show as the centre does: one of their heads names its site, or they are tasks of its staff. With their
    heads."""
    truth, stored = world.check.truth, world.store.disk.held
    staff = world.staff.get(edge.node)
    if staff is not None:
        yield from tasks_of(world, staff)
        return
    for order, mask in truth.orders.items():
        if order[0] == edge.address.org and mask & stored and edge.address.site in truth.sites.get(order, {}):
            heads = world.check.centre_heads(order)
            if any(truth.facts[i].site == edge.address.site for i in bits(heads)):
                yield order, heads


def not_as_the_centre(world: World, edge: EdgeProc) -> Iterator[str]:
    """I6: each edge's view of its orders is the centre's; but one that has no room takes in nothing, and version 1 knew no way down."""
    if edge.core.full or edge.node in world.old or world.options.old_hub:
        return
    for order, heads in must_know(world, edge):
        found = edge.disk.heads(world.check.truth, "orders", order)
        if found != heads:
            show = world.check.truth.show
            yield f"I6 {edge.name} at {edge.address.site} shows {order[1]} as {show(found)}, the centre has {show(heads)}"
