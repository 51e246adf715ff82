"""What a regional hub decides: takes frames, hellos and heartbeats, events of source systems and the central store's word; says what to
answer and what to hand over. No clock, socket, thread or chance of its own.

The owner's loop: `begin`, any number of `take_*`, `commit`, then `effects`. Receipts are made after the commit and never before. Apart from
that, whenever `lacking_in_store` gives something, it is applied to the store and the store's statement is taken in by `take_statement`.
After a LedgerError the object is thrown away and rebuilt from disk, which is a new incarnation (sync.md, rule 6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from random import Random
from typing import Any, Final

from hub.core_ports import HubIdentity, HubSettings, Publish
from hub.credit import Credit
from hub.feeds import Feeds
from hub.freeing import HubFreeing
from hub.gaps import GapBook
from hub.giveback import OwnHoles, facts_of
from hub.handing import Handing
from hub.holding import FEW_FACTS, Holding
from hub.registry import REGISTRY, Node, Registry
from hub.scopes import Taken
from hub.serving import Serving
from hub.store.port import Statement, StoreFact, StoreRecord
from hub.store.reading import consecutive
from protocols.chains import RunKind
from protocols.codec import Envelope, FrameHeader, Kind, unpack
from protocols.downlink import Compare, Feed, Follow
from protocols.errors import DecodeError, LedgerFull, NotVerified
from protocols.event import OrderEvent
from protocols.fact import Clock, genesis
from protocols.fact import chain as hashes_of
from protocols.ledger import Appended, Ledger, Offered
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.messages import Answer, Heartbeat, Hello, Message, Record, Refused, RunStated
from protocols.schema import refuse_newer
from protocols.sqlite import Db
from protocols.streams import StreamKey
from protocols.sync.frames import digest
from protocols.sync.handover import ahead, went_back
from protocols.sync.receiver import Receiver, StoreSays, rooted_points
from protocols.sync.seal import Control, Sign, Verify, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from protocols.trust import NodeCard

HAND_OVER_FACTS: Final = 2_000
__all__ = ["HAND_OVER_FACTS", "HubCore", "HubIdentity", "HubSettings", "Publish"]


class HubCore:
    """See the module. `rng` gives the incarnation of this start and the epochs of the hub's own stream."""

    def __init__(self, db: Db, identity: HubIdentity, sign: Sign, verify: Verify, rng: Random, settings: HubSettings | None = None) -> None:
        self.identity, self.settings = identity, settings or HubSettings()
        self._sign, self._verify, self._rng = sign, verify, rng
        refuse_newer(db, REGISTRY, part="registry")
        self.ledger = Ledger(db, node=identity.node, new_epoch=lambda: rng.getrandbits(62) + 1)
        self.registry = Registry(db)
        self.gaps = GapBook(db, self.ledger.log)
        self.receiver = Receiver(self.ledger, rng.randbytes(8))
        self.backup_ms: int | None = None
        self.freeing = HubFreeing(self.ledger, self.settings.floor_ms)
        self.receiver.freed_counts = not any(s.freed_seq for s in self.ledger.log.all())
        self._asked = False  # has the store spoken since this start? Nothing is handed over before: it may be ahead
        self._hellos: list[tuple[Node, Hello]] = []
        self._spoke: Node | None = None
        """whose signature the message at hand bears"""
        self._beats: list[tuple[Node, Heartbeat]] = []
        self._replies: list[tuple[Node, Out]] = []
        self.handing = Handing(self.ledger, self.receiver)
        self._seen_ms: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self.feeds = Feeds(self.ledger, blake2b(b"feed" + self.receiver.incarnation, digest_size=8).digest(), self.registry.all)
        self.credit, self.holding = Credit(self.settings.credit_facts, room=self.settings.room_facts), Holding(self.settings.hold_ms)
        self.receiver.granted = self.credit.of
        self._own_holes = OwnHoles(self.ledger, identity.node, sign)
        self._asked_about: dict[str, tuple[Node, list[StreamKey]]] = {}
        self.serving = Serving(self.registry, self.ledger)

    # ------------------------------------------------------------ in (inside a transaction)

    def begin(self) -> None:
        """Open the transaction that all `take_*` share."""
        self.ledger.begin()
        self.feeds.begin()

    def commit(self) -> None:
        """Make them durable, together."""
        for name, by in self._counted.items():
            self.registry.count(name, by)
        self._counted = {}
        self.gaps.write()
        self.feeds.flush()
        self.ledger.commit()

    def _count(self, name: str, by: int) -> None:
        self._counted[name] = self._counted.get(name, 0) + by

    def take_events(self, events: Sequence[OrderEvent], now_ms: int, *, clock: Clock | None = None) -> list[Appended]:
        """Events of source systems at the centre: the hub is their author. Errors: Conflict; LedgerFull while `full`, nothing written."""
        if self.full:
            raise LedgerFull(
                f"the hub's ledger has reached its budget of {self.settings.budget_bytes} bytes", remedy="raise storage.budget_bytes"
            )
        done = self.ledger.append_all(events, now_ms, clock=clock)
        own = self.ledger.own()
        self.handing.unhanded[own.key] = None
        told = []
        for event, appended in zip(events, done, strict=True):
            order = None if appended.repeated else self.ledger.book.get(event.org, event.order_id)
            if order is not None:
                told.append(Taken(order, own.sid, appended.seq, appended.h, event.site, event.actor, event.details))
        self.feeds.took(own.key.node, told)
        return done

    def wrote(self, key: StreamKey) -> None:
        """Facts of the hub's own were written."""
        self.handing.unhanded[key] = None

    def take_message(self, node: str, data: bytes, now_ms: int) -> Offered | None:
        """Bytes that came up on a node's topics; `node` is the topic's word and only says whom to answer. Returns what a frame did."""
        self._count("up_bytes", len(data))
        return self._judge(node, data, now_ms)

    def _judge(self, node: str, data: bytes, now_ms: int) -> Offered | None:
        try:
            opened = unseal(data)
            author = opened.author if isinstance(opened, Control) else opened[1].author
            if isinstance(opened, Control) and author == self.identity.node and opened.envelope.kind is Kind.FEED:
                self._take_given_back(opened, now_ms)
                return None
            known = self.registry.get(author)
            if known is None:
                self.registry.wait(author, data, now_ms)
                return None
            if isinstance(opened, Control):
                self._take_control(node, known, opened, data, now_ms)
                return None
            return self._take_frame(node, known, *opened, now_ms)
        except DecodeError as e:
            self.refuse(node, data, e.reason, now_ms)
            return None
        finally:
            self._note_carrier(node)

    def _take_frame(self, node: str, author: Node, envelope: Envelope, header: FrameHeader, now_ms: int) -> Offered:
        self._believe(author, envelope)
        if node == header.author:
            self._seen_ms[node] = now_ms  # what a relay kept for a week does not show that its author lives
        done = self.receiver.frame(header, envelope.body, now_ms, author.speaks_for)
        for name, by in (("up_frames", 1), ("up_facts_new", done.new), ("up_facts_known", done.known)):
            self._count(name, by)
        if done.new:
            self.credit.busy(header.author, now_ms)
            self.credit.turns.took(header.author, done.new, now_ms)
            self.handing.unhanded[key := StreamKey(header.author, header.epoch, header.cls)] = None
            self.handing.keep_read(done)
            self._feed(header.author, done, key)
        if done.deferred:
            self._count("deferred", done.deferred)
        if node == header.author:
            self.holding.came(node, now_ms, plain=self._is_plain(header, done))
        return done

    def _is_plain(self, header: FrameHeader, done: Offered) -> bool:
        """A few facts that only lengthen their stream, while the store speaks."""
        stream = self.ledger.log.get(StreamKey(header.author, header.epoch, header.cls))
        runs = stream.chain.runs if stream is not None else []
        return self._asked and done.new == header.count <= FEW_FACTS and not done.quarantined and len(runs) == 1 and runs[0].first == 1

    def _feed(self, author: str, done: Offered, stream: StreamKey | None = None) -> None:
        """Who follows the sites concerned is told."""
        self.feeds.came(author, done.folded, stream)
        self.feeds.again(self.ledger.folded_again())

    def _take_given_back(self, control: Control, now_ms: int) -> None:
        """A message of the feed that this hub once signed: what it does not hold of it, it takes in again (rule 12)."""
        self._verify(self.identity.public_key, control.envelope.signature, control.envelope.signed)
        feed = control.message()
        assert isinstance(feed, Feed)
        current = self.ledger.own().key
        for f in facts_of(feed):
            done = self.ledger.offer(f.key, f.seq, f.prev, [(f.row, f.values)], [f.h], now_ms)
            if done.new:
                self._count("given_back", done.new)
                self.handing.unhanded[f.key] = None
                self._feed("", done)
                self.receiver.touch(f.key)
                if f.key == current:
                    current = self._go_on_elsewhere(now_ms)

    def _go_on_elsewhere(self, now_ms: int) -> StreamKey:
        """The own stream was seen beyond what is here: never go on in it (rule 2)."""
        self.ledger.start_new_epoch(now_ms)
        key = self.ledger.own().key
        self.handing.unhanded[key] = None
        return key

    def take_holes(self, now_ms: int) -> None:
        """Inside a transaction, now and then: what nobody has given back of the hub's own streams is signed as lost."""
        for key in self._own_holes.close(now_ms):
            self.handing.unhanded[key] = None
            self.receiver.touch(key)

    def _believe(self, author: Node, envelope: Envelope) -> None:
        """Only what its author signed counts. Errors: NotVerified."""
        self._verify(author.public_key, envelope.signature, envelope.signed)
        self._spoke = author

    def _note_carrier(self, node: str) -> None:
        """What `_spoke` signed came on the topic of `node`: where that is another, what is said to the author goes that way, too."""
        if self._spoke is not None and self._may_carry(node, self._spoke.address.node):
            self.receiver.carriers.note(self._spoke.address.node, node)
        self._spoke = None

    def _may_carry(self, relay: str, author: str) -> bool:
        """Both admitted and of one organisation; the hub's own facts are everybody's to carry."""
        carrier, known = self.registry.get(relay), self.registry.get(author)
        if carrier is None or relay == author:
            return False
        return author == self.identity.node or (known is not None and known.address.org == carrier.address.org)

    def _take_control(self, node: str, author: Node, control: Control, data: bytes, now_ms: int) -> None:
        if control.addressee != self.identity.node:
            raise NotVerified(f"addressed to {control.addressee!r}, this is {self.identity.node!r}")
        self._believe(author, control.envelope)
        self._seen_ms[author.address.node] = now_ms
        self.receiver.carriers.speaks(author.address.node, node if self._may_carry(node, author.address.node) else author.address.node)
        self._act(author, control.message(), data, now_ms)

    def _act(self, author: Node, message: Message, data: bytes, now_ms: int) -> None:
        node = author.address.node
        if isinstance(message, Hello):
            held = tuple(c for c in message.held if self._may_carry(node, c.node))
            for carried in (c for c in held if c.frames):
                self.receiver.carriers.note(carried.node, node)
            self._hellos.append((author, replace(message, held=held)))
        elif isinstance(message, Heartbeat):
            self.registry.note_beat(node, message, now_ms)
            if any(q.queued for q in message.streams):
                self.credit.busy(node, now_ms)
            self._beats.append((author, message))
        elif isinstance(message, Follow):
            self.feeds.follow(author, message)
            self._asked_about[node] = author, [StreamKey(*key) for key in message.holds if self._may_carry(node, key[0])]
        elif isinstance(message, Compare):
            self.feeds.compare(author, message)
        elif isinstance(message, Record) and self.receiver.record(node, message, data, now_ms):
            self.handing.unhanded[StreamKey(node, message.epoch, message.cls)] = None

    def refuse(self, node: str, data: bytes, reason: str, now_ms: int) -> None:
        """Damage moves nothing: kept within bounds, counted, named to whom the topic belongs (rule 8); and to its author, where it is well
        signed and came another way: only the author can cut it anew."""
        name = digest(data[:-64])
        self.registry.refuse(node, name, reason, data, now_ms)
        refused = Refused(self.receiver.incarnation, name, reason[:200])
        author = self._spoke.address.node if self._spoke is not None else node
        for told in dict.fromkeys((node, author)):
            sender = self.registry.get(told)
            if sender is not None:
                self._replies.append((sender, Out(Channel.RECEIPT, Kind.REFUSED, [], refused.to_list())))

    def take_card(self, card: NodeCard, now_ms: int, orgs: Sequence[str] | None = None) -> Node:
        """Admit a node; what it sent before is looked at now. `orgs`: see `Registry.admit`. Errors: InvalidInput when the name or key is
        taken."""
        node = self.registry.admit(card, self.identity.node, now_ms, orgs)
        self.feeds.people_changed()
        for data in self.registry.release(card.node):
            self._judge(card.node, data, now_ms)
        return node

    # ------------------------------------------------------------ out (after the commit)

    def effects(self, now_ms: int) -> list[Publish]:
        """After a commit: answers to hellos, receipts for what changed, refusals and pulls."""
        self.credit.full = self.full
        self.credit.rested(now_ms)
        asked_for = self._asked_for(now_ms)  # first: who has its turn now is told so with whatever it is told
        outs = [(n, Out(Channel.RECEIPT, Kind.ANSWER, [], self._answer(n, h, now_ms).to_list())) for n, h in self._hellos]
        for node, receipt in self.receiver.receipts(now_ms, self._is_told, lambda node: self.holding.waits(node, now_ms)):
            self.gaps.stated(receipt.streams, now_ms)
            for told in self.receiver.carriers.of(node) if node == self.identity.node else (node,):
                known = self.registry.get(told)
                if known is not None:
                    outs.append((known, Out(Channel.RECEIPT, Kind.RECEIPT, [], receipt.to_list())))
        outs += [*self._replies, *asked_for, *self._told(now_ms)]
        outs += [(n, Out(Channel.ORDERS, m.KIND, [], m.to_list())) for n, m in self.feeds.replies(self._cannot_be_lost)]
        self._hellos, self._beats, self._replies, self._asked_about = [], [], [], {}
        self.holding.said(now_ms)
        return [publish for n, out in outs for publish in self._said(n, out)]

    def _said(self, to: Node, out: Out) -> Iterator[Publish]:
        """What the hub says to a node: on its own topic and, in the same bytes, on those of the relays that carry for it (rule 16). The
        feed, which is long and was asked for, goes the way on which the node spoke last."""
        carriers, node = self.receiver.carriers, to.address.node
        names = self.serving.those((carriers.way(node),) if out.channel is Channel.ORDERS else (node, *carriers.of(node)))
        payload = seal(out, self.identity.node, node, self._sign) if names else b""
        for name in names:
            known = self.registry.get(name)
            if known is not None:
                yield Publish(known.address.topic(out.channel), payload)

    def _is_told(self, node: str) -> bool:
        return node == self.identity.node or bool(self.serving.those((node, *self.receiver.carriers.of(node))))

    def hands_changed(self, *, taken: bool) -> None:
        """Partitions of nodes went, or came (`taken`): another incarnation, so what a worker before held alone is sent again (rule 6)."""
        if taken:
            self.receiver.incarnation = self._rng.randbytes(8)
        self.feeds.let_go(self.serving.to)

    def _told(self, now_ms: int) -> Iterator[tuple[Node, Out]]:
        """Statements about streams of others whose facts somebody keeps until they are settled."""
        for node, receipt in ((n, r) for n, keys in self._asked_about.values() for r in self.receiver.about(n.address.node, keys, now_ms)):
            yield node, Out(Channel.RECEIPT, Kind.RECEIPT, [], receipt.to_list())

    def _cannot_be_lost(self, key: StreamKey, seq: int) -> bool:
        """Does nobody need to keep a fact that is sent down? A fact of the hub's own lies with no other author: hub and store may both come
        back from backups that lack it (rules 11 and 12)."""
        return self.receiver.safe(key, seq) if key.node == self.identity.node else self.receiver.settled(key, seq)

    def _answer(self, node: Node, hello: Hello, now_ms: int) -> Answer:
        said = self.receiver.answer(node.address.node, hello, now_ms)
        self.gaps.stated(said.streams, now_ms)
        return replace(said, feed_epoch=self.feeds.epoch, feed_pos=self.feeds.pos, followed=self.feeds.followed(node.address.node))

    def _asked_for(self, now_ms: int) -> list[tuple[Node, Out]]:
        """What hellos and heartbeats name and this hub does not hold: pulled, where it is not sent anyway, or sent when its node's turn has
        come. Looked at after the commit: what came behind a heartbeat in the same transaction is not asked for again."""
        turns, outs = self.credit.turns, []
        for author, hello in self._hellos:
            turns.lacks(name := author.address.node, _count(self.receiver.lacking(name, hello.streams)))
        pulls = [(author, self.receiver.heartbeat(author.address.node, beat)) for author, beat in self._beats]
        for author, pull in pulls:
            turns.lacks(author.address.node, _count(pull.ranges) if pull is not None else 0)
        answered = {author.address.node for author, _ in self._hellos}
        for name in turns.given(now_ms, self.serving.to):
            known = self.registry.get(name)
            if known is not None and name not in answered:
                outs.append((known, Out(Channel.RECEIPT, Kind.RECEIPT, [], self.receiver.receipt(name, now_ms).to_list())))
        for author, pull in pulls:
            if pull is not None and not turns.waits(name := author.address.node):
                self.gaps.pulled(name, pull, now_ms)
                outs.append((author, Out(Channel.RECEIPT, Kind.PULL, [], pull.to_list())))
        return outs

    @property
    def full(self) -> bool:
        """Is the budget of the ledger file used up? Then no credit is granted, and no event taken."""
        return self.ledger.db.file_bytes() >= self.settings.budget_bytes

    # ------------------------------------------------------------ the central store

    @property
    def asked_store(self) -> bool:
        """Has the store stated what it holds since this start?"""
        return self._asked

    def lacking_in_store(self, limit: int = HAND_OVER_FACTS) -> tuple[list[StoreFact], list[StoreRecord]]:
        """See `Handing.lacking`. Empty before the store has spoken."""
        return self.handing.lacking(limit) if self._asked else ([], [])

    def take_statement(self, statement: Statement, *, whole: bool, now_ms: int | None = None) -> list[tuple[StreamKey, RunStated]]:
        """The store's own word (rule 10), inside a transaction. `whole`: of all streams, as after a start. `now_ms`: this hub's clock;
        without it nothing is freed.

        Returns what the store holds and this hub does not: it came back older, and `take_from_store` gives it those facts (rule 12).
        """
        before, streams, self.backup_ms = self.handing.stated, statement.streams, statement.backup_ms
        self._asked = True
        if whole:
            self.handing.stated = {}
            self.handing.unhanded = {s.key: None for s in self.ledger.log.all()}
            streams = streams | {key: () for key in before if key not in streams}
        if any(went_back(before.get(key, ()), runs) for key, runs in streams.items()):
            # A receipt raises what is believed settled, and only the answer to a hello lowers it: another incarnation makes nodes say one.
            self.receiver.incarnation = self._rng.randbytes(8)
        self._lower(streams, whole=whole)
        says: list[tuple[StreamKey, StoreSays]] = []
        older: list[tuple[StreamKey, RunStated]] = []
        for key, runs in streams.items():
            self.handing.stated[key] = runs
            says.append((key, self._says(key, runs, statement)))
            older += [(key, run) for run in ahead(self.ledger.log.open(key).chain, runs)]
        for key in self.receiver.store_says(says, backed_up=statement.backed_up is not None and statement.covered):
            self.holding.release(key.node)
        self._settle_own(dict(says), lower=whole)
        if now_ms is not None:
            self._free(dict(says), statement, now_ms)
        return older

    def _lower(self, named: Mapping[StreamKey, tuple[RunStated, ...]], *, whole: bool) -> None:
        """What was freed here and is not in the store any more is a hole again, and is asked for (rule 12)."""
        others = [s.key for s in self.ledger.log.all() if s.freed_seq and s.key not in named] if whole else []
        for key in [*named, *others]:
            if self.freeing.lower(key, named.get(key, ())):
                self.receiver.touch(key)
                self.handing.unhanded[key] = None
        if whole and not self.receiver.freed_counts:
            self.receiver.freed_counts = True
            for stream in self.ledger.log.all():
                if stream.freed_seq:
                    self.receiver.touch(stream.key)

    def _free(self, says: dict[StreamKey, StoreSays], statement: Statement, now_ms: int) -> None:
        self.freeing.mark(says, statement.streams, now_ms)
        if self.receiver.backed_up or self.pressed:
            self.freeing.step(now_ms)

    @property
    def pressed(self) -> bool:
        """Is the budget of the ledger file nearly used up?"""
        return self.ledger.db.file_bytes() * 100 >= self.settings.budget_bytes * self.settings.pressure_percent

    def _says(self, key: StreamKey, runs: Sequence[RunStated], statement: Statement) -> StoreSays:
        start = genesis(*key)
        kept = runs if statement.backed_up is None else statement.backed_up.get(key, ())
        # Who still holds what a record calls lost frees nothing because of it (rule 9). Of what was evicted its author holds nothing more.
        data = [r for r in kept if r.kind in (RunKind.DATA, RunKind.EVICTED)]
        return StoreSays(rooted_points(runs, start), rooted_points(data, start))

    def _settle_own(self, says: dict[StreamKey, StoreSays], *, lower: bool) -> None:
        for stream in self.ledger.own_streams():
            points = says.get(stream.key, StoreSays()).settled
            seq = max((s for s, h in points if self.ledger.log.hash_at(stream, s) == h), default=0)
            if seq > stream.settled_seq or (lower and seq < stream.settled_seq):
                stream.settled_seq, stream.dirty = max(seq, stream.freed_seq), True

    def take_from_store(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int) -> None:
        """Facts that the store has and this hub lost; if they are of its own stream, it never goes on in that epoch (rules 2, 12)."""
        for run in consecutive(facts):
            self._take_run(run, now_ms)
        for r in records:
            self._take_record(r, now_ms)
        if any(f.stream == self.ledger.own().key for f in facts):
            self._go_on_elsewhere(now_ms)

    def _take_record(self, r: StoreRecord, now_ms: int) -> None:
        """As it was signed; or, where data has superseded a part of it meanwhile, as far as it still stands in the store."""
        if self.ledger.close_hole(r.stream, r.first, r.h_before, r.last, r.h_last, r.kind, r.signed, now_ms):
            return
        for s in self.handing.stated.get(r.stream, ()):
            if s.kind is r.kind and r.first <= s.first and s.last <= r.last:
                self.ledger.close_hole(r.stream, s.first, s.h_before, s.last, s.h_last, s.kind, r.signed, now_ms)

    def _take_run(self, run: list[StoreFact], now_ms: int) -> None:
        first = run[0]
        if any(f.quarantined for f in run):
            for f in run:
                self._take_one(f, now_ms)
            return
        pairs = [(f.row, _values(f.row)) for f in run]
        if hashes_of(first.prev, [f.row for f in run])[-1] != run[-1].h:
            raise DecodeError(f"the central store gave facts of {first.stream.node} that are not on their chain")
        self._feed("", self.ledger.offer(first.stream, first.seq, first.prev, pairs, [f.h for f in run], now_ms, bounded=False))
        self.receiver.touch(first.stream)

    def _take_one(self, f: StoreFact, now_ms: int) -> None:
        if f.quarantined:
            done = self.ledger.offer_opaque(f.stream, f.seq, f.prev, f.h, f.row, f.quarantined, now_ms, bounded=False)
        else:
            done = self.ledger.offer(f.stream, f.seq, f.prev, [(f.row, _values(f.row))], [f.h], now_ms, bounded=False)
        self._feed("", done)

    # ------------------------------------------------------------ asking

    def due_ms(self, now_ms: int) -> int | None:
        """When there is something to say though nothing is heard; None: nothing."""
        return min((t for t in (self.holding.due_ms(), self.credit.turns.due_ms(now_ms)) if t is not None), default=None)

    def is_due(self, now_ms: int) -> bool:
        """Has that time come, whatever happened to the clock?"""
        return self.holding.is_due(now_ms) or self.credit.turns.is_due(now_ms)

    def seen_ms(self, node: str) -> int | None:
        """When this node was last heard, since this start."""
        return self._seen_ms.get(node)

    def stated(self, key: StreamKey) -> tuple[RunStated, ...]:
        """What the store last said of a stream."""
        return self.handing.stated.get(key, ())


def _values(row: bytes) -> Any:
    return unpack(row, max_bytes=FRAME_UNPACKED_BYTES)


def _count(ranges: Sequence[tuple[int, int, int, int]]) -> int:
    return sum(last - first + 1 for _, _, first, last in ranges)
