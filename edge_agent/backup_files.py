"""`longshore-edge backup`, `restore` and `verify`: an edge's ledger as files, while it runs or not.

The central store is what keeps facts; a backup of an edge spares it the way back: what it had captured and not sent, its copies, its place.
A restored ledger is older than what the world may have seen of this node, so it begins a new epoch at once, before its next yes (rule 2):
nothing that it says then can be taken for something it has said and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from secrets import token_hex
from typing import Final

from edge_agent.config import FILE_NAME, EdgeConfig
from edge_agent.init import TOKEN_FILE
from protocols import backup as files
from protocols.backup import FileEntry, Manifest, Tell
from protocols.errors import ConfigError, InvalidInput, LedgerBroken
from protocols.sqlite import DataLock, Db
from protocols.trust import NodeKey, fingerprint
from protocols.trust import verify as check_signature
from protocols.verify import Verdict, verify_database

WHAT: Final = "edge"
LEDGER: Final = "ledger.db"
_FOLDER: Final = "config/"


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup; `notes`: what its check could not look at."""

    place: Path
    manifest: Manifest
    notes: list[str]


def make_backup(config: EdgeConfig, dest: Path, program: str, now_ms: int, tell: Tell, *, with_keys: bool, quick: bool) -> Made:
    """Copy the ledger of an edge, running or not. Errors: InvalidInput, ConfigError, LedgerError; then nothing of it stays."""
    ledger = Path(config.storage.ledger_file)
    if not ledger.exists():
        raise ConfigError(f"This edge has never run: there is no {ledger}.", remedy="Start it: longshore-edge run")
    place = files.destination(dest, f"{config.node.name}-{files.stamp(now_ms)}").absolute()
    with files.staged(place) as stage:
        entries = {LEDGER: files.copy_database(ledger, stage, LEDGER, tell)}
        if with_keys:
            entries |= _copy_configuration(config, stage)
        verdict = Verdict() if quick else verify_ledger(stage / LEDGER, tell)
        if verdict.troubles():
            raise LedgerBroken(f"the copy is not sound: {'; '.join(verdict.troubles()[:3])}", remedy="look at it: longshore-edge verify")
        versions, streams = files.describe(stage / LEDGER)
        manifest = Manifest(
            token_hex(4), WHAT, config.node.name, config.node.org, program, now_ms, now_ms, entries, {LEDGER: versions}, {LEDGER: streams},
            fingerprint=_key_of(config),
        )  # fmt: skip
        files.write_manifest(stage, manifest)
    return Made(place, manifest, verdict.notes())


def _key_of(config: EdgeConfig) -> str:
    return fingerprint(NodeKey.load(config.storage.key_file).public)


def _copy_configuration(config: EdgeConfig, stage: Path) -> dict[str, FileEntry]:
    """Configuration, key, card, password and token, under the names that `init` gives them."""
    storage, out = config.storage, {}
    token = config.file.parent / TOKEN_FILE
    for path, secret in (
        (config.file, False), (Path(storage.key_file), True), (Path(storage.card_file), True), (Path(storage.password_file), True),
        (token, True),
    ):  # fmt: skip
        if path.is_file():
            name = f"{_FOLDER}{FILE_NAME if path == config.file else path.name}"
            out[name] = files.copy_file(path, stage, name, secret=secret)
    return out


def verify_ledger(path: Path, tell: Tell) -> Verdict:
    """Read a ledger whole, in use or not. Errors: ConfigError, LedgerError."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist.", remedy="Name the folder of a backup, or the configuration of an edge that has run.")
    db = Db(path, read_only=True)
    try:
        db.read_moment()
        return verify_database(db, check_signature, tell=tell)
    finally:
        db.close()


def verify_backup(src: Path, tell: Tell) -> tuple[Manifest, list[str], Verdict]:
    """(what it says of itself, files that are not as it says, its ledger). Errors: ConfigError, LedgerError."""
    manifest = files.read_manifest(src)
    wrong = files.check_files(src, manifest, tell)
    return manifest, wrong, Verdict() if wrong else verify_ledger(src / LEDGER, tell)


def restore(config: EdgeConfig, src: Path, now_ms: int, tell: Tell, *, force: bool, quick: bool) -> tuple[Manifest, list[Path]]:
    """Put a backup where the edge's ledger belongs; the edge must not run. Returns what it was, and where that is kept what it replaced.
    Errors: ConfigError, LedgerError: nothing was replaced."""
    manifest = files.read_manifest(src)
    manifest.check_owner(WHAT, config.node.name, config.node.org, _key_of(config), force=force)
    target = Path(config.storage.ledger_file)
    lock = DataLock(config.storage.lock_file)
    try:
        if target.exists() and not force:
            raise ConfigError(f"{target} is there already.", remedy="With --force it is moved aside first.")
        wrong = files.check_files(src, manifest, tell)
        if not wrong and not quick:
            wrong = verify_ledger(src / LEDGER, tell).troubles()
        if wrong:
            raise LedgerBroken(f"{src} is damaged: {'; '.join(wrong[:3])}", remedy="restore another backup: nothing was replaced")
        staged = files.stage_for(target.parent, src / LEDGER, target.name, tell)
        files.begin_new_epoch(staged, config.node.name, SystemRandom(), now_ms)
        aside = target.parent / f"replaced-{files.stamp(now_ms)}-{token_hex(4)}"
        return manifest, files.put_in_place(target.parent, [(staged, target)], aside)
    finally:
        lock.release()


def restore_configuration(src: Path, folder: Path) -> list[str]:
    """Configuration and keys of a backup into a folder; what is there stays as it is. Returns what was put there. Errors: InvalidInput,
    ConfigError, LedgerFull."""
    manifest = files.read_manifest(src)
    names = [name for name in manifest.files if name.startswith(_FOLDER)]
    if not names:
        raise InvalidInput(
            "--with-keys", "is not possible: this backup was made without.", remedy="Make an edge with `init`, then restore."
        )
    done = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            target = folder / name.removeprefix(_FOLDER)
            if not target.exists():
                files.copy_file(src / name, folder, target.name, secret=True)
                files.sync(target)
                done.append(target.name)
    except OSError as error:
        raise files.of_system(error, folder) from error
    return done
