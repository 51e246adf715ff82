"""What an edge does not load: on a small board each library is memory and time to be ready."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge_agent.ledger_file import CACHE_KIB, open_ledger
from tests.support.patience import WITHIN_S

HEAVY = ("httpx", "rich", "pygments", "numpy", "hub")


def test_an_edge_with_a_broker_loads_no_library_that_only_others_need() -> None:
    code = f"import sys, edge_agent.cli, edge_agent.serve, edge_agent.logs; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN_S, check=True)
    assert done.stdout.strip() == "[]"


def test_an_edge_keeps_few_pages_in_memory(tmp_path: Path) -> None:
    db = open_ledger(tmp_path / "ledger.db")
    try:
        assert db.one("PRAGMA cache_size") == (-CACHE_KIB,)
        assert db.one("PRAGMA synchronous") == (2,), "and a yes is on disk all the same"
    finally:
        db.close()
