"""What a hub frees, and what it says of it afterwards: rules 11 and 12 of sync.md, sentence by sentence."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from hub.core import HubSettings
from hub.store.port import Statement
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.codec import FrameHeader, Kind, envelope
from protocols.event import OrderEvent
from protocols.messages import Hello, StreamHeld
from protocols.sqlite import Db
from protocols.streams import Stream
from protocols.sync.frames import cut
from tests.support.often import seeds
from tests.unit.hub.hub_world import FAST, Edge, World, order_event

DAY_MS = 86_400_000
SOON = HubSettings(floor_ms=7 * DAY_MS)
KEEPS = replace(FAST, floor_ms=3_650 * DAY_MS)
PRESSED = HubSettings(floor_ms=7 * DAY_MS, pressure_percent=0)


def told(world: World, dock: Edge, orders: int = 10) -> None:
    """So many orders of four facts, in the store."""
    for n in range(orders):
        dock.says(f"{dock.address.node}-{n}", "PLACED", "APPROVED", "PICKED", "SHIPPED")
    world.settle()


def stream(world: World, dock: Edge) -> Stream:
    found = world.hub.ledger.log.get(dock.key_of_stream)
    assert found is not None
    return found


def after(world: World, days: int) -> int:
    """Day after day the store is asked again; how many facts the hub has freed since its start."""
    world.ask_store()
    for _ in range(days):
        world.now_ms += DAY_MS
        world.ask_store()
    return world.hub.freeing.freed


def freed_world(settings: HubSettings = SOON, orders: int = 10) -> tuple[World, Edge]:
    """A hub that has freed all of a dock's facts; the dock has them."""
    world = World(settings, KEEPS)
    dock = world.edge("dock-7")
    told(world, dock, orders)
    world.begin_backup()
    assert after(world, 8) == 4 * orders
    return world, dock


def rows(world: World) -> int:
    return int(world.db.query("SELECT count(*) FROM log")[0][0])


def consistent(world: World, dock: Edge) -> None:
    """Everything is in the store again, the hub has no hole, the balance closes, and one order looks the same everywhere."""
    count = world.counts(dock.key_of_stream)
    assert count is not None
    assert count.facts == dock.core.ledger.own().head[0]
    assert stream(world, dock).chain.holes() == []
    assert world.row(dock.address.node)["balanced"]


# ------------------------------------------------------------ when (rule 11)


def test_settled_in_every_backup_and_older_than_the_floor_goes_and_heads_of_orders_stay() -> None:
    world, dock = freed_world()
    at = stream(world, dock)
    assert (at.freed_seq, at.head[0]) == (40, 40)
    assert rows(world) == 10, "the fact in which each order ends is there for who follows the scope"
    assert world.hub.ledger.book.get("acme", "dock-7-3") is not None
    consistent(world, dock)


def test_not_before_the_floor_and_not_by_a_days_old_mark_of_another_clock() -> None:
    world = World(SOON)
    told(world, world.edge("dock-7"))
    world.begin_backup()
    assert after(world, 6) == 0
    assert after(world, 1) > 0


def test_without_a_backup_only_under_pressure_of_the_budget() -> None:
    for settings, expected in ((SOON, 0), (PRESSED, 40)):
        world = World(settings)
        told(world, world.edge("dock-7"))
        assert after(world, 8) == expected


def test_what_a_backup_lacks_is_kept() -> None:
    world = World(SOON)
    dock = world.edge("dock-7")
    told(world, dock)
    world.begin_backup()
    dock.says("late", "PLACED", "SHIPPED")
    world.settle()
    assert after(world, 30) == 40
    assert stream(world, dock).freed_seq == 40


def test_received_but_not_in_the_store_is_kept() -> None:
    world = World(PRESSED)
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.run(5, store=False)
    assert after(world, 30) == 0
    assert rows(world) == 1


def test_the_hubs_own_facts_go_too_and_their_keys_are_remembered() -> None:
    world = World(SOON)
    world.hub.begin()
    world.hub.take_events(_own_events(), world.now_ms)
    world.hub.commit()
    world.settle()
    world.begin_backup()
    assert after(world, 8) == 2
    world.hub.begin()
    (again,) = world.hub.take_events([_own_events()[0]], world.now_ms)
    world.hub.commit()
    assert again.repeated


def _own_events() -> list[OrderEvent]:
    return [replace(order_event("O1", s), idempotency_key=s) for s in ("PLACED", "SHIPPED")]


def test_at_its_budget_the_hub_grants_no_credit_and_takes_again_once_there_is_room() -> None:
    world = World(HubSettings(budget_bytes=1))
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.run(4)
    assert (dock.core.uplink.credit, world.held(dock.key_of_stream)) == (0, [])


