"""`longshore-models`: data sets into canonical order events.

    longshore-models import scms FILE     canonical events as JSON lines on standard output, the report on standard error
    longshore-models sample scms FILE     cut the shipped sample out of the publisher's file

FILE is a path, `-` for standard input, or `sample` for the orders shipped with Longshore.

Exit codes: see EPILOG, which `--help` shows.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from models import __version__, samples
from models.importers.days import day_ms
from models.importers.report import Report
from models.importers.scms import TimedEvent, play_order, read_events, read_rows
from models.importers.scms_sample import promised_before, write_sample
from protocols.commands import CommandParser
from protocols.errors import ConfigError, InvalidInput, LedgerFull, LongshoreError

T = TypeVar("T")

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130
PROGRESS_EVERY: Final = 1_000
DATASETS: Final = ("scms",)
SAMPLE_BEFORE: Final = "2014-01-01"
EPILOG: Final = """\
example: longshore-models import scms sample --limit 3

exit codes: 0 done; 1 no row could be used, or with --strict any row was skipped; 2 bad input or usage;
3 the output cannot be written; 5 the disk is full; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors become one line on standard error."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except LongshoreError as error:
        print(f"longshore-models: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader has enough (`| head`): nothing is wrong, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="longshore-models",
        description="Data sets into canonical order events.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"longshore-models {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_import(commands)
    _add_sample(commands)
    return parser


def _add_import(commands: Any) -> None:
    command = commands.add_parser(
        "import",
        help="write the events of a data set as JSON lines",
        description="Write canonical order events, one JSON object a line. Rows that cannot be used are counted and reported.",
        epilog="example: longshore-models import scms sample --limit 100 --out events.jsonl",
    )
    _add_source(command)
    command.add_argument("--limit", type=_positive, metavar="N", help="stop after N events")
    command.add_argument(
        "--order",
        choices=("file", "known"),
        default="file",
        help="file: as the rows stand (streams); known: by the day each event became known (holds all in memory)",
    )
    command.add_argument("--out", metavar="FILE", help="write to FILE instead of standard output (replaced only once complete)")
    command.add_argument("--strict", action="store_true", help="exit with 1 if any row was skipped")
    command.set_defaults(run=_import)


def _add_sample(commands: Any) -> None:
    command = commands.add_parser(
        "sample",
        help="cut the shipped sample out of the publisher's file",
        description="Keep the needed columns of the lines promised before a day, as gzipped CSV. This is how the shipped sample was made.",
    )
    _add_source(command)
    command.add_argument("--out", metavar="FILE", required=True, help="the .csv.gz to write")
    command.add_argument(
        "--promised-before",
        type=_day,
        default=SAMPLE_BEFORE,
        metavar="DAY",
        help="keep what is promised before this day, YYYY-MM-DD (default: %(default)s)",
    )
    command.set_defaults(run=_sample)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", choices=DATASETS, help="scms: USAID's SCMS delivery history")
    command.add_argument("file", metavar="FILE", help="a path, - for standard input, or sample for the shipped orders (./sample: a file)")
    command.add_argument("--json", action="store_true", help="the report as JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _day(text: str) -> int:
    try:
        found = day_ms(text)
    except ValueError:
        found = None
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as {SAMPLE_BEFORE}")
    return found


# --- commands ---------------------------------------------------------------------------------------------------------


def _import(args: argparse.Namespace) -> int:
    report = Report()
    with _source(args.file) as stream, _target(args.out) as out:
        timed: Iterable[TimedEvent] = read_events(stream, report, name=args.file)
        if args.order == "known":
            timed = play_order(_with_progress(timed, report))
        for one in _with_progress(islice(timed, args.limit), report):
            out.write(json.dumps(one.event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        out.flush()
    _tell(report.as_json() if args.json else report.as_text())
    return FAILED if report.rows_used == 0 or (args.strict and report.rows_skipped_total) else OK


def _sample(args: argparse.Namespace) -> int:
    report = Report()
    with _source(args.file) as stream, _target(args.out) as out:
        rows = read_rows(stream, report, name=args.file)
        made = write_sample(_with_progress(promised_before(rows, args.promised_before, report), report), out)
    if args.json:
        _tell(report.as_json() | made.as_json())
    else:
        _tell(f"{report.as_text()}\n{args.out}: {made.lines_total} lines, {made.csv_bytes} bytes unpacked, sha256 {made.csv_sha256}")
    return FAILED if report.rows_used == 0 else OK


def _tell(report: str | dict[str, Any]) -> None:
    print(report if isinstance(report, str) else json.dumps(report, ensure_ascii=False), file=sys.stderr)


# --- files and the terminal -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    """The bytes named on the command line. Raises InvalidInput where they cannot be opened."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with _opened(name) as stream:
        yield stream


def _opened(name: str) -> BinaryIO:
    try:
        return samples.open_scms() if name == "sample" else Path(name).open("rb")
    except FileNotFoundError:
        raise InvalidInput(name, "no such file.", remedy="Give a path, - for standard input, or sample for the shipped orders.") from None
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).") from None


@contextlib.contextmanager
def _target(name: str | None) -> Iterator[BinaryIO]:
    """Where the events go. Reading raises InvalidInput, so any OSError that comes through here is about writing."""
    try:
        if name is None:
            yield sys.stdout.buffer
        elif Path(name).exists() and not Path(name).is_file():  # a pipe or a device is written to, never replaced
            with Path(name).open("wb") as out:
                yield out
        else:
            with _whole_file(Path(name)) as out:
                yield out
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(name or "standard output", error) from None


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when all of it is written."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _cannot_write(name: str, error: OSError) -> LongshoreError:
    if error.errno == errno.ENOSPC:
        return LedgerFull(f"{name}: the disk is full.", remedy="Free some space and run it again.")
    return ConfigError(f"{name}: cannot be written ({error.strerror}).", remedy="Choose another --out.")


def _with_progress(found: Iterable[T], report: Report) -> Iterator[T]:
    """Pass everything on; where standard error is a terminal, say there how far it is."""
    if not sys.stderr.isatty():
        yield from found
        return
    try:
        for count, one in enumerate(found, start=1):
            if count % PROGRESS_EVERY == 0:
                print(f"\r{report.rows_total:>9,} rows read, {count:,} passed on", end="", file=sys.stderr, flush=True)
            yield one
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
