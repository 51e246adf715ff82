"""Parts of the system that a test cannot do without: say which, skip loudly, and fail where nobody reads skips.

    @needs("mosquitto")
    def test_…: …

    pytest.param("mosquitto", marks=needs("mosquitto"))

Under CI=true a missing part fails the test. `where("mosquitto")` is the path of the program.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path
from typing import Final

import pytest

KAFKA_SCRIPT: Final = Path(__file__).parents[2] / "deploy" / "dev" / "kafka.sh"


@dataclass(frozen=True, slots=True)
class Part:
    """One program: the names and places it goes by, and the command that installs it. `works`: where being there is not enough."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    enable: str
    works: Callable[[], bool] | None = None


@cache
def may_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="longshore-mount-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
        return mounted.returncode == 0 and subprocess.run(["umount", "-l", folder], capture_output=True, check=False).returncode == 0


@cache
def kafka_comes() -> bool:
    """Whether the jars of a Kafka broker are here, or come now, once."""
    if shutil.which("java") is None:
        return False
    return subprocess.run([KAFKA_SCRIPT, "fetch"], capture_output=True, check=False, timeout=900).returncode == 0


def _may_become_postgres() -> bool:
    """PostgreSQL refuses to run as root: then its own user is needed, and the program that becomes it."""
    return os.geteuid() != 0 or (shutil.which("setpriv") is not None and any(user.pw_name == "postgres" for user in pwd.getpwall()))


def _newest(pattern: str) -> tuple[str, ...]:
    """Programs that Debian keeps in a folder for each version, the newest first."""
    return tuple(sorted(glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", path)], reverse=True))


PARTS: Final[Mapping[str, Part]] = {
    "mosquitto": Part(("mosquitto",), ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"), "apt-get install mosquitto"),
    "chromium": Part(("chromium", "chromium-browser", "google-chrome"), ("/usr/bin/chromium",), "apt-get install chromium"),
    "kafka": Part(("java",), (), "apt-get install default-jre-headless maven && deploy/dev/kafka.sh fetch", kafka_comes),
    "postgres": Part((), _newest("/usr/lib/postgresql/*/bin/postgres"), "apt-get install postgresql", _may_become_postgres),
    "faketime": Part(("faketime",), ("/usr/bin/faketime",), "apt-get install faketime"),
    "promtool": Part(("promtool",), ("/usr/bin/promtool",), "apt-get install prometheus"),
    "systemd-analyze": Part(("systemd-analyze",), ("/usr/bin/systemd-analyze",), "apt-get install systemd"),
    "tmpfs": Part(("mount",), ("/usr/bin/mount", "/bin/mount"), "run it as root, where mounting is allowed", may_mount),
}


def needs(part: str) -> pytest.MarkDecorator:
    """Mark a test as needing `part`, a key of PARTS."""
    if part not in PARTS:
        raise KeyError(f"{part!r} is not in tests/support/needs.py; known: {', '.join(sorted(PARTS))}")
    return pytest.mark.needs(part)


def find(part: str, parts: Mapping[str, Part] = PARTS) -> str | None:
    """The program's path, or None; looks where PATH does not point too (Debian keeps mosquitto in /usr/sbin)."""
    known = parts[part]
    if known.works is not None and not known.works():
        return None
    for name in known.names:
        if found := shutil.which(name):
            return found
    return next((place for place in known.places if os.access(place, os.X_OK)), None)


def where(part: str) -> str:
    """The program's path; for tests that are marked with `needs`."""
    path = find(part)
    assert path is not None, f"{part} is missing: mark the test with needs({part!r})"
    return path


def in_ci(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a missing part is a failure."""
    return environ.get("CI", "").lower() in ("true", "1")


def verdict(part: str, *, parts: Mapping[str, Part] = PARTS, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """("run" | "skip" | "fail", reason) for a test that needs `part`."""
    if find(part, parts) is not None:
        return "run", ""
    reason = f"{part} is missing; to enable: make test as root on Debian, or `{parts[part].enable}`"
    return ("fail", f"{reason} (CI=true: a missing part is a failure)") if in_ci(environ) else ("skip", reason)
