"""Writes the generated parts of RELIABILITY.md: invariants and faults of the worlds (run this module), and the table of planted bugs
(`python -m tests.sim --planted --write`, because it has to be measured)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.sim.invariants import INVARIANTS
from tests.sim.profiles import FAULT_WORDS
from tests.sim.runner import Outcome, profiles_of, sum_of_counts

DOCUMENT: Final = Path(__file__).parents[2] / "RELIABILITY.md"


def worlds(outcomes: Sequence[Outcome]) -> str:
    """The worlds that were played, and what happened in them."""
    rows = [
        f"| {p.name} | {p.seeds:,} | {p.edge_years:,.0f} | {p.facts:,} | {p.mean_s:.2f} s (worst {p.worst_s:.1f} s) |\n"
        for p in profiles_of(outcomes)
    ]
    head = "| worlds | seeds | edge-years | facts | processor time of a seed |\n|---|---|---|---|---|\n"
    did = "; ".join(f"{n:,} × {what}" for what, n in sum_of_counts(outcomes).items() if what != "message delivered")
    failed = sum(bool(o.complaint) for o in outcomes)
    return f"{head}{''.join(rows)}\n{failed or 'No'} failure{'s' if failed != 1 else ''}. {did}.\n"


class Caught(NamedTuple):
    """A row of the table of planted bugs: after how many worlds, in which, and what the world said first."""

    name: str
    worlds: int
    seed: int
    complaint: str


def section(text: str, name: str) -> str:
    """What stands between the markers of a section. Errors: AttributeError when there is no such section."""
    found = re.search(rf"<!-- {name}: generated.*?-->\n(.*?)<!-- end of {name} -->", text, re.S)
    assert found is not None, f"RELIABILITY.md has no section {name}"
    return found[1]


def written(text: str, name: str, body: str) -> str:
    """The document with another body in a section."""
    old = section(text, name)
    assert text.count(old) == 1 or not old.strip(), f"section {name} cannot be told from the rest"
    head, tail = re.split(rf"(?<=-->\n){re.escape(old)}(?=<!-- end of {name} -->)", text)
    return head + body + tail


def invariants() -> str:
    """The table of invariants."""
    rows = [f"| {number} | {promise} | {checked} |\n" for number, (promise, checked) in INVARIANTS.items()]
    return "| | promise | when a world checks it |\n|---|---|---|\n" + "".join(rows)


def faults() -> str:
    """The table of faults."""
    rows = [f"| {what} | {how} |\n" for what, how in FAULT_WORDS.values()]
    return "| what happens | how much of it |\n|---|---|\n" + "".join(rows)


def planted(catches: Sequence[Caught]) -> str:
    """The table of planted bugs. `seed` below 0: a story or a unit test, no world."""
    rows = [f"| {c.name} | {c.worlds or 'MISSED'} | {_where(c)} |\n" for c in catches]
    return "| planted bug | worlds until caught | where, and what it broke |\n|---|---|---|\n" + "".join(rows)


def _where(c: Caught) -> str:
    if not c.worlds:
        return ""
    words = re.sub(r"^Violation: ", "", c.complaint).replace(":", " ").split()
    return f"seed {c.seed}: {words[0]}" if c.seed >= 0 else f"`{words[0]}`"


def names_planted() -> list[str]:
    """The planted bugs that the document lists."""
    body = section(DOCUMENT.read_text("utf-8"), "planted bugs")
    return [line.split(" | ")[0].removeprefix("| ") for line in body.splitlines()[2:]]


def seed_planted(name: str) -> int:
    """The seed in which the document says that a planted bug was caught first; -1 when it was none."""
    for line in section(DOCUMENT.read_text("utf-8"), "planted bugs").splitlines():
        found = re.fullmatch(r"\| (.+) \| \d+ \| seed (\d+): .*", line)
        if found is not None and found[1] == name:
            return int(found[2])
    return -1


def write(**sections: str) -> None:
    """Put these sections into the document; underscores in a name stand for spaces."""
    text = DOCUMENT.read_text("utf-8")
    for name, body in sections.items():
        text = written(text, name.replace("_", " "), body)
    DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    write(invariants=invariants(), faults=faults())
