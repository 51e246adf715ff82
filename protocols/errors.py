"""Every error Longshore raises on purpose, as one tree that says whose fault it is and what helps.

    LongshoreError
    ├── InvalidInput        the caller's: names the field and the remedy; nothing was changed        (HTTP 422, exit 2)
    │   └── TooLarge        the caller's: a bound was exceeded                                       (HTTP 413)
    ├── DecodeError         the sender's bytes: damage, never trusted, moves nothing                 (refused, counted)
    │   └── NotVerified     the bytes are well formed, but not signed by their claimed author
    ├── NotKnown            the caller's: nothing here has this name                                 (HTTP 404, exit 1)
    ├── Conflict            the caller's: same idempotency key, other content                        (HTTP 409, exit 1)
    ├── ConfigError         the operator's: a setting, a port, a directory                           (exit 3)
    ├── LedgerError         this machine's                                                          (exit 1)
    │   ├── LedgerBusy      another process runs on the same data                                    (exit 4)
    │   ├── LedgerFull      the disk or the byte budget is used up; nothing was stored               (HTTP 507, exit 5)
    │   │   └── CustodyFull what is kept of others' facts has reached its bound; own events are taken
    │   └── LedgerBroken    a file is damaged, a sync or commit failed: close, reopen, rebuild       (the shell restarts the core; exit 1)
    │       └── LedgerAway  it is on a server that cannot be reached: try again later                (exit 6)
    ├── Fenced              nobody's: another took this part of the work over; nothing was changed
    └── TransportError      the link's: retry later                                                  (exit 6)

Each carries data (`field`, `reason`, `remedy`) so that a shell can render it without parsing text.
"""

from __future__ import annotations


def sentence(reason: str, remedy: str) -> str:
    """What is wrong and what helps, on one line: two sentences where the remedy begins like one."""
    reason, remedy = " ".join(reason.split()), " ".join(remedy.split())
    if not remedy:
        return reason
    if reason.endswith((".", "!", "?", ":", ";")):
        return f"{reason} {remedy}"
    return f"{reason}. {remedy}" if remedy[0].isupper() else f"{reason}; {remedy}"


class LongshoreError(Exception):
    """Base of everything raised on purpose. `reason` says what is wrong, `remedy` what to do about it."""

    exit_code = 1

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(sentence(reason, remedy))


class InvalidInput(LongshoreError):
    """The caller sent something that cannot be taken. `field` is a JSON path such as `details.weight` or `[3].status`."""

    exit_code = 2

    def __init__(self, field: str, reason: str, *, remedy: str = "", allowed: tuple[str, ...] = ()) -> None:
        self.field = field
        self.allowed = allowed
        super().__init__(f"{field}: {reason}", remedy=remedy)


class TooLarge(InvalidInput):
    """A bound of `protocols.limits` was exceeded."""


class DecodeError(LongshoreError):
    """Bytes from outside that are not what they claim to be. The only error a decoder raises."""


class NotVerified(DecodeError):
    """A signature that is not its claimed author's, or an author that is not known."""


class NotKnown(LongshoreError):
    """Nothing here has the name that the caller gave."""


class Conflict(LongshoreError):
    """The same idempotency key was used before, for other content."""


class ConfigError(LongshoreError):
    """A setting, port, file or directory that keeps a process from running."""

    exit_code = 3


class LedgerError(LongshoreError):
    """Something about the local database file."""


class LedgerBusy(LedgerError):
    """Another process holds this data directory."""

    exit_code = 4


class LedgerFull(LedgerError):
    """No room: the disk, or the byte budget. Nothing was stored."""

    exit_code = 5


class OverBudget(LedgerFull):
    """The byte budget is used up: refused before anything was written, and everything goes on. (A plain LedgerFull is the disk's word.)"""


class CustodyFull(LedgerFull):
    """No room for more of others' facts in custody; nothing of them was kept. This node's own events are still taken."""


class LedgerBroken(LedgerError):
    """A write, sync or commit failed. The connection is poisoned; reopen and rebuild."""


class LedgerAway(LedgerBroken):
    """It is on a server that cannot be reached; nothing is known to be damaged."""

    exit_code = 6


class Fenced(LongshoreError):
    """Another process took this part of the work over. Nothing was changed; the store goes on."""


class TransportError(LongshoreError):
    """The link, the broker or the peer did not do its part. Retry later."""

    exit_code = 6
