"""What time it is, on machines whose clocks were never set, jumped, or were set back; without a clock in the test either."""

from __future__ import annotations

from random import Random

import pytest

from protocols.clock import HUB_FRESH_MS, PERSIST_EVERY_MS, RELEASED_MS, SLACK_MS, Patience, Regimes, Shift, TimeKeeper, quality_of
from protocols.clocked import ClockStated
from protocols.errors import DecodeError
from protocols.fact import Clock
from protocols.kernel_clock import KernelClock

TRUE_MS = 1_779_372_312_000
"""what time it really is when `mono` is 0"""
HOUR_MS = 3_600_000


def test_a_board_that_boots_in_1970_goes_on_from_what_is_known_to_have_passed() -> None:
    keeper = TimeKeeper()
    assert keeper.stamp(5_000, 0) == (RELEASED_MS, Clock.UNSET)
    assert keeper.stamp(65_000, 60_000) == (RELEASED_MS + 60_000, Clock.UNSET)
    known = TimeKeeper(f"0:{TRUE_MS}")
    assert known.stamp(5_000, 0) == (TRUE_MS, Clock.UNSET)


def test_the_floor_outlasts_a_restart_and_is_due_seldom() -> None:
    keeper = TimeKeeper()
    assert keeper.due(0)
    keeper.stamp(TRUE_MS, 0)
    text = keeper.persisted(0)
    assert not keeper.due(PERSIST_EVERY_MS - 1)
    assert keeper.due(PERSIST_EVERY_MS)
    assert TimeKeeper(text).floor_ms == TRUE_MS
    for nonsense in ("", ":", "x:y", "-5:7", "1e9:2"):
        assert TimeKeeper(nonsense).floor_ms == RELEASED_MS


@pytest.mark.parametrize(("synchronised", "quality"), [(None, Clock.FLOOR), (False, Clock.FLOOR), (True, Clock.NTP)])
def test_a_plausible_clock_is_taken_as_it_is(synchronised: bool | None, quality: Clock) -> None:
    assert TimeKeeper().stamp(TRUE_MS, 0, synchronised=synchronised) == (TRUE_MS, quality)


def test_an_answer_confirms_a_clock_for_some_minutes() -> None:
    keeper = TimeKeeper()
    keeper.hub_answered(TRUE_MS, 0, 40)
    assert keeper.stamp(TRUE_MS + 30, 40) == (TRUE_MS + 30, Clock.HUB)
    assert keeper.stamp(TRUE_MS + 60_000, 60_040).clock is Clock.HUB
    late = HUB_FRESH_MS + 41
    assert keeper.stamp(TRUE_MS + late, late).clock is Clock.FLOOR


def test_the_offset_is_known_within_half_the_round_trip() -> None:
    keeper = TimeKeeper()
    keeper.hub_answered(TRUE_MS, 1_000, 1_600)
    offset = keeper.offset_ms(TRUE_MS + 2 * HOUR_MS, 1_600)
    assert offset is not None
    ahead, within = offset
    assert abs(ahead - (2 * HOUR_MS - 300)) <= 2 and 300 <= within <= 303
    keeper.hub_answered(TRUE_MS + 10_000, 11_200, 11_220)  # a quicker one
    again = keeper.offset_ms(TRUE_MS + 2 * HOUR_MS + 10_000, 11_220)
    assert again is not None and again[1] <= 15


def test_a_clock_that_jumped_ahead_is_stamped_as_it_is_and_not_believed() -> None:
    keeper = TimeKeeper()
    keeper.hub_answered(TRUE_MS, 0, 20)
    jumped = TRUE_MS + 2 * HOUR_MS
    assert keeper.stamp(jumped, 1_000) == (jumped, Clock.FLOOR)
    assert keeper.floor_ms < TRUE_MS + 60_000, "what the hub contradicts has not passed"


def test_a_clock_that_was_set_back_goes_on_from_the_floor_until_the_hub_says_better() -> None:
    keeper = TimeKeeper()
    keeper.stamp(TRUE_MS, 0)
    back = TRUE_MS - 600_000
    assert keeper.stamp(back + 5_000, 5_000) == (TRUE_MS + 5_000, Clock.UNSET)
    keeper.hub_answered(TRUE_MS + 6_000, 5_980, 6_000)
    stamp = keeper.stamp(back + 6_000, 6_000)
    assert stamp.clock is Clock.HUB and abs(stamp.ms - (TRUE_MS + 6_000)) <= 30


