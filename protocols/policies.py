"""Tables of policies: read, checked, explained. The shipped one is `policies.yaml`; `CONFLICTS.md` is written from it.

A table is refused as a whole, with the line and what to do, when a name is not known, a case has no rule, or a rule can never be reached
(an earlier one fits everything that it fits). `python -m protocols.policies` writes `CONFLICTS.md`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from protocols.errors import ConfigError
from protocols.lifecycle import STATUS_NAMES, Status, conflicts
from protocols.policy import PLACES, SETTLING, Coverage, Outcome, Policies, Rule, Step, Task, Traits, When, coverage
from protocols.yaml_text import TEXT_BYTES, Node, read

FILE: Final = Path(__file__).with_name("policies.yaml")
DOCUMENT: Final = Path(__file__).with_name("CONFLICTS.md")
SHIPPED: Final = "shipped"
VERSION: Final = "1"
ANY: Final = "ANY"
RULES_MOST: Final = 200
STEPS_MOST: Final = 8
TEXT_MOST: Final = 400

_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,47}")
_PLACEHOLDER: Final = re.compile(r"\{[^}]*\}?|\}")
_PLACEHOLDERS: Final = ("{first}", "{First}", "{second}")
_SAME: Final = {"same": True, "different": False}
_AGREES: Final = {"agrees": True, "conflicts": False}
_WHEN: Final = ("status", "lifecycle", "actor", "source", "site", "first_at", "second_at", "settling")
_RULE: Final = ("id", "first", "second", "when", "outcome", "says", "task")


@cache
def shipped() -> Policies:
    """The table that comes with Longshore. A test checks it, so that starting does not."""
    return _parse(FILE.read_text("utf-8"), FILE.name, SHIPPED)


def load(path: str | Path) -> Policies:
    """A table of one's own; the empty path is the shipped one. Errors: ConfigError, naming file, line and remedy."""
    if not str(path):
        return shipped()
    file = Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"conflicts.policy_file: cannot read {file}: {error.strerror}.", remedy="Name a file that is there, or leave the setting out."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}).") from None
    return parse(text, str(file))


def parse(text: str, name: str) -> Policies:
    """A table from its text, with every check. `name`: what to call it in messages. Errors: ConfigError."""
    policies = _parse(text, name, name)
    _demand_coverage(coverage(policies.rules), name)
    return policies


def _demand_coverage(found: Coverage, name: str) -> None:
    if found.unreachable:
        rule = found.unreachable[0]
        raise ConfigError(
            f"{name}, line {rule.line}: the rule {rule.id!r} can never be reached: rules before it fit all that it fits.",
            remedy="Move it up, or remove it.",
        )
    if found.missing:
        case = found.missing[0]
        raise ConfigError(
            f"{name}: no rule fits {case.first.name} beside {case.second.name} ({describe(case)}); {len(found.missing)} such cases.",
            remedy="Add a rule for it; the last one of the shipped table fits every pair that agrees by the lifecycle.",
        )


def describe(case: Traits) -> str:
    """A case in words, for messages."""
    same = {True: "same", False: "different"}
    return (
        f"{same[case.actor]} actor, {same[case.source]} source, {same[case.site]} site, first at the {case.first_at}, second at the "
        f"{case.second_at}, {case.settling} of them settling"
    )


# ------------------------------------------------------------------ from text


class _Bad(Exception):
    def __init__(self, line: int, what: str, remedy: str = "") -> None:
        self.line, self.what, self.remedy = line, what, remedy
        super().__init__(what)


def _parse(text: str, where: str, name: str) -> Policies:
    try:
        top = _fields(read(text, where), "the table", ("version", "policies"), ("version", "policies"))
        if _text(top["version"], "version") != VERSION:
            raise _Bad(top["version"].line, f"version must be {VERSION}", "This program knows no other.")
        rules = [_rule(node) for node in _list(top["policies"], "policies", RULES_MOST)]
        seen: dict[str, int] = {}
        for rule in rules:
            if rule.id in seen:
                raise _Bad(rule.line, f"the id {rule.id!r} stands on line {seen[rule.id]} already", "Give each rule its own.")
            seen[rule.id] = rule.line
    except _Bad as bad:
        raise ConfigError(f"{where}, line {bad.line}: {bad.what}.", remedy=bad.remedy) from None
    return Policies(name, tuple(rules))


