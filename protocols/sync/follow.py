"""A node's end of the downlink, as a machine without clock or socket: the tail by a cursor, otherwise digests of buckets (rule 15).

The hub's feed has an epoch, new at each of its starts. Within it the node asks for what lies beyond its cursor, and the hub answers when
there is something. In a new epoch, when the feed has forgotten what comes after the cursor, and once a day, the node makes a *pass*: it
compares digests, goes down where they differ, and is sent what it lacks. Both go on at the same time; a cursor is written down only once a
pass has ended in its epoch, so that whatever is interrupted begins again. What stands here beside all that the hub said of an order
it asks about (`doubts`).

Every message may be lost: whatever is asked is asked again, with back-off.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from protocols.codec import Kind
from protocols.downlink import (
    DIGEST_BITS,
    HOLDS,
    LEAF_ORDERS,
    LISTED_ORDERS,
    ROOT,
    VECTORS,
    Bucket,
    Compare,
    Differ,
    Doubt,
    Feed,
    Follow,
    Leaf,
    Vector,
)
from protocols.ledger import ORDERS, Ledger
from protocols.streams import StreamKey
from protocols.sync.doubts import Doubts
from protocols.sync.uplink import Out
from protocols.topics import Channel

_DAY_MS: Final = 86_400_000
_MASK: Final = (1 << DIGEST_BITS) - 1
_PAGE: Final = 2_000
_PLACE: Final = (1 << 32) - 1
_CURSOR: Final = "feed"
"""key in `meta`: epoch in hex, position"""


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """How eagerly a node asks. Times in ms; `room_facts` in one answer."""

    room_facts: int = 500
    retry_ms: int = 5_000
    retry_most_ms: int = 300_000
    idle_ms: int = 30_000
    compare_ms: int = _DAY_MS
    backlog_ms: int = 60_000
    """so long a pass waits for the hub to receive a backlog: whatever it took meanwhile, it would send back as unknown"""
    backlog_facts: int = 200
    """of orders; for fewer it does not wait: what comes back of them costs less than hearing late what the centre says"""


class Snapshot:
    """The digests of what a node follows, at one moment: (k, digest) in order of k. In arrays: a node may follow a million orders."""

    def __init__(self, orders: Iterable[tuple[int, int]]) -> None:
        self._ks, self._digests, self._sums = array("Q"), array("Q"), array("Q", (0,))
        total = 0
        for k, digest in orders:
            self._ks.append(k)
            self._digests.append(digest)
            total = (total + digest) & _MASK
            self._sums.append(total)

    def _span(self, bucket: Bucket, from_k: int = 0) -> tuple[int, int]:
        return bisect_left(self._ks, max(bucket.low, from_k)), bisect_left(self._ks, bucket.high + 1)

    def count(self, bucket: Bucket) -> int:
        """Orders in a bucket."""
        low, high = self._span(bucket)
        return high - low

    def vector(self, bucket: Bucket) -> Vector:
        """The digests of a bucket's parts."""
        spans = [self._span(part) for part in bucket.children()]
        return Vector(bucket, tuple((self._sums[high] - self._sums[low]) & _MASK for low, high in spans))

    def leaf(self, bucket: Bucket, from_k: int) -> Leaf:
        """What a bucket holds from `from_k` on."""
        low, high = self._span(bucket, from_k)
        return Leaf(bucket, from_k, tuple(zip(self._ks[low:high], self._digests[low:high], strict=True)))


@dataclass(slots=True)
class _Pass:
    """One comparison: buckets still to be asked about, as vectors or as leaves, and those that were asked and not answered yet."""

    snapshot: Snapshot | None = None
    vectors: list[Bucket] = field(default_factory=list)
    leaves: list[tuple[Bucket, int]] = field(default_factory=list)
    asked_vectors: dict[Bucket, None] = field(default_factory=dict)
    asked_leaves: dict[tuple[Bucket, int], None] = field(default_factory=dict)
    asked_ms: int = 0
    begun_ms: int = 0

    @property
    def waits(self) -> bool:
        return bool(self.asked_vectors or self.asked_leaves)

    @property
    def over(self) -> bool:
        return self.snapshot is not None and not (self.vectors or self.leaves or self.waits)

    def again(self) -> None:
        """Nobody answered: ask once more."""
        self.vectors = [*self.asked_vectors, *self.vectors]
        self.leaves = [*self.asked_leaves, *self.leaves]
        self.asked_vectors, self.asked_leaves = {}, {}


