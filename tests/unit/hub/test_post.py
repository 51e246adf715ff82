"""The hub's post: who signs in, whose mail is kept and for how long, what is taken. Over a clock that a test turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest

from hub import post as post_module
from hub.broker_access import NodeGrant
from hub.post import LIVE_S, Post
from protocols.codec import Kind
from protocols.errors import LedgerBusy, LedgerFull
from protocols.topics import Address, Channel, node_acl
from protocols.trust import hash_password

PHONE, OTHER = (Address("acme", "EMEA", "Madrid", name) for name in ("phone-1", "phone-2"))
FRAME, HELLO = (b"LS\x01" + bytes((kind,)) + b"body" for kind in (Kind.FRAME, Kind.HELLO))
Story = Callable[[Post], Awaitable[None]]


class Hub:
    """What stands behind the post."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.came: list[tuple[str, bytes]] = []
        self.turned_away: list[tuple[str, str]] = []
        self.full = False
        self.room = 100
        grants = {"phone-1": NodeGrant(hash_password("secret", n=2), node_acl(PHONE))}
        self.post = Post(grants.get, self._came, lambda: self.full, lambda name, why: self.turned_away.append((name, why)))

    def _came(self, node: str, payload: bytes) -> bool:
        if len(self.came) < self.room:
            self.came.append((node, payload))
            return True
        return False

    async def said(self, address: Address, payload: bytes) -> None:
        """The hub publishes for a node, from a thread as it does."""
        await asyncio.to_thread(self.post.published, address.topic(Channel.RECEIPT), payload)
        await asyncio.sleep(0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(post_module, "time", SimpleNamespace(monotonic=lambda: hub.now_s))
    yield hub
    hub.post.close()


def tell(story: Awaitable[None]) -> None:
    async def within() -> None:
        await asyncio.wait_for(story, 10)

    asyncio.run(within())


def test_mail_is_kept_for_who_came_lately_and_for_nobody_else(hub: Hub) -> None:
    async def story() -> None:
        await hub.post.exchange("phone-1", (), 0)
        await hub.said(OTHER, b"never came")
        await hub.said(PHONE, b"one")
        assert await hub.post.exchange("phone-2", (), 0) == []
        await hub.said(OTHER, b"came")
        assert await hub.post.exchange("phone-2", (), 0) == [b"came"]
        assert await hub.post.exchange("phone-1", (), 0) == [b"one"]

    tell(story())


def test_who_stays_away_is_forgotten_with_the_mail_and_who_comes_is_not(hub: Hub) -> None:
    async def story() -> None:
        await hub.post.exchange("phone-1", (), 0)
        await hub.said(PHONE, b"kept")
        hub.now_s += LIVE_S - 1
        await hub.post.exchange("phone-2", (), 0)
        assert await hub.post.exchange("phone-1", (), 0) == [b"kept"]
        await hub.said(PHONE, b"forgotten")
        hub.now_s += LIVE_S + 1
        await hub.post.exchange("phone-2", (), 0)
        await hub.said(PHONE, b"not even kept")
        assert await hub.post.exchange("phone-1", (), 0) == []

    tell(story())


def test_the_time_counts_from_the_end_of_a_long_wait(hub: Hub) -> None:
    async def story() -> None:
        waits = asyncio.create_task(hub.post.exchange("phone-1", (), 5))
        await asyncio.sleep(0)
        hub.now_s += LIVE_S - 1
        await hub.said(PHONE, b"at last")
        assert await waits == [b"at last"]
        hub.now_s += 2
        await hub.post.exchange("phone-2", (), 0)
        await hub.said(PHONE, b"more")
        assert await hub.post.exchange("phone-1", (), 0) == [b"more"]

    tell(story())


def test_nobodys_mail_is_not_waited_for(hub: Hub) -> None:
    """An operator with a stick has no mailbox."""

    async def story() -> None:
        assert await asyncio.wait_for(hub.post.exchange("", [HELLO], 9), 1) == []
        assert hub.came == [("", HELLO)]

    tell(story())


def test_who_was_not_let_in_is_told_of_and_who_was_is_not(hub: Hub) -> None:
    async def story() -> None:
        assert await hub.post.sign_in("phone-1", "secret")
        assert hub.turned_away == []
        assert not await hub.post.sign_in("phone-1", "guess")
        assert not await hub.post.sign_in("phone-9", "secret")
        assert [name for name, _ in hub.turned_away] == ["phone-1", "phone-9"]
        assert all(why for _, why in hub.turned_away)

    tell(story())


def test_a_full_hub_takes_nothing_of_a_parcel_with_a_frame_and_everything_of_others(hub: Hub) -> None:
    async def story() -> None:
        hub.full = True
        with pytest.raises(LedgerFull):
            await hub.post.exchange("phone-1", [HELLO, FRAME], 0)
        assert hub.came == []
        await hub.post.exchange("phone-1", [HELLO, b"LS"], 0)
        assert hub.came == [("phone-1", HELLO), ("phone-1", b"LS")]

    tell(story())


def test_without_room_the_rest_is_to_be_sent_again(hub: Hub) -> None:
    async def story() -> None:
        hub.room = 1
        with pytest.raises(LedgerBusy) as busy:
            await hub.post.exchange("phone-1", [HELLO, FRAME], 0)
        assert busy.value.remedy
        assert hub.came == [("phone-1", HELLO)]

    tell(story())


def test_who_waits_goes_when_the_post_closes_and_closing_twice_is_harmless(hub: Hub) -> None:
    async def story() -> None:
        waits = asyncio.create_task(hub.post.exchange("phone-1", (), 60))
        await asyncio.sleep(0)
        hub.post.close()
        hub.post.close()
        assert await waits == []

    tell(story())


def test_what_is_said_after_the_loop_has_ended_harms_nobody(hub: Hub) -> None:
    async def story() -> None:
        await hub.post.exchange("phone-1", (), 0)

    tell(story())
    hub.post.published(PHONE.topic(Channel.RECEIPT), b"too late")
    hub.post.published("no/topic", b"x")
    assert [one.name for one in threading.enumerate() if "sign" in one.name] == []
