"""Section [workers] of `hub.toml`: whether this process is one of several that share the nodes of a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocols.errors import ConfigError, InvalidInput
from protocols.settings import Setting
from protocols.topics import check_node

FILE: Final = "workers.db"
"""leases and register, beside the central store in SQLite"""
SETTINGS: Final = (
    Setting(
        "workers",
        "name",
        "",
        "The name of this worker, where several processes share this hub's nodes; each has its own. Empty: this process serves all.",
    ),
    Setting("workers", "partitions", 64, "Into which nodes are divided, by site. The same for all workers, for good.", least=1, most=4_096),
    Setting(
        "workers",
        "lease_s",
        15,
        "A worker not heard from for so long is taken for dead; the others take over its nodes.",
        "seconds",
        least=2,
        most=3_600,
    ),
    Setting(
        "workers",
        "follow_s",
        2,
        "How often a worker asks the central store what others brought; a slow answer makes it seldomer.",
        "seconds",
        least=1,
        most=3_600,
    ),
)


@dataclass(frozen=True, slots=True)
class Workers:
    """Section [workers]."""

    name: str
    partitions: int
    lease_s: int
    follow_s: int

    @property
    def several(self) -> bool:
        """Whether there is more than this process."""
        return bool(self.name)


def check(workers: Workers, *, embedded: bool) -> None:
    """What only a look at several settings can tell. Errors: ConfigError."""
    if not workers.several:
        return
    try:
        check_node(workers.name, "workers.name")
    except InvalidInput as error:
        raise ConfigError(error.reason, remedy=error.remedy) from None
    if embedded:
        raise ConfigError(
            "workers.name is set, and the broker is the embedded one, which serves its own process only.",
            remedy='Set broker.kind = "external" for each worker, or leave workers.name empty.',
        )
