"""What the commands of an edge say, for people and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge_agent.config import SETTINGS
from edge_agent.init import Made
from edge_agent.link import lines as lines_of
from protocols.event import format_time

Json = dict[str, Any]
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"))


def made_json(made: Made) -> Json:
    """What `init` made."""
    return {
        "directory": str(made.folder),
        "config": str(made.config),
        "card": str(made.card),
        "node": made.address.node,
        "org": made.address.org,
        "keyFingerprint": made.fingerprint,
        "hub": made.hub.hub,
        "hubFingerprint": made.hub.fingerprint,
    }


def made_text(made: Made) -> str:
    """The same, and what to do next."""
    return (
        f"card: {made.card}\n"
        f"node: {made.address.node} of {made.address.org}, key {made.fingerprint}\n"
        f"hub:  {made.hub.hub}, key {made.hub.fingerprint} (compare it with what `longshore-hub init` printed)\n\n"
        "next, where the hub is:\n"
        f"  longshore-hub nodes add {made.card} --config HUB.toml\n"
        f"then here:\n  longshore-edge run --config {made.config}"
    )


# ------------------------------------------------------------ status and queue


def status_text(s: Json) -> str:
    """`GET /v1/status`, in a few lines."""
    queue, link, clock, disk = s["queue"], s["link"], s["clock"], s["disk"]
    lines = [
        f"{s['node']} at {s['site']}, {s['region']} ({s['org']}), version {s['version']}, up {duration(s['uptimeMs'])}",
        f"link   {_link(link)}",
        *lines_of(link),
        f"queue  {_events(queue['events'])} not settled ({size(queue['bytes'])}), {queue['notReceived']:,} not received; {_oldest(queue)}",
    ]
    if queue["quarantined"] or link["refused"]:
        lines.append(f"       {queue['quarantined']:,} in quarantine, {link['refused']:,} frames refused (longshore-edge queue ls)")
    lines += _custody(s, "custody ")
    lines.append(f"clock  {_clock(clock)}")
    lines += _disk(disk)
    return "\n".join(lines)


def _custody(s: Json, head: str) -> list[str]:
    """What is kept for others; no line where this edge is nobody's relay."""
    kept = s.get("custody") or {"events": 0, "peers": 0}
    if not kept["events"] and not kept["peers"]:
        return []
    age = kept["oldestAgeMs"]
    words = f" ({size(kept['bytes'])}), oldest {duration(age)}" if age is not None else ""
    return [f"{head}{_events(kept['events'])} of others not settled{words}; {kept['peers']:,} {'peer' if kept['peers'] == 1 else 'peers'}"]


def _disk(disk: Json) -> list[str]:
    """The ledger against its budget, and what telemetry has of it."""
    full = ", FULL: nothing more is taken" if disk["full"] else ", nothing but facts of orders is taken" if disk["telemetryFull"] else ""
    lines = [f"disk   {size(disk['ledgerBytes'])} of {size(disk['budgetBytes'])}{full}"]
    gone = {why: n for why, n in disk["evicted"].items() if n}
    if disk["telemetryBytes"] or gone:
        words = f"; evicted: {', '.join(f'{n:,} {why}' for why, n in gone.items())}" if gone else ""
        lines.append(f"       telemetry {size(disk['telemetryBytes'])} of {size(disk['telemetryBudgetBytes'])}{words}")
    if disk.get("diskFull"):
        lines.append("       the disk itself is FULL: free some of it; events are taken again by themselves once there is room")
    elif disk.get("ballastBytes") and not disk.get("ballastHeld"):
        lines.append(f"       no room on the disk for the ballast of {size(disk['ballastBytes'])}")
    return lines


def _link(link: Json) -> str:
    if not link["connected"]:
        why = f" ({link['problem']})" if link.get("problem") else ""
        return f"down{why}; capturing goes on, and what was captured is sent once it is up"
    if not link["answered"]:
        way = "over HTTP" if link.get("protocol") == "HTTP" else "to the broker"
        return f"connected {way}, the hub has not answered yet (is this node added there?)"
    spoken = f" ({link['protocol']})" if link.get("protocol") else ""
    turn = "; it is busy: what is fresh is sent, what waited here has its turn soon" if link.get("waitsForTurn") else ""
    return f"up{spoken}, the hub was heard {duration(link['lastHeardAgoMs'] or 0)} ago{turn}"