def test_one_turn_frees_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.freeing.TURN_ROWS", 15)
    world = World(SOON)
    dock = world.edge("dock-7")
    told(world, dock)
    world.begin_backup()
    assert after(world, 7) == 15
    world.ask_store()
    assert world.hub.freeing.freed == 30
    after(world, 2)
    assert stream(world, dock).freed_seq == 40


def test_a_fact_that_stayed_as_an_orders_head_goes_when_it_is_none_any_more() -> None:
    world, dock = freed_world(orders=1)
    assert rows(world) == 1
    dock.says("dock-7-0", "DELIVERED")
    world.settle()
    assert rows(world) == 2
    world.begin_backup()
    after(world, 8)
    assert world.db.query("SELECT seq FROM log") == [(5,)]


# ------------------------------------------------------------ what is stated of it


def answer_of(world: World, dock: Edge) -> list[tuple[int, int]]:
    """The runs that a hello is answered with."""
    s = dock.core.ledger.own()
    hello = Hello(b"n" * 8, (StreamHeld(s.key.epoch, 0, s.head),))
    (stated,) = world.hub.receiver.answer("dock-7", hello, world.now_ms).streams
    return [(r.first, r.last) for r in stated.runs]


def test_what_was_freed_is_stated_while_the_store_has_it_and_not_before_it_has_spoken() -> None:
    world, dock = freed_world()
    dock.says("more", "PLACED")
    world.settle()
    assert answer_of(world, dock) == [(1, 41)]
    world.restart()
    assert answer_of(world, dock) == [(41, 41)], "this start does not know yet what the store has"
    world.ask_store()
    assert answer_of(world, dock) == [(1, 41)]


def test_frames_of_what_was_freed_are_known_and_logged_no_second_time() -> None:
    world, dock = freed_world()
    before = rows(world)
    for first, last in ((1, 40), (5, 9), (38, 40), (40, 40)):
        assert send(world, dock, first, last) == (0, last - first + 1)
    assert rows(world) == before
    consistent(world, dock)


def send(world: World, dock: Edge, first: int, last: int) -> tuple[int, int]:
    """A frame of this range reaches the hub: how many of its facts were new, and known."""
    made = cut(dock.core.ledger.log, dock.core.ledger.own(), first, last, facts=1_000, dictionary=0, level=1)
    assert made is not None
    signed = envelope(Kind.FRAME, made.header.to_list(), made.body)
    world.hub.begin()
    done = world.hub.take_message(dock.address.node, signed + dock.key.sign(signed), world.now_ms)
    world.hub.commit()
    assert done is not None
    assert FrameHeader.parse(made.header.to_list()).count == done.new + done.known
    return done.new, done.known


# ------------------------------------------------------------ the store went back (rule 12)


def store_at(world: World, points: list[int], dock: Edge) -> list[SqliteStore]:
    """Stores as they would be had they been backed up at these points."""
    made = []
    for seq in points:
        store = SqliteStore(Db(":memory:"))
        s = stream(world, dock)
        (run,) = world.store.statement([s.key]).streams[s.key]
        store.apply(world.store.facts(s.key, run, seq) if seq else [], [], world.now_ms)
        made.append(store)
    return made


@pytest.mark.parametrize("kept", [0, 1, 17, 38])
def test_a_store_that_went_back_below_what_was_freed_gets_it_from_the_nodes(kept: int) -> None:
    world, dock = freed_world()
    dock.says("more", "PLACED", "SHIPPED")
    world.settle()
    (world.store,) = store_at(world, [kept], dock)
    world.ask_store()
    s = stream(world, dock)
    assert (s.freed_seq, world.hub.freeing.taken_back) == (kept, 40 - kept)
    heads = [4 * n for n in range(1, 11) if 4 * n > kept]
    runs = [(r.first, r.last) for r in s.chain.runs]
    assert runs == [*([(1, kept)] if kept else []), *((seq, seq) for seq in heads if seq < 40), (40, 42)]
    assert answer_of(world, dock)[: len(runs)] == runs, "what stayed is there, all else is not"
    world.settle()
    consistent(world, dock)


