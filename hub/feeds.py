"""The hub's end of the downlink: a feed per site, and per person who works on a phone, in commit order, and the answers to nodes that
compare digests (sync.md, rule 15).

The feed lives in memory and has an epoch, new at every start: after a crash or a restored backup no position of before means anything, and
nodes compare. What it cannot hold it forgets, oldest first; a node whose cursor lies before that compares, too. A node is sent what its own
site concerns, a phone the tasks of its staff, and nothing else: the scope is the hub's word, by the registry, never the node's.

Facts of authors that have branches, and facts that were put right, are sent with all that the hub knows of their order: a node that holds
only some facts of a stream can tell neither its branches apart nor what stands in whose place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from hub.feed_message import Writer
from hub.registry import Node
from hub.scopes import Scopes, Taken, taken
from hub.tasks import is_staff, staff_scope
from hub.twins import Twins
from protocols.downlink import Bucket, Compare, Differ, Feed, FeedDone, Follow, Leaf, Vector, added
from protocols.fact import FactRow
from protocols.ledger import Ledger
from protocols.orderbook import Folded, Order
from protocols.streams import LogRow, Stream, StreamKey

KEPT: Final = 200_000
"""entries of all sites together"""
TURN_MESSAGES: Final = 16
"""made in one go; nodes take turns"""
MACHINES: Final = 4
"""of one name whose comparisons wait at one time: a card that was cloned; of more, those that asked last"""
LEAF_MESSAGES: Final = 4
"""for one comparison in one go: what is left is asked for again"""

Scope = tuple[str, str]
"""(org, site), or (org, staff with the mark of `hub.tasks`)"""
IsSettled = Callable[[StreamKey, int], bool]
Reply = tuple[Node, Feed | Differ]


class _Entry(NamedTuple):
    """Something for those who follow a site or a person's tasks. With `h`: that fact; without: the whole order, or, where it left, its
    name only."""

    pos: int
    okey: int
    author: str
    sid: int = 0
    seq: int = 0
    h: bytes = b""
    left: bool = False


class Feeds:
    """See the module. `took` and `again` run inside the owner's transaction; `replies` after its commit."""

    def __init__(self, ledger: Ledger, epoch: bytes, people: Callable[[], Iterable[Node]]) -> None:
        self.epoch = epoch
        self.pos = 0
        self.scopes = Scopes(ledger)
        self._twins = Twins(ledger)
        self._ledger, self._people = ledger, people
        self._rings: dict[Scope, deque[_Entry]] = {}
        self._oldest: deque[Scope] = deque()
        self._lost: dict[Scope, int] = {}
        """the highest position of each site that was forgotten"""
        self._nodes: dict[Scope, list[str]] = {}
        self._scope_of: dict[str, Scope] = {}
        self._waiting: dict[str, tuple[Node, Follow]] = {}
        self._comparing: dict[str, dict[int, tuple[Node, Compare]]] = {}
        """by node, then by which machine of that name asks"""
        self._stirred: dict[Scope, None] = {}
        self.sent_facts_total = 0
        self.people_changed()

    def people_changed(self) -> None:
        """Somebody was admitted. Whose scope is another than before compares anew: its cursor says nothing of that one."""
        before, self._nodes = self._scope_of, {}
        nodes = list(self._people())
        self.scopes.tasks.people(nodes)
        self._scope_of = {node.address.node: _scope(node) for node in nodes}
        for name, scope in self._scope_of.items():
            self._nodes.setdefault(scope, []).append(name)
        for name, scope in self._scope_of.items():
            if before.get(name, scope) != scope:
                self._comparing.pop(name, None)
                self._compare_anew(scope)

    # ------------------------------------------------------------ tasks

    def begin(self) -> None:
        """At the begin of a transaction: go on with what was there before an organisation had phones."""
        self.scopes.build()
        self.scopes.tasks.begin()
        if self.scopes.tasks.behind:
            for order, before, after in self.scopes.of_before():
                self._moved(order, before, after)

    # ------------------------------------------------------------ what was taken in

    def took(self, author: str, taken: Sequence[Taken], stream: StreamKey | None = None) -> None:
        """Facts of one stream that were logged and folded, in their order. `stream`: of which some were logged, though perhaps none of an
        order."""
        self._meet(self._ledger.log.by_sid(taken[0].sid) if taken else self._ledger.log.get(stream) if stream is not None else None)
        author = "" if author in self._twins else author
        self._take_news(author, [one for one in taken if not self._nothing_new(one, author)])

    def came(self, author: str, folded: Sequence[tuple[LogRow, FactRow, Folded]], stream: StreamKey | None = None) -> None:
        """`took`, of what a frame brought: hundreds of facts, of which there is mostly nothing new."""
        self._meet(self._ledger.log.by_sid(folded[0][0].sid) if folded else self._ledger.log.get(stream) if stream is not None else None)
        author = "" if author in self._twins else author
        calm: dict[tuple[str, str | None], bool] = {}
        news, is_at = [], self.scopes.is_at
        for row, fact, became in folded:
            site, order = fact.site, became.order
            quiet = calm.get((fact.org, site))
            if quiet is None:
                quiet = calm[fact.org, site] = self._nobody_else_follows(author, fact.org, site)
            heads = order.heads
            if quiet and site is not None and len(heads) == 1 and not heads[0].by and is_at(order, site):
                continue  # as `_nothing_new` would find
            one = taken(order, row, fact)
            if not self._nothing_new(one, author):
                news.append(one)
        self._take_news(author, news)

    def _nobody_else_follows(self, author: str, org: str, site: str | None) -> bool:
        """Is nobody but their author told of facts that name this site, whatever else they say?"""
        if self.scopes.tasks.kept_of(org):
            return False
        nodes = self._nodes.get((org, str(site)))
        return nodes is None or (nodes == [author] and not self._ledger.log.forked_nodes)

    def _take_news(self, author: str, news: Sequence[Taken]) -> None:
        by_order: dict[int, list[Taken]] = {}
        for one in news:
            by_order.setdefault(one.order.okey, []).append(one)
        for facts in by_order.values():
            order = facts[0].order
            before, after = self.scopes.move(order, facts)
            self._note(order, author, facts, before, after)

    def _nothing_new(self, one: Taken, author: str) -> bool:
        """Most facts of a backlog: the order begins at the site it names, or stays there, and nobody but the author follows that site."""
        order, site = one.order, one.site
        if site is None or not self.scopes.tasks.silent(one):
            return False
        nodes = self._nodes.get((order.org, site))
        if nodes is not None and (nodes != [author] or self._entangled(order)):  # an author with branches is told of them, too
            return False
        return self.scopes.is_at(order, site)

    def _note(self, order: Order, author: str, facts: Sequence[Taken], before: tuple[str, ...], after: tuple[str, ...]) -> None:
        entangled = self._entangled(order)
        for site in after:
            whole = entangled or (site not in before and (order.stored or bool(before)))
            for fact in facts[-1:] if whole else facts:
                place = () if whole else (fact.sid, fact.seq, fact.h)
                self._add((order.org, site), order.okey, "" if whole else author, *place)
        self._left(order, before, after)
        own = self._scope_of.get(self._ledger.log.by_sid(facts[0].sid).key.node)
        if own is not None and is_staff(own[1]) and own[1] not in before and own[1] not in after:
            self._add(own, order.okey, "", left=True)  # said on that phone, and no task of its staff

    def _meet(self, stream: Stream | None) -> None:
        """What a twin of its node said, if it has one, was left out for it: who follows those sites compares anew."""
        if stream is not None and self._twins.meet(stream.sid):
            for scope in [scope for scope, nodes in self._nodes.items() if stream.key.node in nodes]:
                self._compare_anew(scope)

    def _compare_anew(self, scope: Scope) -> None:
        self.pos += 1
        self._lost[scope] = self.pos
        self._stirred[scope] = None

    def _entangled(self, order: Order) -> bool:
        """Is a stream with branches among its heads, or seen by them? Or a fact that stands in the place of another?"""
        log = self._ledger.log
        for h in order.heads:
            if h.by:
                return True
        if not log.forked_nodes:
            return False
        sids = [sid for h in order.heads for sid in (h.sid, *(e[0] for e in h.ctx))]
        return any(log.by_sid(sid).key.node in log.forked_nodes for sid in sids)

    def again(self, orders: Iterable[Order]) -> None:
        """Orders that were folded again: who follows them is told what they have become."""
        for order in orders:
            before, after = self.scopes.again(order)
            for name in after:
                self._add((order.org, name), order.okey, "")
            self._left(order, before, after)

    def _moved(self, order: Order, before: Sequence[str], after: Sequence[str]) -> None:
        """An order concerns others than before: who is new to it is sent all of it."""
        for name in after:
            if name not in before:
                self._add((order.org, name), order.okey, "")
        self._left(order, before, after)

    def _left(self, order: Order, before: Sequence[str], after: Sequence[str]) -> None:
        for name in before:
            if name not in after:
                self._add((order.org, name), order.okey, "", left=True)

    def _add(self, scope: Scope, okey: int, author: str, sid: int = 0, seq: int = 0, h: bytes = b"", *, left: bool = False) -> None:
        nodes = self._nodes.get(scope, ())
        if not nodes or (author and all(node == author for node in nodes)):
            return  # nobody to be told
        self.pos += 1
        ring = self._rings.setdefault(scope, deque())
        ring.append(_Entry(self.pos, okey, author, sid, seq, h, left))
        self._oldest.append(scope)
        self._stirred[scope] = None
        if len(self._oldest) > KEPT:
            gone = self._oldest.popleft()
            self._lost[gone] = max(self._rings[gone].popleft().pos, self._lost.get(gone, 0))

    # ------------------------------------------------------------ what nodes ask

    def follow(self, node: Node, f: Follow) -> None:
        """A node says where it is; the latest word counts."""
        if f.feed_epoch == self.epoch:
            self._waiting.pop(node.address.node, None)
            self._waiting[node.address.node] = (node, f)
            self._stirred[_scope(node)] = None

    def followed(self, node: str) -> int | None:
        """The cursor of a node whose follow waits for something to tell."""
        waits = self._waiting.get(node)
        return None if waits is None else waits[1].pos

    def compare(self, node: Node, c: Compare) -> None:
        """A node says what it has; the latest word of each machine counts."""
        if c.feed_epoch == self.epoch:
            asked = self._comparing.pop(node.address.node, {})
            asked.pop(c.asker, None)
            asked[c.asker] = (node, c)
            if len(asked) > MACHINES:
                del asked[next(iter(asked))]
            self._comparing[node.address.node] = asked

    def flush(self) -> None:
        """Before the commit: who compares is answered by what is written down."""
        self.scopes.flush(asked=bool(self._comparing))

    def let_go(self, keeps: Callable[[str], bool]) -> None:
        """Nodes that are another's to answer now: what they asked here last is forgotten."""
        self._waiting = {name: asked for name, asked in self._waiting.items() if keeps(name)}
        self._comparing = {name: asked for name, asked in self._comparing.items() if keeps(name)}

    @property
    def busy(self) -> bool:
        """Is there more to say than the last turn said?"""
        return bool(self._comparing or self._stirred)

    def replies(self, settled: IsSettled) -> Iterator[Reply]:
        """What is to be sent now. What does not fit into this turn comes in the next."""
        room = TURN_MESSAGES
        for name in list(self._comparing):
            if room <= 0:
                return
            for node, asked in self._comparing.pop(name).values():
                for reply in self._compared(node, asked, settled):
                    room -= 1
                    yield node, reply
        for scope in list(self._stirred):
            if room <= 0:
                return
            del self._stirred[scope]
            for name in self._nodes.get(scope, ()):
                found = self._waiting.get(name)
                feed = self._tail(scope, *found, settled) if found is not None else None
                if found is not None and feed is not None:
                    del self._waiting[name]
                    room -= 1
                    yield found[0], feed

    # ------------------------------------------------------------ the tail

    def _tail(self, scope: Scope, node: Node, f: Follow, settled: IsSettled) -> Feed | None:
        """What lies beyond a cursor; None while there is nothing. A cursor before what is remembered is moved on, and the gap shows."""
        ring = self._rings.get(scope, deque())
        low = self._lost.get(scope, 0)
        if f.pos < low or f.pos > self.pos:
            return Writer(self._ledger, settled).feed(self.epoch, tail=True, pos_from=max(low, self.pos), pos_to=self.pos)
        entries = _beyond(ring, f.pos)
        if not entries:
            return None
        writer = Writer(self._ledger, settled)
        pos = f.pos
        whole: dict[int, None] = {}
        for e in entries:
            if writer.full or writer.facts >= max(f.room, 1):
                break
            pos = e.pos
            if e.author != node.address.node and e.okey not in whole:
                self._write(writer, scope, e, whole)
        else:
            pos = self.pos
        self.sent_facts_total += writer.facts
        return writer.feed(self.epoch, tail=True, pos_from=f.pos, pos_to=pos)

    def _write(self, writer: Writer, scope: Scope, e: _Entry, whole: dict[int, None]) -> None:
        if e.left:
            if scope[1] not in self.scopes.of(e.okey):  # it may have come back since
                writer.left(e.okey)
        elif e.h:
            writer.fact(e.okey, e.sid, e.seq, e.h)
        else:
            writer.order(e.okey, history=True)
            whole[e.okey] = None

    # ------------------------------------------------------------ digests

    def _compared(self, node: Node, c: Compare, settled: IsSettled) -> Iterator[Feed | Differ]:
        scope = _scope(node)
        if c.vectors:
            parts = [part for vector in c.vectors for part in self._differing(scope, vector)]
            yield Differ(self.epoch, tuple(v.bucket for v in c.vectors), tuple(parts), c.asker)
        for _, leaves in zip(range(LEAF_MESSAGES), self._leaf_messages(scope, node, c, settled), strict=False):
            yield leaves  # the rest is asked for again
        writer = self._judged(scope, c, settled)
        if writer.orders:
            yield writer.feed(self.epoch, asker=c.asker)

    def _judged(self, scope: Scope, c: Compare, settled: IsSettled) -> Writer:
        """Of heads that the node has and nobody named to it, which are history. What does not fit is asked for again."""
        writer = Writer(self._ledger, settled)
        for doubt in c.doubts:
            order = self._ledger.book.get(doubt.org, doubt.order_id) if doubt.org == scope[0] and not writer.full else None
            if order is not None and scope[1] in self.scopes.of(order.okey):
                writer.judged(order.okey, doubt.heads)
        return writer

    def _leaf_messages(self, scope: Scope, node: Node, c: Compare, settled: IsSettled) -> Iterator[Feed]:
        writer, done = Writer(self._ledger, settled), list[FeedDone]()
        for leaf in c.leaves:
            last_k = -1
            for k, okey, known in self._lacking(scope, leaf, node.address.node):
                if writer.full and k != last_k:
                    begun = [FeedDone(leaf.bucket, leaf.from_k, k)] if last_k >= 0 else []  # what is not begun is not answered
                    yield self._sent(writer, [*done, *begun], c.asker)
                    writer, done = Writer(self._ledger, settled), []
                    if begun:
                        break
                writer.left(okey) if known is None else writer.order(okey, history=not known)
                last_k = k
            else:
                done.append(FeedDone(leaf.bucket, leaf.from_k, 0))
        if done:
            yield self._sent(writer, done, c.asker)

    def _sent(self, writer: Writer, done: Sequence[FeedDone], asker: int) -> Feed:
        self.sent_facts_total += writer.facts
        return writer.feed(self.epoch, done=done, asker=asker)

    def _differing(self, scope: Scope, vector: Vector) -> list[Bucket]:
        bucket, parts = vector.bucket, vector.bucket.children()
        shift = 32 - bucket.step
        sums = {int(part): added((int(total),)) for part, total in self.scopes.trees.sums(scope, bucket.low, bucket.high, shift)}
        return [part for part, digest in zip(parts, vector.digests, strict=True) if sums.get(part.prefix, 0) != digest]

    def _lacking(self, scope: Scope, leaf: Leaf, node: str) -> Iterator[tuple[int, int, bool | None]]:
        """Orders of a leaf that are not the same here, by k: (k, okey, does the node know it); None as the last: it left the scope."""
        theirs: dict[int, list[int]] = {}
        for k, digest in leaf.orders:
            theirs.setdefault(k, []).append(digest)
        low, high = max(leaf.bucket.low, leaf.from_k), leaf.bucket.high
        ours = self.scopes.trees.within(scope, low, high)
        here = {k for k, _, _ in ours}
        strange = [(k, okey, None) for k in theirs if k not in here and low <= k <= high for okey in self._elsewhere(scope, k, node)]
        differing = [(k, okey, k in theirs) for k, okey, digest in ours if digest not in theirs.get(k, ())]
        yield from sorted([*strange, *differing], key=lambda one: (one[0], one[1]))

    def _elsewhere(self, scope: Scope, k: int, node: str) -> list[int]:
        """Orders at k that concern other sites, and none of whose heads this node wrote itself; for a phone all that are no task of its
        staff: of what it wrote there is nothing more to do for it."""
        out = []
        for okey, order_id in self.scopes.trees.at(scope[0], k):
            order = self._ledger.book.get(scope[0], order_id)
            log = self._ledger.log
            others = order is not None and all(log.by_sid(h.sid).key.node != node for h in order.heads)
            if is_staff(scope[1]) or (others and self.scopes.of(okey)):
                out.append(okey)
        return out


def _scope(node: Node) -> Scope:
    return node.address.org, staff_scope(node.staff) if node.staff else node.address.site


def _beyond(ring: deque[_Entry], pos: int) -> list[_Entry]:
    """The entries after a position, oldest first: looked for from the end, where nearly every cursor is."""
    out = []
    for e in reversed(ring):
        if e.pos <= pos:
            break
        out.append(e)
    return out[::-1]
