"""Who uses a central store in a file: any number of projectors at once, or one restore alone. The kernel lets go at the end of a process,
also of one that is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hub.config import STORE_FILE, HubConfig
from protocols.errors import ConfigError, LedgerBusy, LedgerFull

FILE: Final = f"{STORE_FILE}.use"


@contextlib.contextmanager
def projecting(config: HubConfig) -> Iterator[None]:
    """A projector applies to it meanwhile. Errors: LedgerBusy: it is being restored."""
    with _held(config, fcntl.LOCK_SH, "the central store is being restored", "start the projector once that is done"):
        yield


@contextlib.contextmanager
def replacing(config: HubConfig) -> Iterator[None]:
    """Its file is put in place anew meanwhile. Errors: LedgerBusy: projectors run."""
    with _held(config, fcntl.LOCK_EX, "projectors apply to this central store", "end every `longshore-hub project` first, then restore"):
        yield


@contextlib.contextmanager
def _held(config: HubConfig, how: int, why: str, remedy: str) -> Iterator[None]:
    if not config.store.sqlite:
        yield
        return
    path = Path(config.storage.data_dir) / FILE
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LedgerFull(f"{path}: no space left", remedy="free disk space") from error
        raise ConfigError(f"{path}: {error.strerror}", remedy="make the data directory writable for this user") from error
    try:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerBusy(f"{path.with_name(STORE_FILE)}: {why}", remedy=remedy) from error
        yield
    finally:
        os.close(fd)
