"""Commands that ask: through the running hub's API, or from its files where it does not run. Tables for people, `--json` for machines."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from hub import config as settings
from hub.config import HubConfig
from hub.words import duration
from protocols.commands import as_commands
from protocols.errors import Conflict, InvalidInput, LedgerBusy, LongshoreError, TransportError
from protocols.problem import CONFLICT
from protocols.sqlite import DataLock

TIMEOUT_S: Final = 20.0
COMMANDS: Final = {
    "/v1/orders?q=": "longshore-hub orders --q ",
    "/v1/orders": "longshore-hub orders",
    "/v1/conflicts": "longshore-hub conflicts",
    "/v1/quarantine": "longshore-hub quarantine ls",
    "/v1/nodes": "longshore-hub nodes ls",
    "/v1/backups": "longshore-hub backups ls",
}
"""what the API's remedies name, as somebody at a command line writes it"""


class Broken(LongshoreError):
    """The hub answered with a problem; what to exit with depends on which."""

    def __init__(self, reason: str, *, remedy: str = "", exit_code: int = 1) -> None:
        super().__init__(reason, remedy=remedy)
        self.exit_code = exit_code


# ------------------------------------------------------------------ which hub


def config_of(args: argparse.Namespace) -> HubConfig:
    """The configuration that the options name. Errors: ConfigError."""
    if args.config and args.dir:
        raise InvalidInput("--dir", "and --config name the same thing.", remedy="Give one of them.")
    return settings.read_config(args.config or args.dir or os.environ.get("LONGSHORE_HUB") or settings.FILE)


def is_running(config: HubConfig) -> bool:
    """Whether a process holds the data directory."""
    if not config.storage.path(settings.LOCK_FILE).exists():
        return False
    try:
        DataLock(config.storage.path(settings.LOCK_FILE)).release()
    except LedgerBusy:
        return True
    return False


def client_of(config: HubConfig) -> Client:
    """A client of the running hub's API."""
    host = "127.0.0.1" if settings.is_wildcard(config.api.host) else config.api.host
    return Client(host, config.api.port or _port_now(config), settings.read_token(config))


def _port_now(config: HubConfig) -> int:
    """The port that a hub took for itself."""
    try:
        return int(json.loads(config.storage.path(settings.PORTS_FILE).read_text("utf-8"))["api"])
    except (OSError, ValueError, KeyError, TypeError):
        raise TransportError("The hub runs, but its API's port is not known yet.", remedy="Try again in a moment.") from None


