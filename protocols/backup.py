"""A backup as it lies on a disk: a folder with copies of databases, perhaps configuration and keys, and a manifest that names all of it.

Everything is written into a folder beside the destination, synced, and renamed: a folder without a manifest, or with `.part` in its name,
is no backup. A restore reads the manifest first, compares every file with it, and keeps aside what it replaces.

Touches files; clock and chance are arguments. Used by edge and hub alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

from protocols.chains import RunKind
from protocols.errors import ConfigError, InvalidInput, LedgerBroken, LedgerFull
from protocols.ledger import Ledger
from protocols.sqlite import Db

FORMAT: Final = "longshore-backup/1"
MANIFEST: Final = "manifest.json"
UNFINISHED: Final = "restoring.json"
"""in a data directory while a restore replaces its files: nothing may run on it before the restore has been finished"""
_CHUNK_BYTES: Final = 1 << 20
_MANIFEST_BYTES: Final = 256_000_000

Tell = Callable[[str, int, int], None]
"""(what, done, of): how far something is that may take long"""


def quiet(_what: str, _done: int, _of: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a backup. `secret`: a key, token or password, kept with mode 0600."""

    size_bytes: int
    sha256: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. `what`: edge or hub; `streams`: by database, where each stream ends; `more`: what the maker adds."""

    id: str
    what: str
    node: str
    org: str
    program: str
    begun_ms: int
    finished_ms: int
    files: dict[str, FileEntry]
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    """of the public key of whose data it is (`protocols.trust.fingerprint`): names are given twice. Empty in backups of earlier versions"""

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        files = {name: {"bytes": f.size_bytes, "sha256": f.sha256, "secret": f.secret} for name, f in self.files.items()}
        return {
            "format": FORMAT, "id": self.id, "what": self.what, "node": self.node, "org": self.org, "program": self.program,
            "begunMs": self.begun_ms, "finishedMs": self.finished_ms, "files": files, "versions": self.versions, "streams": self.streams,
            "more": self.more,
            **({"fingerprint": self.fingerprint} if self.fingerprint else {}),
        }  # fmt: skip

    @property
    def secrets(self) -> list[str]:
        """The names of its files that are secret."""
        return [name for name, entry in self.files.items() if entry.secret]

    def check_owner(self, what: str, node: str, org: str, fingerprint: str, *, force: bool, other_key: bool = False) -> bool:
        """Nobody takes in a stranger's backup, not even one of the same name; where it does not say whose key it belongs to, only by
        `force`. `other_key`: its key is lost, and another is here by intent. Returns whether it is the key here. Errors: ConfigError."""
        if (self.what, self.node, self.org) != (what, node, org):
            raise ConfigError(
                f"This is a backup of {self.what} {self.node} of {self.org}, not of {what} {node} of {org}.",
                remedy=f"Name the backup of this {what}, or the configuration of that one.",
            )
        if other_key:
            return self.fingerprint == fingerprint
        if self.fingerprint and self.fingerprint != fingerprint:
            raise ConfigError(
                f"This is a backup of another {what} of the name {node}: its key is {self.fingerprint}, the key here is {fingerprint}.",
                remedy=f"Name the backup of this {what}, or bring back that one's key first (a backup --with-keys has it)"
                f"{'; where that key is lost for good, --other-key' if what == 'hub' else ''}.",
            )
        if not self.fingerprint and not force:
            raise ConfigError(
                f"This backup does not say which {what} {node} it is of: an earlier version made it, without the fingerprint of the key.",
                remedy="With --force it is taken at its word.",
            )
        return bool(self.fingerprint)


def read_manifest(folder: Path) -> Manifest:
    """What the backup in a folder says of itself. Errors: ConfigError."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()[:_MANIFEST_BYTES]
        m = json.loads(text)
        if m["format"] != FORMAT:
            raise ConfigError(f"{path} is of format {m['format']!r}.", remedy="Use the version of Longshore that made it, or a newer one.")
        files = {_plain(name): FileEntry(int(f["bytes"]), str(f["sha256"]), bool(f["secret"])) for name, f in m["files"].items()}
        return Manifest(
            str(m["id"]), str(m["what"]), str(m["node"]), str(m["org"]), str(m["program"]), int(m["begunMs"]), int(m["finishedMs"]),
            files, m["versions"], m["streams"], m["more"], str(m.get("fingerprint", "")),
        )  # fmt: skip
    except FileNotFoundError:
        remedy = "Name the folder that `backup` printed; without a manifest a copy is unfinished."
        raise ConfigError(f"{folder} is no backup: there is no {MANIFEST}.", remedy=remedy) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", remedy="Use another backup.") from None