@pytest.mark.parametrize("again", [False, True], ids=["once", "and back again"])
def test_facts_that_come_when_their_place_was_freed_with_a_record_leave_no_rows(again: bool) -> None:
    """The author freed them first and said so; the store, which seemed to have gone back, has them after all."""
    world, dock = freed_world(HubSettings(floor_ms=0))
    s = stream(world, dock)
    (older,) = store_at(world, [37], dock)
    whole, world.store = world.store, older
    world.ask_store()
    assert s.freed_seq == 37
    h_before, h = (dock.core.ledger.log.hash_at(dock.core.ledger.own(), seq) for seq in (37, 39))
    assert h_before is not None
    assert h is not None
    world.hub.begin()
    assert world.hub.ledger.close_hole(s.key, 38, h_before, 39, h, RunKind.PRUNED, b"signed", world.now_ms)
    world.hub.commit()
    world.store = whole
    world.ask_store()
    assert s.freed_seq == 40
    assert len(world.hub.ledger.log.came_late) == 2
    world.store = older if again else whole
    world.ask_store()
    late = [38, 39] if again else []
    assert [seq for (seq,) in world.db.query("SELECT seq FROM log ORDER BY seq")] == sorted([*range(4, 41, 4), *late])
    assert s.chain.covered(*s.head).covers(38, 39)
    world.settle()
    consistent(world, dock)


def test_after_a_restart_of_both_an_older_store_is_found_out_before_anything_is_stated() -> None:
    world, dock = freed_world()
    (world.store,) = store_at(world, [9], dock)
    world.restart()
    assert answer_of(world, dock) == []
    world.settle()
    consistent(world, dock)
    assert stream(world, dock).freed_seq == 9


def test_a_store_that_lost_a_stream_altogether_does_not_support_it() -> None:
    world, dock = freed_world()
    world.store = SqliteStore(Db(":memory:"))
    world.ask_store()
    assert stream(world, dock).freed_seq == 0
    world.settle()
    consistent(world, dock)


def test_a_hub_from_a_backup_older_than_its_freeing_frees_again_only_by_the_rules() -> None:
    world = World(SOON)
    dock = world.edge("dock-7")
    told(world, dock)
    image = world.db.dump()
    world.begin_backup()
    assert after(world, 8) == 40
    world.restart(image)
    world.settle()
    consistent(world, dock)
    assert stream(world, dock).freed_seq < 40, "only what was marked in that backup is a floor old"
    after(world, 8)
    assert stream(world, dock).freed_seq == 40


def test_a_hub_from_a_backup_made_after_its_freeing_takes_what_is_above_from_the_store() -> None:
    world, dock = freed_world()
    image = world.db.dump()
    dock.says("more", "PLACED", "SHIPPED")
    world.settle()
    world.restart(image)
    world.settle()
    assert stream(world, dock).head[0] == 42
    consistent(world, dock)


# ------------------------------------------------------------ branches


def clone_at(world: World, dock: Edge) -> Edge:
    return world.edge(dock.address.node, image=dock.db.dump(), linked=False)


@pytest.mark.parametrize("shared", [1, 12, 39])
def test_a_branch_that_leaves_below_what_was_freed_is_new_and_never_a_duplicate(shared: int) -> None:
    """A cloned card that comes out of its drawer after the hub has freed what the other said in the same places."""
    world = World(SOON)
    dock = world.edge("dock-7")
    for n in range(shared):
        dock.says(f"common-{n}", "PLACED")
    twin = clone_at(world, dock)
    for n in range(shared, 40):
        dock.says(f"ours-{n}", "PLACED")
    world.settle()
    world.begin_backup()
    after(world, 8)
    assert stream(world, dock).freed_seq == 40
    for n in range(5):
        twin.says(f"theirs-{n}", "PLACED")
    dock.cut()
    twin.link()
    world.settle()
    assert stream(world, dock).chain.fork_point == shared
    for n in range(5):
        (order,) = world.store.find(f"theirs-{n}")
        assert order.status == "PLACED"
    counts = world.counts(dock.key_of_stream)
    assert counts is not None
    assert counts.twins == min(5, 40 - shared)
    assert world.row("dock-7")["balanced"]


def test_of_a_forked_stream_only_what_all_branches_share_goes() -> None:
    world = World(SOON)
    dock = world.edge("dock-7")
    told(world, dock, 2)
    twin = clone_at(world, dock)
    dock.says("ours", "PLACED", "SHIPPED")
    twin.says("theirs", "PLACED")
    world.settle()
    dock.cut()
    twin.link()
    world.settle()
    world.begin_backup()
    after(world, 8)
    s = world.hub.ledger.log.get(next(k.key for k in dock.core.ledger.own_streams()))
    assert s is not None
    assert (s.chain.fork_point, s.freed_seq) == (8, 8)


