"""Plans and journals: the same seed is the same plan, every kind of process gets every signal, and a journal gives a plan back."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.chaos.faults import HEALTHY, Fault
from tests.chaos.journal import Journal, actions, began, read
from tests.chaos.plan import BACKUP, CONT, FAULT, HEAL, KILL, PUT_BACK, RESTORE, ROAM, SIGNALS, STOP, Action, Pace, plan, restores, roams

KINDS: Final = {"hub": ["hub"], "edge": ["e1", "e2"], "broker": ["broker"]}
LINES: Final = {"e1>broker": True, "e1<clients": False}


def drawn(seed: int, kills: int = 30, favour: str = "") -> list[Action]:
    return plan(seed, KINDS, LINES, kills, Pace(), favour=favour)


def test_a_plan_has_as_many_kills_as_asked_in_order_of_time() -> None:
    for kills in (1, 3, 30):
        actions = drawn(7, kills)
        assert sum(a.do == KILL for a in actions) == kills
        assert [a.at_ms for a in actions] == sorted(a.at_ms for a in actions)


def test_the_same_seed_is_the_same_plan_and_another_is_not() -> None:
    assert drawn(1) == drawn(1) != drawn(2)


def test_there_is_a_copy_of_everybody_before_anybody_is_put_back_to_one() -> None:
    for seed in range(20):
        done = restores(seed, 5, ["e1", "e2"], 20_000)
        assert sum(a.do == RESTORE for a in done) == 5
        first = next(i for i, a in enumerate(done) if a.do == RESTORE)
        assert {a.who for a in done[:first] if a.do == BACKUP} == {"hub", "e1", "e2"}
        assert {a.who for a in done if a.do == RESTORE} <= {*PUT_BACK, "e1", "e2"}
    assert restores(1, 0, ["e1"], 20_000) == []


def test_a_phone_goes_from_gateway_to_gateway() -> None:
    done = roams(3, ["phone-1>gateway"], ["e1", "e2"], 60_000)
    assert len(done) > 8
    assert {(a.do, a.who) for a in done} == {(ROAM, "phone-1>gateway")}
    assert {(a.fault or {})["to"] for a in done} == {"e1", "e2"}


def test_a_stretched_plan_takes_longer() -> None:
    short, long = (plan(1, KINDS, LINES, 20, Pace().stretched(n)) for n in (1, 5))
    assert long[-1].at_ms > 3 * short[-1].at_ms


def test_every_kind_of_process_gets_every_signal() -> None:
    hit = {(kind, a.do) for a in drawn(3) for kind, names in KINDS.items() if a.who in names}
    assert hit >= {(kind, signal) for kind in KINDS for signal in SIGNALS}


def test_who_is_stopped_goes_on_and_what_is_wrong_heals() -> None:
    for seed in range(20):
        actions = drawn(seed)
        assert sum(a.do == STOP for a in actions) == sum(a.do == CONT for a in actions)
        assert sum(a.do == FAULT for a in actions) == sum(a.do == HEAL for a in actions)


def test_where_nothing_shows_a_changed_byte_none_is_changed() -> None:
    faults = [(a.who, Fault.from_json(a.fault)) for seed in range(40) for a in drawn(seed) if a.fault]
    assert any(fault.corrupt_per_million for who, fault in faults if LINES[who])
    assert not any(fault.corrupt_per_million for who, fault in faults if not LINES[who])
    assert all(fault != HEALTHY for _, fault in faults)


def test_a_favoured_kind_is_hit_more_often() -> None:
    def brokers(favour: str) -> int:
        return sum(a.who == "broker" for seed in range(20) for a in drawn(seed, favour=favour))

    assert brokers("broker") > brokers("") * 1.2


def test_a_journal_gives_back_what_was_done_and_leaves_out_what_was_only_seen(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.begin(seed=3, engine="amqtt")
    journal.write(KILL, who="hub")
    journal.write("ended", who="hub", code=-9)
    journal.write(FAULT, who="e1>broker", fault={"stall": True})
    journal.close()
    journal.write(KILL, who="nobody")
    assert began(journal.path)["engine"] == "amqtt"
    assert [(a.do, a.who, a.fault) for a in actions(journal.path)] == [(KILL, "hub", None), (FAULT, "e1>broker", {"stall": True})]


def test_a_journal_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"at_ms": 0, "do": "begin"}\n{"at_ms": 1, "do": "kill", "who": "hub"}\n{"at_ms": 2, "do"')
    assert [e["do"] for e in read(path)] == ["begin", "kill"]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="is not a journal"):
        began(path)