def _plain(name: str) -> str:
    """A manifest must not name files outside of its folder."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is not a file of this folder")
    return name


def stamp(now_ms: int) -> str:
    """A moment as part of a file's name: `20260521T140512Z`."""
    return f"{datetime.fromtimestamp(now_ms / 1_000, UTC):%Y%m%dT%H%M%SZ}"


# ------------------------------------------------------------ making


def destination(dest: Path, name: str) -> Path:
    """Where a backup goes: `dest` itself, or, where that is a folder already, `name` in it. Errors: InvalidInput."""
    if (dest / MANIFEST).exists():  # one inside another would be deleted with it
        raise InvalidInput("DEST", f"{dest} is a backup itself.", remedy="Name a folder of backups, or one that is not there yet.")
    place = dest / name if dest.is_dir() else dest
    if place.exists():
        raise InvalidInput("DEST", f"{place} exists already.", remedy="Name another place; a backup is never overwritten.")
    if not place.parent.is_dir():
        raise InvalidInput("DEST", f"{place.parent} is not a folder.", remedy="Make it first.")
    return place


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """A folder that becomes `place` when the block ends well, synced and in one step; else nothing of it stays. Errors: ConfigError,
    LedgerFull."""
    stage = place.with_name(f".{place.name}.part")
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(mode=0o700)
        yield stage
        for path in sorted(stage.rglob("*")):
            sync(path)
        sync(stage)
        stage.rename(place)
        sync(place.parent)
    except OSError as error:
        raise of_system(error, place) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)  # whatever ended it, nothing half-made stays; what is whole bears its name by now


def of_system(error: OSError, place: Path) -> ConfigError | LedgerFull:
    """What an error of the file system means to who asked for a backup."""
    where = error.filename or place
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return LedgerFull(f"{where}: the disk is full", remedy="Free some space, or name a place on another disk.")
    return ConfigError(f"{where}: {error.strerror or error}.", remedy="Name a place that this user may write to.")