class Client:
    """Asks the API."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host, self._port, self._token = host, port, token

    def get(self, path: str, params: dict[str, Any] | None = None, *, fine: Sequence[int] = (200,)) -> Any:
        """The JSON of an address. Errors: TransportError: no answer; Broken: a problem."""
        wanted = {name: str(value) for name, value in (params or {}).items() if value is not None}
        return self._ask("GET", path + (f"?{urlencode(wanted)}" if wanted else ""), None, fine)

    def post(self, path: str, body: Any) -> Any:
        """Send JSON."""
        return self._ask("POST", path, json.dumps(body).encode(), (200, 201))

    def send(self, path: str, body: bytes, media: str) -> Any:
        """Send bytes of a type."""
        return self._ask("POST", path, body, (200,), media)

    def _ask(self, method: str, path: str, body: bytes | None, fine: Sequence[int], media: str = "application/json") -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media, "Accept": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise TransportError(
                f"The hub at {self._host}:{self._port} does not answer: {why}.", remedy="Is it running? See: longshore-hub doctor"
            ) from None
        finally:
            connection.close()
        if answer.status not in fine:
            raise _problem(data, answer.status)
        return data


def _problem(data: Any, status: int) -> Broken:
    said = data if isinstance(data, dict) else {}
    reason = str(said.get("detail") or said.get("title") or f"the hub answered {status}")
    remedy = as_commands(str(said.get("remedy") or ""), COMMANDS)
    return Broken(reason, remedy=remedy, exit_code=_exit_code(status, said.get("type")))


def _exit_code(status: int, kind: object) -> int:
    """As the same command ends where the hub does not run, and at an edge."""
    if kind == CONFLICT.urn:
        return Conflict.exit_code
    return {401: 3, 403: 3, 404: 1, 503: 6, 507: 5}.get(status, 2 if 400 <= status < 500 else 1)


# ------------------------------------------------------------------ asking


def ask(args: argparse.Namespace, path: str, params: dict[str, Any] | None = None) -> Any:
    """What the hub says at an address; from the files where it does not run."""
    config = config_of(args)
    if is_running(config):
        return client_of(config).get(path, params)
    from hub.cli_files import answer

    if not getattr(args, "told", False):
        args.told = True
        print("(the hub does not run: this is what its files hold)", file=sys.stderr)
    return answer(config, path, params or {})


def nodes_ls(args: argparse.Namespace) -> int:
    """The admitted nodes."""
    found = ask(args, "/v1/nodes", {"limit": 500})
    return show(
        args,
        found,
        found["nodes"],
        ("node", "org", "region", "site", "staff", "fingerprint"),
        "no node is admitted; see: longshore-hub nodes add --help",
    )


def orders(args: argparse.Namespace) -> int:
    """A page of orders, or one of them."""
    if args.show:
        return _order(args)
    params = {name: getattr(args, name) for name in ("site", "region", "status", "org", "q", "cursor", "limit")}
    flags = {name: "true" for name in ("conflict", "held") if getattr(args, name)}
    found = ask(args, "/v1/orders", params | flags)
    show(
        args,
        found,
        found["orders"],
        ("orderId", "status", "site", "region", "source", "timestamp", "receivedAt", "conflict", "held"),
        "no order matches",
    )
    if found["cursor"] and not args.json:
        print(f"more: --cursor {found['cursor']}")
    return 0


def _order(args: argparse.Namespace) -> int:
    if len(args.show) != 2 or args.show[0] != "show":
        raise InvalidInput("orders", f"{' '.join(args.show)!r} is not understood.", remedy="Write: longshore-hub orders show ID")
    path = f"/v1/orders/{quote(args.show[1], safe='')}"
    view = ask(args, path, {"org": args.org})
    timeline = ask(args, f"{path}/events", {"org": args.org})
    if args.json:
        say({**view, "events": timeline["events"]})
        return 0
    marks = ", ".join(word for word in ("conflict", "abnormal") if view[word])
    print(f"{view['org']}/{view['orderId']}: {view['status']}{f' ({marks})' if marks else ''}")
    table(timeline["events"], ("timestamp", "receivedAt", "status", "source", "node", "site", "actor", "isHead", "abnormal"))
    return 0


def fleet(args: argparse.Namespace) -> int:
    """Every node, with what is not here yet."""
    found = ask(args, "/v1/fleet", {"limit": 500})
    rows = [{**row, "notHereYet": row["notHereYet"]["sentence"]} for row in found["fleet"]]
    columns = ("node", "region", "site", "online", "received", "settled", "notHereYet", "holes", "refused", "waiting", "forked")
    return show(args, found, rows, columns, "" if args.json or rows else _no_node(args))


def _no_node(args: argparse.Namespace) -> str:
    """Why a fleet is empty: nobody was admitted, or the nodes are other workers'."""
    admitted = len(ask(args, "/v1/nodes", {"limit": 500})["nodes"])
    if not admitted:
        return "no node is admitted; see: longshore-hub nodes add --help"
    held = "the one admitted node is" if admitted == 1 else f"all {admitted:,} admitted nodes are"
    return f"{held} other workers' (longshore-hub workers); ask there, or see: longshore-hub nodes ls"


def workers(args: argparse.Namespace) -> int:
    """Who shares the nodes; 1 while something is nobody's or this worker has a trouble."""
    found = ask(args, "/v1/workers")
    rows = [{**row, "partitions": len(row["partitions"]), "leaseLeft": f"{row['leaseLeftMs'] / 1_000:.0f} s"} for row in found["workers"]]
    nobody = "no worker of this hub lives" if found["worker"] else "one process serves all nodes"
    show(args, found, rows, ("worker", "here", "place", "partitions", "leaseLeft", "aliveMs", "lastChangeMs"), nobody)
    for trouble in () if args.json else [*found["troubles"], *_unheld(found["unheld"])]:
        print(f"TROUBLE {trouble}")
    return 1 if found["troubles"] or found["unheld"] else 0


def _unheld(partitions: Sequence[int]) -> list[str]:
    return [f"{len(partitions)} partitions are nobody's: {', '.join(map(str, partitions[:10]))}"] if partitions else []


def balance(args: argparse.Namespace) -> int:
    """The balance; 1 when it is known not to close. Not known yet is no alarm."""
    found = ask(args, "/v1/balance")
    sums = [*found["nodes"], {**found["fleet"], "node": "all"}]
    rows = [{**row, "evicted": sum(row["evicted"].values()), "quarantined": _aside(row)} for row in sums]
    columns = ("node", "captured", "settled", "queued", "notHereYet", "inCustody", "quarantined", "evicted", "sentence")
    show(args, found, rows, columns, "")
    for alarm in () if args.json else found.get("alarms", ()):
        print(f"ALARM {alarm}")
    return 1 if found["fleet"]["balanced"] is False or found.get("alarms") else 0


