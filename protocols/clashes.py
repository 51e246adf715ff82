"""The conflicts of a database: what the table of policies says of pairs of facts, kept beside the orders in the same transaction.

An open conflict is a pair of heads for which somebody has to do something; it is there exactly while both are heads, so the open ones,
their holds and tasks follow from the facts and the table alone. A closed one stays as history: *settled* by the facts that had seen both
first, or *went on* when one of the two authors went on without having seen the other, which is a conflict of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from protocols.codec import pack, unpack
from protocols.event import iso
from protocols.fact import FactRow
from protocols.lifecycle import Status
from protocols.merge import Ancestry, Head, dominates, dump_heads, load_heads, ranked
from protocols.merged import notes
from protocols.policy import CENTRE, Outcome, Policies, Step, Task, Told, Verdict, clash_id
from protocols.sql import Sql
from protocols.streams import StreamKey

SETTLES: Final = "settles"
SETTLED_AT: Final = "settledAt"
"""in the details of a settlement: it was made at the centre, whatever site its order stands at"""
NOTE_CHARS: Final = 400
_IDS_MOST: Final = 64
CLOSED_KEPT: Final = 500
"""closed conflicts of one order"""
HEADS_JUDGED: Final = 64
"""of one order: so many stand side by side only where somebody means harm"""


class State(IntEnum):
    """Of a conflict. The codes are on disk."""

    OPEN = 0
    SETTLED = 1
    WENT_ON = 2


@dataclass(frozen=True, slots=True)
class Clash:
    """A conflict as it is kept. `shown` is the fact whose status is shown. `settled_by`: the first facts that had seen both."""

    id: str
    okey: int
    state: State
    outcome: Outcome
    policy: str
    sentence: str
    shown: Told
    other: Told
    task: Task | None
    heads: tuple[Head, ...]
    raised_ms: int
    closed_ms: int | None
    settled_by: tuple[Told, ...] = ()


def tell(key: StreamKey, seq: int, h: bytes, fact: FactRow, received_ms: int) -> Told:
    """A fact as policies and people see it."""
    said = fact.details.get(SETTLES)
    settles = tuple(one for one in said if type(one) is str)[:_IDS_MOST] if type(said) is list else ()
    note = " / ".join(notes(fact.details))[:NOTE_CHARS]
    site = None if settles and fact.details.get(SETTLED_AT) == CENTRE else fact.site
    return Told(
        key.node, key.epoch, seq, h, fact.status, fact.source, site, fact.actor, fact.happened_ms, fact.recorded_ms, received_ms,
        settles, note,
    )  # fmt: skip


def tell_unknown(key: StreamKey, head: Head) -> Told:
    """A fact of which only its identity and status are known here."""
    _, seq, h = head.fact
    return Told(key.node, key.epoch, seq, h, Status(head.status), known=False)


def judged(policies: Policies, heads: Sequence[Head], told: Callable[[Head], Told]) -> list[tuple[Verdict, tuple[Head, Head]]]:
    """What becomes of each pair of heads, gravest first, then by name. Of very many heads, those that would be shown first are judged."""
    out = []
    if len(heads) > HEADS_JUDGED:
        heads = ranked(heads)[:HEADS_JUDGED]
    said = [told(head) for head in heads]
    for i, a in enumerate(heads):
        for n in range(i + 1, len(heads)):
            out.append((policies.judge(said[i], said[n]), (a, heads[n])))
    return sorted(out, key=lambda one: (-one[0].outcome, one[0].id))


def settlers(a: Head, b: Head, facts: Sequence[Head], ancestry: Ancestry) -> list[Head]:
    """The facts that had seen both, without those that came after another of them."""
    both = [f for f in facts if dominates(f, a, ancestry) and dominates(f, b, ancestry)]
    return [f for f in both if not any(o is not f and dominates(f, o, ancestry) for o in both)]


class Closed(NamedTuple):
    """A pair that some facts had seen: what the table says of it, and those facts."""

    verdict: Verdict
    heads: tuple[Head, Head]
    by: tuple[Told, ...]


class Kept(NamedTuple):
    """What `ClashBook.update` must know of a conflict that is kept: columns of `clashes`, as they stand there."""

    id: str
    state: int
    policy: str
    outcome: int
    closed_ms: int | None
    closed_by: bytes | None


_KEPT: Final = f"SELECT {', '.join(Kept._fields)} FROM clashes WHERE okey=? ORDER BY cid"


class ClashBook:
    """The conflicts of one database. Inside the owner's transaction; keeps nothing in memory."""

    def __init__(self, db: Sql, policies: Policies) -> None:
        self._db, self.policies = db, policies

    # ------------------------------------------------------------ writing

    def update(
        self,
        okey: int,
        verdicts: Sequence[tuple[Verdict, tuple[Head, Head]]],
        closed: Sequence[Closed],
        now_ms: int,
        *,
        complete: bool,
        kept: Sequence[Kept] | None = None,
    ) -> Outcome:
        """Write down what is open of an order now, and what was closed. Returns the gravest outcome of the open ones.

        `closed` may name pairs that were never open here: they are history too. `complete`: every fact of the order was looked at, so that
        what `closed` does not name was not settled after all (a fork came to light). `kept`: what `kept` says of the order, where the
        caller has asked.
        """
        open_now = {verdict.id: (verdict, heads) for verdict, heads in verdicts if verdict.outcome is not Outcome.ACCEPT}
        by_id = {one.verdict.id: one for one in closed}
        kept = self.kept(okey) if kept is None else kept
        for clash in kept:
            now = open_now.pop(clash.id, None)
            done = by_id.pop(clash.id, None)
            if now is not None:
                self._keep_open(clash, now[0])
            elif done is not None:
                if clash.state != State.SETTLED or clash.closed_by != _dump_told(done.by):
                    self.close(clash.id, State.SETTLED, now_ms if clash.closed_ms is None else clash.closed_ms, done.by)
            elif clash.state == State.OPEN or (complete and clash.state == State.SETTLED):
                self.close(clash.id, State.WENT_ON, now_ms, ())
        for verdict, heads in open_now.values():
            self.insert(okey, verdict, heads, verdict.sentence, now_ms)
        for one in by_id.values():
            if one.verdict.outcome is not Outcome.ACCEPT:
                self.insert(okey, one.verdict, one.heads, one.verdict.sentence, now_ms)
                self.close(one.verdict.id, State.SETTLED, now_ms, one.by)
        if len(kept) + len(open_now) + len(by_id) > CLOSED_KEPT:
            self._forget(okey)
        return max((verdict.outcome for verdict, _ in verdicts), default=Outcome.ACCEPT)

    def _forget(self, okey: int) -> None:
        """Of what is closed the newest stay; a stranger's endless quarrel must not fill the disk."""
        self._db.run(
            """DELETE FROM clashes WHERE okey=? AND state<>0 AND cid<=
                 (SELECT cid FROM clashes WHERE okey=? AND state<>0 ORDER BY cid DESC LIMIT 1 OFFSET ?)""",
            (okey, okey, CLOSED_KEPT),
        )

    def _keep_open(self, clash: Kept, verdict: Verdict) -> None:
        """Open again where a fork showed that it never was settled; and as the table in use says it."""
        if clash.state == State.OPEN and (clash.policy, clash.outcome) == (verdict.rule.id, verdict.outcome):
            return
        self._db.run(
            "UPDATE clashes SET state=0, closed_ms=NULL, closed_by=NULL, policy=?, outcome=?, sentence=?, task=? WHERE id=?",
            (verdict.rule.id, int(verdict.outcome), verdict.sentence, _dump_task(verdict.rule.task), clash.id),
        )

    def close(self, clash_id: str, state: State, now_ms: int, by: Sequence[Told]) -> None:
        """Of a conflict that is here; `by`: the facts that settled it."""
        self._db.run(
            "UPDATE clashes SET state=?, closed_ms=?, closed_by=? WHERE id=?",
            (int(state), now_ms, _dump_told(by), clash_id),
        )

    def insert(self, okey: int, verdict: Verdict, heads: Sequence[Head], sentence: str, raised_ms: int) -> None:
        """A conflict that is not here yet, open."""
        pair = pack([_told_row(verdict.shown), _told_row(verdict.other)])
        task = _dump_task(verdict.rule.task)
        self._db.run(
            """INSERT INTO clashes (id, okey, state, outcome, policy, sentence, pair, task, heads, raised_ms)
               VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
            (verdict.id, okey, int(verdict.outcome), verdict.rule.id, sentence, pair, task, dump_heads(heads), raised_ms),
        )

    # ------------------------------------------------------------ reading

    def of_order(self, okey: int) -> list[Clash]:
        """All of an order, oldest first."""
        return read_clashes(self._db, "okey=?", (okey,), "cid")

    def kept(self, okey: int) -> list[Kept]:
        """The same in short."""
        return [Kept(*row) for row in self._db.query(_KEPT, (okey,))]

    def standing(self, okey: int) -> list[Clash]:
        """Those of an order that are open or were settled, oldest first."""
        return read_clashes(self._db, "okey=? AND state<>?", (okey, int(State.WENT_ON)), "cid")


COLUMNS: Final = (
    "id", "okey", "state", "outcome", "policy", "sentence", "pair", "task", "heads", "raised_ms", "closed_ms", "closed_by",
)  # fmt: skip
"""of `clashes`, in the order that `as_clash` reads"""


def read_clashes(db: Sql, where: str, params: Sequence[Any], order: str) -> list[Clash]:
    """Conflicts of a database, for readers beside the writer too. `where` and `order` are ours, never a caller's text."""
    return [as_clash(row) for row in db.query(f"SELECT {', '.join(COLUMNS)} FROM clashes WHERE {where} ORDER BY {order}", params)]


def as_clash(row: tuple[Any, ...]) -> Clash:
    """A row of `clashes`."""
    clash, okey, state, outcome, policy, sentence, pair, task, heads, raised_ms, closed_ms, closed_by = row
    shown, other = (_told(one) for one in _rows(pair))
    by = tuple(_told(one) for one in _rows(closed_by)) if closed_by else ()
    return Clash(
        clash, okey, State(state), Outcome(outcome), policy, sentence, shown, other, _load_task(task), load_heads(heads), raised_ms,
        closed_ms, by,
    )  # fmt: skip


def _rows(data: bytes) -> list[Any]:
    rows: Any = unpack(data, max_bytes=len(data))
    return list(rows)


def _told_row(t: Told) -> list[Any]:
    return [
        t.node, t.epoch, t.seq, t.h, int(t.status), t.source, t.site, t.actor, t.happened_ms, t.recorded_ms, t.received_ms, list(t.settles),
        t.note, t.known,
    ]  # fmt: skip


def _told(row: list[Any]) -> Told:
    node, epoch, seq, h, status, source, site, actor, happened_ms, recorded_ms, received_ms, settles, note, known = row
    said = source, site, actor, happened_ms, recorded_ms, received_ms
    return Told(node, epoch, seq, h, Status(status), *said, tuple(settles), note, known)


def _dump_told(by: Sequence[Told]) -> bytes | None:
    if not by:
        return None
    data: bytes = pack([_told_row(told) for told in by])
    return data


def _dump_task(task: Task | None) -> bytes | None:
    if task is None:
        return None
    data: bytes = pack([task.title, task.assignee, [[int(s.record), s.words] for s in task.steps]])
    return data


def _load_task(data: bytes | None) -> Task | None:
    if data is None:
        return None
    title, assignee, steps = _rows(data)
    return Task(title, assignee, tuple(Step(Status(record), words) for record, words in steps))


# ------------------------------------------------------------------ JSON

Json = dict[str, Any]


def told_json(told: Told) -> Json:
    """Who did what, when and where."""
    return {
        "factId": told.fact_id, "status": told.status.name, "actor": told.actor, "node": told.node, "source": told.source or None,
        "site": told.site, "at": iso(told.happened_ms), "recordedAt": iso(told.recorded_ms), "note": told.note or None,
    }  # fmt: skip


def task_json(task: Task | None, clash: str, *, is_open: bool) -> Json | None:
    """What has to be done, by whom, and how it may be settled."""
    if task is None:
        return None
    steps = [{"record": step.record.name, "words": step.words} for step in task.steps]
    return {"id": clash, "title": task.title, "for": task.assignee, "open": is_open, "steps": steps}


def clash_json(clash: Clash, org: str, order_id: str) -> Json:
    """One conflict with its task and its history."""
    is_open = clash.state is State.OPEN
    return {
        "id": clash.id,
        "org": org,
        "orderId": order_id,
        "open": is_open,
        "state": clash.state.name.lower().replace("_", "-"),
        "outcome": clash.outcome.word,
        "policy": clash.policy,
        "held": is_open and clash.outcome is Outcome.HOLD,
        "sentence": clash.sentence,
        "shownFact": clash.shown.fact_id,
        "otherFact": clash.other.fact_id,
        "facts": [told_json(clash.shown), told_json(clash.other)],
        "credited": credited((clash.shown, clash.other)),
        "task": task_json(clash.task, clash.id, is_open=is_open),
        "raisedAt": iso(clash.raised_ms),
        "settledAt": iso(clash.closed_ms),
        "settledBy": [told_json(told) for told in clash.settled_by],
        "links": {
            "order": f"/v1/orders/{quote(order_id, safe='')}?org={quote(org, safe='')}",
            "settle": f"/v1/conflicts/{clash.id}/settle",
        },
    }


def policies_json(policies: Policies) -> Json:
    """Which table is in use; nodes with the same digest judge alike."""
    return {"name": policies.name, "digest": policies.digest, "rules": len(policies.rules)}


def credited(facts: Sequence[Told]) -> list[str]:
    """The people and machines behind some facts, each once."""
    return list(dict.fromkeys(told.who for told in facts))


def concurrent_json(verdicts: Sequence[Verdict]) -> list[Json]:
    """What the table says of each pair of an order's heads, also where nothing has to be done."""
    return [
        {
            "id": verdict.id,
            "outcome": verdict.outcome.word,
            "policy": verdict.rule.id,
            "sentence": verdict.sentence,
            "shownFact": verdict.shown.fact_id,
            "otherFact": verdict.other.fact_id,
            "credited": credited((verdict.shown, verdict.other)),
        }
        for verdict in verdicts
    ]


def clash_text(found: Json) -> str:
    """A conflict, as JSON tells it, on a few lines for people."""
    lines = [f"{found['org']}/{found['orderId']}: {found['outcome']} ({found['state']}), policy {found['policy']}", found["sentence"]]
    for fact in found["facts"]:
        lines.append(f"  {fact['status']} by {fact['actor'] or fact['node']} at {fact['site'] or 'the centre'}: {fact['factId']}")
    task = found["task"]
    if task is not None:
        lines.append(f"task for the {task['for']} ({'open' if task['open'] else 'done'}): {task['title']}")
        lines += [f"  --status {step['record']}: {step['words']}" for step in task["steps"]]
    for by in found["settledBy"]:
        note = f", “{by['note']}”" if by["note"] else ""
        lines.append(f"settled with {by['status']} by {by['actor'] or by['node']} at {by['site'] or 'the centre'}{note}: {by['factId']}")
    return "\n".join(lines)


def clashes_text(found: Sequence[Json]) -> str:
    """A list of conflicts for people, one on two lines."""
    lines = [
        f"{one['id']}  {one['state']:<8} {one['outcome']:<5} {one['orderId']}  {one['raisedAt']}\n  {one['sentence']}" for one in found
    ]
    return "\n".join(lines) or "no conflict"


def notes_json(facts: Sequence[tuple[Told, Mapping[str, object]]]) -> list[Json]:
    """The notes of facts that stand side by side, each with who wrote it."""
    return [{"text": text, "by": told.who, "factId": told.fact_id} for told, details in facts for text in notes(details)]


__all__ = ["SETTLES", "Clash", "ClashBook", "Closed", "State", "clash_id", "clash_json", "tell", "tell_unknown"]
