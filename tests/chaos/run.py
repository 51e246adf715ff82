"""One run: a site is started, used, killed, healed, left alone until it is quiet, ended, and read by the oracle.

Nobody restarts anything by hand: the supervisor starts again whoever has ended, and that is all the help there is.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from tests.chaos import oracle
from tests.chaos.backups import Keeper
from tests.chaos.clients import PAUSE_MS, Chronicle, EdgeReader, Gauge, Http, HubReader, Writer
from tests.chaos.faults import HEALTHY, Fault
from tests.chaos.history import What, check
from tests.chaos.journal import Journal
from tests.chaos.plan import BACKUP, CONT, CUT, FAULT, HEAL, KILL, RESTORE, ROAM, STOP, TERM, Action, Pace, plan, restores, roams
from tests.chaos.site import BROKER, EDGE, FORGETFUL, HUB, SHARED, Layout, Site, build
from tests.chaos.waiting import ask, until
from tests.support.patience import WITHIN_S
from tests.support.procs import python, ran

PACE: Final = Pace()
FINISH_S: Final = 30.0
"""after which a client need not know how its last request ended; the history says so"""
QUIET_S: Final = 180.0
SETTLED_LOOKS: Final = 2
WAIT_FOR_VICTIM_S: Final = {KILL: 60.0, TERM: 3.0}
"""a kill is never left out; one who is stopped cannot end when asked, and what lets him go on is only due later"""
WHY_CHARS: Final = 300
QUIET_STEP_S: Final = 0.25
"""between two looks, each of which asks everybody and is work for them"""
VIEWS_STEP_S: Final = 0.5
COMPLAINTS_SHOWN: Final = 8
KEPT: Final = (
    "backups", "restores", "failed backups", "no copy yet", "nodes that were never at one",
)  # fmt: skip
_SIGNALS: Final = {KILL: signal.SIGKILL, TERM: signal.SIGTERM, STOP: signal.SIGSTOP, CONT: signal.SIGCONT}


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is drawn from."""

    seed: int = 0
    engine: str = "amqtt"
    kills: int = 30
    edges: int = 3
    writers: int = 2
    """per node, the hub included"""
    sabotage: str = ""
    """"kind:name" of `tests.chaos.sabotage`"""
    gap_ms: tuple[int, int] = PACE.gap_ms
    fault_percent: int = PACE.fault_percent
    stretch: int = 1
    """stops and faults last so many times longer: beyond keep-alives, stalls and time-outs"""
    restores: int = 0
    """how often hub, store, both or an edge is put back to a backup"""
    phones: int = 0
    """nodes that sync over HTTP through two edges, now this, now that"""
    favour: str = ""
    """a kind of process that is hit more often"""
    quiet_s: float = QUIET_S
    """how long everything may take to come to rest"""
    pause_ms: tuple[int, int] = PAUSE_MS
    """how long a writer rests between two requests"""
    least_ok: int = 0
    """requests that have to be answered with yes, and looks at what came of them: clients go on until then, however slow the machine"""

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        """What `asdict` gave, by way of JSON."""
        return cls(**{**said, "gap_ms": tuple(said["gap_ms"]), "pause_ms": tuple(said.get("pause_ms", PAUSE_MS))})


@dataclass(slots=True)
class Outcome:
    """How it went. `complaints` is empty when every promise was kept."""

    options: Options
    complaints: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    quiet_s: float = 0.0
    journal: Path | None = None

    def text(self) -> str:
        """For people."""
        c = self.counts
        swept = sorted(k for k in c if k.startswith(("resets", "changes")))
        done = ", ".join(f"{c[k]} {k}" for k in (*_SIGNALS, FAULT, CUT, ROAM, *swept, *KEPT) if c[k])
        asked = ", ".join(f"{c[str(k)]} {k}" for k in What)
        line = (
            f"seed {self.options.seed} {self.options.engine}: {done}; {c['restarts']} restarts; requests: {asked}; "
            f"{c['stored']} facts stored, {c['freed']} freed, {c['looked']} looks; {self.seconds:.0f} s, quiet after {self.quiet_s:.1f} s"
        )
        said = self.complaints[:COMPLAINTS_SHOWN]
        more = len(self.complaints) - len(said)
        return "\n".join([line, *(f"  FAILED {s}" for s in said), *([f"  … and {more} more"] if more > 0 else [])])