class Follower:
    """See the module. `now` is in ms of a clock that never steps. Methods beginning with `on_` run inside the owner's transaction."""

    def __init__(self, ledger: Ledger, rng: Random, settings: FollowSettings | None = None) -> None:
        self.settings = settings or FollowSettings()
        self._ledger, self._rng = ledger, rng
        self._asker = rng.getrandbits(48) + 1
        self.epoch = b""
        """of the feed that is followed; empty while none is"""
        self.pos = 0
        self.whole = False
        """has a pass ended in this epoch, so that the cursor stands for everything before it?"""
        self.paused = False
        """no room for what would come"""
        self.unreceived: Callable[[], Iterable[tuple[int, int]]] = tuple
        """own streams (sid), and the seq above which the hub may lack facts"""
        self.holds: tuple[StreamKey, ...] = ()
        """streams in custody of which the next follow asks how far they are settled"""
        self.passes_total = 0
        self.doubts = Doubts(self.settings.retry_ms)
        self._pass: _Pass | None = None
        self._attempts = 0
        self._follow_due: int | None = None
        self._compare_due: int | None = None

    # ------------------------------------------------------------ in

    def on_answer(self, feed_epoch: bytes, feed_pos: int, now: int, followed: int | None = None) -> None:
        """The hub said which feed it has, how far that is, and which of this node's cursors it goes by: that need not be said again."""
        if not feed_epoch:
            return self.on_down()
        if feed_epoch != self.epoch:
            self._ledger.book.name_all()
            saved = self._saved()
            self.epoch, self._pass = feed_epoch, None
            self.whole = saved is not None and saved[0] == feed_epoch
            self.pos = saved[1] if saved is not None and self.whole else feed_pos
            if self.whole:
                self._compare_due = now + self._rng.randrange(self.settings.compare_ms) + 1
            else:
                self._begin_pass(now)
        self._attempts = 0
        self._follow_due = now + self.settings.idle_ms if followed == self.pos and not self.holds else now
        return None

    def inquire(self, keys: Sequence[StreamKey], now: int) -> bool:
        """Ask with the next follow how far these streams are settled: a receipt says it. False: not now, or they are too many."""
        if not self.epoch or self.paused or not 0 < len(keys) <= HOLDS:
            return False
        self.holds, self._follow_due = tuple(keys), now
        return True

    def on_down(self) -> None:
        """The link is gone: the hub's next answer says how to go on."""
        self.epoch, self._pass, self._follow_due, self._compare_due, self.holds = b"", None, None, None, ()

    def _asked(self, asker: int) -> bool:
        """Is this the answer to what this machine asked? A twin has the same name and topics. A hub of before this was said names none."""
        return asker in (0, self._asker)

    def on_differ(self, d: Differ, now: int) -> None:
        """Which parts of what was asked about are not the same."""
        p = self._pass
        if p is None or p.snapshot is None or d.feed_epoch != self.epoch or not self._asked(d.asker):
            return
        looked_at = [b for b in d.vectors if b in p.asked_vectors]
        for bucket in looked_at:
            del p.asked_vectors[bucket]
        ours = {part for bucket in looked_at for part in bucket.children()}
        for part in d.parts:
            if part in ours:
                self._divide(p, part)
        self._went_on(p, now)

    def on_feed(self, f: Feed, now: int, beside: Sequence[Doubt] = ()) -> None:
        """What came has been merged: go on from there. `beside`: heads that stand here, and which it did not name."""
        if f.feed_epoch != self.epoch:
            return
        self.doubts.heard(f, beside, now, answers=not f.tail and self._asked(f.asker))
        if f.tail:
            self._tail(f, now)
        p = self._pass
        if p is None or not self._asked(f.asker):
            return
        for done in f.done:
            if (done.bucket, done.from_k) in p.asked_leaves:
                del p.asked_leaves[done.bucket, done.from_k]
                if done.next_k >= done.from_k and done.next_k:
                    p.leaves.append((done.bucket, done.next_k))
        self._went_on(p, now)

    def _tail(self, f: Feed, now: int) -> None:
        if f.pos_from > self.pos:  # what lies between, the feed has forgotten
            self.whole = False
            self._begin_pass(now)
        if f.pos_to > self.pos:  # what came twice is not answered: each answer would be
            self.pos = f.pos_to
            self._save()
            self._attempts = 0
            self._follow_due = now

    # ------------------------------------------------------------ a pass

    def _begin_pass(self, now: int) -> None:
        self.doubts.forget()
        self._pass = _Pass(asked_ms=now, begun_ms=now)

    def _divide(self, p: _Pass, bucket: Bucket) -> None:
        """A bucket that differs: list it when it is small, otherwise compare its parts."""
        assert p.snapshot is not None
        if not bucket.step or p.snapshot.count(bucket) <= LEAF_ORDERS:
            p.leaves.append((bucket, 0))
        else:
            p.vectors.append(bucket)

    def _went_on(self, p: _Pass, now: int) -> None:
        """Inside the transaction of what was answered: when all is, the cursor counts."""
        self._attempts = 0
        p.asked_ms = now
        if p.over:
            self._pass = None
            self.passes_total += 1
            self.whole = True
            self._save()
            self._compare_due = now + self.settings.compare_ms - self._rng.randrange(self.settings.compare_ms // 10 + 1)

    def _saved(self) -> tuple[bytes, int] | None:
        row = self._ledger.db.one("SELECT value FROM meta WHERE key=?", (_CURSOR,))
        if row is None:
            return None
        epoch, pos = str(row[0]).split()
        return bytes.fromhex(epoch), int(pos)

    def _save(self) -> None:
        """The cursor counts only where everything before it has been compared."""
        if self.whole:
            self._ledger.db.run(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
                (_CURSOR, f"{self.epoch.hex()} {self.pos}"),
            )

    # ------------------------------------------------------------ out

    def outputs(self, now: int) -> list[Out]:
        """After a commit, and when a deadline has come: what to ask the hub now."""
        if not self.epoch or self.paused:
            return []
        outs = []
        if self._follow_due is not None and now >= self._follow_due:
            self._follow_due = now + self.settings.idle_ms
            outs.append(_out(Kind.FOLLOW, Follow(self.epoch, self.pos, self.settings.room_facts, self.holds)))
            self.holds = ()
        if self._pass is None and self._compare_due is not None and now >= self._compare_due:
            self._begin_pass(now)
        p = self._pass
        if p is not None and p.waits and now >= self._retry_at(p):
            p.again()
            self._attempts += 1
        asks = p is not None and not p.waits and not self._held_back(p, now)
        doubts = () if p is not None and p.waits else self.doubts.ask(now)  # the hub keeps one question of each machine
        if p is not None and asks:
            outs.append(_out(Kind.COMPARE, self._ask(p, now, doubts)))
        elif doubts:
            outs.append(_out(Kind.COMPARE, Compare(self.epoch, (), (), self._asker, doubts)))
        return outs

    def _held_back(self, p: _Pass, now: int) -> bool:
        """Not begun, and a backlog is still on its way."""
        if p.snapshot is not None or now >= p.begun_ms + self.settings.backlog_ms:
            return False
        streams = ((self._ledger.log.by_sid(sid), above) for sid, above in self.unreceived())
        return sum(s.head[0] - above for s, above in streams if s.key.cls == ORDERS) > self.settings.backlog_facts

    def _ask(self, p: _Pass, now: int, doubts: tuple[Doubt, ...]) -> Compare:
        if p.snapshot is None:
            p.snapshot = Snapshot(self._digests())
            self._divide(p, ROOT)
        snapshot = p.snapshot
        vectors, p.vectors = p.vectors[:VECTORS], p.vectors[VECTORS:]
        leaves: list[Leaf] = []
        room = LISTED_ORDERS // 2
        while p.leaves and room > 0 and len(leaves) < LISTED_ORDERS // 4:
            leaf = snapshot.leaf(*p.leaves[0])
            if leaves and len(leaf.orders) > room:
                break
            leaf = Leaf(leaf.bucket, leaf.from_k, leaf.orders[:LISTED_ORDERS])
            leaves.append(leaf)
            room -= len(leaf.orders)
            p.asked_leaves[p.leaves.pop(0)] = None
        p.asked_vectors = dict.fromkeys(vectors)
        p.asked_ms = now
        return Compare(self.epoch, tuple(snapshot.vector(bucket) for bucket in vectors), tuple(leaves), self._asker, doubts)

    def _digests(self) -> Iterator[tuple[int, int]]:
        """(k, digest) of what the hub can know, by k: an order with facts that it has not received differs anyway, and after a long outage
        most do."""
        unheard = list(self.unreceived())
        known = " AND NOT EXISTS (SELECT 1 FROM log l WHERE l.okey=o.okey AND l.sid=? AND l.seq>?)" * len(unheard)
        found, digests, after = array("Q"), array("Q"), 0
        while page := self._ledger.db.query(
            f"SELECT okey, k, digest FROM orders o WHERE okey>? AND followed=1 AND k IS NOT NULL{known} ORDER BY okey LIMIT {_PAGE}",
            (after, *(n for one in unheard for n in one)),
        ):
            after = page[-1][0]
            found.extend(k << 32 | len(digests) + n for n, (_, k, _) in enumerate(page))
            digests.extend(digest for _, _, digest in page)
        for one in sorted(found):
            yield one >> 32, digests[one & _PLACE]

    def _retry_at(self, p: _Pass) -> int:
        s = self.settings
        return p.asked_ms + min(s.retry_ms << min(self._attempts, 16), s.retry_most_ms)

    def next_deadline(self) -> int | None:
        """When `outputs` has something to ask by itself."""
        if not self.epoch or self.paused:
            return None
        p = self._pass
        doubts = None if p is not None and p.waits else self.doubts.due()
        due = (self._follow_due, self._compare_due if p is None else self._pass_due(p), doubts)
        return min((t for t in due if t is not None), default=None)

    def _pass_due(self, p: _Pass) -> int:
        if p.waits:
            return self._retry_at(p)
        return p.begun_ms + self.settings.backlog_ms if self._held_back(p, p.begun_ms) else p.asked_ms


def _out(kind: Kind, message: Follow | Compare) -> Out:
    return Out(Channel.CONTROL, kind, [], message.to_list())