def _clock(clock: Json) -> str:
    """How good it is, and what is known of how far off it was."""
    skew = clock["skewMs"] if clock["offsetMs"] is None else clock["offsetMs"]
    said = f"{clock['says']}; {'not compared with the hub yet' if skew is None else _skew(skew)}"
    if clock["quality"] == "unset":
        said += f"; facts are stamped {format_time(clock['recordsMs'])} and marked"
    facts = sum(shift["last"] - shift["first"] + 1 for shift in clock["shifts"])
    return said + (f"; {facts:,} facts were recorded by a clock that was wrong, and are shown by the hub's" if facts else "")


def _skew(skew_ms: int) -> str:
    if abs(skew_ms) < 1_000:
        return "agrees with the hub's"
    return f"{duration(abs(skew_ms))} {'ahead of' if skew_ms > 0 else 'behind'} the hub's"


def _oldest(queue: Json) -> str:
    return "nothing waits" if queue["oldestAgeMs"] is None else f"the oldest is {duration(queue['oldestAgeMs'])} old"


def queue_json(seen: Json) -> Json:
    """What waits, from a status and a quarantine."""
    return {
        "running": seen["running"],
        "queue": seen["status"]["queue"],
        "streams": seen["status"]["streams"],
        "custody": seen["status"].get("custody"),
        "refusedFrames": seen["status"]["link"]["refused"] if seen["running"] else None,
        "quarantine": seen["quarantine"],
    }


def queue_text(seen: Json) -> str:
    """The same as a table."""
    s = seen["status"]
    rows = [("class", "epoch", "captured", "settled", "waits", "bytes", "not received", "freed")]
    rows += [
        (
            x["class"],
            x["epoch"],
            f"{x['captured']:,}",
            f"{x['settled']:,}",
            f"{x['queued']:,}",
            size(x["bytes"]),
            f"{x['notReceived']:,}",
            f"{x['freed']:,}",
        )
        for x in s["streams"]
    ]
    lines = [
        f"{_events(s['queue']['events'])} not settled, {_oldest(s['queue'])}{'' if seen['running'] else ' (the edge is not running)'}",
        *table(rows),
    ]
    if seen["running"]:
        lines.append(f"frames refused by the hub since the start: {s['link']['refused']:,}")
    lines += _custody(s, "kept for others: ")
    lines.append(f"in quarantine: {s['queue']['quarantined']:,}")
    lines += [f"  {row['at']}  {row['factId']}  {row['reason']}" for row in seen["quarantine"]]
    return "\n".join(lines)


# ------------------------------------------------------------ settings


def settings_json() -> list[Json]:
    """The table of settings."""
    return [
        {
            "key": row.key, "variable": row.variable, "type": row.type, "default": row.default, "doc": row.doc, "least": row.least,
            "most": row.most, "choices": list(row.choices),
        }
        for row in SETTINGS.values()
    ]  # fmt: skip


def settings_text() -> str:
    """The same, to read."""
    rows = [(row.key, "must be given" if row.default is None else str(row.default), row.doc) for row in SETTINGS.values()]
    return "\n".join(table([("setting", "default", "meaning"), *rows]))


# ------------------------------------------------------------ words


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns set apart by two blanks; the last is ragged."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(ms: int) -> str:
    """`0.4 s`, `12 s`, `7 m`, `3 h 12 m`, `4 d 3 h`."""
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s" if ms < 10_000 else f"{ms // 1_000} s"
    for (unit, name), (lesser, lesser_name) in zip(_UNITS, [*_UNITS[1:], (0, "")], strict=True):
        if ms >= unit:
            rest = ms % unit // lesser if lesser else 0
            return f"{ms // unit} {name} {rest} {lesser_name}" if rest else f"{ms // unit} {name}"
    return f"{ms} ms"


def size(count_bytes: int) -> str:
    """`412 B`, `1.9 kB`, `64.0 MB`."""
    if count_bytes < 1_000:
        return f"{count_bytes} B"
    value = float(count_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1_000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1_000:.1f} TB"


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"
