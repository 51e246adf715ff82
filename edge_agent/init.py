"""`longshore-edge init`: a data directory with everything in it that an edge needs, or none at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.config import FILE_NAME, SETTINGS, load_config, render, require_tls
from protocols.errors import ConfigError, InvalidInput
from protocols.mosquitto import SALT_BYTES, password_hash
from protocols.topics import Address
from protocols.trust import (
    PHONE,
    HubAddress,
    NodeKey,
    check_staff,
    fingerprint,
    hash_password,
    make_card,
    narrow,
    new_password,
    new_token,
    parse_address,
    token_hash,
    write_secret,
)

TOKEN_FILE: Final = "api.token"
_STAGE: Final = ".init"


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` made, to be told."""

    folder: Path
    address: Address
    hub: HubAddress
    fingerprint: str
    note: str = ""

    @property
    def card(self) -> Path:
        """The node card, for `longshore-hub nodes add`."""
        return self.folder / SETTINGS["storage.card_file"].default

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / FILE_NAME


def make_directory(
    folder: Path,
    *,
    node: str,
    site: str,
    region: str,
    hub: str,
    org: str | None = None,
    staff: str = "",
    settings: dict[str, Any] | None = None,
) -> Made:
    """Make an edge's directory. `staff`: who works on it, where it is a phone. `settings`: further ones by `section.name`. Errors:
    InvalidInput (a name, the address), ConfigError (the directory is used or cannot be written, the line would have no TLS); then nothing
    is left behind."""
    to = parse_address(hub)
    require_tls(to)
    address = Address.of(to.org if org is None else org, region, site, node)
    if address.org != to.org:
        raise InvalidInput("org", f"is {address.org}, and this hub is of {to.org}.", remedy="Leave --org out, or use another hub.")
    key = NodeKey.generate()
    folder = folder.expanduser().absolute()
    given = {
        "node.name": node,
        "node.site": site,
        "node.region": region,
        "node.org": address.org,
        "hub.address": hub.strip(),
        **({"node.kind": PHONE, "node.staff": check_staff(PHONE, staff)} if staff else {}),
        **(settings or {}),
    }
    with _staged(folder) as (stage, note):
        _write(stage, key, address, given, staff)
        load_config(stage / FILE_NAME, {})  # it must be able to read what it wrote
    return Made(folder, address, to, fingerprint(key.public), note)


def card_of(key: NodeKey, address: Address, password: str, staff: str = "") -> str:
    """The text of a node card: what a hub, and a broker beside it, must know of a node. Nothing secret. `staff`: of a phone."""
    a, scrypt, mosquitto = address, hash_password(password), password_hash(password, secrets.token_bytes(SALT_BYTES))
    place = {"node": a.node, "org": a.org, "region": a.region, "site": a.site}
    card = make_card(key, **place, password_hash=scrypt, mosquitto_hash=mosquitto, staff=staff)
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _write(stage: Path, key: NodeKey, address: Address, given: dict[str, Any], staff: str) -> None:
    password, token = new_password(), new_token()
    key.save(stage / SETTINGS["storage.key_file"].default)
    write_secret(stage / SETTINGS["storage.password_file"].default, password + "\n", what="broker password")
    write_secret(stage / TOKEN_FILE, token + "\n", what="token")
    (stage / SETTINGS["storage.card_file"].default).write_text(card_of(key, address, password, staff), "utf-8")
    (stage / FILE_NAME).write_text(render({**given, "api.token_hashes": (token_hash(token),)}), "utf-8")


@contextmanager
def _staged(folder: Path) -> Iterator[tuple[Path, str]]:
    """A place inside `folder` whose files move into it at the end, the configuration last: without it, nothing runs. All or nothing. Also
    what to say of a folder that stays open to others."""
    made = _make_folder(folder)
    stage = folder / _STAGE
    try:
        with ExitStack() as undo:
            undo.callback(_clear, folder, made)  # a half-made directory would keep the next attempt from working
            note = narrow(folder)
            stage.mkdir(mode=0o700)
            yield stage, note
            for path in sorted(stage.iterdir(), key=lambda p: p.name == FILE_NAME):
                path.replace(folder / path.name)
            stage.rmdir()
            _sync(folder)
            undo.pop_all()
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {folder}: {error.strerror}.", remedy="Choose a directory that this user may write to."
        ) from None


def _make_folder(folder: Path) -> bool:
    """Whether it had to be made. What an attempt left that was killed does not count. Errors: ConfigError when it is in use."""
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            return True
        found = sorted(path.name for path in folder.iterdir() if path.name != _STAGE)
        if not found:
            shutil.rmtree(folder / _STAGE, ignore_errors=True)
            return False
    except OSError as error:
        raise ConfigError(f"Cannot use {folder}: {error.strerror}.", remedy="Choose a directory that this user may write to.") from None
    what = "is an edge's directory already" if FILE_NAME in found else f"is not empty (there is {found[0]})"
    raise ConfigError(f"{folder} {what}; nothing was changed.", remedy="Choose another directory. A key is never overwritten.")


def _clear(folder: Path, made: bool) -> None:
    """It was empty before, so everything in it is ours."""
    if made:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """The new names, too, survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
