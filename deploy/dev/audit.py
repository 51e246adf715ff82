"""Known vulnerabilities of the locked versions, told apart honestly from "nobody could be asked".

pip-audit says "No known vulnerabilities found" and exits 0 when its service knows none of the packages, as it does behind a mirror without
advisories. So this reads its JSON and counts what was really audited.

Exit codes: 0 clean, or no advisory service could be asked (said loudly); 1 vulnerabilities found; 2 wrong usage.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SERVICES: Final = ("pypi", "osv")
DEADLINE_S: Final = 180


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one service said: packages it knew, packages it did not, and one line per vulnerability."""

    audited: int
    skipped: tuple[str, ...]
    vulnerable: tuple[str, ...]

    @property
    def worth_something(self) -> bool:
        return self.audited > 0


def judge(document: dict[str, Any]) -> Verdict:
    """Count a pip-audit JSON document; a dependency with a `skip_reason` was not audited, whatever the exit code said."""
    known = [dep for dep in document["dependencies"] if "skip_reason" not in dep]
    skipped = tuple(dep["name"] for dep in document["dependencies"] if "skip_reason" in dep)
    lines = [_line(dep, vuln) for dep in known for vuln in dep.get("vulns", [])]
    return Verdict(len(known), skipped, tuple(lines))


def _line(dep: dict[str, Any], vuln: dict[str, Any]) -> str:
    fixed = ", ".join(vuln.get("fix_versions", [])) or "no fixed version yet"
    return f"{dep['name']} {dep['version']}: {vuln['id']} (fixed in: {fixed})"


def ask(service: str, lock: str) -> Verdict | None:
    """One service's verdict on a lock file with hashes, or None where it could not be asked."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "audit.json")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            lock,
            "--require-hashes",
            "--disable-pip",
            "--progress-spinner",
            "off",
        ]
        try:
            subprocess.run(
                [*command, "-s", service, "-f", "json", "-o", str(out)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=DEADLINE_S,
                check=False,
            )
            return judge(json.loads(out.read_text()))
        except (subprocess.TimeoutExpired, OSError, json.JSONDecodeError):
            return None


def tell(verdict: Verdict, service: str) -> int:
    """Print the verdict of a service that knew something; returns the exit code."""
    print(f"audit: {verdict.audited} locked versions checked with {service}; {len(verdict.vulnerable)} vulnerabilities known")
    for line in verdict.vulnerable:
        print(f"audit:   {line}")
    if verdict.skipped:
        print(f"audit: NOT checked, unknown to {service}: {', '.join(verdict.skipped)}")
    return 1 if verdict.vulnerable else 0


def main(argv: list[str]) -> int:
    if len(argv) != 1 or not Path(argv[0]).is_file():
        print("usage: audit.py LOCKFILE", file=sys.stderr)
        return 2
    for service in SERVICES:
        verdict = ask(service, argv[0])
        if verdict and verdict.worth_something:
            return tell(verdict, service)
    print(
        f"!!\n!! audit: NOTHING WAS CHECKED: no advisory service ({', '.join(SERVICES)}) knows these packages or answers from here.",
        file=sys.stderr,
    )
    print("!! Run `make audit` on a machine with a way to one.\n!!", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
