"""`make audit` must never take silence for safety."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module; it is no package, because it ships with the repository only."""
    spec = importlib.util.spec_from_file_location("longshore_audit", ROOT / "deploy" / "dev" / "audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def answers(monkeypatch: pytest.MonkeyPatch, audit: Any, by_service: dict[str, Any]) -> None:
    """pip-audit stands in: it writes the document of the service it was asked for, or nothing, and always exits 0."""

    def run(command: list[str], **_: Any) -> None:
        document = by_service.get(command[command.index("-s") + 1])
        if document is not None:
            Path(command[-1]).write_text(json.dumps(document))

    monkeypatch.setattr(subprocess, "run", run)


CLEAN = {"dependencies": [{"name": "rich", "version": "15.0.0", "vulns": []}]}
SILENT = {"dependencies": [{"name": "rich", "skip_reason": "not found"}]}
HOLED = {
    "dependencies": [{"name": "rich", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}, {"name": "x", "skip_reason": "?"}]
}


def lock(tmp_path: Path) -> list[str]:
    path = tmp_path / "requirements.lock"
    path.write_text("rich==15.0.0\n")
    return [str(path)]


def test_a_service_that_knows_nothing_is_not_a_clean_bill(audit: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    answers(monkeypatch, audit, {"pypi": SILENT})
    assert audit.main(lock(tmp_path)) == 0
    assert "NOTHING WAS CHECKED" in capsys.readouterr().err


def test_the_next_service_is_asked(audit: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    answers(monkeypatch, audit, {"pypi": SILENT, "osv": CLEAN})
    assert audit.main(lock(tmp_path)) == 0
    assert "1 locked versions checked with osv; 0 vulnerabilities" in capsys.readouterr().out


def test_a_vulnerability_fails_and_the_unchecked_are_named(audit: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    answers(monkeypatch, audit, {"pypi": HOLED})
    assert audit.main(lock(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "rich 1: CVE-1 (fixed in: 2)" in out
    assert "NOT checked, unknown to pypi: x" in out


def test_wrong_usage_says_how(audit: Any, capsys: Any) -> None:
    assert audit.main([]) == 2
    assert "usage" in capsys.readouterr().err
