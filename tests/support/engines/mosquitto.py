"""A Mosquitto for tests: its own folder, a given port, passwords, and the access rules of `protocols.topics`."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from protocols.mosquitto import SALT_BYTES, password_hash
from tests.support.certificates import Certificates
from tests.support.needs import where
from tests.support.procs import Child
from tests.support.source import ROOT

FAST: Final = ("persistence false", "max_inflight_messages 0")


class Mosquitto:
    """One broker process. `stop` and `start` again on the same port is a crash and a restart."""

    def __init__(self, config: Path, port: int) -> None:
        self.port, self._config = port, config
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Return when it serves."""
        self._child = Child([where("mosquitto"), "-c", os.fspath(self._config)])
        self._child.wait_until(lambda: serving(self.port), what="serving")

    def reload(self) -> None:
        """Return when it has read passwords and rules anew: before it deals with what a connection made after the signal says."""
        assert self._child is not None
        os.kill(self.pid, signal.SIGHUP)
        self._child.wait_until(lambda: serving(self.port), what="serving again")

    def output(self) -> str:
        """What it has said so far."""
        return self._child.output() if self._child is not None else ""

    def stop(self) -> None:
        """Kill it, as a crash would. Idempotent."""
        if self._child is not None:
            self._child.kill()
            self._child.discard()
            self._child = None


def serving(port: int) -> bool:
    """Whether it answers. It listens some time before that, and a SIGHUP would end it then."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
            line.sendall(bytes(16))  # neither MQTT nor TLS: it hangs up
            line.recv(64)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True


def shipped(folder: Path, port: int, certificates: Certificates, limits: Mapping[str, str] | None = None) -> Path:
    """`deploy/mosquitto/mosquitto.conf` with other paths and another port, on loopback; its passwords and rules are the caller's to write.

    `limits`: settings with other values, for tests of what happens at them.
    """
    paths = {
        "listener": f"{port} 127.0.0.1",
        "certfile": certificates.cert,
        "keyfile": certificates.key,
        "password_file": f"{folder / 'passwords'}",
        "acl_file": f"{folder / 'acl'}",
        "persistence_location": f"{folder}/",
        **(limits or {}),
    }
    lines, left = [*(["user root"] if os.geteuid() == 0 else [])], dict(paths)
    for line in (ROOT / "deploy/mosquitto/mosquitto.conf").read_text().splitlines():
        name = line.partition(" ")[0]
        lines.append(f"{name} {left.pop(name)}" if name in left else line)
    assert not left, f"not in the shipped configuration: {sorted(left)}"
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    return folder / "mosquitto.conf"


def write_access(folder: Path, passwords: Mapping[str, str], acl: Sequence[str]) -> None:
    """The password and the ACL file, readable by their owner only."""
    (folder / "passwords").write_text("".join(f"{user}:{password_line(text)}\n" for user, text in passwords.items()))
    (folder / "acl").write_text("\n".join(acl) + "\n")
    for name in ("passwords", "acl"):
        (folder / name).chmod(0o600)


def write_config(folder: Path, port: int, *, passwords: Mapping[str, str], acl: Sequence[str], settings: Sequence[str] = FAST) -> Path:
    """A `mosquitto.conf` for loopback with passwords and access rules, and the files it names; `settings` are lines of their own."""
    write_access(folder, passwords, acl)
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
    """A password as it stands in a `password_file`."""
    return password_hash(password, secrets.token_bytes(SALT_BYTES))
