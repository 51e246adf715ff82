"""What exists in one world: everything that a seed draws before it begins. Swarm testing: most seeds have only some of the faults.

Seeds that failed are replayed for good, so a seed must keep its meaning: new draws come last, or from a generator of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from edge_agent.relay import RelaySettings
from protocols.sync.follow import FollowSettings
from protocols.sync.uplink import UplinkSettings

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

FAULTS: Final = (
    "loss", "duplicates", "delays", "damage", "forgery", "partitions", "sessions", "edge_crashes", "hub_crashes", "clones", "edge_restores",
    "blanks", "hub_restores", "store_failures", "store_restores", "late_statements", "clocks", "poison", "strangers", "stale", "hub_full",
)  # fmt: skip
"""kinds of trouble that a world may have; each seed draws which"""


HOLD_MS: Final = (0, 500, 500)
"""as the product has it, and none"""
SMALL: Final = UplinkSettings(frame_facts=4, window_facts=12)


@dataclass(frozen=True, slots=True)
class Options:
    """One world. Probabilities are 0..1 per message or step, times in ms of virtual time, `plan` the faults that come at a set time."""

    seed: int
    faults: tuple[str, ...] = ()
    edges: int = 2
    duration_ms: int = 2 * DAY
    orders: int = 10
    requests: int = 60
    real_keys: bool = False
    uplink: UplinkSettings = SMALL
    heartbeat_ms: int = HOUR
    floor_ms: int = 7 * DAY
    pressed: bool = False
    """edges free what is settled although no backup is configured"""
    backups: bool = False
    """the central store has backups; they are begun at times of the plan, and the last two can be restored"""
    credit_facts: int = 40
    hold_ms: int = 0
    """so long the hub's receipts to who says little wait for the store's word"""
    hand_over_facts: int = 20
    ask_store_ms: int = HOUR
    segments: int = 16
    group_ms: int = 5
    loss: float = 0.0
    duplicates: float = 0.0
    damage: float = 0.0
    forgery: float = 0.0
    latency_ms: int = 100
    slow: float = 0.0
    slow_ms: int = 0
    edge_crashes: float = 0.0
    hub_crashes: float = 0.0
    store_failures: float = 0.0
    late_statement_ms: int = 0
    stale: float = 0.0
    poison: float = 0.0
    skew_ms: int = 0
    budget_bytes: int = 1_000_000_000
    """of an edge's ledger; a small one is used up, and requests are refused until something may be freed"""
    queue_limit: int = 0
    """messages that the broker keeps for one session; beyond them it drops what comes. 0: no limit"""
    reorder: int = 0
    """messages that the broker lets pile up and then hands out in any order. 0: none"""
    reorder_ms: int = 0
    """after this long it hands out what has piled up, also when that is less"""
    workers: int = 1
    """of the hub; beyond one they share the nodes by leases"""
    lease_ms: int = 0
    reports: int = 0
    """times that devices report readings, some at a time"""
    telemetry_bytes: int = 0
    """what telemetry may take of an edge's ledger; 0: a quarter of its budget"""
    orgs: int = 1
    """organisations that share the hub, and use the same order ids"""
    sites: int = 0
    """sites that the edges share; 0: each edge is a site by itself"""
    old: tuple[int, ...] = ()
    """edges that know version 1 only, until the plan upgrades them"""
    old_hub: bool = False
    phones: int = 0
    """beside the edges, each the phone of somebody, who roams"""
    profile: str = "small"
    plan: tuple[tuple[int, str, tuple[int, ...]], ...] = ()
    """(when, which fault, its numbers), ascending"""

    @property
    def relay(self) -> RelaySettings:
        """The rhythm of what is asked about others' facts: that of the uplink."""
        u = self.uplink
        return RelaySettings(retry_ms=u.retry_ms, retry_most_ms=max(u.retry_most_ms, u.idle_hello_ms // 2), ask_ms=u.idle_hello_ms // 8)

    @property
    def follow(self) -> FollowSettings:
        """The rhythm of the downlink: that of the uplink."""
        u = self.uplink
        return FollowSettings(self.credit_facts, u.retry_ms, u.retry_most_ms, u.idle_hello_ms, max(DAY, self.duration_ms // 4))


@dataclass(slots=True)
class Plan:
    """What strikes when, while it is drawn. `outage_ms`: the longest outages to choose from."""

    rng: Random
    duration_ms: int
    edges: int
    events: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    hot: list[int] = field(default_factory=list)
    """moments at which much is under way: a link is just back"""
    outage_ms: tuple[int, ...] = (MINUTE, HOUR, DAY, 14 * DAY, 45 * DAY)

    def when(self) -> int:
        """A moment; often one at which much is under way."""
        if self.hot and self.rng.random() < 0.4:
            return self.rng.choice(self.hot) + self.rng.randrange(30 * SECOND)
        return self.rng.randrange(self.duration_ms)

    def edge(self) -> int:
        """One of the edges."""
        return self.rng.randrange(self.edges)

    def add(self, at: int, kind: str, *numbers: int) -> None:
        """Let it strike at that moment, or at the end."""
        self.events.append((min(at, self.duration_ms - 1), kind, numbers))


def draw(seed: int) -> Options:
    """The world of a seed."""
    rng = Random(f"{seed}/options")
    quiet = rng.random() < 0.05
    chance = rng.choice((0.2, 0.35, 0.5))
    faults = tuple(name for name in FAULTS if not quiet and rng.random() < chance)
    duration = rng.choice((6 * HOUR, DAY, 3 * DAY, 20 * DAY, 60 * DAY))
    edges = rng.choice((1, 2, 2, 3, 3, 4, 6))
    backups = rng.random() < 0.5
    options: dict[str, object] = {
        "seed": seed,
        "faults": faults,
        "edges": edges,
        "duration_ms": duration,
        "orders": rng.choice((2, 5, 12, 30)),
        "requests": rng.choice((20, 50, 100, 180)),
        "real_keys": rng.random() < 0.06,
        "uplink": rhythms(rng, duration),
        **limits(rng, duration, backups=backups, hand_over_facts=(1, 5, 30)),
    }
    options |= levels(rng, faults)
    options["budget_bytes"] = Random(f"{seed}/budget").choice((61_000, 66_000, *[1_000_000_000] * 8))
    options["hold_ms"] = Random(f"{seed}/hold").choice(HOLD_MS)
    plan = Plan(rng, duration, edges)
    make_plan(plan, faults, backups)
    return Options(**options, plan=tuple(sorted(plan.events)))  # type: ignore[arg-type]


def rhythms(rng: Random, duration_ms: int) -> UplinkSettings:
    """Small limits, and rhythms that fit a world of this length."""
    frame = rng.choice((1, 2, 3, 8))
    retry = rng.choice((2 * SECOND, 10 * SECOND, MINUTE))
    return UplinkSettings(
        frame_facts=frame,
        window_facts=rng.choice((frame, 10, 40)),
        live_share_percent=rng.choice((0, 25, 50)),
        linger_ms=rng.choice((0, 20, 500)),
        retry_ms=retry,
        retry_most_ms=max(4 * retry, duration_ms // 200),
        idle_hello_ms=max(4 * retry, duration_ms // rng.choice((8, 20, 40))),
        stall_ms=max(6 * retry, duration_ms // 300),
        level=1,
    )


def limits(rng: Random, duration_ms: int, *, backups: bool, hand_over_facts: Sequence[int]) -> dict[str, object]:
    """How often is asked and told, how much at once, what is kept how long; `hand_over_facts` to choose from."""
    return {
        "heartbeat_ms": duration_ms // rng.choice((10, 25, 50)),
        "floor_ms": rng.choice((0, DAY, 7 * DAY)),
        "backups": backups,
        "pressed": not backups and rng.random() < 0.5,
        "credit_facts": rng.choice((5, 20, 100)),
        "hand_over_facts": rng.choice(hand_over_facts),
        "ask_store_ms": duration_ms // rng.choice((5, 20, 60)),
        "segments": rng.choice((12, 16, 64)),
        "group_ms": rng.choice((0, 5, 40)),
        "latency_ms": rng.choice((2, 100, 800)),
    }


def levels(rng: Random, faults: tuple[str, ...]) -> dict[str, object]:
    """How often the faults strike that are drawn anew for each message or step."""

    def level(name: str, *choices: float) -> float:
        drawn = rng.choice(choices)
        return drawn if name in faults else 0.0

    return {
        "loss": level("loss", 0.02, 0.1, 0.3),
        "duplicates": level("duplicates", 0.05, 0.2, 0.5),
        "damage": level("damage", 0.01, 0.05),
        "forgery": level("forgery", 0.02, 0.05),
        "slow": level("delays", 0.02, 0.1, 0.3),
        "slow_ms": int(level("delays", 5 * SECOND, 10 * MINUTE, 3 * HOUR)),
        "edge_crashes": level("edge_crashes", 0.005, 0.02, 0.08),
        "hub_crashes": level("hub_crashes", 0.005, 0.02, 0.05),
        "store_failures": level("store_failures", 0.05, 0.3),
        "late_statement_ms": int(level("late_statements", SECOND, MINUTE, 30 * MINUTE)),
        "stale": level("stale", 0.3, 1.0),
        "poison": level("poison", 0.02, 0.1),
        "skew_ms": int(level("clocks", HOUR, 400 * DAY, 40 * 365 * DAY)),
    }


def make_plan(plan: Plan, faults: tuple[str, ...], backups: bool) -> None:
    """Put what strikes at a set time into the plan."""
    rng, duration = plan.rng, plan.duration_ms
    for _ in range(rng.randint(1, 6) if "partitions" in faults else 0):
        longest = rng.choice(plan.outage_ms)
        at, for_ms = rng.randrange(duration), rng.randint(1, longest)
        plan.add(at, "partitions", plan.edge(), for_ms, int(rng.random() < 0.3))
        plan.hot += [at + for_ms] if at + for_ms < duration else []
    for kind, most in (("clones", 2), ("blanks", 1), ("strangers", 1), ("clocks", 3), ("hub_full", 1)):
        for _ in range(rng.randint(1, most) if kind in faults else 0):
            plan.add(plan.when(), kind, plan.edge(), rng.randrange(duration // 4))
    for _ in range(rng.randint(1, 5) if "sessions" in faults else 0):
        plan.add(plan.when(), "sessions")
    for kind in ("edge_restores", "hub_restores", "store_restores"):
        if kind in faults:
            _copy_and_restore(plan, kind)
    for _ in range(rng.randint(1, 4) if backups else 0):
        plan.add(plan.when(), "store_backup")


def _copy_and_restore(plan: Plan, kind: str) -> None:
    """A copy, and once or twice a return to it; sometimes twice in a row."""
    edge, taken = plan.edge(), plan.when()
    plan.add(taken, "store_backup" if kind == "store_restores" else kind.replace("_restores", "_copy"), edge)
    for _ in range(plan.rng.choice((1, 1, 2))):
        taken += plan.rng.randrange(max(1, plan.duration_ms - taken)) // plan.rng.choice((1, 2, 50)) + 1
        plan.add(taken, kind, edge)
