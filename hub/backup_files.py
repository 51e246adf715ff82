"""`longshore-hub backup`, `restore` and `verify`: the hub's two databases as files, while it runs or not.

A backup copies store.db first, then hub.db: each at one moment, the hub's ledger never older than the store. Both may be behind what nodes
have, and each may be restored with the other or alone: what is missing comes back from the store and from the nodes (sync.md, rule 12).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from hub import config as settings
from hub.backup_register import files_of, from_json, new_id, open_store, register_of, shown, to_json
from hub.cli_ask import client_of, is_running
from hub.config import HubConfig
from hub.store.backups import Backup
from hub.store.sqlite import SqliteStore
from hub.store_use import replacing
from hub.stores import made
from protocols import backup as files
from protocols.backup import FileEntry, Manifest, Tell
from protocols.errors import ConfigError, InvalidInput, LedgerBroken, LedgerError, LongshoreError
from protocols.sqlite import DataLock, Db
from protocols.trust import NodeKey, fingerprint
from protocols.trust import verify as check_signature
from protocols.verify import Verdict, verify_database

WHAT: Final = "hub"
TOOL: Final = "longshore-hub backup"
DATABASES: Final = (settings.STORE_FILE, settings.LEDGER_FILE)
ELSEWHERE: Final = "longshore-hub backups register --tool pg_dump --place …; pg_dump …; longshore-hub backups complete ID"
CONFIGURATION: Final = (settings.FILE, settings.KEY_FILE, settings.TOKEN_FILE)


# ------------------------------------------------------------ the list, whoever holds the store


class Registrar:
    """Changes the list of backups through the hub that runs, or in its files, under its lock, where none does."""

    def __init__(self, config: HubConfig, now_ms: Callable[[], int]) -> None:
        self._config, self._now_ms = config, now_ms

    def all(self) -> list[dict[str, Any]]:
        """Every backup that is known, as the API shows it."""
        return list(self._ask("GET", "/v1/backups", None, lambda r: {"backups": [shown(b) for b in r.all()]})["backups"])

    def begin(self, tool: str, place: str) -> dict[str, Any]:
        """Before the first byte is copied."""
        found: dict[str, Any] = self._ask("POST", "/v1/backups", {"tool": tool, "place": place}, lambda r: shown(r.begin(tool, place)))
        return found

    def complete(self, backup_id: str) -> dict[str, Any]:
        """It is whole: `{"backup", "expired"}`."""

        def done(register: Any) -> dict[str, Any]:
            first, *gone = register.complete(backup_id)
            return {"backup": shown(first), "expired": [shown(b) for b in gone]}

        return dict(self._ask("POST", f"/v1/backups/{backup_id}", {"state": "complete"}, done))

    def expire(self, backup_id: str) -> dict[str, Any]:
        """It will never be restored."""
        body = {"state": "expired"}
        return dict(self._ask("POST", f"/v1/backups/{backup_id}", body, lambda r: {"backup": shown(r.expire(backup_id)), "expired": []}))

    def retention(self) -> dict[str, Any]:
        """Expire what hub.toml does not keep."""
        return dict(self._ask("POST", "/v1/backups/retention", {}, lambda r: {"expired": [shown(b) for b in r.retention()]}))

    def _ask(self, method: str, path: str, body: Any, here: Callable[[Any], Any]) -> Any:
        if is_running(self._config):
            client = client_of(self._config)
            return client.get(path) if method == "GET" else client.post(path, body)
        if not made(self._config):
            raise ConfigError(
                "This hub has never run: it has no store yet.", remedy=f"Start it: longshore-hub run --config {self._config.file}"
            )
        with locked(self._config):
            store = open_store(self._config, self._now_ms)
            try:
                return here(register_of(self._config, store, self._now_ms()))
            finally:
                store.close()


def databases_of(config: HubConfig) -> tuple[str, ...]:
    """The files that this hub's data is in; a store on a server is none of them."""
    return DATABASES if config.store.sqlite else (settings.LEDGER_FILE,)


