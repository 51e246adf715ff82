"""The end of the embedded broker, whenever it comes."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from hub.broker import BrokerSettings, EmbeddedBroker


@pytest.mark.parametrize("turns", range(6))
def test_who_is_accepted_in_the_moment_of_its_end_leaves_nothing_open(turns: int) -> None:
    async def ends() -> socket.socket:
        broker = EmbeddedBroker(BrokerSettings(port=0), lambda _: None)
        await broker.start()
        client = socket.create_connection(("127.0.0.1", broker.port))
        for _ in range(turns):  # of the loop, between the knock and the end
            await asyncio.sleep(0)
        await broker.stop()
        return client

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with asyncio.run(ends()):
            gc.collect()
    assert [str(one.message) for one in told] == []
