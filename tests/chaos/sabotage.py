"""Products that break a promise on purpose, as processes of their own: `python -m tests.chaos.sabotage NAME hub.cli run …`.

A suite that cannot fail proves nothing. Each sabotage is a mistake that somebody could make, put into the running code before its `main`
begins; the run that meets it must complain with one of `kinds`. No switch of the product knows of any of this.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

HUB: Final = "hub"
EDGE: Final = "edge"
LAZY_S: Final = 0.8
"""what is called committed lies only in memory for so long"""


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One mistake. `kind`: of the process that makes it; `caught_as`: a word that begins a complaint about it; `engine`: the
    broker with which it shows."""

    name: str
    kind: str
    plant: Callable[[], None]
    caught_as: tuple[str, ...]
    engine: str = "amqtt"
    favour: str = ""
    """the kind of process that is killed more often than others (default: the one that makes the mistake)"""


# ------------------------------------------------------------ yes before it is on disk


def commit_later() -> None:
    """`commit` comes back at once, and the transaction goes on until it has lasted a while."""
    from protocols.sqlite import Db

    began: dict[int, float] = {}
    begin, commit, rollback, close = Db.begin, Db.commit, Db.rollback, Db.close

    def lazy_begin(self: Db) -> None:
        if id(self) not in began:
            begin(self)
            began[id(self)] = time.monotonic()

    def lazy_commit(self: Db) -> None:
        if time.monotonic() - began.get(id(self), 0.0) > LAZY_S:
            began.pop(id(self), None)
            commit(self)

    def forget(real: Callable[[Db], None]) -> Callable[[Db], None]:
        def done(self: Db) -> None:
            if began.pop(id(self), None) is not None and real is close:
                commit(self)
            real(self)

        return done

    replace(Db, begin=lazy_begin, commit=lazy_commit, rollback=forget(rollback), close=forget(close))


# ------------------------------------------------------------ requests that come twice


def keys_forgotten() -> None:
    """Each request is a new one, whatever its key."""
    from protocols.ledger import Ledger

    replace(Ledger, _answered=lambda self, key, content: None, _remember=lambda self, key, content, fact: None)


def keys_in_memory() -> None:
    """Keys are remembered as long as the process lives."""
    from protocols.ledger import Appended, Ledger

    memory: dict[str, tuple[bytes, Appended]] = {}

    def remember(self: Ledger, key: str, content: bytes, fact: Any) -> None:
        memory[key] = content, Appended(self.log.by_sid(fact.sid).key, fact.seq, fact.h, True)

    replace(Ledger, _remember=remember, _answered=lambda self, key, content: memory.get(key, (b"", None))[1])


# ------------------------------------------------------------ freeing


def free_on_puback() -> None:
    """What a broker acknowledged is called settled and freed."""
    from edge_agent.core import Publish
    from edge_agent.runtime import EdgeRuntime
    from protocols.sync.seal import Control, unseal
    from protocols.transport.port import Published

    sent: dict[int, tuple[int, int, int]] = {}
    acknowledged: list[tuple[int, int, int]] = []
    perform, hear, turn = EdgeRuntime._perform, EdgeRuntime._from_transport, EdgeRuntime._turn

    def performed(self: EdgeRuntime, effects: list[Any]) -> None:
        transport: Any = self._transport
        for effect in effects:
            token = transport.publish(effect.topic, effect.payload) if isinstance(effect, Publish) else None
            opened = unseal(effect.payload) if isinstance(effect, Publish) else None
            if token is not None and opened is not None and not isinstance(opened, Control):
                header = opened[1]
                sent[token] = header.epoch, header.cls, header.first + header.count - 1
        if not all(isinstance(effect, Publish) for effect in effects):
            perform(self, [effect for effect in effects if not isinstance(effect, Publish)])

    def heard(self: EdgeRuntime, event: Any) -> None:
        if isinstance(event, Published) and event.token in sent:
            acknowledged.append(sent.pop(event.token))
        hear(self, event)

    def turned(self: EdgeRuntime) -> None:
        turn(self)
        while self._core is not None and acknowledged:
            epoch, cls, last = acknowledged.pop(0)
            core = self._core
            core.begin()
            for stream in core.ledger.own_streams():
                if (stream.key.epoch, stream.key.cls) == (epoch, cls):
                    stream.settled_seq, stream.dirty = max(stream.settled_seq, last), True
                    core.ledger.free(stream, last, 0)
            core.commit()

    replace(EdgeRuntime, _perform=performed, _from_transport=heard, _turn=turned)


# ------------------------------------------------------------ the view


def last_one_wins() -> None:
    """In the store the last fact to arrive is the state."""
    import hub.store.apart
    from hub.store.view import ViewBook

    replace(hub.store.apart, COMMAND=("-m", "tests.chaos.sabotage", "last-one-wins", "hub.store.apart_process"))
    replace(ViewBook, _saw_all=lambda self, order, head: True)


def stops_for_good() -> None:
    """An edge that after its first connection was lost never makes another."""
    from protocols.transport.mqtt import MqttTransport

    def give_up(self: MqttTransport, wake: Any, pause_s: float) -> None:
        self._stopping = True

    replace(MqttTransport, _pause=give_up)


# ------------------------------------------------------------ no mistake


def hasty() -> None:
    """No sabotage: an edge that comes back after hundredths of a second, so that a sweep of resets takes seconds and not hours."""
    from protocols.transport.mqtt import MqttTransport

    replace(MqttTransport, _backoff_s=lambda self, failures: 0.01)


def gives_up_soon() -> None:
    """No sabotage: a hub that waits seconds, not an hour, for somebody to give back what it lost of its own, before it signs it as lost."""
    import hub.giveback

    replace(hub.giveback, LOST_AFTER_MS=4_000)


# ------------------------------------------------------------ the table


SABOTAGES: Final = {
    s.name: s
    for s in (
        Sabotage("edge-yes-before-commit", EDGE, commit_later, ("lost", "inversion")),
        Sabotage("hub-yes-before-commit", HUB, commit_later, ("lost", "inversion", "duplicate", "the store holds")),  # its store commits
        Sabotage("keys-forgotten", EDGE, keys_forgotten, ("duplicate",)),
        Sabotage("keys-in-memory", EDGE, keys_in_memory, ("duplicate",)),
        Sabotage("free-on-puback", EDGE, free_on_puback, ("lost", "skip"), "mosquitto-forgetful", HUB),
        Sabotage("last-one-wins", HUB, last_one_wins, ("view",)),
        Sabotage("stops-for-good", EDGE, stops_for_good, ("not quiet",), favour=HUB),
    )
}


HARMLESS: Final[dict[str, Callable[[], None]]] = {"hasty": hasty, "gives-up-soon": gives_up_soon}


def replace(owner: Any, **values: Any) -> None:
    """Attributes with other values, for the rest of this process."""
    for name, value in values.items():
        assert hasattr(owner, name), f"{owner} has no {name}: the sabotage would do nothing"
        setattr(owner, name, value)


def main(argv: list[str], known: Mapping[str, Callable[[], None]]) -> int:
    """NAME[+NAME …] MODULE ARGS …: plant them and run the command."""
    names, module, *args = argv
    for name in names.split("+"):
        known[name]()
    return int(importlib.import_module(module).main(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], HARMLESS | {s.name: s.plant for s in SABOTAGES.values()}))
