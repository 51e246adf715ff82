"""The central order store as the hub sees it: one port, SQLite now and PostgreSQL later, one conformance suite over both.

The store applies each fact once, by identity (node, epoch, seq, h), folds the consolidated view in the same transaction, and says what it
holds. Its statement is the only thing that may free data anywhere (sync.md, rules 10 and 11), so it is read from the primary key of its log
and never from a cursor of whoever delivered. Methods may block; they are called from one thread at a time unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from hub.store.backups import Backup
from hub.store.offsets import Advance, Offset
from protocols.chains import RunKind
from protocols.clashes import Clash
from protocols.fact import FactRow
from protocols.messages import RunStated
from protocols.policy import Policies, Told, Verdict
from protocols.streams import StreamKey


class StoreFact(NamedTuple):
    """A fact on its way into the store. `row` is the canonical row, or opaque bytes of a quarantined fact. Times in ms since 1970.

    A tuple, like `Change`: there is one per fact of a backlog, and a frozen dataclass takes three times as long to make.
    """

    stream: StreamKey
    seq: int
    h: bytes
    prev: bytes
    row: bytes
    received_ms: int
    quarantined: str = ""
    """why it could not be read; empty for a good fact"""
    fact: FactRow | None = None
    """what `row` says, where whoever delivers has read it anyway: it spares the store the reading. None: the store reads it."""


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """An author's signed word that first..last has no data (evicted, pruned, lost)."""

    stream: StreamKey
    first: int
    h_before: bytes
    last: int
    h_last: bytes
    kind: RunKind
    signed: bytes
    received_ms: int


CHANGES_TOLD: Final = 100
"""of one batch: nobody reads more at once"""


class Change(NamedTuple):
    """What the live feed says of one applied fact; `shown`, `conflict` and `is_head` as the order stands after the whole batch."""

    org: str
    order_id: str
    status: str
    shown: str
    """the status the order shows now"""
    source: str
    site: str | None
    region: str | None
    node: str
    happened_ms: int | None
    received_ms: int
    conflict: bool
    is_head: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did: facts that were new and that were known, and of the new ones of orders what people are told.

    `changes`: at most `CHANGES_TOLD` of them, in the batch's order; `untold`: how many more there are. `received`: when they were received,
    and how many at each ms.
    """

    new: int
    known: int
    changes: list[Change] = field(default_factory=list)
    untold: int = 0
    received: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statement:
    """What the store holds, at one moment: per stream its runs (data and records), and what its backups have of that.

    `backed_up`: runs that every backup which could still be restored has, from the moment it was begun; None when there is none, and none
    is required. `covered`: at least one of them is complete; without it nothing is freed but under pressure.
    """

    streams: dict[StreamKey, tuple[RunStated, ...]]
    backed_up: dict[StreamKey, tuple[RunStated, ...]] | None = None
    covered: bool = True
    backup_ms: int | None = None
    """when the newest complete backup was begun"""


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """Filters of a list of orders; None is no filter. `text` finds any fragment of an order id (letters without case).

    `cursor` comes from the page before. `limit` is brought within 1..PAGE_ORDERS.
    """

    site: str | None = None
    region: str | None = None
    status: str | None = None
    text: str | None = None
    org: str | None = None
    conflict: bool | None = None
    cursor: str | None = None
    limit: int = 50
    held: bool | None = None


@dataclass(frozen=True, slots=True)
class OrderView:
    """One order of the consolidated view."""

    org: str
    order_id: str
    status: str
    source: str
    region: str | None
    site: str | None
    node: str
    """the author of the fact that is shown"""
    happened_ms: int | None
    quality: int
    received_ms: int
    facts: int
    heads: int
    conflict: bool
    abnormal: bool
    """some fact had seen others of its order and may normally follow none of those it came directly after"""
    expected_ms: int | None = None
    """the promise, where details said one (`expectedDelivery`): the latest by what the authors had seen, not by a clock"""
    details: dict[str, Any] = field(default_factory=dict)
    held: bool = False
    """it rests until a conflict is settled"""
    quantities: dict[str, int] = field(default_factory=dict)
    """the sum of what its facts added"""


@dataclass(frozen=True, slots=True)
class EventView:
    """One fact of an order's timeline, happened-at beside received-at."""

    fact_id: str
    node: str
    epoch: int
    seq: int
    status: str
    source: str
    region: str | None
    site: str | None
    actor: str | None
    happened_ms: int | None
    quality: int
    recorded_ms: int
    received_ms: int
    stored_ms: int
    is_head: bool
    abnormal: bool
    context: list[list[Any]]
    details: dict[str, Any]
    replaces: str | None = None
    """the fact, refused, that this one puts right and whose causal place it takes"""
    replaced_by: str | None = None
    """the fact that stands in this one's place, which counts for nothing any more"""
    place: tuple[int, int] | None = None
    """(epoch, seq) of its causal place, where that is not its own: it replaces what stood there"""
    clock: int | None = None
    """what its author thought of the clock that says `recorded_ms` (`protocols.fact.Clock`); None: it did not say"""
    about_ms: int | None = None
    """when it was recorded, where that clock is known to have been wrong; a store leaves that to who shows it"""
    trace_id: str = ""
    """see `protocols.trace`"""


