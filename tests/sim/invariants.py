"""The invariants by number: what each promises, and where in this folder it is checked. Every violation names one of them."""

from __future__ import annotations

from typing import Final, NamedTuple


class Invariant(NamedTuple):
    """What is promised, and how a world checks it."""

    promise: str
    checked: str


INVARIANTS: Final[dict[str, Invariant]] = {
    "I1": Invariant(
        "No loss: whatever a node said yes to is, after healing, in the central store, in quarantine or in a signed record; nothing is "
        "freed that the store or a backup of it lacks.",
        "after every commit of an edge, at eight moments on all disks, whenever a disk is destroyed, after healing",
    ),
    "I2": Invariant(
        "No phantom: nothing is held, stated or shown that its author never committed, or with other bytes.",
        "after every commit of hub and store, in every message of the hub",
    ),
    "I3": Invariant(
        "One effect per identity: one key is one fact, and the view counts and lists each fact once.", "at every answer, after healing"
    ),
    "I4": Invariant(
        "Each fact once per branch, after healing no hole; no view ever replaces a head by its ancestor.",
        "at every commit that touches an order (also at edges), after healing",
    ),
    "I5": Invariant(
        "What a receipt says is durable where it was said, as long as that incarnation's disk answers; settled is what the store has.",
        "in every message of the hub, at every change of what an edge believes",
    ),
    "I6": Invariant(
        "Convergence: the consolidated view is the oracle's fold, and each edge's view of its orders is the centre's.",
        "at every commit where no author is forked, after healing over all",
    ),
    "I7": Invariant(
        "Memory, queues and files stay within bounds in any outage, and nothing spins.",
        "at eight moments on every live machine, over the events of each phase",
    ),
    "I8": Invariant(
        "After healing the backlog reaches zero, and nobody restarts anything by hand; until then a worker that runs keeps its nodes, "
        "whether or not it reaches the store.",
        "a budget of events and of time; whenever a worker looks at its clock",
    ),
    "I9": Invariant(
        "The outcome is the same when any wall clock is shifted.",
        "worlds played again with every clock elsewhere: heads, states, the store",
    ),
    "I10": Invariant(
        "Organisations, regions and sites do not see each other's orders.",
        "at every message on its way to a node, on all disks after healing; two organisations with the same order ids",
    ),
    "I11": Invariant(
        "The audit chain shows every edit, deletion, insertion, reordering and cut.",
        "a walk over every disk after healing; a disk tampered with in each way must be found out",
    ),
    "I12": Invariant(
        "Versions N-1 and N work together, and old files open.", "worlds with golden databases and with nodes that know version 1 only"
    ),
    "I13": Invariant(
        "Forks are found at the next sync, and both branches reach the store.",
        "after healing: every fork is known to hub and author's node",
    ),
}