@pytest.mark.parametrize("length", [2, 4, 7])
def test_a_store_run_of_another_branch_supports_nothing_that_was_freed(length: int) -> None:
    """Shorter, as long and longer than what was freed: only the hash says which branch the store still has."""
    world = World(SOON)
    dock = world.edge("dock-7")
    dock.says("common", "PLACED")
    world.settle()
    twin = clone_at(world, dock)
    for n in range(4):
        dock.says(f"ours-{n}", "PLACED")
    world.settle()
    world.begin_backup()
    after(world, 8)
    assert stream(world, dock).freed_seq == 5
    other = World()
    elsewhere = other.edge("dock-7", image=twin.db.dump())
    for n in range(length):
        elsewhere.says(f"theirs-{n}", "PLACED")
    other.settle()
    stated = other.store.statement(None).streams
    world.hub.begin()
    world.hub.take_statement(Statement({dock.key_of_stream: stated[dock.key_of_stream]}), whole=True, now_ms=world.now_ms)
    world.hub.commit()
    assert stream(world, dock).freed_seq == 0


def test_hashes_of_what_was_freed_answer_like_the_facts_did() -> None:
    world = World(SOON)
    dock = world.edge("dock-7")
    told(world, dock, 300)
    log, s = world.hub.ledger.log, stream(world, dock)
    before = {seq: log.hash_at(s, seq) for seq in range(1, 1_201)}
    tip = s.head
    world.begin_backup()
    after(world, 8)
    assert s.freed_seq == 1_200
    for seq in (1, 2, 479, 480, 481, 960, 961, 1_199, 1_200):
        h = before[seq]
        assert h is not None
        assert log.hash_at(s, seq) == h
        assert log.has(s.sid, seq, h)
        assert not log.has(s.sid, seq, b"elsewher")
        assert log.walk(s.sid, *tip, seq) == h
    again = World(SOON)
    again.db = world.db
    again.restart()
    assert again.hub.ledger.log.has(s.sid, 777, before[777] or b"")
    size = world.db.query("SELECT sum(length(hashes)) FROM freed")[0][0]
    assert size == 8 * 1_200


@pytest.mark.parametrize("seed", seeds(25, quick=3))
def test_whatever_goes_back_whenever_everything_is_in_the_store_in_the_end(seed: int) -> None:
    """Hub and store are restored, cards are cloned, time goes on; nothing that is freed may be missed in the end."""
    rng = Random(seed)
    world = World(HubSettings(floor_ms=DAY_MS))
    docks = [world.edge("dock-1"), world.edge("dock-2")]
    backups: list[tuple[bytes, dict]] = []  # type: ignore[type-arg]
    hubs = [world.db.dump()]
    said: dict[str, None] = {}
    for step in range(14):
        dock = rng.choice(docks)
        for _ in range(rng.randrange(6)):
            name = f"o{len(said)}"
            said[name] = None
            dock.says(name, "PLACED")
        world.run(rng.randrange(1, 20))
        what = rng.random()
        if what < 0.25 or not backups:
            world.begin_backup()
            assert world.backup is not None
            backups = [*backups[-1:], (world.store._db.dump(), world.backup)]
            common = backups[0][1]
            world.backup = common  # every restorable backup has what the oldest has
        elif what < 0.4:
            world.store = SqliteStore(Db.load(rng.choice(backups)[0]))
            world.ask_store()
        elif what < 0.5:
            world.restart(rng.choice(hubs))
        elif what < 0.6:
            hubs.append(world.db.dump())
        elif what < 0.7 and len(docks) < 4:
            docks.append(world.edge(dock.address.node, image=dock.db.dump()))
        world.ask_store()
        world.now_ms += rng.randrange(2 * DAY_MS)
        world.ask_store()
        assert step >= 0
    world.settle()
    for one in docks:
        for other in docks:
            if other.linked:
                other.cut()
        one.link()
        world.settle()
    world.ask_store()
    world.settle()
    missing = [name for name in said if not world.store.find(name)]
    assert missing == [], f"seed {seed}"
    assert all(world.row(node)["balanced"] for node in ("dock-1", "dock-2")), f"seed {seed}"


def test_the_file_shrinks_with_what_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(SOON, KEEPS)
    dock = world.edge("dock-7")
    told(world, dock, 250)
    world.begin_backup()
    pages = lambda: world.db.query("PRAGMA page_count")[0][0]  # noqa: E731
    before = pages()
    after(world, 8)
    assert pages() >= before, "a little that is unused stays for what comes"
    monkeypatch.setattr("hub.freeing.SPARE_BYTES", 10_000)
    world.ask_store()
    assert world.db.spare_bytes() <= max(10_000, world.db.file_bytes() // 8)
    assert pages() < before * 9 // 10
    consistent(world, dock)
