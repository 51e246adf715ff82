"""Planted bugs: small sabotages of the production classes, each of which the simulated world must catch within a stated number of worlds.

A world that never fails proves nothing. Each row names the mistake, the faults without which it cannot show, and how many worlds it may
take at the most; the same world without the bug must be clean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from hub.store.sqlite import SqliteStore
from protocols.errors import LongshoreError
from protocols.sqlite import Db
from tests.conformance.store.test_backups import test_a_backup_counts_from_its_begin_and_has_what_was_there_then as conformance_of_backups
from tests.scenarios.test_stories import (
    test_a_branch_that_leaves_ours_far_below_gets_on_with_a_small_window,
    test_a_fork_that_lies_below_what_was_freed_is_noticed,
    test_an_edge_replaced_by_an_empty_one_signs_for_the_holes_it_left_behind,
)
from tests.sim import sabotage as s
from tests.sim import sabotage_more as m
from tests.sim import sabotage_workers as w
from tests.sim.golden import begin
from tests.sim.options import Options
from tests.sim.profiles import BASES, world_of
from tests.sim.sabotage import Patch
from tests.sim.test_workers import test_a_worker_that_comes_back_hands_over_what_only_it_has as comes_back_test
from tests.sim.test_workers import test_a_worker_that_is_cut_off_alone_lets_go_of_what_the_other_takes_over as cut_off_test
from tests.sim.test_workers import test_a_worker_that_was_stopped_beyond_its_lease_holds_nothing_over_when_it_finds_no_store as stopped_test
from tests.sim.world import play
from tests.unit.edge_agent.test_relay import test_with_backups_nothing_goes_that_one_of_them_lacks as backups_of_custody_test
from tests.unit.hub.test_downlink import test_a_tail_that_comes_while_a_pass_is_under_way_does_not_make_its_cursor_count as cut_short_test
from tests.unit.hub.test_downlink import test_an_order_that_moved_on_while_the_node_was_away_leaves_too as moved_on_test
from tests.unit.hub.test_freeing import test_a_store_that_lost_a_stream_altogether_does_not_support_it as lost_stream_test
from tests.unit.hub.test_phones import test_what_enters_the_scope_comes_whole_with_every_head as whole_test
from tests.unit.hub.test_twins import test_twins_that_live_under_one_name_are_each_sent_what_the_other_says as twins_test
from tests.unit.protocols.test_chains import (
    test_a_record_that_does_not_say_what_lies_below_stands_on_the_branch_that_has_a_hole as record_on_branch_test,
)
from tests.unit.protocols.test_chains import (
    test_a_record_whose_ends_are_known_stands_whatever_another_branch_holds_in_between as test_a_record_whose_ends,
)
from tests.unit.protocols.test_fixes import test_short_histories_in_every_order_of_arrival as fixes_test
from tests.unit.protocols.test_merge import test_a_ledger_ends_in_the_truth_whatever_came_first as ledger_test


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug. `needs`: faults that its worlds must have; `when`: what else their options must be; `within`: worlds it may take."""

    name: str
    patch: Callable[[], Patch]
    needs: tuple[str, ...] = ()
    within: int = 6
    when: Callable[[Options], bool] = lambda o: True
    profile: str = "small"
    story: Callable[[], None] | None = None
    """a scenario or unit test that must fail, for what the worlds of few seeds do not reach"""


def test_a_ledger_ends_in_the_truth_with_links() -> None:
    ledger_test(True)


def backup_begin_test() -> None:
    conformance_of_backups(SqliteStore(Db(":memory:")))


def has_backups(o: Options) -> bool:
    return o.backups and o.floor_ms == 0 and o.duration_ms >= 3 * 86_400_000


def sends_at_once(o: Options) -> bool:
    return o.uplink.linger_ms == 0 and o.edge_crashes > 0.01


def several_edges(o: Options) -> bool:
    return o.edges > 2


def frees(o: Options) -> bool:
    return (o.pressed or o.backups) and o.floor_ms < 2 * 86_400_000 and o.duration_ms >= 3 * 86_400_000


