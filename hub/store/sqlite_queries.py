"""What only SQLite reads in its own way: pages of orders, the balance, records. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hub.store.port import StoreRecord, StreamCounts
from hub.store.queries import CANDIDATES, Queries, pattern
from hub.store.statement import closed_by_records
from protocols.chains import Run, RunKind
from protocols.policy import Policies
from protocols.sqlite import Db
from protocols.streams import StreamKey

TRIGRAM: Final = 3


class SqliteQueries(Queries):
    """Reads over one connection. `snapshots`: the connection is a reader beside a writer; an answer of several queries needs a moment."""

    like, unindexed = "LIKE", "+"

    def __init__(self, db: Db, *, text_index: bool, snapshots: bool, policies: Policies) -> None:
        super().__init__(db, policies)
        self._text_index, self._snapshots = text_index, snapshots

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What is read inside is all of one commit."""
        if not self._snapshots:
            yield
            return
        self._db.run("BEGIN")
        try:
            yield
        finally:
            self._db.run("COMMIT")

    # ------------------------------------------------------------ orders

    def _among(self, few: list[int]) -> tuple[str, Any]:
        """See `Queries`."""
        return "v.okey IN (SELECT value FROM json_each(?))", json.dumps(few)

    def _standing(self, column: str, value: str) -> list[int]:
        """See `Queries`."""
        return [okey for (okey,) in self._db.query(f"SELECT okey FROM view WHERE {column}=? LIMIT ?", (value, CANDIDATES + 1))]

    def _holding(self, text: str) -> list[int] | None:
        """Orders whose id may hold the fragment; None when there are many."""
        if self._text_index and len(text) >= TRIGRAM:
            grams = dict.fromkeys(text[i : i + TRIGRAM] for i in range(len(text) - TRIGRAM + 1))
            match = " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams)
            found = self._db.query("SELECT rowid FROM order_text WHERE order_text MATCH ? LIMIT ?", (match, CANDIDATES + 1))
        else:
            found = self._db.query("SELECT v.okey FROM view v WHERE v.order_id LIKE ? ESCAPE '\\' LIMIT ?", (pattern(text), CANDIDATES + 1))
        return [okey for (okey,) in found] if len(found) <= CANDIDATES else None

    # ------------------------------------------------------------ the balance

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """See `CentralStore.records`: those of which some part still stands, data having superseded the rest."""
        rows = self._db.query(
            """SELECT c.first, c.h_before, c.last, c.h_last, c.kind, c.signed, c.received_ms FROM closures c JOIN streams s USING (sid)
               WHERE s.node=? AND s.epoch=? AND s.cls=? AND EXISTS (
                 SELECT 1 FROM runs r WHERE r.sid=c.sid AND r.kind=c.kind AND r.first>=c.first AND r.last<=c.last)
               ORDER BY c.first, c.last, c.h_last""",
            stream,
        )
        return [
            StoreRecord(stream, first, h_before, last, h_last, RunKind(kind), signed, at)
            for first, h_before, last, h_last, kind, signed, at in rows
        ]

    def counts(self) -> list[StreamCounts]:
        """See `CentralStore.counts`."""
        with self.moment():
            held: dict[int, int] = dict(self._db.query("SELECT sid, count(*) FROM log GROUP BY sid"))
            bad: dict[int, int] = dict(self._db.query("SELECT sid, count(*) FROM quarantine GROUP BY sid"))
            fixed: dict[int, int] = dict(
                self._db.query("SELECT q.sid, count(*) FROM quarantine q JOIN fixes f USING (sid, seq, h) GROUP BY q.sid")
            )
            twins = self._twins()
            closed = self._closed()
            streams = self._db.query("SELECT sid, node, epoch, cls FROM streams ORDER BY node, sid")
        return [
            StreamCounts(
                StreamKey(*key),
                held.get(sid, 0) - bad.get(sid, 0),
                bad.get(sid, 0),
                closed.get(sid, {}),
                twins.get(sid, 0),
                fixed.get(sid, 0),
            )
            for sid, *key in streams
            if sid in held or sid in closed
        ]

    def _closed(self) -> dict[int, dict[str, int]]:
        """Per stream and reason the seqs of its records at which there is no data."""
        runs: dict[int, list[Run]] = {}
        sql = "SELECT sid, first, h_before, last, h_last, kind FROM runs WHERE sid IN (SELECT sid FROM runs WHERE kind<>0)"
        for sid, *run, kind in self._db.query(sql):
            runs.setdefault(sid, []).append(Run(run[0], run[1], run[2], run[3], RunKind(kind)))
        return {sid: closed_by_records(found) for sid, found in runs.items()}

    def _twins(self) -> dict[int, int]:
        """Only streams with branches are counted in full."""
        forked = self._db.query(
            """SELECT DISTINCT a.sid FROM runs a JOIN runs b USING (sid)
               WHERE a.kind=0 AND b.kind=0 AND a.first<=b.last AND b.first<=a.last AND a.h_last<>b.h_last"""
        )
        counts = {sid: self._db.one("SELECT count(*) - count(DISTINCT seq) FROM log WHERE sid=?", (sid,)) for (sid,) in forked}
        return {sid: row[0] for sid, row in counts.items() if row is not None}

    def totals(self) -> dict[str, int]:
        """See `CentralStore.totals`."""
        row = self._db.one(
            """SELECT (SELECT count(*) FROM view), (SELECT count(*) FROM log WHERE okey IS NOT NULL),
                 (SELECT count(*) FROM clashes WHERE state = 0),
                 (SELECT count(*) FROM quarantine q LEFT JOIN fixes f USING (sid, seq, h) WHERE f.sid IS NULL)"""
        )
        return dict(zip(("orders", "facts", "conflicts", "quarantined"), row or (0, 0, 0, 0), strict=True))
