"""The history checker sees each of its five anomalies in a history made by hand, and nothing in a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest

from tests.chaos.history import Entry, Kind, Stored, Wanted, What, check

E1, E2 = 11, 12
Case = tuple[list[Entry], list[Stored]]


def fact(seq: int, token: str, *, node: str = "dock", epoch: int = E1, content: str = "O1", id_: str = "") -> Stored:
    return Stored(node, epoch, seq, id_ or f"{node}/{epoch:x}/{seq}/aa", token, (content,))


def invoke(op: int, *tokens: str, node: str = "dock", content: str = "O1") -> Entry:
    return Entry(What.INVOKE, op, node, tuple(Wanted(t, (content,)) for t in tokens))


def ok(op: int, *facts: Stored) -> Entry:
    return Entry(What.OK, op, ids=tuple(f.id for f in facts))


def info(op: int) -> Entry:
    return Entry(What.INFO, op)


def fail(op: int) -> Entry:
    return Entry(What.FAIL, op)


A, B, C, D = (fact(n, token) for n, token in enumerate("abcd", 1))


def kinds(case: Case) -> list[Kind]:
    return [found.kind for found in check(*case)]


# ---------------------------------------------------------------- good


GOOD: Final[dict[str, Case]] = {
    "two requests, one after the other": ([invoke(1, "a"), ok(1, A), invoke(2, "b"), ok(2, B)], [A, B]),
    "side by side in any order": ([invoke(1, "a"), invoke(2, "b"), ok(2, A._replace(token="b")), ok(1, fact(2, "a"))],
                                  [A._replace(token="b"), fact(2, "a")]),
    "without an answer, and there": ([invoke(1, "a"), info(1)], [A]),
    "without an answer, and not there": ([invoke(1, "a"), info(1)], []),
    "never ended, and there": ([invoke(1, "a")], [A]),
    "repeated with its key, the same identity": ([invoke(1, "a"), info(1), invoke(1, "a"), ok(1, A), invoke(1, "a"), ok(1, A)], [A]),
    "repeated after others, in its first place": ([invoke(1, "a"), info(1), invoke(2, "b"), ok(2, B), invoke(1, "a"), ok(1, A)], [A, B]),
    "refused, and not there": ([invoke(1, "a"), fail(1)], []),
    "refused at last, open before": ([invoke(1, "a"), info(1), invoke(1, "a"), fail(1)], [A]),
    "a new epoch goes on": (
        [invoke(1, "a"), ok(1, A), invoke(2, "b"), ok(2, fact(2, "b", epoch=E2))],
        [A, Stored("dock", E2, 1, "dock/c/1/aa", "", (), E1), fact(2, "b", epoch=E2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_found_in(name: str) -> None:
    assert check(*GOOD[name]) == []


def test_a_hole_that_a_record_closes_is_none() -> None:
    case = [invoke(1, "a"), ok(1, A), invoke(2, "c"), ok(2, C)], [A, C]
    assert check(*case, closed={("dock", E1): [(2, 2)]}) == []
    assert kinds(case) == [Kind.SKIP]


def test_what_went_with_the_only_disks_that_had_it_is_excused_and_nothing_else() -> None:
    nothing: list[Stored] = []
    case = [invoke(1, "a"), ok(1, A), invoke(2, "b"), ok(2, B)], nothing
    assert len(check(*case)) == 2
    assert [found.text for found in check(*case, excused=[A.id]) if A.id in found.text] == []
    assert len(check(*case, excused=[A.id])) == 1


# ---------------------------------------------------------------- bad


BAD: Final[dict[str, tuple[Kind, Callable[[], Case]]]] = {
    "a yes that is not there": (Kind.LOST, lambda: ([invoke(1, "a"), ok(1, A)], [])),
    "a yes whose identity is another event's": (
        Kind.LOST, lambda: ([invoke(1, "a"), invoke(2, "b"), ok(1, A), info(2)], [A._replace(token="b")])),
    "half of a batch": (Kind.LOST, lambda: ([invoke(1, "a", "b"), info(1)], [A])),
    "fewer identities than events": (Kind.LOST, lambda: ([invoke(1, "a", "b"), ok(1, A)], [A, B])),
    "one key, two identities said": (
        Kind.DUPLICATE, lambda: ([invoke(1, "a"), ok(1, A), invoke(1, "a"), ok(1, fact(2, "a"))], [A, fact(2, "a")])),
    "without an answer, and there twice": (Kind.DUPLICATE, lambda: ([invoke(1, "a"), info(1)], [A, fact(2, "a")])),
    "in two epochs": (Kind.DUPLICATE, lambda: ([invoke(1, "a"), ok(1, A)], [A, fact(1, "a", epoch=E2)])),
    "one identity logged twice": (Kind.DUPLICATE, lambda: ([invoke(1, "a"), ok(1, A)], [A, A])),
    "later in time, earlier in the stream": (
        Kind.INVERSION,
        lambda: ([invoke(1, "a"), ok(1, fact(2, "a")), invoke(2, "b"), ok(2, fact(1, "b"))], [fact(1, "b"), fact(2, "a")])),
    "later in time, in an epoch left before": (
        Kind.INVERSION,
        lambda: (
            [invoke(1, "a"), ok(1, fact(2, "a", epoch=E2)), invoke(2, "b"), ok(2, fact(1, "b"))],
            [fact(1, "b"), Stored("dock", E2, 1, "dock/c/1/aa", "", (), E1), fact(2, "a", epoch=E2)],
        )),
    "the events of one request the other way round": (
        Kind.INVERSION, lambda: ([invoke(1, "a", "b"), ok(1, fact(2, "a"), fact(1, "b"))], [fact(1, "b"), fact(2, "a")])),
    "a hole": (Kind.SKIP, lambda: ([invoke(1, "a"), ok(1, A), invoke(2, "c"), ok(2, C)], [A, C])),
    "a stream that begins late": (Kind.SKIP, lambda: ([invoke(1, "b"), ok(1, B)], [B])),
    "never asked for": (Kind.PHANTOM, lambda: ([invoke(1, "a"), ok(1, A)], [A, B])),
    "refused, and there": (Kind.PHANTOM, lambda: ([invoke(1, "a"), fail(1)], [A])),
    "another content": (Kind.PHANTOM, lambda: ([invoke(1, "a"), ok(1, A)], [A._replace(content=("O2",))])),
    "another node's": (Kind.PHANTOM, lambda: ([invoke(1, "a", node="van"), info(1)], [A])),
    "of no request at all": (Kind.PHANTOM, lambda: ([], [Stored("dock", E1, 1, "dock/b/1/aa", "")])),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_it_catches(name: str) -> None:
    kind, case = BAD[name]
    found = kinds(case())
    assert kind in found
    assert set(found) <= {kind, Kind.LOST}  # what is stored under a wrong name is missing under the right one


def test_each_of_the_five_has_a_case_made_by_hand() -> None:
    assert {kind for kind, _ in BAD.values()} == set(Kind)


def test_a_history_goes_through_a_journal_unchanged() -> None:
    entries = [invoke(1, "a", "b"), ok(1, A, B), info(1), fail(1)]
    assert [Entry.from_json(json.loads(json.dumps(e.as_json()))) for e in entries] == entries