PLANTS: Final = (
    Plant("receipts before the hub's commit", s.ack_before_commit, ("hub_crashes",)),
    Plant("frames before the edge's commit", s.send_before_commit, ("edge_crashes",), 12, sends_at_once),
    Plant("identity without the hash: dedupe by (node, epoch, seq)", s.identity_without_hash, ("clones",)),
    Plant("receipts of another incarnation are believed", s.other_incarnation, ("hub_restores",), 20),
    Plant("a hub that restarts keeps its incarnation", s.same_incarnation, ("hub_restores",), 12),
    Plant("an answer is believed whatever its nonce", s.any_nonce, ("delays",), 20),
    Plant("settled from what was handed over", s.settled_from_hand_over, ("store_failures",)),
    Plant("free on received", s.free_on_received, (), 12, frees),
    Plant("free without asking the backups", s.free_without_backups, (), 12, has_backups),
    Plant("a record frees what its holder still has", s.record_frees, ("clones",), 40, frees),
    Plant(
        "the answer speaks of named streams only",
        s.named_streams_only,
        story=test_an_edge_replaced_by_an_empty_one_signs_for_the_holes_it_left_behind,
    ),
    Plant("no new epoch after a fork", s.no_new_epoch, ("clones",)),
    Plant("a point is matched by seq, not by hash", s.point_by_seq, ("clones",), 20),
    Plant("the watermark skips a hole", s.prefix_skips_a_hole),
    Plant("a record beats the data", s.record_beats_data, ("clones",), 30),
    Plant("the last to arrive is the state, at the hub", s.arrival_order),
    Plant("the last to arrive is the state, in the store", s.arrival_order_in_the_store),
    Plant("the latest clock is the state", s.clock_order),
    Plant("the context is dropped", s.context_dropped),
    Plant("orders are not folded again after a fork", s.no_fold_after_fork, story=test_a_ledger_ends_in_the_truth_with_links),
    Plant("a key is remembered outside the transaction", s.key_outside_the_transaction, ("edge_crashes",), 12),
    Plant("a key is not remembered", s.key_forgotten),
    Plant("a refused frame counts as received", s.refused_is_received, ("damage",), 12),
    Plant("frames are taken without a look at the signature", s.frames_unverified, ("forgery",)),
    Plant("receipts are taken without a look at the signature", s.receipts_unverified, ("forgery",)),
    Plant("what the hub cannot read stays at the hub", s.poison_stays_at_the_hub, ("poison",)),
    Plant("a hub that came back older is not given what the store has", s.store_never_asked_back, ("hub_restores",), 12),
    Plant(
        "receipts name the ends of runs only", s.branch_end_only, story=test_a_branch_that_leaves_ours_far_below_gets_on_with_a_small_window
    ),
    Plant("an answer names the ends of what is settled only", s.settled_ends_only, ("clones",), 20),
    Plant("a fork below what was freed goes unnoticed", s.fork_below_freed, story=test_a_fork_that_lies_below_what_was_freed_is_noticed),
    Plant("a record's lower end moves without its hash", s.record_without_its_hash, story=test_a_record_whose_ends),
    Plant("the store logs what it has once more", s.folded_twice, ("store_failures",)),
    Plant("the feed keeps its epoch over a restart", m.feed_epoch_kept, story=moved_on_test),
    Plant("the tail counts without a comparison", m.never_compared, ("partitions",), 6),
    Plant("the cursor counts before its comparison has ended", m.cursor_before_the_end, story=cut_short_test),
    Plant("twins under one name are not told what the other says", m.twins_unknown, story=twins_test),
    Plant("a backup covers what the store holds at its end", m.backup_counts_from_its_end, story=backup_begin_test),
    Plant("what comes down is put in place, not merged", m.put_in_place, ("partitions",), 6),
    Plant("orders go down to every site", m.told_everywhere, (), 6, several_edges),
    Plant("custody ends when the hub has received", m.custody_ends_when_received, story=backups_of_custody_test),
    Plant(
        "facts of orders are evicted like readings",
        m.orders_evicted,
        (),
        12,
        lambda o: o.reports > 0 and o.telemetry_bytes == 1_500,
        profile="fortnight",
    ),
    Plant("the hub frees without the store's rows", m.hub_frees_what_it_holds, ("store_failures",), 12, frees),
    Plant("the hub keeps calling known what the store has lost", m.hub_never_takes_back, story=lost_stream_test),
    Plant("a fix does not hold the place of what it replaces", m.fix_holds_no_place, story=fixes_test),
    Plant("a record stands on the trunk where a branch has a hole", m.record_on_the_trunk, story=record_on_branch_test),
    Plant("a worker takes over in the same name", w.takeover_in_the_same_name, profile="workers"),
    Plant("a worker that comes back keeps what it had of others' nodes", w.own_partitions_only, story=comes_back_test),
    Plant("leases are given without a fence", w.lease_without_fence, profile="workers"),
    Plant("a worker gives up its nodes while the store is away", w.nothing_is_held_over, profile="workers"),
    Plant("whoever comes first takes all when the store is back", w.whoever_comes_first, (), 20, profile="workers"),
    Plant("a worker that was stopped holds over what it had", w.held_over_after_a_stop, story=stopped_test),
    Plant("a worker that is cut off hears no claims", w.claims_unheard, story=cut_off_test),
    Plant("a phone's digests are those of a site", m.phone_compares_its_site, profile="phones"),
    Plant("what becomes a task is not sent whole", m.entering_is_not_sent, profile="phones", story=whole_test),
    Plant("what is over stays somebody's task", m.over_is_still_a_task, profile="phones"),
)


