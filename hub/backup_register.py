"""The list of the store's backups, in the store and beside it.

The store's own list is what counts: it is read at one moment with its rows. But it is restored with them, so a store that comes back older
forgets the backups that were begun since, and freeing would no longer wait for them. Each change is therefore also written to a file of its
own in `backups.d` of the data directory, which no restore replaces, and told to the store again whenever it is opened. Where the whole disk
was lost, `restore` looks for manifests beside the backup that it restores.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hub.config import REGISTER_DIR, HubConfig
from hub.store.backups import Backup, to_expire, unpack_cover
from hub.store.port import CentralStore
from hub.stores import open_writer
from protocols.backup import sync
from protocols.errors import ConfigError, LongshoreError
from protocols.event import iso
from protocols.policy import Policies

log = logging.getLogger(__name__)
_DAY_MS = 86_400_000


class RegisterFiles:
    """`backups.d`: one file for each backup, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Backup]:
        """What is remembered; a file that cannot be read is left where it is, and told."""
        out = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                out.append(from_json(json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be read, and is left out: %s", path, error)
        return out

    def save(self, backup: Backup) -> None:
        """On disk when it returns. Errors: ConfigError."""
        path = self._folder / f"{backup.id}.json"
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            part.write_text(json.dumps(to_json(backup)) + "\n", "utf-8")
            sync(part)
            part.replace(path)
            sync(self._folder)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}.", remedy="The data directory must be writable.") from error


def to_json(b: Backup) -> dict[str, Any]:
    """A backup as it is written to a file or a manifest."""
    covers = base64.b64encode(b.covers).decode()
    return {
        "id": b.id, "begunMs": b.begun_ms, "finishedMs": b.finished_ms, "expiredMs": b.expired_ms, "tool": b.tool, "place": b.place,
        "covers": covers,
    }  # fmt: skip


def from_json(data: dict[str, Any]) -> Backup:
    """What `to_json` gave. Errors: ValueError, KeyError, TypeError."""
    finished, expired = data["finishedMs"], data["expiredMs"]
    return Backup(
        str(data["id"]), int(data["begunMs"]), None if finished is None else int(finished), None if expired is None else int(expired),
        str(data["tool"]), str(data["place"]), base64.b64decode(data["covers"]),
    )  # fmt: skip


def shown(b: Backup) -> dict[str, Any]:
    """A backup as people and the API see it."""
    cover = unpack_cover(b.covers)
    return {
        "id": b.id, "state": b.state, "begunAt": iso(b.begun_ms), "finishedAt": iso(b.finished_ms), "expiredAt": iso(b.expired_ms),
        "tool": b.tool, "place": b.place, "streams": len(cover),
        "facts": sum(r.last - r.first + 1 for runs in cover.values() for r in runs if not r.kind),
    }  # fmt: skip


class Register:
    """Changes the list in the store, then in the files. Call it where the store's writer is called."""

    def __init__(self, store: CentralStore, files: RegisterFiles, now_ms: int, *, keep: int = 0, max_age_days: int = 0) -> None:
        self._store, self._files, self._now_ms = store, files, now_ms
        self._keep, self._max_age_ms = keep, max_age_days * _DAY_MS

    def all(self) -> list[Backup]:
        """Every backup that is known, oldest first."""
        return self._store.backups()

    def begin(self, tool: str, place: str) -> Backup:
        """Register a backup before its first byte is copied."""
        return self._saved(self._store.begin_backup(new_id(), tool, place, self._now_ms))

    def complete(self, backup_id: str) -> list[Backup]:
        """It is whole. Returns it, and those that retention ends by it."""
        return [self._saved(self._store.complete_backup(backup_id, self._now_ms)), *self.retention()]

    def expire(self, backup_id: str) -> Backup:
        """It will never be restored."""
        return self._saved(self._store.expire_backup(backup_id, self._now_ms))

    def retention(self) -> list[Backup]:
        """Expire what the configuration does not keep; their folders may then be deleted, and not before."""
        gone = to_expire(self._store.backups(), self._now_ms, keep=self._keep, max_age_ms=self._max_age_ms)
        return [self.expire(b.id) for b in gone]

    def merge(self, others: Sequence[Backup]) -> list[Backup]:
        """Take in what is remembered elsewhere; files and store then say the same."""
        remembered = {b.id: b for b in self._files.all()}
        rows = self._store.merge_backups([*remembered.values(), *others])
        for b in rows:
            if remembered.get(b.id) != b:
                self._files.save(b)
        return rows

    def _saved(self, backup: Backup) -> Backup:
        self._files.save(backup)
        return backup


def new_id() -> str:
    """Eight characters, to be typed."""
    return secrets.token_hex(4)


def files_of(config: HubConfig) -> RegisterFiles:
    """Where this hub remembers backups."""
    return RegisterFiles(config.storage.path(REGISTER_DIR))


def register_of(config: HubConfig, store: CentralStore, now_ms: int) -> Register:
    """The list of this hub's store, which is open for writing."""
    return Register(store, files_of(config), now_ms, keep=config.backup.keep, max_age_days=config.backup.max_age_days)


def open_store(
    config: HubConfig, now_ms: Callable[[], int], policies: Policies | None = None, *, holds: Sequence[int] | None = None
) -> CentralStore:
    """The store for its writer, with every backup that is remembered; `holds`: see `open_writer`. Errors: ConfigError, LedgerError."""
    store = open_writer(config, policies, holds=holds)
    try:
        register_of(config, store, now_ms()).merge(())
    except LongshoreError:
        store.close()
        raise
    return store
