"""What a process of the centre claims of the machine before it runs: its folder, the data in it for itself alone, a port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Final

from hub.broker_listen import why_not
from protocols.errors import ConfigError, LedgerBusy
from protocols.sqlite import DataLock

LOCK_TRIES: Final = 20


async def locked(file: Path) -> DataLock:
    """The data directory for this process alone. Commands that ask whether a hub runs hold the lock for a moment: that is waited out.
    Errors: LedgerBusy."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(LedgerBusy):
            return DataLock(file)
        await asyncio.sleep(0.05)
    return DataLock(file)


def make_folder(folder: Path) -> None:
    """The data directory. Errors: ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        remedy = "Set storage.data_dir to a folder that may be written."
        raise ConfigError(f"The data directory {folder} cannot be made: {error.strerror}.", remedy=remedy) from None


def listen(host: str, port: int, setting: str = "api.port", who: str = "The API") -> socket.socket:
    """The socket of an API, bound here so that a port in use is one clear line. `setting`: what names the port. Errors: ConfigError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=1_024)
    except OSError as error:
        remedy = f"Choose another {setting}, or end what uses it."
        raise ConfigError(f"{who} cannot listen on {host}:{port}: {why_not(error)}.", remedy=remedy) from None
