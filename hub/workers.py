"""This process as one of several workers of a hub: its rounds with the lease table, the register that all share, and what follows of both.

A task on the loop's thread; the table is asked in a thread of its own, so that neither a slow disk nor a busy engine delays a renewal.
`hub.leasing` decides. What others may ask at any moment, from any thread, is `serves`: by the clock, so that a process that was stopped
speaks for nobody whose lease ran out meanwhile, before it has looked at anything else.

A table that does not answer is waited for no longer than a third of a lease: then that attempt has failed, and what comes of it later is
thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hub.leasing import RENEWALS, LeaseSettings, Leasing, partition_of
from hub.registry import Node
from hub.store.leases import Leases, Me, SharedNode, Table
from protocols.claims import Claim
from protocols.errors import InvalidInput, LedgerBusy, LedgerError, LongshoreError
from protocols.topics import Address, site_subscriptions
from protocols.trust import NodeCard

T = TypeVar("T")
log = logging.getLogger(__name__)
PLACES_KEPT: Final = 200_000


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the hub does for its worker. `open_leases`: from the store, also again after a failure. `nodes`: those admitted here, with what
    Mosquitto reads of their passwords. `admit`: take one in that another worker admitted. `changed`: partitions came (`taken`) or went.
    `claim`: tell the other workers that these are this one's by now, with their fences."""

    open_leases: Callable[[], Leases]
    nodes: Callable[[], Awaitable[list[tuple[Node, str]]]]
    admit: Callable[[NodeCard, Sequence[str]], Awaitable[object]]
    changed: Callable[[bool], Awaitable[None]]
    claim: Callable[[Mapping[int, int]], None] = lambda fences: None