def _aside(row: dict[str, Any]) -> str:
    """What its author put right or gave up stays a fact that stepped aside, and in the sum; nobody has to act on it any more."""
    aside, resolved = row.get("quarantined", 0), row.get("quarantinedResolved", 0)
    return f"{aside:,}{f' ({resolved:,} resolved)' if resolved else ''}"


def queue(args: argparse.Namespace) -> int:
    """What stepped aside."""
    refused, quarantined = ask(args, "/v1/refused"), ask(args, "/v1/quarantine")
    waiting = [row for row in ask(args, "/v1/fleet", {"limit": 500})["fleet"] if row["waiting"]]
    if args.json:
        say(
            {
                "refused": refused["refused"],
                "quarantined": quarantined["quarantined"],
                "waiting": waiting,
                "turnedAway": refused["turnedAway"],
            }
        )
        return 0
    for title, rows, columns in (
        ("refused frames (kept as evidence; their authors send the facts again)", refused["refused"], ("at", "node", "bytes", "reason")),
        ("facts in quarantine", quarantined["quarantined"], ("at", "factId", "reason")),
        ("nodes that wait for admission", waiting, ("node", "waiting")),
        ("names that the broker did not let in since its start", refused["turnedAway"], ("node", "count", "at", "reason")),
    ):
        print(f"{title}: {len(rows) or 'none'}")
        table(rows, columns)
    return 0


def status(args: argparse.Namespace) -> int:
    """Is it up, and what does it hold."""
    config = config_of(args)
    running = is_running(config)
    health = client_of(config).get("/readyz", fine=(200, 503)) if running else {"ready": False, "reasons": ["the hub does not run"]}
    rows = ask(args, "/v1/fleet", {"limit": 500})["fleet"]
    closing = ask(args, "/v1/balance")["fleet"]
    found = {
        "running": running,
        **health,
        "nodes": len(rows),
        "online": sum(row["online"] for row in rows),
        "notHereYet": closing["notHereYet"],
        "captured": closing["captured"],
        "settled": closing["settled"],
        "balanced": closing["balanced"],
    }
    if args.json:
        say(found)
    else:
        for name, value in (found | _line(found.get("line")) | bridge_row(found.get("bridge"))).items():
            print(f"{name:<12} {'; '.join(value) or '-' if isinstance(value, list) else cell(value)}")
    return 0 if running and health["ready"] else 1


def _line(line: dict[str, Any] | None) -> dict[str, Any]:
    """The hub's line to its broker, for people: one row, and one for each thing that is refused."""
    if line is None:
        return {}
    said = f"up, {line['protocol']}" if line["connected"] else f"down: {line['problem'] or 'not connected yet'}"
    rows: dict[str, Any] = {"line": said}
    for number, row in enumerate(line["refusals"], 1):
        where = f" on {row['topic']}" if row["topic"] else ""
        rows[f"REFUSED {number}"] = f"({row['kind']}){where}: {row['reason']}, {row['count']:,} times since {row['since']}. {row['remedy']}"
    return rows


def bridge_row(bridge: dict[str, Any] | None) -> dict[str, Any]:
    """What goes over Kafka, for people: one row."""
    if bridge is None:
        return {}
    said = "up" if bridge["up"] else f"down: {bridge['error'] or 'not connected yet'}"
    waits = f"{bridge['backlog']:,} not produced ({duration(bridge['backlogAgeMs'])}), {bridge['unsettled']:,} not in the store yet"
    return {
        "bridge": f"{bridge['kind']}, {said}; {waits} ({duration(bridge['unsettledAgeMs'])}); {bridge['producedAgain']:,} produced again"
    }


# ------------------------------------------------------------------ telling


def say(found: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(found, ensure_ascii=False, indent=None if not sys.stdout.isatty() else 2))


def show(args: argparse.Namespace, found: Any, rows: Sequence[dict[str, Any]], columns: Sequence[str], nothing: str) -> int:
    """The answer as JSON, or its rows as a table."""
    if args.json:
        say(found)
    elif rows:
        table(rows, columns)
    elif nothing:
        print(nothing)
    return 0


def table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Rows under their headings, each column as wide as it needs."""
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    if not cells:
        return
    heads = [_heading(name) for name in columns]
    widths = [max(len(line[n]) for line in [heads, *cells]) for n in range(len(columns))]
    for line in [heads, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _heading(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name)


def cell(value: Any) -> str:
    """A value as people read it: `-`, yes, no, 1,234."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000
