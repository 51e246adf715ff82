"""What an edge does not load: on a small board each library is memory and time to be ready."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("httpx", "rich", "pygments", "numpy", "hub")


def test_an_edge_with_a_broker_loads_no_library_that_only_others_need() -> None:
    code = f"import sys, edge_agent.cli, edge_agent.serve, edge_agent.logs; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
