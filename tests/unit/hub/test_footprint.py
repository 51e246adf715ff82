"""What a hub does not load: each library is time to be ready, at every start and in every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.patience import WITHIN_S

PROJECTOR = "hub.cli_bridge, hub.kafka, hub.project, hub.project_http, hub.projector, hub.stores"
OTHERS = ("httpx", "rich", "psycopg", "aiokafka", "edge_agent")


@pytest.mark.parametrize(
    ("what", "heavy"),
    [
        ("hub.cli", (*OTHERS, "fastapi", "pydantic", "amqtt")),
        ("hub.cli, hub.runtime", OTHERS),
        (PROJECTOR, ("fastapi", "pydantic", "starlette", "jinja2", "amqtt")),
    ],
    ids=["a command", "a running hub", "a projector"],
)
def test_a_process_loads_no_library_that_only_others_need(what: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {what}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN_S, check=True)
    assert done.stdout.strip() == "[]"