def test_a_small_step_back_is_how_clocks_are_set_gently() -> None:
    keeper = TimeKeeper()
    keeper.stamp(TRUE_MS, 0)
    assert keeper.stamp(TRUE_MS - SLACK_MS, 10) == (TRUE_MS - SLACK_MS, Clock.FLOOR)


def test_a_clock_that_once_ran_years_ahead_does_not_stay_for_good() -> None:
    ahead = TRUE_MS + 70 * 365 * 24 * HOUR_MS
    keeper = TimeKeeper()
    keeper.stamp(ahead, 0)
    later = TimeKeeper(keeper.persisted(0))
    assert later.stamp(TRUE_MS, 0).clock is Clock.UNSET
    later.hub_answered(TRUE_MS, 0, 20)
    assert later.contradicted
    assert later.stamp(TRUE_MS + 100, 120) == (TRUE_MS + 100, Clock.HUB)
    assert TimeKeeper(later.persisted(200)).stamp(TRUE_MS + 300, 0).clock is Clock.FLOOR
    set_right = TimeKeeper(f"0:{ahead}")
    assert set_right.stamp(TRUE_MS, 0, synchronised=True) == (TRUE_MS, Clock.NTP), "or an NTP client sets it"


def test_what_the_hub_said_at_any_time_has_passed() -> None:
    keeper = TimeKeeper()
    keeper.hub_said(TRUE_MS, 0)
    assert keeper.stamp(0, 1_000) == (TRUE_MS + 1_000, Clock.UNSET)
    keeper.hub_said(TRUE_MS - HOUR_MS, 2_000)
    assert keeper.floor_ms == TRUE_MS


def test_a_hub_that_boots_in_1970_says_nothing() -> None:
    keeper = TimeKeeper(f"0:{TRUE_MS}")
    keeper.hub_answered(5_000, 0, 20)
    keeper.hub_said(5_000, 30)
    assert keeper.floor_ms == TRUE_MS
    assert keeper.offset_ms(TRUE_MS, 40) is None


def test_nobodys_time_is_improbable_to_who_does_not_know_the_time() -> None:
    keeper = TimeKeeper()
    assert keeper.judging_ms(5_000, 0) is None
    assert keeper.judging_ms(TRUE_MS, 10) == TRUE_MS


@pytest.mark.parametrize("seed", range(20))
def test_stamps_never_go_back_and_bounds_hold_the_truth_whatever_the_wall_does(seed: int) -> None:
    """Wall clocks at random; the hub's is right. While no answer takes the floor back, nothing unconfirmed is stamped before what was."""
    rng, keeper, mono, wall_off = Random(seed), TimeKeeper(), 0, 0
    for _ in range(200):
        mono += rng.randrange(1, 100_000)
        if rng.random() < 0.2:
            wall_off = rng.choice([0, -TRUE_MS, 2 * HOUR_MS, -600_000, rng.randrange(-(10**12), 10**12)])
        if rng.random() < 0.2:
            trip = rng.randrange(2, 2_000)
            asked = mono
            mono += trip
            keeper.hub_answered(TRUE_MS + asked + rng.randrange(trip), asked, mono)
        wall = max(0, TRUE_MS + mono + wall_off)
        stamp = keeper.stamp(wall, mono)
        offset = keeper.offset_ms(wall, mono)
        if offset is not None:
            assert abs(offset[0] - (wall - TRUE_MS - mono)) <= offset[1] + 2, f"seed {seed}"
        if stamp.clock is Clock.HUB:
            assert abs(stamp.ms - TRUE_MS - mono) <= 2 * SLACK_MS + 2_000, f"seed {seed}"
        assert stamp.ms >= RELEASED_MS - SLACK_MS


# ---------------------------------------------------------------- facts of before


