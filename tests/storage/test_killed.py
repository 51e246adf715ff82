"""A process is killed at any moment: with either driver, what it had said yes to is there, whole, and the next process goes on.

SIGKILL loses nothing that was written, synced or not, so this shows what a commit is and not what a sync is: power loss (`test_power.py`)
needs a file system of our own under SQLite, which only apsw takes. The standard library's driver has this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random, SystemRandom

import pytest

from protocols.ledger import Ledger
from protocols.sqlite import DRIVERS, Db
from tests.storage import verify as check
from tests.support.procs import Child, python

WRITER = """
import sys
from random import Random
from protocols.event import OrderEvent, TimeQuality
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.sqlite import Db

path, driver, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = Random(seed)
db = Db(path, driver=driver)
db.query("PRAGMA wal_autocheckpoint=20")
led = Ledger(db, node="edge-1", new_epoch=lambda: 7)
while True:
    key = f"{seed}-{rng.getrandbits(60):x}"
    event = OrderEvent("acme", f"order-{rng.randrange(9)}", "WMS", Status.PICKED, 1, TimeQuality.STATED, None, None, None,
                       {"note": "x" * rng.randrange(2_000)}, key)
    led.begin()
    (done,) = led.append_all([event], 1_780_000_000_000)
    led.commit()
    print(done.seq, done.h.hex(), key, flush=True)
"""
KILLS = 12


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_a_killed_process_said_yes_to_is_there(driver: str, tmp_path: Path) -> None:
    path, seed = tmp_path / "ledger.db", SystemRandom().randrange(10**6)
    rng, said = Random(seed), []  # type: tuple[Random, list[tuple[int, bytes, str]]]
    print(f"seed {seed}")
    for kill in range(KILLS):
        said += _killed(path, driver, seed + kill, after=rng.randrange(1, 40), within_ms=rng.randrange(8))
        _verify(path, driver, said)
    assert len(said) > KILLS
    assert len({seq for seq, _, _ in said}) == len(said), "each identity was said once"


def _killed(path: Path, driver: str, seed: int, *, after: int, within_ms: int) -> list[tuple[int, bytes, str]]:
    """A writer, killed a while after it has said yes so often. What it said."""
    child = Child(python("-c", WRITER, path, driver, str(seed)))
    try:
        child.wait_until(lambda: child.output().count("\n") >= after, what=f"{after} times at work")
        child.ended_within(within_ms / 1_000)
        child.kill()
        lines = child.output().splitlines(keepends=True)
    finally:
        child.discard()
    words = [line.split() for line in lines if line.endswith("\n")]
    return [(int(seq), bytes.fromhex(h), key) for seq, h, key in words]


def _verify(path: Path, driver: str, said: list[tuple[int, bytes, str]]) -> None:
    db = Db(path, driver=driver)
    try:
        check.sound(db)
        check.links(db)
        led = Ledger(db, node="edge-1", new_epoch=_no_epoch)
        check.runs(led)
        check.folds(led)
        sid = led.own().sid
        assert all(led.log.has(sid, seq, h) for seq, h, _ in said)
        assert {(key, seq) for seq, _, key in said} <= set(db.query("SELECT key, seq FROM idempotency"))
    finally:
        db.close()


def _no_epoch() -> int:
    raise AssertionError(f"the ledger had to begin anew, with {sys.executable}")
