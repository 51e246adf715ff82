"""What a line may do wrong, as values: a `Fault` is all that is wrong with it at a moment, a script is faults in their order of time.

A direction is `up` (from who connected to who listened) or `down`. Everything is JSON on the way into a journal and back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

UP: Final = "up"
DOWN: Final = "down"
BOTH: Final = "both"
DIRECTIONS: Final = (UP, DOWN)

NEAR: Final = "near"
FAR: Final = "far"


@dataclass(frozen=True, slots=True)
class Fault:
    """All that is wrong with a line; the default is nothing.

    `latency_ms`, `jitter_ms`: each piece of data waits so long, and up to so much longer; order is kept, as TCP keeps it.
    `rate_bytes_s`: bytes a second in each direction; 0: as many as come.
    `reset_up_at`, `reset_down_at`: a connection is reset after it carried exactly so many bytes of that direction, counted from its start
    or, for one that stood already, from the moment of the fault. `step`: each later connection carries so many more, so that
    resets walk through a frame byte by byte.
    `gone`: a side vanishes and the other is not told (half-open): what the survivor says is swallowed, also after the line has healed.
    `lose`: the line carries one direction only, what is said in the other is lost. A connection that lost something cannot go on.
    `corrupt_per_million`: bytes of a million that arrive as others. `corrupt_up_at`, `corrupt_down_at`: exactly this byte
    of that direction does, on the first connection that comes so far, and on no other.
    `stall`: nothing moves and nothing is lost. `refuse`: who connects is reset at once.
    """

    latency_ms: int = 0
    jitter_ms: int = 0
    rate_bytes_s: int = 0
    reset_up_at: int | None = None
    reset_down_at: int | None = None
    step: int = 0
    gone: str = ""
    lose: str = ""
    corrupt_per_million: int = 0
    corrupt_up_at: int | None = None
    corrupt_down_at: int | None = None
    stall: bool = False
    refuse: bool = False

    def as_json(self) -> dict[str, Any]:
        """What differs from a healthy line."""
        healthy = asdict(HEALTHY)
        return {name: value for name, value in asdict(self).items() if value != healthy[name]}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Fault:
        """What `as_json` gave."""
        return cls(**said)


HEALTHY: Final = Fault()

Script = list[tuple[float, Fault]]
"""(seconds since its start, what is wrong from then on)"""


def draw(rng: Random, *, integrity: bool) -> Fault:
    """A fault of any kind. `integrity`: the protocol on this line finds out when bytes were changed; without, none are.

    A request over plain HTTP has nothing that shows a changed digit, so there corruption would be the test's lie, not the product's loss.
    """
    kinds = ["slow", "narrow", "reset_up", "reset_down", "half_open", "one_way", "stall", "refuse", *(["corrupt"] * integrity)]
    kind = rng.choice(kinds)
    made: dict[str, dict[str, Any]] = {
        "slow": {"latency_ms": rng.randint(5, 400), "jitter_ms": rng.randint(0, 400)},
        "narrow": {"rate_bytes_s": rng.choice([500, 2_000, 20_000]), "latency_ms": rng.randint(0, 100)},
        "reset_up": {"reset_up_at": rng.randint(0, 3_000), "step": rng.choice([0, 1, 7, 101])},
        "reset_down": {"reset_down_at": rng.randint(0, 600), "step": rng.choice([0, 1, 7])},
        "half_open": {"gone": rng.choice([NEAR, FAR])},
        "one_way": {"lose": rng.choice([UP, DOWN])},
        "stall": {"stall": True},
        "refuse": {"refuse": True},
        "corrupt": {"corrupt_per_million": rng.choice([50, 1_000, 20_000])},
    }
    return Fault(**made[kind])