@contextlib.contextmanager
def locked(config: HubConfig) -> Iterator[None]:
    """No hub runs on this data meanwhile. Errors: LedgerBusy."""
    lock = DataLock(config.storage.path(settings.LOCK_FILE))
    try:
        yield
    finally:
        lock.release()


# ------------------------------------------------------------ backup


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup. `notes`: what its check could not look at; `expired`: backups that retention ended by it."""

    place: Path
    manifest: Manifest
    notes: list[str]
    expired: list[dict[str, Any]]


def make_backup(
    config: HubConfig, dest: Path, program: str, now_ms: Callable[[], int], tell: Tell, *, store_only: bool, with_keys: bool, quick: bool
) -> Made:
    """Copy the databases of a hub, running or not. Errors: InvalidInput, ConfigError, LedgerError; then nothing of it stays."""
    if not config.store.sqlite:
        return _without_store(config, dest, program, now_ms, tell, store_only=store_only, with_keys=with_keys, quick=quick)
    began_ms = now_ms()
    place = files.destination(dest, f"{config.hub.node}-{files.stamp(began_ms)}").absolute()
    registrar = Registrar(config, now_ms)
    backup_id = str(registrar.begin(TOOL, str(place))["id"])
    with contextlib.ExitStack() as undo:
        undo.callback(_give_up, registrar, backup_id)
        with files.staged(place) as stage:
            names = DATABASES[:1] if store_only else DATABASES
            entries = {name: files.copy_database(config.storage.path(name), stage, name, tell) for name in names}
            if with_keys:
                entries |= _copy_configuration(config, stage)
            notes = [] if quick else _sound(stage, names, tell)
            manifest = _manifest(config, stage, entries, program, backup_id, began_ms, now_ms())
            files.write_manifest(stage, manifest)
        undo.pop_all()
    expired = registrar.complete(backup_id)["expired"]
    return Made(place, manifest, notes, expired)


def _without_store(
    config: HubConfig, dest: Path, program: str, now_ms: Callable[[], int], tell: Tell, *, store_only: bool, with_keys: bool, quick: bool
) -> Made:
    """The hub's ledger alone: the store is copied by its server's own tools, which say themselves what they do."""
    if store_only:
        raise InvalidInput("--store-only", "is not possible: the store is a PostgreSQL database.", remedy=f"Copy it there: {ELSEWHERE}")
    began_ms = now_ms()
    place = files.destination(dest, f"{config.hub.node}-{files.stamp(began_ms)}").absolute()
    with files.staged(place) as stage:
        names = databases_of(config)
        entries = {name: files.copy_database(config.storage.path(name), stage, name, tell) for name in names}
        if with_keys:
            entries |= _copy_configuration(config, stage)
        notes = [] if quick else _sound(stage, names, tell)
        described = {name: files.describe(stage / name) for name in names}
        manifest = Manifest(
            new_id(), WHAT, config.hub.node, config.hub.org, program, began_ms, now_ms(), entries,
            {name: versions for name, (versions, _) in described.items()}, {name: streams for name, (_, streams) in described.items()}, {},
            key_of(config),
        )  # fmt: skip
        files.write_manifest(stage, manifest)
    return Made(place, manifest, [*notes, f"the store is a PostgreSQL database and not in it; copy it there: {ELSEWHERE}"], [])


def key_of(config: HubConfig) -> str:
    """The fingerprint of this hub's key. Errors: ConfigError: there is none."""
    return fingerprint(NodeKey.load(config.key_file).public)


def _give_up(registrar: Registrar, backup_id: str) -> None:
    """Nothing of it is left that could be restored, so nothing need be kept for it. Where the hub cannot be told, its retention does it."""
    with contextlib.suppress(LongshoreError):
        registrar.expire(backup_id)