def test_what_was_recorded_by_a_wrong_clock_is_told_by_how_much_once_the_hub_answers() -> None:
    keeper, regimes = TimeKeeper(), Regimes()
    regimes.recorded(7, 0, 1, 3, keeper.stamp(5_000, 0), 0)  # 1970
    regimes.recorded(7, 0, 4, 4, keeper.stamp(65_000, 60_000), 60_000)
    jumped = TRUE_MS + 120_000 + 2 * HOUR_MS
    regimes.recorded(7, 0, 5, 9, keeper.stamp(jumped, 120_000), 120_000)
    assert regimes.shifts() == []
    keeper.hub_answered(TRUE_MS + 180_000, 180_000, 180_020)
    regimes.judge(keeper, 180_020)
    first, second = regimes.shifts()
    assert (first.first, first.last, second.first, second.last) == (1, 4, 5, 9)
    assert abs(first.ms - (TRUE_MS - RELEASED_MS)) <= first.within_ms + 20
    assert abs(second.ms + 2 * HOUR_MS) <= second.within_ms + 20
    regimes.recorded(7, 0, 10, 12, keeper.stamp(TRUE_MS + 181_000, 181_000), 181_000)
    assert len(regimes.shifts()) == 2, "a clock that the hub confirmed needs no telling"


def test_a_right_clock_that_nobody_had_confirmed_shifts_nothing() -> None:
    keeper, regimes = TimeKeeper(), Regimes()
    regimes.recorded(7, 0, 1, 3, keeper.stamp(TRUE_MS, 0), 0)
    keeper.hub_answered(TRUE_MS + 1_000, 990, 1_010)
    regimes.judge(keeper, 1_010)
    assert regimes.shifts() == []


def test_the_heartbeats_element_survives_and_is_bounded() -> None:
    said = ClockStated(Clock.FLOOR, -5, 40, (Shift(7, 0, 1, 3, -7_200_000, 40),))
    assert ClockStated.parse(said.to_list()) == said
    assert ClockStated.parse([9, None, None, []]) == ClockStated(None)
    assert ClockStated.parse(None) is None
    bad: list[object] = [[], [0], [0, "x", 1, []], [0, 1, -1, []], [0, 1, 1, [[7, 0, 5, 3, 1, 1]]], [0, 1, 1, [[7, 0, 1, 3, 1, 1]] * 17], 5]
    for value in bad:
        with pytest.raises(DecodeError):
            ClockStated.parse(value)


def test_waiting_goes_by_the_hubs_time_but_no_faster_than_ones_own() -> None:
    day_ms = 24 * HOUR_MS
    patience = Patience()
    assert patience.at(TRUE_MS, 0) == TRUE_MS
    assert patience.at(TRUE_MS + day_ms, day_ms) == TRUE_MS + day_ms
    assert patience.at(TRUE_MS + 4_000 * day_ms, day_ms + 60_000) < TRUE_MS + day_ms + 300_000, "it jumped"
    assert patience.at(TRUE_MS + day_ms, day_ms + 120_000) < TRUE_MS + day_ms + 300_000, "and came back"
    again = Patience(patience.persisted())
    assert again.at(TRUE_MS + 41 * day_ms, 5) <= TRUE_MS + 2 * day_ms + 300_000, "nobody knows how long it was off"
    assert Patience("nonsense").at(7, 0) == 7


def test_the_hubs_own_clock_is_as_good_as_the_kernel_says() -> None:
    assert [quality_of(ms, kept) for ms, kept in [(5, True), (TRUE_MS, None), (TRUE_MS, False), (TRUE_MS, True)]] == [0, 1, 1, 2]


def test_the_kernel_is_asked_seldom_and_may_say_nothing() -> None:
    clock = KernelClock(every_ms=1_000)
    said = clock.synchronised(0)
    assert said in (True, False, None)
    answers = iter([True, False])
    clock._ask = lambda: next(answers)  # type: ignore[method-assign]
    assert [clock.synchronised(mono) for mono in (500, 999, 1_000, 1_500, 2_000)] == [said, said, True, True, False]


def test_the_hubs_first_word_to_a_board_of_1970_is_kept_at_once() -> None:
    keeper = TimeKeeper()
    keeper.stamp(60_000, 0)
    keeper.persisted(0)
    keeper.stamp(61_000, 1_000)
    assert not keeper.due(1_000)
    keeper.hub_answered(TRUE_MS, 1_000, 1_100)
    assert keeper.due(1_100)
    again = TimeKeeper(keeper.persisted(1_100))
    assert not keeper.due(1_200)
    stamp = again.stamp(TRUE_MS - 600_000, 0)
    assert stamp.clock is Clock.UNSET and stamp.ms >= TRUE_MS, "a clock ten minutes behind is known to be"
