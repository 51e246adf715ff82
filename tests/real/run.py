"""One run of the kill test: a site on the real engines is started, used, killed, healed, left alone until it is quiet, and judged.

The crowd, the history, the oracle, the journal and the supervisor are those of `tests.chaos`; new is what is done to engines, what is read
of PostgreSQL and Kafka, and the looking on.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.backups import Keeper
from tests.chaos.clients import Chronicle
from tests.chaos.history import What
from tests.chaos.journal import Journal, actions, began
from tests.chaos.oracle import Books
from tests.chaos.plan import CUT, DOWN, FAULT, HEAL, KILL, MIDST, REST, UP, WIPE, Action
from tests.chaos.run import Crowd, Options, Outcome, await_quiet, do, heal, judge, on_site, pause_until
from tests.chaos.site import HUB
from tests.chaos.waiting import ask, until
from tests.real import topics
from tests.real.midst import caught
from tests.real.plan import BROKER, plan
from tests.real.site import RealLayout, RealSite, build
from tests.real.watch import WORDS, Watch, health
from tests.support.patience import WITHIN_S

ENGINE: Final = "real"
AWAY: Final = "away_ms "
"""before the name of a service: the longest that it did not serve"""
NAMED: Final = "named_ms "
"""before a kind: the longest that it was away before the hub named it"""
PART: Final = "part_ms "
"""before a part of the run: how long it took"""
QUIETLY: Final = (FAULT, HEAL, CUT)
"""what is done to lines, often"""


@dataclass(frozen=True, slots=True)
class RealOptions(Options):
    """What a run is drawn from."""

    engine: str = ENGINE
    kills: int = 30
    writers: int = 1
    edges: int = 2
    projectors: int = 2
    workers: int = 1
    down_ms: int = 60_000
    """how long Kafka is away"""
    name_s: float = WITHIN_S
    """by when the hub must have named who is away"""


def recorded(journal: Path) -> tuple[RealOptions, list[Action]]:
    """How a run was begun and what was done in it, to be done again. Errors: ValueError in words: this is no journal of such a run."""
    try:
        how = {key: value for key, value in began(journal).items() if key not in ("at_ms", "do")}
        if how.get("engine") != ENGINE:
            raise ValueError(f"{journal} is a journal of `python -m tests.chaos`: replay it there")
        return RealOptions.from_json(how), actions(journal)
    except OSError as error:
        raise ValueError(f"{journal} cannot be read: {error.strerror}") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"{journal} was written by another version: {error}") from error


def run(
    options: RealOptions, folder: Path, *, again: Sequence[Action] | None = None, tell: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Play it in an empty folder. `again`: do this instead of what the seed draws (a replay). `tell` hears what is being done."""
    sabotage = (HUB, options.sabotage) if options.sabotage else None
    layout = RealLayout(edges=options.edges, seed=options.seed, sabotage=sabotage, projectors=options.projectors, workers=options.workers)
    return on_site(options, layout, folder, lambda site, outcome: _play(options, site, outcome, again, tell), build)


def _play(options: RealOptions, site: RealSite, outcome: Outcome, again: Sequence[Action] | None, tell: Callable[[str], None]) -> None:
    journal: Journal = site.supervisor.journal
    chronicle = Chronicle(journal)
    keeper = Keeper(site, chronicle)
    doings = plan(options.seed, site.kinds(), site.integrity(), options.kills, options.down_ms) if again is None else again
    clock = _Clock(outcome.counts)
    with Watch(site, options.name_s) as watch:
        with Crowd(options, site, chronicle) as crowd:
            before, from_ms = 0, 0
            for action in doings:
                pause_until(journal, from_ms + action.at_ms - before)
                from_ms, before = journal.now_ms(), action.at_ms
                if action.do not in QUIETLY:
                    tell(f"{from_ms / 1_000:7.1f} s  {action.do} {action.who}")
                _act(site, keeper, watch, action, outcome.counts)
                from_ms = journal.now_ms() if again is None else from_ms  # a journal's times hold how long it took then
            heal(site, keeper)
            clock.over("doing")
            crowd.work_until(options.least_ok)
            crowd.let_finish()
        outcome.counts["looked"] = crowd.looked
        tell(f"{journal.now_ms() / 1_000:7.1f} s  nothing more is done; until all is quiet")
        clock.over("last requests")
        await_quiet(site, outcome)
        clock.over("coming to rest")
    outcome.counts.update({f"{AWAY}{name}": int(1_000 * seconds) for name, seconds in watch.longest.items()})
    outcome.counts.update({f"{NAMED}{kind}": int(1_000 * seconds) for kind, seconds in watch.naming.items()})
    outcome.counts["edges judged without the store"] = watch.judged
    outcome.complaints += _balance_at_edges(site)
    judge(site, chronicle, outcome, keeper)
    store = site.books("store", whole=False)
    answered = {i for entry in chronicle.entries if entry.what is What.OK for i in entry.ids}
    outcome.counts["answered"] = len(answered)
    outcome.counts["found"] = len(answered & {str(fid) for fid in store.facts})
    _judge_topics(site, store, outcome)
    clock.over("verdict")


