"""The units: clean by systemd's own check, hardened, and the product does what they expect of it, also without a network."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from protocols.trust import HubAddress, NodeKey, format_address
from tests.support.needs import needs, where
from tests.support.patience import WITHIN_S
from tests.support.procs import started
from tests.support.source import ROOT
from tests.unit.protocols.test_supervision import beats, manager

FOLDER: Final = ROOT / "deploy" / "systemd"
UNITS: Final = sorted(FOLDER.glob("*.service"))
HARDENED: Final = 3.0
MISTAKES: Final = (("WatchdogSec=60", "WatchdogSecs=60"), ("/longshore-", "/no-longshore-"), ("Type=notify", "Type=notifies"))


def installed(unit: Path, folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    """The unit as it would be with the commands of this interpreter; a template as its first instance."""
    text = unit.read_text("utf-8").replace("/usr/bin/longshore", f"{Path(sys.executable).parent}/longshore")
    out = folder / unit.name.replace("@.", "@1.")
    out.write_text(text.replace(*change) if change[0] else text, "utf-8")
    return out


def analyze(*words: str) -> str:
    """What systemd-analyze says, wherever it says it; its exit code at the end."""
    done = subprocess.run([where("systemd-analyze"), *words], capture_output=True, text=True, check=False, timeout=WITHIN_S)
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    assert analyze("verify", "--man=no", str(installed(unit, tmp_path))) == "exit 0"


@needs("systemd-analyze")
@pytest.mark.parametrize(
    "change",
    [("WatchdogSec=60", "WatchdogSecs=60"), ("/longshore-", "/no-longshore-"), ("Type=notify", "Type=notifies")],
    ids=lambda c: c[1],
)
def test_a_mistake_in_a_unit_would_be_found(change: tuple[str, str], tmp_path: Path) -> None:
    assert analyze("verify", "--man=no", str(installed(UNITS[0], tmp_path, change))) != "exit 0"


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_are_hardened(unit: Path, tmp_path: Path) -> None:
    said = analyze("security", "--offline=yes", "--no-pager", str(installed(unit, tmp_path)))
    level = re.search(r"exposure level for \S+: ([\d.]+)", said)
    if level is None and "offline" in said:
        pytest.skip("this systemd cannot judge a unit that is not loaded")
    assert level is not None, said
    assert float(level[1]) < HARDENED


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_each_has_its_user_a_watchdog_and_no_need_of_a_network(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text("utf-8"))
    service = parser["Service"]
    users = re.findall(r"^u (\S+)", (FOLDER / "longshore.sysusers").read_text("utf-8"), re.M)
    assert service["User"] in users
    assert (service["Type"], service["WatchdogSec"]) == ("notify", "60")
    assert not any("network-online.target" in parser["Unit"].get(key, "") for key in ("After", "Wants", "Requires"))


def test_an_edge_starts_without_a_network_and_feeds_its_watchdog(tmp_path: Path) -> None:
    """In a network of its own, where that may be made: nothing is up there, not even the loopback."""
    edge = [sys.executable, "-m", "edge_agent.cli"]
    hub = format_address(HubAddress("hub.example", 8883, "acme", "hub", NodeKey(b"h" * 32).public, tls=True))
    words = ["--node", "e1", "--site", "S", "--region", "R", "--port", "0", "--hub", hub]
    subprocess.run([*edge, "init", str(tmp_path), *words], check=True, capture_output=True, timeout=WITHIN_S)
    run = [*alone(), *edge, "run", "--config", str(tmp_path / "edge.toml")]
    with manager() as systemd, started(run, env=systemd.environ(WATCHDOG_USEC="900000")) as one:
        said: list[str] = []

        def fed() -> bool:
            said.extend(systemd.heard())
            return beats(said) >= 3

        one.wait_until(fed, what="feeding its watchdog")
        assert said[0] == "READY=1"
        assert one.end() == 0
        assert [*said, *systemd.heard()][-1] == "STOPPING=1"


def alone() -> list[str]:
    """A command that gives the next one a network of its own; none where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode == 0:
        return [unshare, "--net"]
    return []