def _copy_configuration(config: HubConfig, stage: Path) -> dict[str, FileEntry]:
    folder = config.file.parent
    found = [folder / name for name in CONFIGURATION if (folder / name).is_file()]
    found += sorted(folder.glob(f"{settings.FILE}.d/*.toml"))
    secret = (settings.KEY_FILE, settings.TOKEN_FILE)
    return {
        f"config/{p.relative_to(folder)}": files.copy_file(p, stage, f"config/{p.relative_to(folder)}", secret=p.name in secret)
        for p in found
    }


def _manifest(
    config: HubConfig, stage: Path, entries: dict[str, FileEntry], program: str, backup_id: str, began_ms: int, done_ms: int
) -> Manifest:
    described = {name: files.describe(stage / name) for name in entries if name in DATABASES}
    registered = replace(_registered(stage / settings.STORE_FILE, backup_id), finished_ms=done_ms)
    return Manifest(
        backup_id, WHAT, config.hub.node, config.hub.org, program, began_ms, done_ms, entries,
        {name: versions for name, (versions, _) in described.items()}, {name: streams for name, (_, streams) in described.items()},
        {"register": to_json(registered)}, key_of(config),
    )  # fmt: skip


def _registered(store_file: Path, backup_id: str) -> Backup:
    """The backup's own line on the list, which it holds: it was written before the first byte was copied."""
    store = SqliteStore(store_file, read_only=True)
    try:
        return next(b for b in store.backups() if b.id == backup_id)
    finally:
        store.close()


def _sound(folder: Path, names: tuple[str, ...], tell: Tell) -> list[str]:
    """Read the copies as a restore would. Errors: LedgerBroken: they are not worth keeping."""
    verdicts = verify_folder(folder, names, tell)
    wrong = [f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.troubles()]
    if wrong:
        raise LedgerBroken(
            f"the copy is not sound: {'; '.join(wrong[:3])}", remedy="look at the original: longshore-hub verify; longshore-hub audit"
        )
    return [f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.notes()]


# ------------------------------------------------------------ verify


def verify_folder(folder: Path, names: tuple[str, ...], tell: Tell) -> dict[str, Verdict]:
    """Read databases that lie in a folder, in use or not. Errors: ConfigError, LedgerError."""
    keys: dict[str, bytes] = {}
    if (folder / settings.LEDGER_FILE).exists():
        keys = _keys(folder / settings.LEDGER_FILE)
    return {name: _verify_one(folder / name, keys, lambda what, n, of, name=name: tell(f"{name}, {what}", n, of)) for name in names}  # type: ignore[misc]


def _verify_one(path: Path, keys: dict[str, bytes], tell: Tell) -> Verdict:
    if not path.exists():
        raise ConfigError(f"{path} does not exist.", remedy="Name the folder of a backup, or of a hub that has run.")
    db = Db(path, read_only=True)
    try:
        db.read_moment()
        return verify_database(db, check_signature, keys, tell=tell)
    finally:
        db.close()


def _keys(path: Path) -> dict[str, bytes]:
    db = Db(path, read_only=True)
    try:
        return {str(node): bytes(key) for node, key in db.query("SELECT node, public_key FROM nodes")}
    except LedgerError:
        return {}  # its own check will say what is wrong with it
    finally:
        db.close()


def verify_backup(src: Path, tell: Tell) -> tuple[Manifest, list[str], dict[str, Verdict]]:
    """(what it says of itself, files that are not as it says, its databases). Errors: ConfigError, LedgerError."""
    manifest = files.read_manifest(src)
    wrong = files.check_files(src, manifest, tell)
    names = tuple(name for name in DATABASES if name in manifest.files)
    return manifest, wrong, {} if wrong else verify_folder(src, names, tell)