def _fields(node: Node, what: str, known: Sequence[str], required: Sequence[str]) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise _Bad(node.line, f"{what} must be a map, not {node.kind}")
    for key, value in node.value.items():
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.6)
            raise _Bad(
                value.line, f"{key[:64]!r} is no field of {what}", f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            )
    for key in required:
        if key not in node.value:
            raise _Bad(node.line, f"{what} has no {key}", f"It needs {', '.join(required)}.")
    return node.value


def _text(node: Node, what: str, most: int = TEXT_MOST) -> str:
    if not isinstance(node.value, str) or not node.value.strip():
        raise _Bad(node.line, f"{what} must be text, not {'empty' if node.value == '' else node.kind}")
    text = " ".join(node.value.split())
    if len(text) > most or not text.isprintable():
        raise _Bad(
            node.line, f"{what} has {len(text)} characters or holds a control character", f"At most {most} printable ones are taken."
        )
    return text


def _list(node: Node, what: str, most: int) -> list[Node]:
    if not isinstance(node.value, list) or not 1 <= len(node.value) <= most:
        raise _Bad(node.line, f"{what} must be a list of 1 to {most}, not {node.kind if not isinstance(node.value, list) else 'this'}")
    return node.value


def _choice(node: Node, what: str, allowed: Sequence[str]) -> str:
    text = _text(node, what)
    if text not in allowed:
        near = get_close_matches(text, allowed, n=1, cutoff=0.5)
        raise _Bad(
            node.line,
            f"{what} is {text[:64]!r}; allowed: {', '.join(allowed)}",
            f"Did you mean {near[0]}?" if near else "",
        )
    return text


def _rule(node: Node) -> Rule:
    fields = _fields(node, "a policy", _RULE, ("id", "first", "second", "outcome", "says"))
    name = _text(fields["id"], "id")
    if not _ID.fullmatch(name):
        raise _Bad(fields["id"].line, f"id {name!r} is not lower-case letters, digits and -", "Write it like cancelled-in-hand.")
    outcome = Outcome[_choice(fields["outcome"], "outcome", [o.word for o in Outcome]).upper()]
    task = _task(fields["task"]) if "task" in fields else None
    if (task is None) is not (outcome is Outcome.ACCEPT):
        need = "has nothing to do for anybody" if task is not None else "needs a task that says who settles it, and how"
        raise _Bad(fields["outcome"].line, f"outcome {outcome.word} {need}", "Remove task." if task is not None else "Add task.")
    when = _when(fields["when"]) if "when" in fields else When()
    return Rule(name, node.line, _statuses(fields["first"]), _statuses(fields["second"]), when, outcome, _says(fields["says"]), task)


def _statuses(node: Node) -> tuple[Status, ...]:
    if node.value == ANY:
        return tuple(Status)
    nodes = _list(node, "first and second", len(Status)) if not isinstance(node.value, str) else [node]
    names = [_choice(one, "a status", STATUS_NAMES) for one in nodes]
    if len(set(names)) < len(names):
        raise _Bad(node.line, "a status stands twice in one list")
    return tuple(Status[name] for name in names)


def _when(node: Node) -> When:
    fields = _fields(node, "when", _WHEN, ())

    def same(key: str, words: dict[str, bool]) -> bool | None:
        return words[_choice(fields[key], key, list(words))] if key in fields else None

    def one(key: str, allowed: Sequence[str]) -> str | None:
        return _choice(fields[key], key, allowed) if key in fields else None

    return When(
        same("status", _SAME), same("lifecycle", _AGREES), same("actor", _SAME), same("source", _SAME), same("site", _SAME),
        one("first_at", PLACES), one("second_at", PLACES), one("settling", SETTLING),
    )  # fmt: skip


def _says(node: Node) -> str:
    text = _text(node, "says")
    for found in _PLACEHOLDER.findall(text):
        if found not in _PLACEHOLDERS:
            raise _Bad(node.line, f"says holds {found[:32]!r}", f"Only {', '.join(_PLACEHOLDERS)} are filled in.")
    return text


def _task(node: Node) -> Task:
    fields = _fields(node, "task", ("title", "for", "steps"), ("title", "for", "steps"))
    steps = []
    for one in _list(fields["steps"], "steps", STEPS_MOST):
        step = _fields(one, "a step", ("record", "words"), ("record", "words"))
        steps.append(Step(Status[_choice(step["record"], "record", STATUS_NAMES)], _text(step["words"], "words")))
    return Task(_text(fields["title"], "title", 80), _choice(fields["for"], "for", PLACES), tuple(steps))


