"""What the hub's own line to an external broker is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from hub.config import Broker
from hub.line import Line, external_line, weakness_of
from protocols.transport.port import Down, Event


def test_how_often_it_shows_that_it_lives_and_how_long_it_waits_at_most_are_the_operators() -> None:
    broker = Broker("external", "mqtt.example", 8883, "", "", "", 100, "hub", "", True, "", keepalive_s=7, reconnect_most_s=41)
    line = external_line(broker, "of-this-test-only")
    assert (line.keepalive_s, line.backoff_max_s) == (7, 41.0)


@pytest.mark.parametrize(("password", "weak"), [("", False), ("abcd", True), ("x" * 11, True), ("x" * 12, False)], ids=repr)
def test_a_password_that_can_be_guessed_is_used_and_named(password: str, weak: bool) -> None:
    assert bool(weakness_of(password)) == weak
    assert not password or password not in weakness_of(password)


@pytest.mark.parametrize(("ending", "warnings"), [(True, 0), (False, 1)], ids=["stopped on purpose", "lost"])
def test_a_line_that_is_closed_on_purpose_is_no_warning(ending: bool, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        transport = OneLine()
        line = Line(transport, lambda _: None)  # type: ignore[arg-type]
        line.start()
        if ending:
            await line.stop()
        else:
            transport.listener(Down("stopped"))
        await asyncio.sleep(0)

    asyncio.run(story())
    assert [record.levelname for record in caplog.records if "the broker" in record.getMessage()].count("WARNING") == warnings


class OneLine:
    """A transport that ends when it is told to, and says so."""

    listener: Callable[[Event], None]

    def start(self, listener: Callable[[Event], None]) -> None:
        self.listener = listener

    def stop(self) -> None:
        self.listener(Down("stopped"))
