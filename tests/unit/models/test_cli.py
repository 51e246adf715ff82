"""`longshore-models`: what it prints where, its exit codes, and one line for each thing that goes wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models import cli
from tests.unit.models.scms_files import header, line, original


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scms.csv"
    path.write_bytes(original(line(), line(id="2", ordered="3/4/10"), line(id="x")))
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def process(*argv: object, **how: Any) -> subprocess.Popen[bytes]:
    program = "import sys; from models.cli import main; sys.exit(main())"
    root = Path(cli.__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", program, *map(str, argv)], cwd=root, stderr=subprocess.PIPE, **how)


def test_events_go_to_standard_output_and_the_report_to_standard_error(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    code, out, err = run(capsys, "import", "scms", file)
    assert code == 0
    assert [json.loads(text)["idempotencyKey"] for text in out.splitlines()] == [
        "scms-1-PLACED", "scms-1-DELIVERED", "scms-2-PLACED", "scms-2-DELIVERED",
    ]  # fmt: skip
    assert err.startswith("3 rows: 2 used, 1 skipped; 4 events\n")
    assert "line 4: ID is no number up to 9999999: 'x'" in err


def test_the_report_as_json(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    _, _, err = run(capsys, "import", "scms", file, "--json")
    report = json.loads(err)
    assert (report["rowsTotal"], report["rowsUsed"], report["rowsSkipped"], report["eventsTotal"]) == (3, 2, 1, 4)
    assert report["countries"] == {"Côte d'Ivoire": 2}


def test_the_order_of_knowing(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    _, out, _ = run(capsys, "import", "scms", file, "--order", "known")
    assert [json.loads(text)["orderId"] for text in out.splitlines()[:2]] == ["SCMS-4-L2", "SCMS-4-L1"]


def test_limit_stops_after_so_many_events(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "import", "scms", "sample", "--limit", "3", "--json")
    assert (code, len(out.splitlines())) == (0, 3)
    assert json.loads(err)["rowsTotal"] == 2  # it does not read on


def test_strict_fails_on_a_skipped_row_and_no_usable_row_always_fails(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert run(capsys, "import", "scms", file, "--strict")[0] == 1
    file.write_bytes(original(line(id="x")))
    assert run(capsys, "import", "scms", file)[0] == 1


def test_out_appears_only_when_it_is_whole(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    assert run(capsys, "import", "scms", file, "--out", out)[:2] == (0, "")
    whole = out.read_bytes()
    assert whole.count(b"\n") == 4
    file.write_bytes(original(line(), b"a\0b\r"))
    assert run(capsys, "import", "scms", file, "--out", out)[0] == 2
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "scms.csv"]


def test_a_device_is_written_to_and_not_replaced(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    assert run(capsys, "import", "scms", file, "--out", link)[0] == 0
    assert link.is_symlink()
    assert not Path(os.devnull).is_file()


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    code, out, _ = run(capsys, "import", "scms", "-")
    assert (code, len(out.splitlines())) == (0, 4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(drop=("Vendor", "Country")) + line(drop=("Vendor", "Country")), "missing columns: Country, Vendor."),
        (b"just text\r", "no SCMS file"),
        (b"PK\x03\x04\0\0\0", "not a CSV file: it holds NUL bytes."),
        (b"", "is empty."),
        (None, "no such file."),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "wrong.csv"
    if data is not None:
        path.write_bytes(data)
    code, out, err = run(capsys, "import", "scms", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"longshore-models: {path}: ")
    assert words in err


def test_a_directory_is_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "import", "scms", tmp_path)
    assert (code, err) == (2, f"longshore-models: {tmp_path}: cannot be read (Is a directory).\n")


def test_an_output_that_cannot_be_written_is_exit_3(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    code, _, err = run(capsys, "import", "scms", file, "--out", tmp_path / "no" / "where")
    assert (code, err.count("\n")) == (3, 1)
    assert "cannot be written" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_exit_5(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    code, _, err = run(capsys, "import", "scms", file, "--out", "/dev/full")
    assert (code, err.count("\n")) == (5, 1)
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    "argv",
    ["", "import", "import olist x", "import scms x --limit 0", "import scms x --limit ²", "sample scms x --out y --promised-before soon"],
)
def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str], argv: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv.split())
    assert caught.value.code == 2
    assert "usage: longshore-models" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error() -> None:
    running = process("import", "scms", "sample", stdout=subprocess.PIPE)
    assert running.stdout
    assert running.stderr
    assert running.stdout.readline().startswith(b'{"orderId":')
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait(30) == 0


def test_progress_is_shown_on_a_terminal_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\r" not in run(capsys, "import", "scms", "sample")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = run(capsys, "import", "scms", "sample")[2]
    assert "rows read, 15,000 passed on" in err
    assert err.rpartition("\r\x1b[K")[2].startswith("7779 rows: 7779 used")


def test_the_sample_is_cut_by_command(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.csv.gz"
    file.write_bytes(original(line(), line(id="2", promised="1-Jan-14")))
    code, _, err = run(capsys, "sample", "scms", file, "--out", out, "--json")
    report = json.loads(err)
    assert (code, report["rowsTotal"], report["rowsUsed"], report["skipped"]) == (0, 2, 1, {"promised too late for the sample": 1})
    assert (report["linesWritten"], len(report["csvSha256"])) == (1, 64)
    assert run(capsys, "import", "scms", out)[0] == 0


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"{code} " in text.split("exit codes:")[1] for code in (0, 1, 2, 3, 5, 130))
