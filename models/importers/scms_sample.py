"""Cutting the shipped sample out of the publisher's file: the needed columns of the lines promised before a day.

The cells are the publisher's own words, only stripped of blanks around them; line ends become LF and the byte order mark goes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import BinaryIO

from models.importers.days import day_ms
from models.importers.report import Report
from models.importers.scms import COLUMNS, TITLES, ScmsRow


@dataclass(frozen=True, slots=True)
class SampleMade:
    """What was written: lines without the header, and the SHA-256 of the unpacked CSV (gzip bytes differ between zlib builds)."""

    lines_total: int
    csv_bytes: int
    csv_sha256: str

    def as_json(self) -> dict[str, int | str]:
        """The same as a JSON object."""
        return {"linesWritten": self.lines_total, "csvBytes": self.csv_bytes, "csvSha256": self.csv_sha256}


def promised_before(rows: Iterable[ScmsRow], before_ms: int, report: Report) -> Iterator[ScmsRow]:
    """The rows promised before `before_ms` (UTC). A row without a readable promise cannot be placed in time: skipped and counted."""
    for row in rows:
        try:
            day = day_ms(row.promised)
        except ValueError:
            day = None
        if day is None:
            report.skip(row.line, f"no day in {TITLES['promised']}", row.promised)
        elif day >= before_ms:
            report.skip(row.line, "promised too late for the sample", row.promised)
        else:
            report.rows_used += 1
            yield row


def write_sample(rows: Iterable[ScmsRow], out: BinaryIO) -> SampleMade:
    """Write `rows` with a header to `out` as gzipped CSV without a time stamp, so that the same rows give the same file."""
    digest, csv_bytes, lines_total = hashlib.sha256(), 0, -1
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as packed:
        for line in _csv_lines(rows):
            packed.write(line)
            digest.update(line)
            csv_bytes += len(line)
            lines_total += 1
    return SampleMade(lines_total, csv_bytes, digest.hexdigest())


def _csv_lines(rows: Iterable[ScmsRow]) -> Iterator[bytes]:
    cells_of = attrgetter(*(column.field for column in COLUMNS))
    yield _csv_line([column.title for column in COLUMNS])
    for row in rows:
        yield _csv_line(cells_of(row))


def _csv_line(found: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(found)
    return text.getvalue().encode()