@dataclass(frozen=True, slots=True)
class ConflictView:
    """Two facts that did not see each other and of which neither may follow the other. `settled_ms` is None while it is open."""

    org: str
    order_id: str
    shown_fact: str
    other_fact: str
    sentence: str
    raised_ms: int
    settled_ms: int | None
    clash: Clash
    """all that is known of it: policy, outcome, task, who did what, who settled it"""


@dataclass(frozen=True, slots=True)
class Disputed:
    """What an order's page tells beside its state. `verdicts`: what the table of policies says of each pair of its heads."""

    conflicts: list[ConflictView] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    heads: list[tuple[Told, dict[str, Any]]] = field(default_factory=list)
    """the facts that stand side by side, with their details, the one shown first"""


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """The store's side of the balance for one stream: rows by what stands behind them."""

    stream: StreamKey
    facts: int
    quarantined: int
    records: dict[str, int]
    """seqs that a record closes and of which there is no data, by reason: lost, evicted, pruned"""
    twins: int
    """facts beyond the first at their seq, on other branches of a fork: facts + quarantined - twins + records is the seqs accounted for"""
    resolved: int = 0
    """of the quarantined, those that their author put right or gave up"""


@dataclass(frozen=True, slots=True)
class Page:
    """Orders and the cursor of the next page (None: this was the last)."""

    orders: list[OrderView]
    cursor: str | None


@runtime_checkable
class TellsCounts(Protocol):
    """A store that others write, too: what it counts now is ahead of what it has said that it holds."""

    def counts_said(self) -> list[StreamCounts] | None:
        """As `CentralStore.counts`, of what its statements named so far, each stream as of the last of them; None: it has not yet spoken of
        everything. So it may be put beside them, and costs little."""


@runtime_checkable
class MayBeAway(Protocol):
    """A store on a server, which may go away while nobody asks it anything."""

    def still_there(self) -> None:
        """Returns once it has answered, which costs it next to nothing. Errors: LedgerError: it did not."""


WORD_MS: Final = 3_000
"""after so long without anything else to do for its owner it is asked for one"""
PAGE_ORDERS: Final = 500
"""the most orders on one page"""


class CentralStore(Protocol):
    """Errors of every method: LedgerFull, LedgerBusy, LedgerBroken; after LedgerBroken the object is discarded and reopened.

    Where SQL is beneath, reads also work from a second, read-only connection in another thread while the writer applies.
    """

    def apply(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int, offsets: Advance | None = None) -> Applied:
        """Log and fold what is new, exactly once, in one transaction, durable on return; after an error nothing of the batch is there.

        Any order of arrival gives the same view; facts of one stream in chain order, and facts in causal order, are the fast ones.
        `offsets`: what the batch moves in the bus, in the same transaction. Errors, beside those of every method: Fenced, when a partition
        was claimed by another or stands elsewhere: nothing of the batch is there, and the store goes on.
        """

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """Take over a partition of the bus, durable on return: who claimed it before is fenced from now on. `fence`: a token that nobody
        else has, `FENCE_BITS` of chance. Returns the next offset to apply; None: nothing of it was applied yet."""

    def offsets(self) -> list[Offset]:
        """How far each partition that was ever claimed is applied."""

    def statement(self, streams: Sequence[StreamKey] | None = None) -> Statement:
        """What is held of these streams (None: of all), verified against the primary key of the log."""

    def facts(self, stream: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """Facts of a run that the store stated, lowest first: for a hub that came back older than the store (rule 12)."""

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """The records that stand in a stream."""

    def orders(self, query: OrderQuery) -> Page:
        """A page of the consolidated view, most recently received first. Errors: InvalidInput for a cursor or status that is none.

        An order that gets a fact moves to the top. A walk over the pages shows no order twice, and each that got none meanwhile once.
        """

    def order(self, org: str, order_id: str) -> OrderView | None:
        """One order."""

    def find(self, order_id: str) -> list[OrderView]:
        """Orders of any organisation with exactly this id."""

    def events(self, org: str, order_id: str) -> list[EventView]:
        """The timeline of an order, as the store took it."""

    def conflicts(self, *, open_only: bool = False, limit: int = 200) -> list[ConflictView]:
        """Conflicts, newest first."""

    def conflict(self, clash_id: str) -> ConflictView | None:
        """The conflict of this name."""

    def disputed(self, org: str, order_id: str) -> Disputed:
        """Conflicts of an order, newest first, and what stands side by side now."""

    def judged_by(self) -> Policies:
        """The table of policies in use."""

    def counts(self) -> list[StreamCounts]:
        """Rows per stream, counted from the log."""

    def totals(self) -> dict[str, int]:
        """orders, facts, open conflicts, quarantined and not resolved: for the top of the page."""

    def backups(self) -> list[Backup]:
        """Copies of this store that were registered, oldest first (`hub.store.backups`)."""

    def begin_backup(self, backup_id: str, tool: str, place: str, now_ms: int) -> Backup:
        """Register a backup before its first byte is copied: durable on return, with what the store holds in that very transaction."""

    def complete_backup(self, backup_id: str, now_ms: int) -> Backup:
        """It is whole. Errors: InvalidInput: not known, or expired meanwhile."""

    def expire_backup(self, backup_id: str, now_ms: int) -> Backup:
        """It will never be restored; final. Errors: InvalidInput."""

    def merge_backups(self, others: Iterable[Backup]) -> list[Backup]:
        """Take in what is remembered outside of the store, which may have come back older. Returns the list as it then is."""

    def close(self) -> None:
        """Release it. Idempotent."""
