"""What `longshore-hub doctor` says of Kafka: does it answer, does it let this hub in, are the topics there and as `[bridge]` wants them.

And what an error of the library's says, in words."""

from __future__ import annotations

import ssl

from hub.bridge_config import Bridge
from hub.bridge_topics import differences, plans
from hub.bus import Admin, BusError, BusRefused

Findings = list[tuple[bool, str, str]]
"""(fine, what it says, what to do)"""
_CREATE = "longshore-hub topics create"


async def kafka_findings(bridge: Bridge, admin: Admin) -> Findings:
    """Look, and say what was found; nothing is changed. Nothing is raised for what Kafka says or does not say."""
    wanted = plans(bridge.partitions, bridge.replicas, bridge.retention_days)
    settings = list(dict.fromkeys(name for plan in wanted for name in plan.settings))
    try:
        found = await admin.topics([plan.name for plan in wanted], settings)
    except BusRefused as error:
        return [(False, error.reason, error.remedy or "see [bridge]: credentials, rights, TLS")]
    except BusError as error:
        return [(False, error.reason, error.remedy or "start Kafka, or correct bridge.servers; the hub keeps facts until it answers")]
    missing = [plan.name for plan in wanted if plan.name not in found]
    out: Findings = [(True, f"{bridge.servers} let this hub in", "")]
    if missing:
        out.append((False, f"missing topics: {', '.join(missing)}", _CREATE))
    for plan in wanted:
        off = differences(plan, found[plan.name]) if plan.name in found else []
        if off:
            out.append((False, f"{plan.name}: {'; '.join(off)}", "change it with Kafka's own tools, or [bridge]"))
    if len(out) == 1:
        out.append((True, f"{len(wanted)} topics are as configured", ""))
    return out


def error_words(error: BaseException) -> str:
    """What an error says, on one line, without the addresses of objects."""
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted ({error.verify_message})"
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__