class _Clock:
    """How long each part of a run took."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts, self._since_s = counts, time.monotonic()

    def over(self, part: str) -> None:
        """It began when the one before it was over."""
        now_s = time.monotonic()
        self._counts[f"{PART}{part}"] += int(1_000 * (now_s - self._since_s))
        self._since_s = now_s


def _act(site: RealSite, keeper: Keeper, watch: Watch, action: Action, counts: Counter[str]) -> None:
    if action.do not in (DOWN, UP, WIPE, MIDST, REST):
        do(site, keeper, action, counts)
        return
    supervisor, kind = site.supervisor, site.supervisor.services[action.who].kind
    supervisor.journal.write(action.do, who=action.who)
    if action.do == REST:
        _rest(site, action.who)
        return
    if action.do == UP:
        watch.returns(kind)
        supervisor.release(action.who)
        return
    if action.do == MIDST:
        counts["met in the midst of a transaction"] += caught(*site.central)
        counts[KILL] += until(lambda: supervisor.send(action.who, signal.SIGKILL), WITHIN_S)
    else:
        until(lambda: supervisor.running(action.who), WITHIN_S)
        if kind in WORDS:
            watch.went(kind)
        supervisor.hold(action.who)
        counts[KILL] += 1
    if action.do == WIPE:
        counts["files wiped"] += _wipe(site.folder / BROKER)
    counts[f"{KILL} {kind}"] += 1


def _rest(site: RealSite, who: str) -> None:
    began_s = time.monotonic()
    if not until(lambda: not site.unready(), WITHIN_S, step_s=0.2):
        said = {name: health(site.url(name)) for name in site.unready() if name in site.ports}
        site.supervisor.complain(f"not ready again {WITHIN_S} s after {who} was: {site.unready()} {said}")
    site.supervisor.journal.write("rested", after=who, seconds=round(time.monotonic() - began_s, 1))


def _wipe(folder: Path) -> int:
    """What a broker keeps over a restart is gone; returns how many files that were."""
    kept = list(folder.glob("*.db*"))
    for path in kept:
        path.unlink()
    return len(kept)


# ------------------------------------------------------------ the verdict


def _balance_at_edges(site: RealSite) -> list[str]:
    """captured = settled + queued at each edge, with nothing queued any more."""
    said = []
    for node in site.nodes:
        status = ask(f"{site.url(node)}/v1/status")
        if status is None:
            said.append(f"balance: {node} does not say its own")
            continue
        for stream in status["streams"]:
            if stream["captured"] != stream["settled"] or stream["queued"] or status["queue"]["quarantined"]:
                said.append(f"balance: {node} has {stream}")
    return said


def _judge_topics(site: RealSite, store: Books, outcome: Outcome) -> None:
    began_s = time.monotonic()
    records = topics.read(site.servers)
    outcome.counts["in topics"], outcome.counts["repeated"] = len(records), topics.repeated(records)
    outcome.complaints += topics.compare(records, store)
    site.supervisor.journal.write("topics", records=len(records), seconds=round(time.monotonic() - began_s, 1))
