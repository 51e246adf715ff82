"""What the command line does about what is carried: write a stick, take one in, manage peers; through the edge that runs, or straight into
its ledger, under its lock, where none runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge_agent.client import LocalApi
from edge_agent.config import EdgeConfig
from edge_agent.core import EdgeCore
from edge_agent.offline import whoever_holds
from edge_agent.peers import peer_json
from edge_agent.runtime import system_now
from edge_agent.syncing import CURSOR_HEADER, PAGE_BYTES, add_peer, summary
from protocols.errors import ConfigError, DecodeError, InvalidInput, TransportError
from protocols.stick import Damage, Part, counted, read_stick, write_stick
from protocols.sync.parcel import MEDIA_TYPE, read_parcel, room_in, write_parcel

CARD_BYTES: Final = 16_384
NAMED: Final = 20
"""damaged or refused parts that are named one by one"""

_CARD: Final = "Give the node.card.json that the node's init wrote."

Json = dict[str, Any]


@dataclass(slots=True)
class Imported:
    """What became of a stick. `counts`: messages by verdict; `left`: parts that were not taken, and why."""

    counts: dict[str, int] = field(default_factory=dict)
    left: list[Json] = field(default_factory=list)

    def add(self, parts: list[Part], said: Json) -> None:
        """Take in what the edge or the hub said of a batch."""
        for name, value in said.items():
            if isinstance(value, int):
                self.counts[name] = self.counts.get(name, 0) + value
        self.left += [{"at": parts[one["index"]].at, "author": one["author"], "reason": one["reason"]} for one in said["left"]]

    def as_json(self) -> Json:
        """For `--json`."""
        return {**self.counts, "left": self.left}

    def as_text(self) -> str:
        """For people."""
        lines = [counted(self.counts)]
        lines += [f"  at byte {one['at']:,}{_of(one['author'])}: {one['reason']}" for one in self.left[:NAMED]]
        if len(self.left) > NAMED:
            lines.append(f"  and {len(self.left) - NAMED:,} more")
        return "\n".join(lines)


def _of(author: str) -> str:
    return f", of {author}" if author else ""


def batches(file: BinaryIO, done: Imported) -> Iterator[list[Part]]:
    """The whole parts of a stick, as many at a time as one parcel holds; what is damaged is noted. Errors: InvalidInput: no stick."""
    batch: list[Part] = []
    size = 0
    for one in read_stick(file):
        if isinstance(one, Damage):
            done.counts["damaged"] = done.counts.get("damaged", 0) + 1
            done.left.append({"at": one.at, "author": "", "reason": one.reason})
            continue
        if batch and not room_in(size, len(batch), one.payload):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += 4 + len(one.payload)
    if batch:
        yield batch


def opened(name: str) -> BinaryIO:
    """A stick to be read. Errors: InvalidInput."""
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).", remedy="Give the file that `queue export` wrote.") from None


# ------------------------------------------------------------ sticks


def export(config: EdgeConfig, name: str) -> Json:
    """Write everything that another may carry into a new file, whole and synced or not at all. Errors: InvalidInput, ConfigError."""
    path = Path(name)
    if path.exists():
        raise InvalidInput(name, "exists already.", remedy="Name a new file; nothing is overwritten.")
    part = path.with_name(f"{path.name}.part")
    try:
        with whoever_holds(config) as held, part.open("w+b") as file:
            count = write_stick(file, _pages(held))
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.", remedy="Name a file in a folder that may be written.") from None
    finally:
        part.unlink(missing_ok=True)
    return {"file": str(path), "messages": count, "bytes": size}


def _pages(held: EdgeCore | LocalApi) -> Iterable[bytes]:
    cursor: str | None = None
    while True:
        payloads, cursor = _page(held, cursor)
        yield from payloads
        if cursor is None:
            return


def _page(held: EdgeCore | LocalApi, cursor: str | None) -> tuple[list[bytes], str | None]:
    if isinstance(held, EdgeCore):
        return held.carry.page(cursor, PAGE_BYTES)
    body, headers = held.fetch("/v1/queue/frames" + (f"?cursor={cursor}" if cursor else ""), MEDIA_TYPE)
    try:
        return read_parcel(body), headers.get(CURSOR_HEADER)
    except DecodeError as error:
        raise TransportError(f"The edge answered with damage: {error.reason}.") from None


def take_in(config: EdgeConfig, name: str) -> Imported:
    """Take a stick into custody here. Errors: InvalidInput: no stick; LedgerFull and the like: what was taken before stays."""
    done = Imported()
    with opened(name) as file, whoever_holds(config) as held:
        for batch in batches(file, done):
            done.add(batch, _hand_over(held, [part.payload for part in batch]))
    return done


def _hand_over(held: EdgeCore | LocalApi, payloads: list[bytes]) -> Json:
    if isinstance(held, LocalApi):
        return held.send("/v1/sync", write_parcel(payloads), MEDIA_TYPE)
    held.begin()
    taken = held.take_sync(payloads, system_now())
    held.commit()
    return summary(taken)


# ------------------------------------------------------------ peers


def peers(config: EdgeConfig) -> list[Json]:
    """Whose frames this edge carries."""
    with whoever_holds(config) as held:
        if isinstance(held, LocalApi):
            return list(held.get("/v1/peers")["peers"])
        return [peer_json(card, added_ms) for card, added_ms in held.relay.peers.all()]


def add(config: EdgeConfig, name: str) -> Json:
    """Admit a peer by its card file. Errors: InvalidInput."""
    try:
        with Path(name).open("rb") as file:
            card = json.loads(file.read(CARD_BYTES))
    except OSError as error:
        raise InvalidInput(
            name, f"cannot be read ({error.strerror}).", remedy="Give the node.card.json that the node's init wrote."
        ) from None
    except ValueError:
        raise InvalidInput(name, "is not JSON.", remedy="Give the node.card.json that the node's init wrote.") from None
    with whoever_holds(config) as held:
        if isinstance(held, LocalApi):
            return held.post("/v1/peers", card)
        held.begin()
        peer = add_peer(held, system_now(), card)
        held.commit()
        return peer


def remove(config: EdgeConfig, node: str) -> Json:
    """Take nothing more of a peer. Errors: InvalidInput: it is none."""
    unknown = InvalidInput("node", f"{node} is no peer of this edge.", remedy="List them: longshore-edge peer ls")
    if node not in [peer["node"] for peer in peers(config)]:
        raise unknown
    with whoever_holds(config) as held:
        if isinstance(held, LocalApi):
            return held.delete(f"/v1/peers/{node}")
        held.begin()
        gone = held.relay.peers.remove(node)
        held.commit()
    if not gone:
        raise unknown
    return {"removed": node}
