"""What the HTTP face asks of the hub that runs behind it. The runtime implements it; tests have a small one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from hub.backup_register import Register
from hub.post import Post
from hub.store.port import CentralStore
from hub.stream import Feed
from hub.times import Shifts
from hub.views import Balance, FleetRow
from protocols.event import EventDefaults, OrderEvent
from protocols.ledger import Appended

if TYPE_CHECKING:
    from hub.core import HubCore

T = TypeVar("T")


class Metric(NamedTuple):
    """One sample of a metric family. `type` is counter, gauge, histogram or untyped; every sample of a family carries the same help and
    type. `suffix`: of a histogram's samples, after the family's name."""

    name: str
    help: str
    type: str
    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class HubFacade(Protocol):
    """All but `store` is called on the event loop's thread and does not block. `store` is called from worker threads and may."""

    @property
    def store(self) -> CentralStore:
        """The central store, for reading only; safe to call from several threads."""

    @property
    def feed(self) -> Feed:
        """The live feed. The runtime publishes `change` items (`views.change_json`) and closes it at shutdown."""

    @property
    def defaults(self) -> EventDefaults:
        """Organisation, region and site of events that do not say."""

    @property
    def https(self) -> bool:
        """Whether browsers reach the hub by HTTPS only, so that the cookie is marked Secure."""

    @property
    def post(self) -> Post:
        """Nodes that come over HTTP."""

    def now_ms(self) -> int:
        """The hub's clock."""

    def check_token(self, token: str | None, client_is_loopback: bool) -> bool:
        """Whether a caller may go on. None: no token was sent; enough only on loopback, and only where the configuration says so."""

    async def append(self, events: list[OrderEvent]) -> Sequence[Appended]:
        """Take a batch, whole or not at all; returns after the sync. Errors: Conflict, TooLarge, LedgerFull, LedgerBusy, LedgerBroken."""

    async def do(self, work: Callable[[HubCore, int], T], *, writes: bool = False) -> T:
        """Have something done inside the hub's transaction, durable on return. Errors: what `work` refuses, LedgerBusy, LedgerBroken."""

    async def admit(self, card: object, orgs: Sequence[str] | None = None) -> dict[str, Any]:
        """Admit a node by its card, durable on return. `orgs`: organisations it may speak for beside its own; None leaves that as it was.
        Errors: InvalidInput, Conflict (the name is taken by another key)."""

    async def with_register(self, work: Callable[[Register], T]) -> T:
        """Let the loop's worker do something with the list of the store's backups, between two turns. Errors: those of `work`."""

    def nodes(self) -> list[dict[str, Any]]:
        """The admitted nodes, as JSON objects with at least `node`; never a password's hash."""

    def workers_json(self) -> dict[str, Any]:
        """Who shares this hub's nodes, and holds what, as of the last round; empty lists where this process serves all."""

    def fleet(self) -> list[FleetRow]:
        """Every node the hub knows of, admitted or waiting."""

    def shifts(self) -> Shifts:
        """What nodes said of facts that they recorded by wrong clocks."""

    def balance(self) -> Balance:
        """Both sides of the balance, per node and in all."""

    def gaps(self) -> dict[str, Any]:
        """The gap ledger: lists `open`, `beyond` and `closed` (see `hub.gaps`), and the numbers `holes` and `facts`."""

    def refused(self) -> Sequence[Mapping[str, Any]]:
        """Frames kept as evidence, newest first: `digest`, `node` (claimed), `reason`, `atMs`, `bytes`, and what else is known. Bounded."""

    def turned_away(self) -> Sequence[Mapping[str, Any]]:
        """Names that the embedded broker did not let in, newest first: `node`, `count`, `reason`, `atMs` (the last time). Bounded."""

    def quarantined(self) -> Sequence[Mapping[str, Any]]:
        """Facts that stepped aside, newest first, as `hub.quarantine.rows` makes them. Bounded."""

    def health(self) -> dict[str, Any]:
        """`{"ready": bool, "reasons": [text], "findings": [text], "line": …}`. Findings do not keep the hub from working; `line` is what
        `hub.line.Line.status` says."""

    def metrics(self) -> Iterable[Metric]:
        """Samples, those of one family side by side."""