def worlds(plant: Plant, seeds: Iterable[int] = ()) -> Iterator[Options]:
    """The worlds in which a bug is looked for, all or of these seeds: small ones that have what it needs."""
    for seed in seeds or range(BASES[plant.profile], BASES[plant.profile] + 20_000):
        options = world_of(seed)
        if (
            all(name in options.faults for name in plant.needs)
            and (options.requests <= 100 or plant.profile != "small")
            and not options.real_keys
            and plant.when(options)
        ):
            yield options


@dataclass(frozen=True, slots=True)
class Catch:
    """How a plant went. `worlds` 0: it was not caught; `control`: what the same world said without it, if anything."""

    name: str
    worlds: int
    seed: int
    complaint: str
    control: str
    seconds: float


def complaint_of(options: Options) -> str:
    """What a world says: empty when all promises were kept."""
    try:
        play(options, make=begin)
    except (AssertionError, LongshoreError) as e:  # anything else says that the sabotage itself does not fit the code any more
        return f"{type(e).__name__}: {e}"
    return ""


def catch(plant: Plant, seed: int = -1) -> Catch:
    """Play worlds with the bug until one complains, then that world without it. `seed`: of the world to begin with."""
    began = time.perf_counter()
    if plant.story is not None:
        complaint, control = _told(plant.story, plant.patch), _told(plant.story, nullcontext)
        return Catch(plant.name, 1 if complaint else 0, -1, complaint, control, time.perf_counter() - began)
    for n, options in enumerate(_from(plant, seed), 1):
        if n > plant.within:
            break
        with plant.patch():
            complaint = complaint_of(options)
        if complaint:
            return Catch(plant.name, n, options.seed, complaint, complaint_of(options), time.perf_counter() - began)
    return Catch(plant.name, 0, -1, "", "", time.perf_counter() - began)


def _from(plant: Plant, seed: int) -> Iterator[Options]:
    """That world first, if it is one of the bug's."""
    if seed >= 0:
        yield from worlds(plant, [seed])
    yield from worlds(plant)


def _told(story: Callable[[], None], patch: Callable[[], Patch]) -> str:
    with patch():
        try:
            story()
        except AssertionError as e:
            return f"{story.__name__}: {' '.join(str(e).split())}"
    return ""


def table(catches: Sequence[Catch]) -> list[str]:
    """For people."""
    lines = [f"{'planted bug':62} {'worlds':>6} {'seed':>6} {'s':>5}  first complaint"]
    for c in catches:
        found = f"{c.worlds:6} {c.seed if c.seed >= 0 else 'story':>6}" if c.worlds else f"{'MISSED':>6} {'':6}"
        control = "  CONTROL FAILS TOO" if c.control else ""
        lines.append(f"{c.name:62} {found} {c.seconds:5.1f}  {c.complaint[:70]}{control}")
    return lines
