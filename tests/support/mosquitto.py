"""A Mosquitto for tests: its own folder, a given port, passwords, and the access rules of `protocols.topics`."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.needs import where
from tests.support.ports import listening
from tests.support.procs import Child


class Mosquitto:
    """One broker process. `kill` and `start` again on the same port is a restart without persistence."""

    def __init__(self, folder: Path, port: int, *, passwords: Mapping[str, str], acl: Sequence[str]) -> None:
        self.port = port
        self._config = folder / "mosquitto.conf"
        self._child: Child | None = None
        (folder / "passwords").write_text("".join(f"{user}:{password_line(text)}\n" for user, text in passwords.items()))
        (folder / "acl").write_text("\n".join(acl) + "\n")
        for name in ("passwords", "acl"):
            (folder / name).chmod(0o600)
        self._config.write_text("\n".join(self._lines(folder)) + "\n")

    def _lines(self, folder: Path) -> list[str]:
        as_root = ["user root"] if os.geteuid() == 0 else []
        return [
            *as_root,
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {folder / 'passwords'}",
            f"acl_file {folder / 'acl'}",
            "persistence false",
            "max_inflight_messages 0",
        ]

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


def password_line(password: str) -> str:
    """A password as `mosquitto_passwd` of 2.0 writes it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
