"""Which world a seed is. The number says the profile, so that one number replays any world for good:

- 0 and up: `small`, many shapes of small worlds (`options.draw`);
- 1,000,000 and up: `fortnight`, 14 days of 8 edges with everything that a broker, disks, a store and a bus have done to anybody;
- 2,000,000 and up: `long`, years with few events and outages to 400 days, beyond 2^31 ms;
- 3,000,000 and up: `golden`, days that begin with the databases that version 1 left behind;
- 4,000,000 and up: `workers`, days of a hub with two or three workers on one central store;
- 5,000,000 and up: `phones`, days in which phones follow the tasks of their staff and roam between gateways.

Each fault is drawn from a generator of its own: one more of them moves none of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from protocols.sync.uplink import UplinkSettings
from tests.sim.options import DAY, FAULTS, HOLD_MS, HOUR, MINUTE, SECOND, Options, Plan, draw, levels, limits, make_plan, rhythms

BASES: Final = {"small": 0, "fortnight": 1_000_000, "long": 2_000_000, "golden": 3_000_000, "workers": 4_000_000, "phones": 5_000_000}
FAULT_WORDS: Final[dict[str, tuple[str, str]]] = {
    "loss": ("messages are lost", "2, 10 or 30 %"),
    "duplicates": ("messages arrive twice", "5, 20 or 50 %"),
    "delays": ("messages take long and overtake each other", "2 to 30 % of them by up to 3 h"),
    "reordering": ("the broker lets messages pile up and hands them out in any order", "windows of 4, 30 or 1,000, for up to 1 h"),
    "queue_cut": ("the broker cuts the queue of a session", "at 4, 20 or 1,000 messages"),
    "broker_swallows": ("the broker acknowledges everything and passes on nothing", "up to a day at a time"),
    "broker_restarts": ("the broker restarts and has forgotten everything", "up to 3 times"),
    "damage": ("messages are damaged or cut short", "1 or 5 %"),
    "forgery": ("a stranger forges frames and receipts", "2 or 5 %"),
    "stale": ("a broker replays what it kept for an earlier session", "at 30 or 100 % of the connections"),
    "sessions": ("all sessions drop", "up to 5 times"),
    "partitions": ("an edge is cut off, noticed or in silence", "up to 14 days, small worlds 45, long ones 400"),
    "edge_crashes": (
        "an edge dies before or after a commit, or among its effects",
        "0.5 to 8 % of its turns, at most 3 times in a fortieth of the time",
    ),
    "hub_crashes": ("the hub dies, likewise", "0.5 to 5 % of its turns, at most as often"),
    "edge_disk_full": ("the disk of an edge is full", "room for 0 to 3 pages, up to a day"),
    "hub_disk_full": ("the disk of the hub is full", "likewise"),
    "store_disk_full": ("the disk of the central store is full", "likewise"),
    "hub_full": ("the budget of the hub is used up: no credit", "up to a quarter of the world's time"),
    "store_failures": ("the store fails before or after its commit, or the word of it is lost", "5 or 30 % of the batches"),
    "store_away": ("the store cannot be reached", "up to 3 days at a time"),
    "late_statements": ("the store says late what it holds", "up to 30 min"),
    "clones": ("a card is cloned and both machines run", "up to twice"),
    "edge_restores": ("an edge comes back from an older copy", "once or twice, also twice in a row"),
    "blanks": ("an edge is replaced by an empty one", "once"),
    "hub_restores": ("the hub comes back from an older backup", "once or twice"),
    "store_restores": ("the central store comes back from an older backup", "once or twice"),
    "clocks": ("a wall clock steps", "by an hour, 400 days or 40 years, up to 3 times"),
    "poison": ("facts of a later version, and facts that are no facts", "2 or 10 % of the requests"),
    "strangers": ("an edge that nobody has admitted sends for days", "once"),
    "worker_kills": ("a worker of the hub is killed and comes back", "up to 4 times; worlds with workers only, as the next four"),
    "worker_pauses": ("a worker is stopped, often for longer than its lease, and goes on as if nothing had been", "up to 6 times"),
    "worker_leaves": ("a worker leaves in order, and comes back", "up to 3 times"),
    "worker_cuts": ("a worker alone cannot reach the central store", "up to 3 times, often for longer than its lease"),
    "worker_outages": ("no worker can reach it", "likewise"),
}
"""what each fault is, and how much of it a world has that has it: a table of RELIABILITY.md"""
MORE_FAULTS: Final = (
    "broker_swallows", "broker_restarts", "queue_cut", "reordering", "store_away", "edge_disk_full", "hub_disk_full", "store_disk_full",
)  # fmt: skip
"""kinds of trouble that only the later profiles have"""
EVERY_FAULT: Final = (*FAULTS, *MORE_FAULTS)
WORKER_FAULTS: Final = {"worker_kills": 4, "worker_pauses": 6, "worker_leaves": 3}
WORKER_OUTAGES: Final = {"worker_cuts": 3, "worker_outages": 3}
"""what happens where a hub has several workers, and how often at the most; the outages of their store each from a generator of its own"""


def profile_of(seed: int) -> str:
    """The profile that a seed belongs to."""
    return max((base, name) for name, base in BASES.items() if base <= seed)[1]


def world_of(seed: int) -> Options:
    """The world of a seed."""
    name = profile_of(seed)
    if name == "small":
        return draw(seed)
    return _drawn(seed, PROFILES[name])


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of the worlds of one profile."""

    name: str
    edges: tuple[int, ...]
    duration_ms: tuple[int, ...]
    orders: tuple[int, ...]
    requests: tuple[int, ...]
    outage_ms: tuple[int, ...]
    sure_outage_ms: tuple[int, int] = (0, 0)
    """one edge of each world is away for so long"""


