"""A world whose hub has several workers on one central store: production leases and cores, the rounds of their shell, and what happens to
workers: they are killed, stopped for longer than a lease and go on, leave and come back, are cut off from the store, all of them or one
alone, while partitions move to and fro. Claims go over the broker, with all that it does to messages; it keeps the last of each partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from hub.leasing import LeaseSettings, Leasing, partition_of
from hub.store.leases import TABLES, Me, SharedNode, SqlLeases, Table
from protocols.claims import Claim, read_claim, seal_claim
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.trust import NodeCard
from tests.sim.checkers import demand
from tests.sim.edgeproc import EdgeProc
from tests.sim.hubproc import HubProc
from tests.sim.world import World

PARTITIONS = 5
ROUND_TRIP_MS = 20


class Worker(HubProc):
    """A worker: a hub with leases. `subscribed`: partitions whose nodes the broker gives it; that outlives a stop, and no death.

    `blind`: it looks at its clock in its rounds only, as a shell would that checks nothing when it speaks: after a stop it speaks for what
    another has taken over since, until its next round. That must cost time and nothing else.
    """

    def __init__(self, world: WorkersWorld, name: str, *, blind: bool) -> None:
        super().__init__(world, world.first_disk(name), name)
        self.workers, self.blind = world, blind
        self.subscribed: dict[int, None] = {}
        self.leasing = Leasing(Me(name, 0), LeaseSettings(PARTITIONS, world.options.lease_ms))
        self._nodes_version = 0
        self._cut_until = 0
        self._ran = 0
        """when it was last seen to run"""
        self._mono_from = world.rng(f"clock/{name}").randrange(1_000_000)

    def mono(self) -> int:
        """Its monotonic clock."""
        return self.world.now + self._mono_from

    @property
    def store_away_until(self) -> int:
        """See `HubProc`."""
        cut = self._cut_until if self.world.faulty and self.world.now < self._cut_until else 0
        return max(super().store_away_until, cut)

    @property
    def cut_lately(self) -> bool:
        """Does it perhaps not know yet what the store says?"""
        return self.world.now < self._cut_until + self.leasing.settings.lease_ms

    def cut_off(self, for_ms: int) -> None:
        """It alone does not reach the store for a while."""
        self._cut_until = self.world.now + for_ms

    def open(self) -> None:
        """See `Proc.open`."""
        super().open()
        rng: Random = self.world.rng(f"boot/{self.name}/{self.boots}")
        self.leasing = Leasing(Me(self.name, rng.getrandbits(62)), self.leasing.settings)
        self._nodes_version = 0
        self.core.serving.only = self.serves
        self._ran = self.world.now
        for data in self.workers.claims.values():  # as the broker gives them to whoever comes
            self.workers.carry_claim(self, data)
        self.world.after(0, self._tick, self.boots)

    def serves(self, address: Address) -> bool:
        """Is it this worker that speaks to a node?"""
        partition = partition_of(address.org, address.site, PARTITIONS)
        return partition in self.subscribed and (self.blind or self.leasing.holds(partition, self.mono()))

    def stop(self) -> None:
        """See `Proc.stop`: the broker drops its session."""
        super().stop()
        self.subscribed = {}

    def leave(self) -> None:
        """An orderly end."""
        self._let_go(self.leasing.held(self.mono()))
        if not self.store_away_until:
            self.workers.leases.leave(self.leasing.me)
        self.world.count("worker left")
        self.world.say(self.name, "leaves")
        self.stop()

    # ------------------------------------------------------------ a round, with the moments between which it may be stopped

    def _gone(self, boot: int) -> bool:
        return not self.alive or boot != self.boots

    def _tick(self, boot: int) -> None:
        if self._gone(boot) or self.held_up(self._tick, boot):
            return
        now = self.mono()
        gone = self.leasing.expired(now)
        demand(not gone or self._stopped_lately, f"I8 {self.name} runs, and gives partitions {list(gone)} up by its clock")
        self._ran = self.world.now
        self._let_go(dict.fromkeys(gone, 0))
        if self.leasing.round_due(now):
            if self.store_away_until:
                self.leasing.failed(now)
                self.world.count("round without the store")
            else:
                self.leasing.begins(now)
                self.world.after(ROUND_TRIP_MS // 2, self._at_store, boot)
        self.world.after(max(1, min(self.leasing.next_deadline() - now, self.leasing.settings.lease_ms)), self._tick, boot)

    @property
    def _stopped_lately(self) -> bool:
        """Since it last looked at its clock it was stopped for a good part of a lease."""
        return self.world.now - self._ran > self.leasing.settings.lease_ms // 3 + ROUND_TRIP_MS

    def hears(self, data: bytes, boot: int) -> None:
        """A claim comes from the broker."""
        if self._gone(boot) or self.held_up(self.hears, data, boot):
            return
        claim = read_claim(data).claim
        if self.leasing.claimed(claim.partition, claim.fence):
            self.world.count("partition let go of on a claim")
            self._let_go({claim.partition: 0})

    def _at_store(self, boot: int) -> None:
        if not self._gone(boot):  # on the wire already: also for one that is stopped
            table = self.workers.leases.renew(self.leasing.me, self.leasing.settings.lease_ms)
            self.world.after(ROUND_TRIP_MS // 2, self._plan, boot, table)

    def _plan(self, boot: int, table: Table) -> None:
        if self._gone(boot) or self.held_up(self._plan, boot, table):
            return
        now = self.mono()
        self._let_go(dict.fromkeys(self.leasing.expired(now), 0))
        plan = self.leasing.heard(table, now)
        self._let_go(dict.fromkeys((*plan.lost, *(p for p, _ in plan.release)), 0))
        leases, me = self.workers.leases, self.leasing.me
        if plan.release:
            leases.release(me, plan.release)
        nodes, self._nodes_version = leases.nodes_since(self._nodes_version)
        for n in nodes:
            self.give(NodeCard(n.node, n.org, n.region, n.site, n.public_key, n.password_hash))
        if plan.take:
            granted = leases.take(me, plan.take)
            self.world.after(ROUND_TRIP_MS // 2, self._took, boot, granted)

    def _took(self, boot: int, granted: Mapping[int, int]) -> None:
        if self._gone(boot) or self.held_up(self._took, boot, granted):
            return
        taken = self.leasing.took(granted, self.mono())
        for other in self.workers.workers:
            both = [p for p in taken if other is not self and other.alive and other.leasing.holds(p, other.mono())]
            fine = other.paused_until > self.world.now or other.cut_lately
            demand(not both or fine, f"I5 {self.name} and {other.name} both hold partitions {both}")
        if taken:
            self.workers.claim(self, {p: granted[p] for p in taken})
            self.world.count("partitions taken over", len(taken))
            self.world.say(self.name, f"takes partitions {list(taken)}")
            self.subscribed |= dict.fromkeys(taken)
            self.core.hands_changed(taken=True)
            self.look([], [])

    def _let_go(self, partitions: Mapping[int, int]) -> None:
        if any(p in self.subscribed for p in partitions):
            self.world.say(self.name, f"lets go of partitions {list(partitions)}")
            self.subscribed = {p: None for p in self.subscribed if p not in partitions}
            self.core.hands_changed(taken=False)


class WorkersWorld(World):
    """See the module. `claims`: what the broker keeps, by partition."""

    workers: list[Worker]
    claims: dict[int, bytes]

    def make_hubs(self) -> list[HubProc]:
        """See `World`."""
        db = Db(":memory:")
        migrate(db, TABLES, part="workers")
        self.leases = SqlLeases(db, lambda: self.wall, PARTITIONS)
        self.claims = {}
        self._claims_rng = self.rng("claims")
        self._which = self.rng("which worker")
        blind = self.rng("zombies").random() < 0.5
        self.workers = [Worker(self, "hub" if not n else f"hub-{n + 1}", blind=blind) for n in range(self.options.workers)]
        return list(self.workers)

    def claim(self, worker: Worker, fences: Mapping[int, int]) -> None:
        """A worker says over the broker what it has taken."""
        me = worker.leasing.me
        for partition, fence in fences.items():
            data = seal_claim(Claim(partition, fence, me.worker, me.boot), self.keys.signer(self.hub_address.node))
            self.claims[partition] = data
            for other in self.workers:
                if other.alive:
                    self.carry_claim(other, data)

    def carry_claim(self, worker: Worker, data: bytes) -> None:
        """A claim is on its way to a worker."""
        delay_ms = self._claims_rng.randrange(1, self.options.latency_ms + 1)
        self.net.broker.carry(worker.name, delay_ms, worker.hears, data, worker.boots)

    def some_hub(self) -> HubProc:
        """See `World`."""
        return self._which.choice(self.hubs)

    def readers(self, edge: EdgeProc) -> list[HubProc]:
        """See `World`: whoever has subscribed; after a takeover from one that is only stopped, two."""
        partition = partition_of(edge.address.org, edge.address.site, PARTITIONS)
        return [worker for worker in self.workers if partition in worker.subscribed]

    def owner(self, edge: EdgeProc) -> HubProc | None:
        """See `World`."""
        partition = partition_of(edge.address.org, edge.address.site, PARTITIONS)
        return next((w for w in self.workers if w.alive and partition in w.subscribed and w.leasing.holds(partition, w.mono())), None)

    def operator(self) -> None:
        """See `World`: the register is one, whichever worker is asked."""
        for node in dict.fromkeys(e.node for e in self.edges):
            if node not in self.strangers and not self.store.away_until:
                at = next(e.address for e in self.edges if e.node == node)
                self.leases.admit(SharedNode(node, self.keys.public(node), at.org, at.region, at.site, "scrypt$none", "", 1, ()))
        self.after(max(1, self.options.duration_ms // 50), self.operator)

    def heal(self) -> None:
        """See `World`."""
        for worker in self.workers:
            worker.paused_until = 0
            if worker.cut_lately:
                worker.cut_off(0)
        super().heal()

    def close(self) -> None:
        """See `World`."""
        super().close()
        self.leases.close()

    # ------------------------------------------------------------ faults of the plan

    def strike(self, kind: str, n: int, for_ms: int) -> None:
        """Something happens to a worker."""
        worker = self.workers[n % len(self.workers)]
        if not worker.alive or worker.paused_until > self.now or not self.faulty:
            return
        if kind == "pauses":
            self.count("worker stopped for a while")
            self.say(worker.name, f"is stopped for {for_ms / 1000:.0f} s")
            worker.paused_until = self.now + for_ms
        elif kind == "cuts":
            self.count("worker cut off from the store alone")
            self.say(worker.name, f"is cut off from the store for {for_ms / 1000:.0f} s")
            worker.cut_off(for_ms)
        elif kind == "leaves":
            worker.leave()
            self.after(for_ms, self._returns, worker, worker.boots)
        else:
            self.count("worker killed")
            self.say(worker.name, f"is killed, and gone for {for_ms / 1000:.0f} s")
            worker.stop()
            self.after(for_ms, self._returns, worker, worker.boots)

    def _returns(self, worker: Worker, boot: int) -> None:
        if not worker.alive and worker.boots == boot:
            worker.start()
