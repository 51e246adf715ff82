"""The whole line on real engines, as processes: edge, Mosquitto, hub, Kafka, projectors, PostgreSQL; and what each costs.

Everything is set up with the commands that people type. What is in the store is asked of PostgreSQL by psql, and compared with the edge's
own ledger, fact by fact: nothing of the product stands between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.bench import engines
from deploy.demo.parts import Part, command, set_up_pair
from protocols.sqlite import Db

ENGINES: Final = ("mosquitto", "kafka", "postgres")
DATABASE: Final = "orders"
PARTITIONS: Final = 6
PROJECTORS: Final = 2
PATIENCE_S: Final = 300.0
LOOK_S: Final = 0.1
_HELD: Final = "SELECT coalesce(sum(facts), 0) FROM streams"


Fact = tuple[str, int, int, str]
"""node, epoch, seq, hash"""


@dataclass(slots=True)
class Line:
    """See the module. `pids`: of what runs, by name."""

    folder: Path
    hub: Part
    edge: Part
    db: engines.Postgres
    pids: dict[str, list[int]] = field(default_factory=dict)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of each so far."""
        return {name: sum(map(engines.cpu_s, pids)) for name, pids in self.pids.items()}

    def note(self, part: Part) -> None:
        """A part of ours was started."""
        assert part.process is not None
        self.pids["hub" if part is self.hub else "edge"] = [part.process.pid]


class Asker:
    """One psql that stays: asking it costs no connection."""

    def __init__(self, db: engines.Postgres) -> None:
        programs = engines.postgres_programs()
        assert programs is not None
        args = [str(programs / "psql"), "-h", "127.0.0.1", "-p", str(db.port), "-U", "admin", "-d", DATABASE]
        args += ["-X", "-q", "-A", "-t", "-F", "\t"]
        env = {**os.environ, "PGPASSWORD": db.password_file.read_text()}
        self._p = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=db.folder)

    def ask(self, sql: str) -> list[list[str]]:
        """Rows as texts; blocks."""
        assert self._p.stdin is not None and self._p.stdout is not None
        self._p.stdin.write(f"{sql};\n\\echo .\n")
        self._p.stdin.flush()
        out: list[list[str]] = []
        while (line := self._p.stdout.readline().rstrip("\n")) != ".":
            if not line and self._p.poll() is not None:
                raise RuntimeError("psql has ended")
            out.append(line.split("\t"))
        return out

    def close(self) -> None:
        """End it."""
        self._p.kill()
        self._p.communicate()


@asynccontextmanager
async def line(*, projectors: int = PROJECTORS, before_topics: Callable[[str], Awaitable[None]] | None = None) -> AsyncIterator[Line]:
    """Everything runs but hub and edge, which the caller starts (`start`). `before_topics` is given Kafka's address."""
    async with contextlib.AsyncExitStack() as undo:
        root = undo.enter_context(engines.folder())
        db = undo.enter_context(engines.postgres(root))
        kafka = undo.enter_context(engines.kafka(root))
        hub, edge = await asyncio.to_thread(set_up_pair, root)
        port = int(hub.env["LONGSHORE_BROKER__PORT"])
        hub.env |= _settings(root, db.make(DATABASE), kafka.address)
        write_access(root, hub)
        mosquitto = undo.enter_context(engines.mosquitto(root, port, root / "passwords", root / "acl"))
        if before_topics is not None:
            await before_topics(kafka.address)
        _hub(hub, "topics", "create")
        _hub(hub, "store", "migrate")
        made = Line(root, hub, edge, db, {"mosquitto": [mosquitto.pid], "kafka": [kafka.pid], "postgres": [db.pid]})
        made.pids["projector"] = [undo.enter_context(_projector(made, n)).pid for n in range(projectors)]
        undo.push_async_callback(_stop, made)
        yield made


async def _stop(made: Line) -> None:
    await asyncio.gather(made.edge.stop(), made.hub.stop())


