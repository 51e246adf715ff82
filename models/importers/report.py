"""What became of every row of an import. Nothing is dropped silently: `rows_total == rows_used + rows_skipped_total`, always."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

EXAMPLES: Final = 20
"""Skipped rows named one by one; all of them are counted."""

COUNTRIES: Final = 400
"""Countries counted by name."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row that could not be used: its line in the file (the header is line 1), the reason, and what was found there."""

    line: int
    reason: str
    found: str


@dataclass(slots=True)
class Report:
    """Counts of one import, filled while rows stream by; complete once the iterator is spent.

    `noted` counts what is odd and kept (an event can be noted more than once); `skipped` counts rows by reason; `countries` counts
    rows. `first_ms` and `last_ms` span the known happening times, milliseconds since 1970 UTC.
    """

    rows_total: int = 0
    rows_used: int = 0
    events_total: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    countries: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[Skipped] = field(default_factory=list)
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def rows_skipped_total(self) -> int:
        return self.skipped.total()

    def skip(self, line: int, reason: str, found: str) -> None:
        """Count a row that cannot be used. `reason` must come from a small fixed list; what varies belongs into `found`."""
        self.skipped[reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(Skipped(line, reason, found[:80]))

    def country(self, name: str) -> None:
        """Count a used row for its country; a file that names endlessly many cannot make the report grow."""
        known = name in self.countries or len(self.countries) < COUNTRIES
        self.countries[(name or "not stated") if known else "others"] += 1

    def happened(self, at_ms: int) -> None:
        """Widen the span of known happening times."""
        self.first_ms = at_ms if self.first_ms is None else min(self.first_ms, at_ms)
        self.last_ms = at_ms if self.last_ms is None else max(self.last_ms, at_ms)

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object, keys sorted by count."""
        return {
            "rowsTotal": self.rows_total,
            "rowsUsed": self.rows_used,
            "rowsSkipped": self.rows_skipped_total,
            "eventsTotal": self.events_total,
            "statuses": _by_count(self.statuses),
            "countries": _by_count(self.countries),
            "noted": _by_count(self.noted),
            "skipped": _by_count(self.skipped),
            "examples": [{"line": one.line, "reason": one.reason, "found": one.found} for one in self.examples],
            "firstMs": self.first_ms,
            "lastMs": self.last_ms,
        }

    def as_text(self) -> str:
        """The report for a reader at a terminal."""
        lines = [f"{self.rows_total} rows: {self.rows_used} used, {self.rows_skipped_total} skipped"]
        lines[0] += f"; {self.events_total} events" if self.events_total else ""
        lines += _table("events", self.statuses) + _table("noted", self.noted) + _table("skipped", self.skipped)
        lines += [f"  line {one.line}: {one.reason}: {one.found!r}" for one in self.examples]
        if len(self.examples) < self.rows_skipped_total:
            lines.append(f"  … and {self.rows_skipped_total - len(self.examples)} more")
        return "\n".join(lines)


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _table(title: str, counts: Counter[str]) -> list[str]:
    return [f"  {title:8} {count:7}  {name}" for name, count in _by_count(counts).items()]
