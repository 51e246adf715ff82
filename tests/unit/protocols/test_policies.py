"""Tables of one's own: what is refused, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.errors import ConfigError
from protocols.lifecycle import Status
from protocols.policies import FILE, load, parse
from protocols.policy import Outcome, Told
from protocols.yaml_text import read

SHIPPED = FILE.read_text("utf-8")
LAST = """
  - {id: rest, first: ANY, second: ANY, outcome: accept, says: "{First} and {second}."}
"""
HEAD = "version: 1\npolicies:\n"
TASK = '{title: Look, for: dock, steps: [{record: RETURNED, words: "Back."}]}'


def rule(
    name: str = "mine", *, first: str = "PICKED", second: str = "CANCELLED", outcome: str = "task", more: str = f"task: {TASK}"
) -> str:
    return f'  - {{id: {name}, first: {first}, second: {second}, outcome: {outcome}, says: "{{First}}; {{second}}.", {more}}}\n'


def told(status: Status, node: str, site: str | None, **more: object) -> Told:
    return Told(node, 1, 1, node.encode() * 2, status, "S", site, **more)  # type: ignore[arg-type]


BAD = [
    ("", "is empty", ""),
    ("version: 1", "has no policies", "needs version, policies"),
    ("version: 2\npolicies: []", "line 1: version must be 1", ""),
    (f"{HEAD}  - [a]", "line 3: a policy must be a map, not a list", ""),
    (HEAD + rule(outcome="stop"), "line 3: outcome is 'stop'; allowed: accept, task, hold", ""),
    (HEAD + rule(outcome="hodl"), "outcome is 'hodl'", "Did you mean hold?"),
    (HEAD + rule(first="PICKD"), "a status is 'PICKD'", "Did you mean PICKED?"),
    (HEAD + rule(first="[PICKED, PICKED]"), "a status stands twice", ""),
    (HEAD + rule(more="tsk: 1"), "'tsk' is no field of a policy", "Did you mean task?"),
    (HEAD + rule(more=f"task: {TASK}, when: {{actor: other}}"), "actor is 'other'; allowed: same, different", ""),
    (HEAD + rule(more="when: {}"), "outcome task needs a task", "Add task"),
    (HEAD + rule(outcome="accept"), "outcome accept has nothing to do", "Remove task"),
    (HEAD + rule(name="Mine!"), "id 'Mine!' is not lower-case", "cancelled-in-hand"),
    (HEAD + rule() + rule(), "line 4: the id 'mine' stands on line 3 already", ""),
    (HEAD + rule().replace("{second}.", "{third}."), "says holds '{third}'", "Only {first}, {First}, {second}"),
    (HEAD + rule(more="task: {title: T, for: hub, steps: [{record: RETURNED, words: w}]}"), "for is 'hub'; allowed: centre, dock", ""),
    (HEAD + rule(more="task: {title: T, for: dock, steps: []}"), "steps must be a list of 1 to 8", ""),
    (HEAD + rule(more="task: {title: T, for: dock, steps: [{record: GONE, words: w}]}"), "record is 'GONE'", ""),
    (HEAD + rule(), "no rule fits PLACED beside PLACED", "Add a rule"),
    (HEAD + LAST + rule("late"), "the rule 'late' can never be reached", "Move it up"),
    (HEAD + rule() + rule("turned", first="CANCELLED", second="PICKED") + LAST, "'turned' can never be reached", ""),
    (HEAD + "  - {id: a, id: b}", "line 3: 'id' stands twice in one map", "Remove one"),
    (HEAD + "  - &x {id: a}", "anchors and aliases are not taken", ""),
    (HEAD + "  - *x", "aliases", ""),
    (HEAD + "  - !!python/object:os.system {}", "tags are not taken", ""),
    (HEAD + "  - {id: 'a", "line 3: not YAML", ""),
    ("a: 1\n---\nb: 2", "a second document begins", ""),
    (HEAD + "  - " + "[" * 30 + "]" * 30, "nested deeper", "Flatten"),
    ("x" * 140_000, "longer than 131072 bytes", ""),
]


@pytest.mark.parametrize(("text", "reason", "remedy"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_bad_table_is_refused_with_line_and_remedy(text: str, reason: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "mine.yaml")
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy
    assert caught.value.reason.startswith("mine.yaml")
    assert caught.value.exit_code == 3


def test_a_table_without_an_outcome_for_a_conflicting_pair_is_refused() -> None:
    """The shipped one without its rule for goods in hand: the pair is named."""
    start = SHIPPED.index("  - id: cancelled-in-hand")
    without = SHIPPED[:start] + SHIPPED[SHIPPED.index("  - id: cancelled-on-the-road") :]
    with pytest.raises(ConfigError, match="no rule fits PICKED beside CANCELLED"):
        parse(without, "mine.yaml")


def test_rules_look_at_actor_source_site_and_place_in_either_order() -> None:
    text = HEAD
    text += rule("alone", more=f"when: {{actor: same}}, task: {TASK}", outcome="task")
    text += rule("centre", more=f"when: {{first_at: dock, second_at: centre}}, task: {TASK}", outcome="hold")
    text += rule("there", more=f"when: {{site: same}}, task: {TASK}", outcome="hold")
    text += LAST
    table = parse(text, "mine.yaml")
    picked = told(Status.PICKED, "dock", "W8", actor="ana")
    cases = {
        "alone": told(Status.CANCELLED, "hub", None, actor="ana"),
        "centre": told(Status.CANCELLED, "hub", None, actor="ben"),
        "there": told(Status.CANCELLED, "dok2", "W8"),
        "rest": told(Status.CANCELLED, "dok3", "W9"),
    }
    for name, other in cases.items():
        assert table.judge(picked, other).rule.id == table.judge(other, picked).rule.id == name
    assert table.judge(picked, cases["centre"]).outcome is Outcome.HOLD


def test_two_who_are_not_named_are_not_the_same() -> None:
    table = parse(HEAD + rule("alone", more=f"when: {{actor: same}}, task: {TASK}") + LAST, "mine.yaml")
    assert table.judge(told(Status.PICKED, "a", "W"), told(Status.CANCELLED, "b", "W")).rule.id == "rest"


def test_a_file_is_read_or_it_is_said_why_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=r"conflicts\.policy_file: cannot read"):
        load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(file)
    file.write_text(SHIPPED, "utf-8")
    assert load(file).name == str(file)
    assert load(file).digest == load("").digest
    file.write_text(SHIPPED.replace("Nothing to do;", "Never mind;"), "utf-8")
    assert load(file).digest != load("").digest


def test_everything_is_text_with_its_line() -> None:
    top = read("a: no\nb:\n  - 1\n  - {c: 2026-05-21}\n", "t").value
    assert isinstance(top, dict)
    assert (top["a"].value, top["a"].line) == ("no", 1)
    items = top["b"].value
    assert isinstance(items, list)
    assert [items[0].value, items[1].line] == ["1", 4]