def run(options: Options, folder: Path, *, again: Sequence[Action] | None = None) -> Outcome:
    """Play it in an empty folder. `again`: do this instead of what the seed draws (a replay)."""
    kind, _, name = options.sabotage.partition(":")
    if options.restores and not kind:
        kind, name = HUB, "gives-up-soon"
    layout = Layout(options.engine, options.edges, options.seed, sabotage=(kind, name) if kind else None, phones=options.phones)
    return on_site(options, layout, folder, lambda site, outcome: _play(options, site, outcome, again))


def on_site(
    options: Options,
    layout: Layout,
    folder: Path,
    play: Callable[[Any, Outcome], None],
    build: Callable[[Path, Any, Journal], Site] = build,
) -> Outcome:
    """A site for the length of a play, which begins once everybody is ready. Whatever happens, all its processes are ended."""
    outcome, journal = Outcome(options), Journal(folder / "journal.jsonl")
    outcome.journal = journal.path
    began_s = time.monotonic()
    site = build(folder, layout, journal)
    try:
        site.supervisor.start()
        if until(lambda: not site.unready(), WITHIN_S):
            journal.begin(**asdict(options))
            play(site, outcome)
        else:
            outcome.complaints.append(f"not ready within {WITHIN_S} s: {site.unready()}")
    finally:
        site.close()
        journal.close()
    outcome.complaints[:0] = site.supervisor.complaints
    outcome.seconds = time.monotonic() - began_s
    return outcome


def _play(options: Options, site: Site, outcome: Outcome, again: Sequence[Action] | None) -> None:
    journal = site.supervisor.journal
    pace = Pace(gap_ms=options.gap_ms, fault_percent=options.fault_percent).stretched(options.stretch)
    favour = options.favour or (BROKER if options.engine == FORGETFUL else "")
    chronicle = Chronicle(journal)
    keeper = Keeper(site, chronicle)
    with Crowd(options, site, chronicle) as crowd:
        actions = plan(options.seed, site.kinds(), site.integrity(), options.kills, pace, favour=favour) if again is None else list(again)
        if again is None:
            span_ms = actions[-1].at_ms
            actions += restores(options.seed, options.restores, [n for n in site.nodes if n.startswith(EDGE)], span_ms)
            actions += roams(options.seed, site.roads(), site.gateways, span_ms)
        for action in sorted(actions, key=lambda a: a.at_ms):
            pause_until(journal, action.at_ms)
            do(site, keeper, action, outcome.counts)
        keeper.finish()
        heal(site, keeper)
        crowd.work_until(options.least_ok)
        crowd.let_finish()
    outcome.counts["looked"] = crowd.looked
    outcome.counts.update(keeper.counts)
    await_quiet(site, outcome)
    judge(site, chronicle, outcome, keeper)


# ------------------------------------------------------------ doing


def pause_until(journal: Journal, at_ms: int) -> None:
    threading.Event().wait(max(0.0, (at_ms - journal.now_ms()) / 1_000))


def do(site: Site, keeper: Keeper, action: Action, counts: Counter[str]) -> None:
    """To a process that is just being restarted it is done once it runs again; a kill is never left out."""
    site.supervisor.journal.write(action.do, who=action.who, **({"fault": action.fault} if action.fault else {}))
    if action.do in _SIGNALS:
        number = _SIGNALS[action.do]
        again_s = WAIT_FOR_VICTIM_S.get(action.do, 0.0)
        done = until(lambda: site.supervisor.send(action.who, number), again_s)
        counts[action.do] += done
        counts[f"{action.do} {site.supervisor.kind(action.who)}"] += done
        return
    if action.do == BACKUP:
        keeper.backup(action.who)
        return
    if action.do == RESTORE:
        keeper.restore(action.who, (action.fault or {}).get("age", 0))
        return
    counts[action.do] += 1
    if action.do == ROAM:
        site.lead(action.who, (action.fault or {})["to"])
        return
    line = site.lines[action.who]
    if action.do == CUT:
        line.cut()
    else:
        line.set(Fault.from_json(action.fault) if action.fault else HEALTHY)


