"""What the hub's own line to an external broker is told."""

from __future__ import annotations

from hub.config import Broker
from hub.line import external_line


def test_how_often_it_shows_that_it_lives_and_how_long_it_waits_at_most_are_the_operators() -> None:
    broker = Broker("external", "mqtt.example", 8883, "", "", "", 100, "hub", "", True, "", keepalive_s=7, reconnect_most_s=41)
    line = external_line(broker, "of-this-test-only")
    assert (line.keepalive_s, line.backoff_max_s) == (7, 41.0)