def _settings(root: Path, dsn: str, servers: str) -> dict[str, str]:
    secret = root / "hub" / "broker.password"
    secret.write_text("of-the-benchmark-only\n")
    secret.chmod(0o600)
    return {
        "LONGSHORE_BROKER__KIND": "external",
        "LONGSHORE_BROKER__USERNAME": engines.HUB_USER,
        "LONGSHORE_BROKER__PASSWORD_FILE": str(secret),
        "LONGSHORE_STORE__KIND": "postgres",
        "LONGSHORE_STORE__DSN": dsn,
        "LONGSHORE_STORE__PASSWORD_FILE": str(root / "db.password"),
        "LONGSHORE_BRIDGE__KIND": "kafka",
        "LONGSHORE_BRIDGE__SERVERS": servers,
        "LONGSHORE_BRIDGE__PARTITIONS": str(PARTITIONS),
    }


def write_access(root: Path, hub: Part) -> None:
    """Mosquitto's files, from the hub's registry."""
    for name in ("passwords", "acl"):
        _hub(hub, "broker", name, "--out", str(root / name))


def _hub(hub: Part, *words: str) -> None:
    args = command("longshore-hub", *words, "--config", str(hub.dir / "hub.toml"))
    done = subprocess.run(args, capture_output=True, text=True, check=False, env={**os.environ, **hub.env})
    if done.returncode:
        raise RuntimeError(f"longshore-hub {' '.join(words)}: {(done.stderr or done.stdout).strip()}")


def _projector(made: Line, n: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    args = command("longshore-hub", "project", "--config", str(made.hub.dir / "hub.toml"))
    return engines.running(["env", *(f"{k}={v}" for k, v in made.hub.env.items()), *args], made.folder / f"projector-{n}.log")


async def start(made: Line, part: Part) -> None:
    """Start hub or edge, and wait until it is ready."""
    await part.start()
    made.note(part)


async def held(asker: Asker, wanted: int, patience_s: float = PATIENCE_S) -> float:
    """When PostgreSQL has committed so many facts (`time.time`)."""
    deadline = time.monotonic() + patience_s
    while int((await asyncio.to_thread(asker.ask, _HELD))[0][0]) < wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"not all of {wanted} events came within {patience_s:.0f} s: no rate")
        await asyncio.sleep(LOOK_S)
    return time.time()


def facts_of(ledger: Path) -> set[Fact]:
    """What an edge captured, by its own file."""
    db = Db(ledger, read_only=True)
    own = db.query("SELECT node, epoch, seq, h FROM log JOIN streams USING (sid) WHERE own=1 AND cls=0")
    db.close()
    return {(str(node), int(epoch), int(seq), bytes(h).hex()) for node, epoch, seq, h in own}


def check(made: Line, said: set[Fact]) -> int:
    """Each of these facts stands in PostgreSQL once, and no other of an order does. Returns how many there are.

    Errors: AssertionError: something is missing or there twice.
    """
    rows = made.db.ask(
        DATABASE, "SELECT s.node, s.epoch, l.seq, encode(l.h, 'hex') FROM log l JOIN streams s USING (sid) WHERE l.okey IS NOT NULL"
    )
    found = {(node, int(epoch), int(seq), h) for node, epoch, seq, h in rows}
    folded = int(made.db.ask(DATABASE, "SELECT coalesce(sum(facts), 0) FROM states")[0][0])
    if found != said or len(rows) != len(found) or folded != len(rows):
        twice = len(rows) - len(found) + abs(folded - len(rows))
        raise AssertionError(f"missing {len(said - found)}, twice {twice}, unknown {len(found - said)}: no rate")
    return len(rows)


def costs(before: Mapping[str, float], after: Mapping[str, float], events: int) -> dict[str, float]:
    """Processor time in microseconds for each event, by process."""
    return {name: (after[name] - before.get(name, 0.0)) / events * 1e6 for name in after}


def told(cost: Mapping[str, float]) -> str:
    """For people."""
    return ", ".join(f"{name} {us:.0f}" for name, us in cost.items())