def heal(site: Site, keeper: Keeper) -> None:
    """Nothing is wrong with any line any more, and nobody is stopped."""
    for name in site.lines:
        do(site, keeper, Action(site.supervisor.journal.now_ms(), HEAL, name), Counter())
    for name in (*site.supervisor.parts, *site.supervisor.services):
        do(site, keeper, Action(site.supervisor.journal.now_ms(), CONT, name), Counter())


class Crowd:
    """All clients of a site, each in a thread of its own for the length of a `with` block."""

    def __init__(self, options: Options, site: Site, chronicle: Chronicle) -> None:
        self._stop, self._look, self._abandon = threading.Event(), threading.Event(), threading.Event()
        self.chronicle, complain = chronicle, site.supervisor.complain
        self.writers = [
            Writer(
                f"{node}/w{n}",
                node,
                site.client_port(node),
                options.seed,
                chronicle,
                self._stop,
                self._abandon,
                complain,
                _places(site, node, putting_back=options.restores > 0),
                options.pause_ms,
            )
            for node in (*site.nodes, HUB)
            for n in range(options.writers)
        ]
        self.gauges = [Gauge(node, site.client_port(node), options.seed, self._stop) for node in site.nodes]
        self.readers: list[EdgeReader | HubReader] = [
            EdgeReader(node, site.client_port(node), options.seed, chronicle, self._look, complain) for node in site.nodes
        ]
        self.readers.append(HubReader(site.client_port(HUB), options.seed, chronicle, self._look, complain))
        self._threads = [threading.Thread(target=one.run, daemon=True) for one in (*self.writers, *self.gauges, *self.readers)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in (self._stop, self._look, self._abandon):
            event.set()
        for thread in self._threads:
            thread.join()

    def work_until(self, least: int) -> None:
        """Clients go on until they have heard yes so often, and have looked so often."""
        until(lambda: self.chronicle.oks >= least and self.looked >= least // 5, WITHIN_S)

    def let_finish(self) -> None:
        """No new requests; those with a key are asked to their end, now that all is healed."""
        self._stop.set()
        for thread in self._threads[: len(self.writers)]:
            thread.join(FINISH_S)

    @property
    def looked(self) -> int:
        """How often a reader had something to compare."""
        return sum(reader.looked for reader in self.readers)


def _places(site: Site, node: str, *, putting_back: bool) -> Sequence[str]:
    """What the centre says is of some site; an edge speaks of its own, and now and then an order moves to another."""
    places = list(dict.fromkeys(site.nodes.values()))
    if node == HUB and putting_back:
        return [SHARED]  # so that what the edges know of the centre's stream is a prefix of it: a hole would be open for an hour
    return places if node == HUB else [*[site.nodes[node]] * 9, *places]


# ------------------------------------------------------------ quiet


def await_quiet(site: Site, outcome: Outcome) -> None:
    """No queue at any edge and a balance that closes, twice in a row. Liveness: this must come by itself."""
    began_s = time.monotonic()
    why = [""]
    looks = [0]

    def quiet() -> bool:
        why[0] = _unquiet(site)
        site.supervisor.journal.write("waits", why=why[0][:WHY_CHARS])
        looks[0] = 0 if why[0] else looks[0] + 1
        return looks[0] >= SETTLED_LOOKS

    if until(quiet, outcome.options.quiet_s, step_s=QUIET_STEP_S):
        await_views(site, outcome)
    else:
        outcome.complaints.append(f"not quiet after {outcome.options.quiet_s} s: {why[0]}")
    outcome.quiet_s = time.monotonic() - began_s


def await_views(site: Site, outcome: Outcome) -> None:
    """What comes down has no queue that tells when it is all there: the edges' orders are compared until they are the centre's."""
    left: list[str] = []

    def same() -> bool:
        store = site.books("store", whole=False)
        right = oracle.fold(store.facts)
        left[:] = [
            s for node, place in site.nodes.items() for s in oracle.compare_views(store, right, site.books(node, whole=False), place)
        ]
        return not left

    if not until(same, outcome.options.quiet_s, step_s=VIEWS_STEP_S):
        outcome.complaints.append(f"after {outcome.options.quiet_s} s of quiet {len(left)} orders are not at the edges as at the centre")


def _unquiet(site: Site) -> str:
    """Why it is not quiet yet; "" when it is."""
    if site.unready():
        return f"not ready: {site.unready()}"
    for node in site.nodes:
        status = ask(f"{site.url(node)}/v1/status")
        if status is None or status["queue"]["events"]:
            return f"{node}: {status and {k: status[k] for k in ('link', 'queue')}}"
    balances = [ask(f"{site.url(hub)}/v1/balance") for hub in site.hubs]
    rows = [row for balance in balances if balance is not None for row in balance["nodes"]]
    if None in balances or not rows:
        return "the hub says nothing of its balance"
    bad = [row for row in rows if not row["balanced"] or row["queued"]]
    return f"balance: {bad}" if bad else ""


# ------------------------------------------------------------ the verdict


def judge(site: Site, chronicle: Chronicle, outcome: Outcome, keeper: Keeper | None = None) -> None:
    for hub in site.hubs:
        command = python("-m", "hub.cli", "balance", "--dir", site.folder / hub, "--json")
        code, said = ran(command)
        if code:
            outcome.complaints.append(f"longshore-hub balance of {hub} ended with {code}: {said[:300]}{said[300:][-300:]}")
    outcome.complaints += _last_look(site, chronicle)
    site.supervisor.retire(*site.mortal())
    outcome.counts["restarts"] = sum(service.starts - 1 for service in site.supervisor.services.values())
    store, *ledgers = (site.books(name) for name in ("store", *site.hubs, *site.nodes))
    edges = ledgers[len(site.hubs) :]
    outcome.counts["stored"] = len(store.facts)
    outcome.counts["freed"] = sum(freed for edge in edges for _, _, freed in edge.own.values())
    keeper = keeper or Keeper(site, chronicle)
    outcome.complaints += oracle.compare(store, ledgers[0], ledgers[1:], put_back=list(keeper.put_back))
    right = oracle.fold(store.facts)
    for edge, place in zip(edges, site.nodes.values(), strict=True):
        outcome.complaints += oracle.compare_views(store, right, edge, place)
    facts = [fact.stored() for fid, fact in store.facts.items() if fid.cls == oracle.ORDERS]
    outcome.complaints += [str(found) for found in check(chronicle.entries, facts, _closed(store, keeper), excused=keeper.excused(edges))]
    outcome.counts.update(str(entry.what) for entry in chronicle.entries)


def _closed(store: oracle.Books, keeper: Keeper) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Holes that the centre may have signed for in streams of its own: only where hub and store were both put back."""
    if not keeper.gone:
        return {}
    return {(node, epoch): held for (node, epoch, cls), held in store.closed.items() if node == HUB and cls == oracle.ORDERS}


def _last_look(site: Site, chronicle: Chronicle) -> list[str]:
    """Now that nothing is in the way, every edge shows what it said yes to."""
    said: list[str] = []
    rng = Random(site.layout.seed)
    for node in site.nodes:
        reader = EdgeReader(node, site.ports[node], site.layout.seed, chronicle, threading.Event(), said.append)
        line = Http(site.ports[node])
        for _ in range(10):
            reader.look(rng, line)
        line.close()
    return said
