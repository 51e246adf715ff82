"""What a process of the centre claims of the machine before it runs: its folder, the data in it for itself alone, a port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Final

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


def listen(host: str, port: int) -> socket.socket:
    """The socket of the API, bound here so that a port in use is one clear line. Errors: ConfigError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=1_024)
    except OSError as error:
        remedy = "Choose another api.port, or end what uses it."
        raise ConfigError(f"The API cannot listen on {host}:{port}: {error.strerror}.", remedy=remedy) from None
