"""Copies of databases made while everything runs, and databases put back to them, with the commands that operators type.

Whoever comes back older than he was is given back what he lacks by the others: no yes may be lost by it. What lay only on disks that were
put back is gone, though, and that is the scenario's doing; so it keeps such things few and known:

- an edge is put back when the centre has all it said, and no copy of the centre made before that is used any more;
- hub or store alone is put back when each has what the other has;
- where both go back, what the centre itself said since the copy and no edge has heard of is excused;
- clients of a node that was put back do not ask old requests again: their keys lay in its ledger.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from tests.chaos.clients import Chronicle
from tests.chaos.faults import HEALTHY
from tests.chaos.history import What
from tests.chaos.oracle import Books
from tests.chaos.site import HUB, Site
from tests.chaos.waiting import ask, until
from tests.support.patience import WITHIN_S
from tests.support.procs import python, ran

COMMAND_S: Final = WITHIN_S
EMPTY_S: Final = 60.0
STORE: Final = "store"
BOTH: Final = "both"
PARTS: Final = {HUB: ("--hub-only",), STORE: ("--store-only",), BOTH: ()}
"""what of the hub is put back, and how the command is told"""


class Keeper:
    """Makes copies and puts them back. `counts`: what was done, and what could not be."""

    def __init__(self, site: Site, chronicle: Chronicle) -> None:
        self.site, self.chronicle = site, chronicle
        self.counts: Counter[str] = Counter()
        self.copies: dict[str, list[tuple[int, Path]]] = {}
        """per node: how long the history was when a copy was begun, and where it lies"""
        self.put_back: dict[str, None] = {}
        self.gone: list[tuple[int, int]] = []
        """stretches of the history in which the centre said yes on two disks that were both put back"""
        self._working: threading.Thread | None = None
        self._made = 0

    # ------------------------------------------------------------ copies

    def backup(self, node: str) -> None:
        """Begin a copy of a node's databases, with everything going on; the node may be killed meanwhile."""
        self.finish()
        self._working = threading.Thread(target=self._backup, args=(node, len(self.chronicle.entries)), daemon=True)
        self._working.start()

    def finish(self) -> None:
        """Until no copy is under way."""
        working, self._working = self._working, None
        if working is not None:
            working.join()

    def _backup(self, node: str, began: int) -> None:
        self._made += 1
        dest = self.site.folder / "backups" / f"{node}-{self._made}"
        dest.parent.mkdir(exist_ok=True)
        if self._command(node, "backup", str(dest)):
            self.copies.setdefault(node, []).append((began, dest))

    def _command(self, node: str, *args: str) -> bool:
        if node == HUB:
            line = python("-m", "hub.cli", *args, "--dir", self.site.folder / HUB)
        else:
            line = python("-m", "edge_agent.cli", *args, "--config", self.site.folder / node / "edge.toml")
        try:
            code, said = ran(line, COMMAND_S)
        except subprocess.TimeoutExpired:
            code, said = -1, f"nothing within {COMMAND_S} s"
        self.site.supervisor.journal.write("command", line=[node, *args], code=code, said=said[-400:])
        self.counts[f"{args[0]}s" if code == 0 else f"failed {args[0]}s"] += 1
        if code and args[0] == "restore":
            self.site.supervisor.complain(f"{node}: restore ended with {code}: {said[-300:]}")
        return code == 0

    # ------------------------------------------------------------ put back

    def restore(self, part: str, age: int) -> None:
        """Put hub, store, both or an edge back to a copy: the newest, or the one `age` before it."""
        self.finish()
        node = HUB if part in PARTS else part
        copies = self.copies.get(node)
        if not copies:
            self.counts["no copy yet"] += 1
            return
        began, src = copies[-1 - age % len(copies)]
        if part == BOTH:
            self._restore(HUB, src)
            self.gone.append((began, len(self.chronicle.entries)))
        else:
            self._restore_alone(node, src, *PARTS.get(part, ()))

    def _restore_alone(self, node: str, src: Path, *how: str) -> None:
        """Nothing may lie on this disk alone: who asks is held off until others have all that it has. So nobody stays stopped meanwhile."""
        self.chronicle.put_back(node)
        self.chronicle.paused[node] = None
        for name in self.site.supervisor.services:
            self.site.supervisor.send(name, signal.SIGCONT)
        for line in self.site.lines:
            if line.startswith(f"{node}>"):
                self.site.set(line, HEALTHY)
        if until(lambda: not self.chronicle.open[node] and self._has_nothing_of_its_own(node), EMPTY_S):
            self._restore(node, src, *how)
            if node != HUB:
                self.copies.pop(HUB, None)
        else:
            self.counts["nodes that were never at one"] += 1
        del self.chronicle.paused[node]

    def _restore(self, node: str, src: Path, *how: str) -> None:
        self.chronicle.put_back(node)
        self.put_back[node] = None
        self.site.supervisor.hold(node)
        self._command(node, "restore", str(src), "--force", *how)
        self.site.supervisor.release(node)

    def _has_nothing_of_its_own(self, node: str) -> bool:
        if node == HUB:
            return self._at_one()
        status = ask(f"{self.site.url(node)}/v1/status")
        return status is not None and status["queue"]["events"] == 0

    def _at_one(self) -> bool:
        """Has the store what the hub has, and nothing that the hub lacks?"""
        balance = ask(f"{self.site.url(HUB)}/v1/balance")
        if balance is None or not self.site.supervisor.running(HUB):
            return False
        return all(row["balanced"] and (row["queued"] == 0 or row["node"] != HUB) for row in balance["nodes"])

    # ------------------------------------------------------------ what may be missing

    def excused(self, edges: list[Books]) -> dict[str, None]:
        """Identities that the centre said while no disk but the two that were put back had them: no edge knows them either."""
        said: dict[str, None] = {}
        asked = {e.op: e.node for e in self.chronicle.entries if e.what is What.INVOKE}
        for first, last in self.gone:
            for e in self.chronicle.entries[first:last]:
                if e.what is What.OK and asked[e.op] == HUB:
                    said |= dict.fromkeys(e.ids)
        known = dict.fromkeys(str(fid) for edge in edges for fid in (*edge.facts, *edge.others))
        return {i: None for i in said if i not in known}