FORTNIGHT: Final = Profile("fortnight", (8,), (14 * DAY,), (20, 60, 150), (100, 160, 240), (HOUR, DAY, 5 * DAY, 14 * DAY))
LONG: Final = Profile("long", (2, 3), (500 * DAY, 900 * DAY), (8, 30), (60, 100), (30 * DAY, 200 * DAY, 400 * DAY), (200 * DAY, 400 * DAY))
GOLDEN: Final = Profile("golden", (4,), (DAY, 5 * DAY), (5, 20), (30, 80), (HOUR, DAY))
WORKERS: Final = Profile("workers", (3, 5, 8), (DAY, 5 * DAY), (5, 20), (60, 120), (HOUR, DAY))
PHONES: Final = Profile("phones", (2, 3), (DAY, 5 * DAY), (5, 20), (60, 120), (HOUR, DAY))
PROFILES: Final = {profile.name: profile for profile in (FORTNIGHT, LONG, GOLDEN, WORKERS, PHONES)}


def _drawn(seed: int, profile: Profile) -> Options:
    rng = Random(f"{seed}/{profile.name}")
    quiet, chance = rng.random() < 0.03, rng.choice((0.1, 0.25, 0.4))
    has = (name for name in EVERY_FAULT if Random(f"{seed}/has {name}").random() < chance)
    faults = () if quiet else tuple(has)
    duration, edges, backups = rng.choice(profile.duration_ms), rng.choice(profile.edges), rng.random() < 0.5
    options: dict[str, Any] = {
        "seed": seed,
        "profile": profile.name,
        "faults": faults,
        "edges": edges,
        "duration_ms": duration,
        "orders": rng.choice(profile.orders),
        "requests": rng.choice(profile.requests),
        "real_keys": rng.random() < 0.02,
        "uplink": _slower(rhythms(rng, duration), duration),
        **limits(rng, duration, backups=backups, hand_over_facts=(5, 30, 200)),
        "reports": Random(f"{seed}/reports").choice((0, 0, 30, 60)),
        "telemetry_bytes": Random(f"{seed}/telemetry").choice((0, 1_500, 5_000)),
        "budget_bytes": Random(f"{seed}/budget").choice((66_000, 90_000, *[1_000_000_000] * 8)),
        "hold_ms": Random(f"{seed}/hold").choice(HOLD_MS),
        "orgs": Random(f"{seed}/orgs").choice((1, 1, 2)),
        "sites": Random(f"{seed}/sites").choice((0, 3)),
    }
    options |= levels(Random(f"{seed}/levels"), faults) | _broker_levels(Random(f"{seed}/broker"), faults)
    options |= _versions(Random(f"{seed}/versions"), edges)
    plan = Plan(Random(f"{seed}/plan"), duration, edges, outage_ms=profile.outage_ms)
    make_plan(plan, faults, backups)
    if profile.sure_outage_ms[1]:
        plan.add(plan.rng.randrange(duration // 2), "partitions", plan.edge(), plan.rng.randint(*profile.sure_outage_ms), 0)
    upgrades = Random(f"{seed}/upgrades")
    plan.events += [(upgrades.randrange(duration), "upgrades", (n, 0)) for n in options["old"] if upgrades.random() < 0.6]
    if profile is PHONES:
        options |= {"phones": Random(f"{seed}/phones").choice((1, 2, 3)), "orgs": 1, "old": (), "old_hub": False, "budget_bytes": 10**9}
    if profile is WORKERS:
        options |= _workers(seed, duration, plan)
    for name in MORE_FAULTS:
        _more(Plan(Random(f"{seed}/plan {name}"), duration, edges, events=plan.events, hot=plan.hot), name, faults)
    return Options(**options, plan=tuple(sorted(plan.events)))


def _versions(rng: Random, edges: int) -> dict[str, Any]:
    """Who still knows version 1 only: nobody, some edges, or the hub."""
    drawn = rng.random()
    old = tuple(n for n in range(edges) if rng.random() < 0.4) if drawn < 0.15 else ()
    return {"old": old, "old_hub": 0.15 <= drawn < 0.25}


def _workers(seed: int, duration_ms: int, plan: Plan) -> dict[str, Any]:
    """How many workers, how long their leases, and what befalls them: outages about as long as a lease, and much longer ones."""
    rng = Random(f"{seed}/workers")
    lease_ms = duration_ms // rng.choice((60, 150, 300))
    for name, most in WORKER_FAULTS.items():
        for _ in range(rng.randint(0, most)):
            for_ms = rng.randint(1, rng.choice((lease_ms // 2, 2 * lease_ms, 2 * lease_ms, duration_ms // 6)))
            plan.events.append((rng.randrange(duration_ms), name, (rng.randrange(3), for_ms)))
    for name, most in WORKER_OUTAGES.items():
        other = Random(f"{seed}/{name}")
        for _ in range(other.randint(0, most)):
            for_ms = other.randint(1, other.choice((lease_ms // 2, 2 * lease_ms, 5 * lease_ms, duration_ms // 6)))
            plan.events.append((other.randrange(duration_ms), name, (other.randrange(3), for_ms)))
    return {"workers": rng.choice((2, 2, 3)), "lease_ms": lease_ms}


def _slower(u: UplinkSettings, duration_ms: int) -> UplinkSettings:
    """Days instead of hours: what is not there is asked for again after minutes, so that a world of weeks costs seconds."""
    retry = 10 * u.retry_ms
    return replace(u, retry_ms=retry, retry_most_ms=max(8 * retry, duration_ms // 100), stall_ms=max(12 * retry, duration_ms // 100))


def _broker_levels(rng: Random, faults: tuple[str, ...]) -> dict[str, object]:
    """Limits of the real ones (1,000), and small ones that a small world reaches."""
    limit, window, hold = rng.choice((4, 20, 1_000)), rng.choice((4, 30, 1_000)), rng.choice((SECOND, MINUTE, HOUR))
    reorders = "reordering" in faults
    return {
        "queue_limit": limit if "queue_cut" in faults else 0,
        "reorder": window if reorders else 0,
        "reorder_ms": hold if reorders else 0,
    }


def _more(plan: Plan, name: str, faults: tuple[str, ...]) -> None:
    """When the faults of a set time strike: 1 to 3 times, some just when much is under way."""
    if name not in faults or name in ("queue_cut", "reordering"):
        return
    longest = {"broker_swallows": DAY, "store_away": 3 * DAY}.get(name, DAY)
    for _ in range(plan.rng.randint(1, 3)):
        plan.add(plan.when(), name, plan.edge(), plan.rng.randint(1, plan.rng.choice((MINUTE, HOUR, longest))))