# ------------------------------------------------------------ restore


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `known`: backups that are on the list again; `given_up`: those that were unfinished;
    `known_key`: whether the backup names the key that is here."""

    manifest: Manifest
    files: list[str]
    aside: list[Path]
    known: list[str]
    given_up: list[str]
    known_key: bool


def restore(
    config: HubConfig, src: Path, now_ms: int, tell: Tell, *, names: tuple[str, ...] = DATABASES, force: bool = False,
    quick: bool = False, other_key: bool = False,
) -> Restored:  # fmt: skip
    """Put a backup where the hub's databases belong. The hub must not run. Errors: ConfigError, LedgerError: nothing was replaced."""
    manifest = files.read_manifest(src)
    known_key = manifest.check_owner(WHAT, config.hub.node, config.hub.org, key_of(config), force=force, other_key=other_key)
    wanted = [name for name in names if name in manifest.files]
    if not wanted:
        raise InvalidInput("SRC", f"holds none of {', '.join(names)}.", remedy="Use a backup that was not made with --store-only.")
    folder = Path(config.storage.data_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(config), replacing(config) if settings.STORE_FILE in wanted else contextlib.nullcontext():
        standing = [name for name in wanted if (folder / name).exists()]
        if standing and not force:
            raise ConfigError(f"{folder} holds {', '.join(standing)} already.", remedy="With --force they are moved aside first.")
        if settings.STORE_FILE in wanted:
            _still_restorable(config, manifest, force=force)
        _read_whole(src, manifest, wanted, tell, quick=quick)
        staged = [(files.stage_for(folder, src / name, name, tell), folder / name) for name in wanted]
        for path, target in staged:
            if target.name == settings.LEDGER_FILE:
                files.begin_new_epoch(path, config.hub.node, SystemRandom(), now_ms)
        aside = files.put_in_place(folder, staged, folder / f"replaced-{files.stamp(now_ms)}-{new_id()}")
        known, given_up = _remember(config, src, manifest, now_ms) if settings.STORE_FILE in wanted else ([], [])
    return Restored(manifest, wanted, aside, known, given_up, known_key)


def _still_restorable(config: HubConfig, manifest: Manifest, *, force: bool) -> None:
    """Facts that an expired backup lacks may have been freed everywhere; so may those that one lacks which nobody remembers."""
    known = {b.id: b for b in [*_of_store(config), *files_of(config).all()]}
    one = known.get(manifest.id)
    if force or not known or (one is not None and one.state != "expired"):
        return
    why = "has expired" if one is not None else "is not on the list of this hub's backups"
    raise ConfigError(
        f"Backup {manifest.id} {why}: nodes may have freed facts that it lacks.",
        remedy="Restore one of `longshore-hub backups ls`; or, if there is none, this one with --force.",
    )


def _of_store(config: HubConfig) -> list[Backup]:
    """The list in the store that is to be replaced, as far as it can be read."""
    path = config.storage.path(settings.STORE_FILE)
    if not path.exists():
        return []
    try:
        store = SqliteStore(path, read_only=True)
    except LongshoreError:
        return []
    try:
        return store.backups()
    except LedgerError:
        return []
    finally:
        store.close()


def _read_whole(src: Path, manifest: Manifest, names: list[str], tell: Tell, *, quick: bool) -> None:
    wrong = files.check_files(src, manifest, tell)
    if not wrong and not quick:
        verdicts = verify_folder(src, tuple(names), tell)
        wrong = [f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.troubles()]
    if wrong:
        raise LedgerBroken(f"{src} is damaged: {'; '.join(wrong[:3])}", remedy="restore another backup: nothing was replaced")


def _remember(config: HubConfig, src: Path, taken: Manifest, now_ms: int) -> tuple[list[str], list[str]]:
    """Tell the restored store of every backup that is remembered, or lies beside this one. Unfinished ones are given up: what they copy is
    another store's by now."""
    beside, keys = [], ("", taken.fingerprint, key_of(config))
    for manifest in files.siblings(src).values():
        if (manifest.what, manifest.node, manifest.org) == (WHAT, config.hub.node, config.hub.org) and manifest.fingerprint in keys:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                beside.append(from_json(manifest.more["register"]))
    store = open_store(config, lambda: now_ms)
    try:
        register = register_of(config, store, now_ms)
        rows = register.merge(beside)
        given_up = [b.id for b in rows if b.state == "begun"]
        for backup_id in given_up:
            register.expire(backup_id)
        return [b.id for b in rows if b.state == "complete"], given_up
    finally:
        store.close()