def sync(path: Path) -> None:
    """On disk when it returns: the content of a file, the names of a folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def copy_database(source: Path, stage: Path, name: str, tell: Tell = quiet) -> FileEntry:
    """A copy of one moment of a database that may be in use. Errors: LedgerError, ConfigError."""
    db = Db(source, read_only=True)
    try:
        db.copy_to(stage / name, progress=lambda done, of: tell(f"copying {name}", done, of))
    finally:
        db.close()
    (stage / name).chmod(0o600)
    return entry_of(stage / name, tell)


def copy_file(source: Path, stage: Path, name: str, *, secret: bool) -> FileEntry:
    """A configuration file or a key."""
    target = stage / name
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.touch(mode=0o600)
    target.write_bytes(source.read_bytes())
    return entry_of(target, secret=secret)


def entry_of(path: Path, tell: Tell = quiet, *, secret: bool = False) -> FileEntry:
    """Size and digest of a file as it is read back."""
    digest, size, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            tell(f"reading {path.name}", done, max(size, done))
    return FileEntry(done, digest.hexdigest(), secret)


def write_manifest(stage: Path, manifest: Manifest) -> None:
    """The last file of a backup."""
    (stage / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", "utf-8")
    (stage / MANIFEST).chmod(0o600)


def describe(path: Path) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """(versions of its parts, where each stream ends) of a database, for a manifest."""
    db = Db(path, read_only=True)
    try:
        versions = {str(part): int(version) for part, version in db.query("SELECT part, version FROM versions ORDER BY part")}
        return versions, list(_streams(db))
    finally:
        db.close()


def _streams(db: Db) -> Iterator[dict[str, Any]]:
    for sid, node, epoch, cls in db.query("SELECT sid, node, epoch, cls FROM streams ORDER BY node, sid"):
        digest, head, facts = hashlib.blake2b(digest_size=8), (0, b""), 0
        for first, before, last, h, kind in db.query(
            "SELECT first, h_before, last, h_last, kind FROM runs WHERE sid=? ORDER BY last, h_last, kind", (sid,)
        ):
            digest.update(repr((first, bytes(before), last, bytes(h), kind)).encode())
            if kind == RunKind.DATA:
                head, facts = max(head, (last, bytes(h))), facts + last - first + 1
        if facts:
            yield {"node": node, "epoch": f"{epoch:x}", "class": cls, "head": head[0], "hash": head[1].hex(), "runs": digest.hexdigest()}


# ------------------------------------------------------------ reading back


def check_files(folder: Path, manifest: Manifest, tell: Tell = quiet) -> list[str]:
    """What of a backup is not as its manifest says."""
    wrong = []
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            found = entry_of(path, tell, secret=entry.secret)
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
            continue
        if found != entry:
            wrong.append(f"{name}: its bytes are not those that the manifest names")
    return wrong


def put_in_place(folder: Path, pairs: Sequence[tuple[Path, Path]], aside: Path) -> list[Path]:
    """Replace files of a data directory by others (source, target) that are synced and on the same disk. What is replaced is moved into
    `aside`, databases with their WAL. Until all of it is done a marker keeps anybody from running on half of it. Returns what was moved."""
    marker = folder / UNFINISHED
    marker.write_text(json.dumps({"aside": str(aside), "files": [target.name for _, target in pairs]}) + "\n", "utf-8")
    sync(marker)
    sync(folder)
    moved = []
    for _, target in pairs:
        for path in (target.with_name(f"{target.name}{end}") for end in ("-wal", "-shm", "-journal", "")):
            if path.exists():
                aside.mkdir(mode=0o700, exist_ok=True)
                path.rename(aside / path.name)
                moved.append(aside / path.name)
    for source, target in pairs:
        source.rename(target)
    for path in dict.fromkeys([*(target.parent for _, target in pairs), *([aside] if moved else []), folder]):
        sync(path)
    marker.unlink()
    sync(folder)
    return moved


def refuse_half_restored(folder: Path) -> None:
    """A data directory in which a restore was interrupted must not be run on: it would begin anew. Errors: LedgerBroken."""
    if (folder / UNFINISHED).exists():
        raise LedgerBroken(
            f"a restore into {folder} was interrupted",
            remedy=f"run the restore again with --force (what it replaced is kept in the folder that {UNFINISHED} names)",
        )


def stage_for(folder: Path, source: Path, name: str, tell: Tell = quiet) -> Path:
    """A copy of a backup's file on the disk of a data directory, synced, under a name that nothing reads."""
    target = folder / f".{name}.restoring"
    with suppress(FileNotFoundError):
        target.unlink()
    target.touch(mode=0o600)
    size, done = source.stat().st_size, 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            tell(f"restoring {name}", done, max(size, done))
    sync(target)
    return target


def begin_new_epoch(path: Path, node: str, rng: Random, now_ms: int) -> None:
    """A ledger that came back older never goes on in the epoch that it was in: facts that it lost may be out there (rule 2). The next yes
    goes to an epoch, drawn by `rng`, that nobody has seen. Errors: LedgerError."""
    db = Db(path)
    try:
        ledger = Ledger(db, node=node, new_epoch=lambda: rng.getrandbits(62) + 1)
        if ledger.own_streams():
            ledger.begin()
            ledger.start_new_epoch(now_ms)
            ledger.commit()
        db.query("PRAGMA journal_mode=DELETE")
    finally:
        db.close()
    sync(path)


def siblings(folder: Path) -> Mapping[Path, Manifest]:
    """The backups that lie beside one, itself among them; what cannot be read is none."""
    found: dict[Path, Manifest] = {}
    for path in sorted(folder.absolute().parent.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            with suppress(ConfigError):
                found[path] = read_manifest(path)
    return found
