"""What a hub does not load: each library is time to be ready, at every start and in every command."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("fastapi", "pydantic", "httpx", "rich", "psycopg", "aiokafka", "edge_agent")


def test_a_hub_of_the_embedded_default_loads_no_library_that_only_others_need() -> None:
    code = f"import sys, hub.cli, hub.runtime; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