# ------------------------------------------------------------------ the document


def _side(statuses: Sequence[Status]) -> str:
    return "any" if len(statuses) == len(Status) else ", ".join(s.name for s in statuses)


def _conditions(w: When) -> str:
    same, agrees = {True: "same", False: "different"}, {True: "one may follow the other", False: "neither may follow the other"}
    parts = [
        f"{same[v]} {k}" for k, v in (("status", w.status), ("actor", w.actor), ("source", w.source), ("site", w.site)) if v is not None
    ]
    parts += [] if w.lifecycle is None else [agrees[w.lifecycle]]
    parts += [f"{side} at the {at}" for side, at in (("first", w.first_at), ("second", w.second_at)) if at is not None]
    parts += [] if w.settling is None else [f"{w.settling} of them recorded to settle a conflict"]
    return "; ".join(parts) or "always"


def _section(rule: Rule) -> str:
    lines = [f"### {rule.id}: {rule.outcome.word}", "", f"- first: {_side(rule.first)}; second: {_side(rule.second)}"]
    lines += [f"- when: {_conditions(rule.when)}", f"- says: {rule.says}"]
    if rule.task is not None:
        lines.append(f"- task for the {rule.task.assignee}: **{rule.task.title}**")
        lines += [f"  - record **{step.record.name}**: {step.words}" for step in rule.task.steps]
    return "\n".join(lines)


def _matrix(policies: Policies) -> str:
    lines = ["| pair | policy | outcome | for |", "|---|---|---|---|"]
    for a, b in conflicts():
        fits = [r for r in policies.rules if (a in r.first and b in r.second) or (b in r.first and a in r.second)]
        rule = next(r for r in fits if r.when == When())
        lines.append(f"| {a.name} / {b.name} | {rule.id} | {rule.outcome.word} | {rule.task.assignee if rule.task else ''} |")
    return "\n".join(lines)


_INTRO: Final = """\
# When two facts did not know of each other

Written by `python -m protocols.policies` from `policies.yaml`; a test fails when it is out of date.

Every node keeps both facts, and which status is shown is decided by one fixed order ([LIFECYCLE.md](LIFECYCLE.md)), never by a clock. The
table below says what *people* have to do. The first rule that fits a pair counts; it fits in either order of the two, so the outcome is the
same whichever came first, at the edge as at the hub.

- **hold**: the order rests (`"held": true`) until somebody settles it; there is a task.
- **task**: somebody has to look; the order goes on.
- **accept**: nothing to do. One status is shown (the maximum of the fixed order), both people are credited.

A conflict is settled by a fact like any other, whose author has seen both: `POST /v1/conflicts/{id}/settle`, `conflicts settle` on the
command line, or any ordinary event. Its task closes with it. Two people who settle the same conflict without knowing of each other are a
pair as well, and the first two rules are about them.

What a rule looks at is in the facts: status, actor, source, site, and whether a fact names a site (said at a *dock*; an edge always names
its own) or none (said at the *centre*). A table of your own: `[conflicts] policy_file` in `hub.toml` and `edge.toml`, in the form of
`policies.yaml`. It replaces the shipped one as a whole and is refused at start, with line and remedy, when a case has no rule, a rule can
never be reached, or a name is not known. Give every node the same one: `GET /v1/conflicts` says the digest of the table in use.

## Notes and quantities

- `details.notes` (a text, or a list of texts): while facts stand side by side, the order shows the notes of all of them, the shown fact's
  first, each with who wrote it.
- `details.quantities` (whole numbers by name, such as `{"picked": 3}`): each fact says how many it *adds*, a correction is negative, and
  the order shows the sum of all that are known, each counted once, in whatever order they come. To carry the sum on when old facts are
  freed, a node writes what it had seen beside it (`details.quantitiesSeen`). A fork (a cloned card, a restored backup) may count too
  little between the fork and the new epoch; people are told of forks.
"""


def markdown(policies: Policies) -> str:
    """The whole of CONFLICTS.md."""
    parts = [_INTRO, "## Pairs of which neither may follow the other\n", _matrix(policies) + "\n", "## The rules, in their order\n"]
    return "\n".join([*parts, "\n\n".join(_section(rule) for rule in policies.rules)]) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(markdown(shipped()), encoding="utf-8")
