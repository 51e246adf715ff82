"""Hubs and projectors that break a promise about the engines; see `tests.chaos.sabotage`. `python -m tests.real.sabotage NAME hub.cli …`"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from tests.chaos.sabotage import HUB, Sabotage, main, replace


def settled_by_kafka() -> None:
    """What Kafka has acknowledged is as good as in the central store."""
    from hub.bridge_desk import BridgeDesk
    from hub.core import HubCore
    from hub.store.port import Statement

    take = BridgeDesk.take_answers

    def believed(self: BridgeDesk, core: HubCore, now_ms: int) -> None:
        before = self.counts.sent_total
        take(self, core, now_ms)
        bridging = self._bridging
        if bridging is not None and self.counts.sent_total > before:
            core.receiver.store_says([(key, core._says(key, runs, Statement({}))) for key, runs in bridging._sent.items()], backed_up=True)

    replace(BridgeDesk, take_answers=believed)


def a_producer_for_ever() -> None:
    """A producer that failed is kept, and so is its error."""
    from hub.bridge import Bridge

    connect = Bridge._connect

    async def once(self: Bridge) -> None:
        if self.counts.errors_total == 0:
            await connect(self)

    replace(Bridge, _connect=once)


def says_nothing_of_kafka() -> None:
    """`readyz` looks at everything but the bridge."""
    import hub.runtime

    replace(hub.runtime, troubles=lambda bridge: [])


def identities_by_copy() -> None:
    """Each time a fact goes to Kafka it is somebody new."""
    from hub.bridge_records import Encoder

    fact, numbers = Encoder.fact, count()

    def numbered(self: Encoder, *args: Any) -> Any:
        record = fact(self, *args)
        headers = [(name, value + b"/%d" % next(numbers) if name == "ce_id" else value) for name, value in record.headers]
        return record._replace(headers=headers)

    replace(Encoder, fact=numbered)


def commits_in_the_midst() -> None:
    """The log's transaction ends before that of views, counts and offsets: if the server dies between them, those lack facts for ever."""
    from hub.store.pg_batch import PgBatch

    write = PgBatch._write

    def committed(self: PgBatch, spans: Any) -> None:
        if any(sum(counts) for counts in self._counts.values()):
            self._log.write()
            self._db.commit()
            self._db.begin()
            self._db.query("SELECT pg_current_xact_id()::text, pg_sleep(0.5)::text")  # so that the server is met just there
        write(self, spans)

    replace(PgBatch, _write=committed)


SABOTAGES: Final = {
    s.name: s
    for s in (
        Sabotage("settled-by-kafka", HUB, settled_by_kafka, ("settled",)),
        Sabotage("a-producer-for-ever", HUB, a_producer_for_ever, ("not quiet",)),
        Sabotage("says-nothing-of-kafka", HUB, says_nothing_of_kafka, ("readyz",)),
        Sabotage("identities-by-copy", HUB, identities_by_copy, ("topic",)),
        Sabotage("commits-in-the-midst", HUB, commits_in_the_midst, ("view", "postgres: integrity check says torn")),
    )
}
PLANTS: Final[dict[str, Callable[[], None]]] = {s.name: s.plant for s in SABOTAGES.values()}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], PLANTS))
