"""A Mosquitto for tests: its own folder, a given port, passwords, and the access rules of `protocols.topics`."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.needs import where
from tests.support.ports import listening
from tests.support.procs import Child

FAST: Final = ("persistence false", "max_inflight_messages 0")


class Mosquitto:
    """One broker process. `kill` and `start` again on the same port is a restart without persistence."""

    def __init__(self, folder: Path, port: int, *, passwords: Mapping[str, str], acl: Sequence[str]) -> None:
        self.port = port
        self._config = write_config(folder, port, passwords=passwords, acl=acl)
        self._child: Child | None = None

    def start(self) -> None:
        """Return when it listens."""
        self._child = Child([where("mosquitto"), "-c", os.fspath(self._config)])
        self._child.wait_until(lambda: listening(self.port), what="listening")

    def stop(self) -> None:
        """Kill it, as a crash would. Idempotent."""
        if self._child is not None:
            self._child.kill()
            self._child.discard()
            self._child = None


def write_config(folder: Path, port: int, *, passwords: Mapping[str, str], acl: Sequence[str], settings: Sequence[str] = FAST) -> Path:
    """A `mosquitto.conf` for loopback with passwords and access rules, and the files it names; `settings` are lines of their own."""
    (folder / "passwords").write_text("".join(f"{user}:{password_line(text)}\n" for user, text in passwords.items()))
    (folder / "acl").write_text("\n".join(acl) + "\n")
    for name in ("passwords", "acl"):
        (folder / name).chmod(0o600)
    lines = [
        *(["user root"] if os.geteuid() == 0 else []),
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'acl'}",
        *settings,
    ]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    return folder / "mosquitto.conf"


def password_line(password: str) -> str:
    """A password as `mosquitto_passwd` of 2.0 writes it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