class Workers:
    """See the module. All methods but `serves` are for the thread of the loop."""

    def __init__(self, name: str, place: Callable[[], str], settings: LeaseSettings, hooks: Hooks) -> None:
        self.leasing = Leasing(Me(name, secrets.randbits(62)), settings)
        self.table: Table | None = None
        self.takeovers_total = self.failures_total = self.claimed_total = 0
        self.problem = "the lease table was not asked yet"
        self._place, self._hooks = place, hooks
        self._leases: Leases | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")
        self._late: asyncio.Future[Any] | None = None
        """what was asked of the table and not answered in time"""
        self._wake, self._robbed = asyncio.Event(), asyncio.Event()
        self._version = -1
        self._known: dict[str, SharedNode] = {}
        self._partitions: dict[tuple[str, str], int] = {}
        self._stopping = False

    # ------------------------------------------------------------ for everybody

    def partition(self, org: str, site: str) -> int:
        """Where the nodes of a site are."""
        found = self._partitions.get((org, site))
        if found is None:
            if len(self._partitions) > PLACES_KEPT:
                self._partitions = {}
            found = self._partitions[org, site] = partition_of(org, site, self.leasing.settings.partitions)
        return found

    def serves(self, address: Address) -> bool:
        """Is it this worker that speaks to a node, at this very moment?"""
        return self.leasing.holds(self.partition(address.org, address.site), mono_ms())

    def subscriptions(self, nodes: Iterable[Node]) -> tuple[str, ...]:
        """What this worker reads at the broker: the sites of these nodes that are in its partitions."""
        sites = dict.fromkeys((n.address.org, n.address.site) for n in nodes if self.serves(n.address))
        return tuple(topic for org, site in sorted(sites) for topic in site_subscriptions(org, site))

    def troubles(self) -> list[str]:
        """Why this worker cannot work as it should."""
        if not self.leasing.alone:
            return [f"another process runs as worker {self.leasing.me.worker!r}; it is waited for to end: give each its own workers.name"]
        over = self.leasing.held_over(mono_ms())
        holds = f"; holds {over} partitions over until the store answers" if over else ""
        return [f"no lease: {self.problem}{holds}"] if self.problem else []

    # ------------------------------------------------------------ its life

    async def open(self) -> None:
        """Before `run`. Errors: ConfigError: these settings do not fit those of the other workers. A store that is away is no error."""
        try:
            await self._ask(lambda leases: leases.read(), patient=True)
        except LedgerError as error:
            self._failed(error)

    async def run(self) -> None:
        """Rounds until `stop`; then everything is given back."""
        attending = asyncio.create_task(self._attend(), name="claims")
        try:
            await self._rounds()
        finally:
            attending.cancel()
            await asyncio.wait([attending])
        await self._leave()

    async def _rounds(self) -> None:
        while not self._stopping:
            try:
                await self._once()
            except LongshoreError as error:
                self._failed(error)
            # boundary: a bug in a round costs the leases in the end, not the hub
            except Exception as error:
                log.exception("A round with the lease table failed")
                self._failed(LedgerError(f"internal error: {type(error).__name__}"), tried=False)
            pause_s = max(0, self.leasing.next_deadline() - mono_ms()) / 1_000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _attend(self) -> None:
        """Whoever must know of it is told at once, also while a round waits for the table."""
        while True:
            await self._robbed.wait()
            self._robbed.clear()
            try:
                await self._hooks.changed(False)
            except LongshoreError as error:
                log.warning("Partitions went, and the hub could not be told: %s", error)
            # boundary: what is not held is not spoken for, whoever could not be told; the next claim has to be attended to, too
            except Exception:
                log.exception("Partitions went, and the hub could not be told")

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wake.set()

    def claimed(self, claim: Claim) -> None:
        """Another worker has a partition, by a claim that is the hub's. Where it is an older one's here, it is let go of at once."""
        if self.leasing.claimed(claim.partition, claim.fence):
            self.claimed_total += 1
            log.warning("lets go of partition %d: worker %r has taken it over", claim.partition, claim.worker)
            self._robbed.set()

    async def _leave(self) -> None:
        held = self.leasing.held(mono_ms())
        self.leasing.dropped(held)
        try:
            if held:
                await self._hooks.changed(False)
            if self._leases is not None:
                await self._ask(lambda leases: leases.leave(self.leasing.me))
        except LongshoreError as error:
            log.warning("The leases run out by themselves: %s", error)
        if self._late is not None:
            await asyncio.wait([self._late])
        if self._leases is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._leases.close)
        self._thread.shutdown()

    async def _ask(self, work: Callable[[Leases], T], *, patient: bool = False) -> T:
        """Waits for a third of a lease, or, where it is `patient`, as long as it takes. Errors: LedgerBusy: no answer in time."""
        loop = asyncio.get_running_loop()
        until_s = None if patient else loop.time() + self.leasing.settings.lease_ms / (1_000 * RENEWALS)
        late, self._late = self._late, None
        if late is not None:
            await self._answer(late, until_s)
        asked = loop.run_in_executor(self._thread, self._asked, work)
        await self._answer(asked, until_s)
        return asked.result()

    async def _answer(self, asked: asyncio.Future[Any], until_s: float | None) -> None:
        """Wait until it is done, and no longer. Errors: LedgerBusy."""
        left_s = None if until_s is None else max(0.0, until_s - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait([asked], timeout=left_s)
        if not done:
            self._late = asked
            asked.add_done_callback(asyncio.Future.exception)  # looked at, whatever it is
            raise LedgerBusy("the central store has not answered in time", remedy="it is asked again")

    def _asked(self, work: Callable[[Leases], T]) -> T:
        """In the thread of the leases; after a failure the table is opened anew."""
        if self._leases is None:
            self._leases = self._hooks.open_leases()
        try:
            return work(self._leases)
        except LedgerError:
            leases, self._leases = self._leases, None
            leases.close()
            raise

    def _failed(self, error: LongshoreError, *, tried: bool = True) -> None:
        if not self.problem:
            log.warning("The lease table was not reached: %s", error)
        self.problem = error.reason
        self.failures_total += 1
        self.leasing.failed(mono_ms(), tried=tried)

    # ------------------------------------------------------------ a round

    async def _once(self) -> None:
        if self.leasing.expired(mono_ms()):
            log.warning("The leases of this worker ran out while it was stopped; it speaks to nobody until it has new ones")
            await self._hooks.changed(False)
        if not self.leasing.round_due(mono_ms()):
            return
        self.leasing.begins(mono_ms())
        me = self.leasing.me._replace(place=self._place())
        table = await self._ask(lambda leases: leases.renew(me, self.leasing.settings.lease_ms))
        await self._follow(me, table)
        self.table, self.problem = table, ""

    async def _follow(self, me: Me, table: Table) -> None:
        plan = self.leasing.heard(table, mono_ms())
        if plan.lost or plan.release:
            log.info("lets go of %d partitions", len(plan.lost) + len(plan.release))
            await self._hooks.changed(False)
        if plan.release:
            await self._ask(lambda leases: leases.release(me, plan.release))
        if await self._read_register(table.nodes_version) and not plan.take:
            await self._hooks.changed(False)  # nodes at sites that nobody read until now
        if plan.take:
            granted = await self._ask(lambda leases: leases.take(me, plan.take))
            taken = self.leasing.took(granted, mono_ms())
            if taken:
                self.takeovers_total += len(taken)
                log.info("takes over %d partitions", len(taken))
                await self._hooks.changed(True)
                self._hooks.claim({partition: granted[partition] for partition in taken})

    # ------------------------------------------------------------ the register

    async def _read_register(self, newest: int) -> bool:
        """What others admitted is admitted here, and at the first look the other way round. True: there was something."""
        first, new = self._version < 0, False
        while self._version < newest:
            since = max(0, self._version)
            nodes, reached = await self._ask(lambda leases, since=since: leases.nodes_since(since))  # type: ignore[misc]
            here = {node.address.node: node for node, _ in await self._hooks.nodes()}
            for shared in nodes:
                self._known[shared.node] = shared
                new |= await self._take_in(shared, here.get(shared.node))
            self._version = max(reached, self._version)
            if not nodes:
                self._version = newest
        if first:
            self._version = max(0, self._version)
            for node, mosquitto in await self._hooks.nodes():
                if node.address.node not in self._known:
                    await self._share(_shared(node, mosquitto))
        return new

    async def _take_in(self, shared: SharedNode, here: Node | None) -> bool:
        if here is not None and _said(here) == _said(shared):
            return False
        place = shared.node, shared.org, shared.region, shared.site
        card = NodeCard(*place, shared.public_key, shared.password_hash, shared.mosquitto_hash, shared.staff)
        try:
            await self._hooks.admit(card, shared.orgs)
        except InvalidInput as error:
            log.warning("%s was admitted at another worker, and cannot be here: %s", shared.node, error)
            return False
        return True

    async def _share(self, node: SharedNode) -> None:
        try:
            await self._ask(lambda leases: leases.admit(node))
        except InvalidInput as error:
            log.warning("%s is admitted here, and the other workers know another: %s", node.node, error)

    async def admit(self, card: NodeCard, orgs: Sequence[str], now_ms: int) -> None:
        """Into the register, so that all workers learn of it. Errors: InvalidInput: name or key is another's; LedgerError."""
        mosquitto = card.mosquitto_hash
        place = card.org, card.region, card.site
        node = SharedNode(card.node, card.public_key, *place, card.password_hash, mosquitto, now_ms, tuple(orgs), card.staff)
        await self._ask(lambda leases: leases.admit(node))

    # ------------------------------------------------------------ shown

    def as_json(self) -> dict[str, Any]:
        """As `GET /v1/workers` and `longshore-hub workers` show it."""
        now = mono_ms()
        held, over = len(self.leasing.held(now)), self.leasing.held_over(now)
        return table_json(self.table, self.leasing.me.worker, held, self.troubles(), over=over)


def table_json(table: Table | None, here: str, held: int, troubles: Sequence[str], *, over: int = 0) -> dict[str, Any]:
    """Who lives, what each holds, and what is nobody's. `over`: of the partitions that are held here, those held beyond their lease."""
    rows = []
    for w in table.workers if table is not None else ():
        mine = [p for p in table.partitions if (p.worker, p.boot) == (w.worker, w.boot)] if table is not None else []
        rows.append(
            {
                "worker": w.worker, "here": w.worker == here, "place": w.place, "partitions": [p.partition for p in mine],
                "leaseLeftMs": w.left_ms, "aliveMs": w.age_ms, "lastChangeMs": min((p.age_ms for p in mine), default=None),
            }
        )  # fmt: skip
    free = [p.partition for p in table.partitions if not p.lives] if table is not None else []
    said = {"workers": rows, "unheld": free, "troubles": list(troubles)}
    return {"worker": here, "held": held, "heldOver": over, **said}


def mono_ms() -> int:
    """The clock that leases are counted by; it runs on while the process is stopped."""
    return time.monotonic_ns() // 1_000_000


def _said(node: Node | SharedNode) -> tuple[bytes, str, tuple[str, ...], str]:
    """What may change of a node that is admitted."""
    return node.public_key, node.password_hash, node.orgs, node.staff


def _shared(node: Node, mosquitto: str) -> SharedNode:
    a, key = node.address, node.public_key
    return SharedNode(a.node, key, a.org, a.region, a.site, node.password_hash, mosquitto, node.added_ms, node.orgs, node.staff)
