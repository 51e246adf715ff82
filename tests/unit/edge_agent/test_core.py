"""What an edge decides: whom it believes, what it says yes to, and that its status is true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import Now, Publish, Restart
from protocols.chains import RunKind
from protocols.codec import Kind, envelope, pack
from protocols.errors import Conflict, LedgerFull
from protocols.lifecycle import Status
from protocols.messages import Answer, Heartbeat, Hello, Pull, Receipt, Refused, RunStated, StreamStated
from tests.unit.edge_agent.core_edge import HUB_KEY, ONE, OTHER_KEY, TWO, UPLINK, Edge, ranges, said, signed
from tests.unit.protocols.ledgers import DAY_MS, NOW_MS, event

# ------------------------------------------------------------ saying and sending


def test_hello_backlog_and_live_facts_travel_signed_on_their_own_channels() -> None:
    edge = Edge()
    edge.say(3)
    assert edge.effects() == []
    assert [(channel, type(m)) for channel, m in said(edge.up())] == [("up/control", Hello)]
    assert ranges(edge.greet()) == [("up/backfill", 1, 3)]
    edge.say(2)
    assert ranges(edge.effects(UPLINK.linger_ms)) == [("up/live", 4, 5)]


def test_an_answer_counts_once_the_commit_returned_and_a_batch_is_taken_whole() -> None:
    edge = Edge()
    edge.say(1, key="k")
    edge.core.begin()
    with pytest.raises(Conflict):
        edge.core.take_events([event("new"), event("other", key="k")], edge.now)
    edge.core.commit()
    assert edge.status()["queue"]["events"] == 1


def test_what_was_not_committed_is_neither_sent_nor_queued_after_a_restart() -> None:
    edge = Edge()
    edge.say(2)
    edge.core.begin()
    edge.core.take_events([event("A")], edge.now)
    edge.db.rollback()
    again = Edge(edge.db)
    assert again.status()["queue"]["events"] == 2
    assert ranges(again.greet()) == [("up/backfill", 1, 2)]


def test_a_heartbeat_tells_head_bytes_and_oldest_age_and_only_while_there_is_a_hub() -> None:
    edge = Edge(heartbeat_ms=10_000)
    edge.say(3)
    assert not any(isinstance(m, Heartbeat) for _, m in said(edge.up()))
    (beat,) = [m for _, m in said(edge.greet()) if isinstance(m, Heartbeat)]
    (queue,) = beat.streams
    assert (queue.head, queue.queued) == (edge.stream().head, 3)
    assert queue.oldest_ms is not None and abs(queue.oldest_ms - (NOW_MS + 5_000)) < 10, "by the hub's time, now that it is known"
    assert queue.queued_bytes == edge.status()["queue"]["bytes"] > 0
    edge.hear(edge.receipt(received=3, settled=2))
    assert not any(isinstance(m, Heartbeat) for _, m in said(edge.effects(9_999)))
    (beat,) = [m for _, m in said(edge.effects(1)) if isinstance(m, Heartbeat)]
    assert beat.streams[0].queued == 1


def test_a_line_on_which_nothing_moves_is_built_anew() -> None:
    edge = Edge()
    edge.say(1)
    edge.up()
    assert edge.effects(UPLINK.stall_ms) == [Restart()]
    assert Restart() not in edge.effects(1)


# ------------------------------------------------------------ whom it believes


def everything(edge: Edge) -> tuple[object, ...]:
    edge.core.ledger.flush()
    return edge.core.uplink.incarnation, edge.core.uplink.credit, edge.stream().settled_seq, edge.status()["queue"], edge.db.dump()


def frame_bytes() -> bytes:
    unsigned = envelope(Kind.FRAME, ["hub", 1, 0, 1, 1, b"h" * 8, b"h" * 8, 0], b"body")
    return unsigned + HUB_KEY.sign(unsigned)


def malformed() -> bytes:
    unsigned = envelope(Kind.RECEIPT, ["hub", "edge-1"], pack([ONE, "soon"]))
    return unsigned + HUB_KEY.sign(unsigned)


@pytest.mark.parametrize(
    "forge",
    [
        lambda m: b"",
        lambda m: b"noise" * 40,
        lambda m: signed(m)[:-1],
        lambda m: signed(m)[:-1] + bytes([signed(m)[-1] ^ 1]),
        lambda m: signed(m, key=OTHER_KEY),
        lambda m: signed(m, author="hub-2"),
        lambda m: signed(m, to="edge-2"),
        lambda m: frame_bytes(),
        lambda m: malformed(),
    ],
    ids=["nothing", "noise", "cut off", "flipped", "another key", "another hub", "for another node", "a frame", "malformed"],
)
def test_what_the_pinned_hub_did_not_say_to_this_node_is_counted_and_moves_nothing(forge: Any) -> None:
    edge = Edge()
    edge.say(3)
    edge.greet()
    before = everything(edge)
    edge.hear(forge(edge.receipt(received=3, settled=3, freeable=3)))
    assert everything(edge) == before
    assert edge.core.damaged == edge.status()["link"]["damaged"] == 1
    edge.hear(edge.receipt(received=3, settled=3))
    assert edge.stream().settled_seq == 3, "the good copy is still taken"


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_from_the_broker_stop_an_edge(data: bytes, dress: bool) -> None:
    edge = Edge()
    edge.hear(b"LS\x01\x04\x92\xa3hub\xa6edge-1" + data if dress else data)
    assert edge.core.damaged == 1


leaves = st.none() | st.integers(0, 2**63) | st.binary(max_size=8) | st.text(max_size=8)


@given(st.integers(2, 8), st.recursive(leaves, lambda inner: st.lists(inner, max_size=8)))
def test_no_signed_nonsense_stops_an_edge(kind: int, body: object) -> None:
    edge = Edge()
    edge.say(1)
    edge.greet()
    unsigned = envelope(Kind(kind), ["hub", "edge-1"], pack(body))
    edge.hear(unsigned + HUB_KEY.sign(unsigned))
    edge.effects()


def test_words_that_only_a_node_says_are_ignored() -> None:
    edge = Edge()
    edge.say(1)
    edge.greet()
    before = everything(edge)
    edge.hear(Hello(b"nonce--8", ()), Heartbeat(NOW_MS, (), "0"))
    assert everything(edge) == before


# ------------------------------------------------------------ forks and refusals


def test_after_a_fork_the_next_yes_opens_a_new_epoch_and_the_old_one_is_still_sent() -> None:
    edge = Edge()
    edge.say(3)
    old = edge.stream()
    edge.greet()
    stated = StreamStated(*old.key, (RunStated(1, old.chain.genesis, 2, b"elsewher"),))
    edge.hear(Receipt(ONE, edge.hub_ms, 1_000, (stated,)))
    assert edge.stream().key != old.key
    edge.say(1)
    sent = said(edge.effects(UPLINK.linger_ms))
    assert (edge.stream().key.epoch, 1, 2) in [(m.epoch, m.first, m.count) for channel, m in sent if channel == "up/live"]
    assert len(edge.status()["streams"]) == 2
    assert edge.status()["queue"]["events"] == 5, "three, the record that continues them, and one"


def test_a_fact_that_is_refused_for_good_is_quarantined_here_too_and_its_neighbours_settle() -> None:
    edge = Edge()
    edge.say(3)
    edge.greet()
    stated = replace(edge.receipt(received=3).streams[0], refused=((2, edge.h(2), "no such kind"),))
    for _ in range(2):
        edge.hear(Receipt(ONE, edge.hub_ms, 1_000, (stated,)))
    (one,) = edge.core.ledger.quarantined()
    assert one["reason"] == "no such kind"
    assert edge.status()["queue"]["quarantined"] == 1


def test_a_pull_and_a_refusal_reach_the_uplink() -> None:
    edge = Edge()
    edge.say(4)
    edge.greet()
    edge.hear(edge.receipt(received=4))
    edge.hear(Pull(ONE, ((edge.stream().key.epoch, 0, 2, 3),)))
    assert ranges(edge.effects()) == [("up/backfill", 2, 3)]
    edge.hear(Refused(TWO, b"digest of 16 b..", "why"))
    assert [type(m) for _, m in said(edge.effects())] == [Hello]


# ------------------------------------------------------------ room


def fill(edge: Edge) -> None:
    """Say as much as is taken."""
    for _ in range(1_000):
        try:
            edge.say(10)
        except LedgerFull:
            edge.db.rollback()
            return
    raise AssertionError("it was never full")


def test_at_the_budget_nothing_more_is_taken_and_nothing_is_stored() -> None:
    edge = Edge(budget_bytes=400_000)
    fill(edge)
    rows = edge.rows()
    with pytest.raises(LedgerFull) as caught:
        edge.say(1)
    edge.db.rollback()
    assert caught.value.remedy
    assert edge.rows() == rows > 100
    assert edge.status()["disk"]["full"] is True
    assert edge.status()["disk"]["ledgerBytes"] < 600_000, "a link was never needed to notice"


def test_a_full_edge_still_hears_sends_and_takes_again_once_there_is_room() -> None:
    edge = Edge(budget_bytes=400_000, floor_ms=DAY_MS)
    fill(edge)
    assert ranges(edge.greet())
    head = edge.stream().head[0]
    edge.hear(edge.receipt(received=head, settled=head, freeable=head))
    edge.wait(DAY_MS)
    edge.hear(edge.receipt(received=head, settled=head, freeable=head))
    edge.say(1)
    assert edge.status()["disk"]["full"] is False


# ------------------------------------------------------------ status and time


def test_status_is_true_from_the_first_fact_to_the_last() -> None:
    edge = Edge()
    edge.say(4)
    edge.wait(60_000)
    status = edge.status()
    assert (status["node"], status["org"], status["site"]) == ("edge-1", "acme", "W8-Madrid")
    assert status["link"] == {
        "connected": False,
        "answered": False,
        "lastHeardAgoMs": None,
        "credit": 0,
        "waitsForTurn": False,
        "refused": 0,
        "damaged": 0,
        "unanswered": None,
    }
    clock = status["clock"]
    assert (clock["nowMs"], clock["hubMs"], clock["skewMs"], clock["offsetMs"]) == (edge.now.wall, None, None, None)
    assert (clock["quality"], clock["recordsMs"], clock["shifts"]) == ("floor", edge.now.wall, [])
    queue = status["queue"]
    assert (queue["events"], queue["oldestAgeMs"], queue["notReceived"], queue["quarantined"]) == (4, 60_000, 4, 0)
    edge.greet()
    edge.hear(edge.receipt(received=3, settled=2))
    edge.wait(7)
    status = edge.status()
    (stream,) = status["streams"]
    assert (stream["captured"], stream["settled"], stream["queued"], stream["notReceived"], stream["freed"]) == (4, 2, 2, 1, 0)
    assert stream["records"] == {k.name.lower(): 0 for k in RunKind if k is not RunKind.DATA}
    assert (status["link"]["answered"], status["link"]["lastHeardAgoMs"], status["link"]["credit"]) == (True, 7, 1_000)
    assert status["clock"]["skewMs"] == -5_000
    edge.hear(edge.receipt(received=4, settled=4))
    queue = edge.status()["queue"]
    assert (queue["events"], queue["bytes"], queue["oldestAgeMs"], queue["notReceived"]) == (0, 0, None, 0)


def test_queued_bytes_are_those_of_the_rows_that_wait() -> None:
    edge = Edge()
    edge.say(4)
    sizes = [size for (size,) in edge.db.query("SELECT length(row) FROM log ORDER BY seq")]
    assert edge.status()["queue"]["bytes"] == sum(sizes)
    edge.greet()
    edge.hear(edge.receipt(received=4, settled=3))
    assert edge.status()["queue"]["bytes"] == sizes[3]
    edge.say(1)
    assert edge.status()["queue"]["events"] == 2


def test_a_clock_that_went_back_gives_no_negative_age() -> None:
    edge = Edge()
    edge.say(1)
    edge.now = Now(0, edge.now.mono)
    assert edge.status()["queue"]["oldestAgeMs"] == 0


@given(st.lists(st.sampled_from(["say", "up", "down", "greet", "receipt", "other", "wait", "due", "day"]), max_size=30))
def test_each_deadline_leads_on(steps: list[str]) -> None:
    edge = Edge()
    for step in steps:
        play(edge, step)
        effects = edge.effects()
        due = edge.core.next_deadline()
        assert due is None or due > edge.now.mono or effects == [Restart()]


def play(edge: Edge, step: str) -> None:
    due = edge.core.next_deadline()
    if step == "say":
        edge.say(2)
    elif step in ("up", "greet"):
        hellos = [m for _, m in said([e for e in edge.up() if isinstance(e, Publish)]) if isinstance(m, Hello)]
        if step == "greet" and hellos:
            edge.hear(Answer(hellos[0].nonce, edge.incarnation, edge.hub_ms, 1_000, ()))
    elif step == "down":
        edge.core.begin()
        edge.core.take_down()
        edge.core.commit()
    elif step == "receipt":
        edge.hear(edge.receipt(received=edge.stream().head[0]))
    elif step == "other":
        edge.hear(Receipt(TWO, edge.hub_ms, 9, ()))
    elif step == "due" and due is not None:
        edge.wait(max(0, due - edge.now.mono))
    else:
        edge.wait({"wait": 700, "day": DAY_MS}.get(step, 0))


def test_orders_are_folded_for_the_lan_at_once() -> None:
    edge = Edge()
    edge.say(1)
    edge.say(1, status=Status.SHIPPED)
    order = edge.core.ledger.book.get("acme", "order-0")
    assert order is not None
    assert [h.status for h in order.heads] == [Status.SHIPPED]
