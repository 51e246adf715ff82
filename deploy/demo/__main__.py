"""`make demo`: set everything up in a folder, play the history, show it, count what came of it.

Exit codes: 0 all there; 1 something lost, doubled or unbalanced; 2 bad input; 3 configuration (a port in use, a folder); 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.demo import history, report
from deploy.demo.parts import Site, build
from deploy.demo.player import CUT, DISPUTED_AT, Player
from deploy.demo.screen import Screen, render
from protocols.errors import ConfigError, InvalidInput, LongshoreError


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn every expected error into one line."""
    args = _parser().parse_args(argv)
    try:
        return asyncio.run(_main(args))
    except LongshoreError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except OSError as e:
        print(f"error: {e.filename or ''}: {e.strerror}", file=sys.stderr)
        return ConfigError.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="make demo", description="A hub and three edges play real orders through a cut link, a kill and a conflict."
    )
    p.add_argument("--once", action="store_true", help="stop after the report instead of keeping the web page up until Ctrl-C")
    p.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON, too")
    p.add_argument("--records", type=Path, metavar="FILE", help="play this SCMS export instead of the shipped sample")
    p.add_argument("--seconds", type=float, default=None, help="how long the history takes (default 60; 24 with --once)")
    p.add_argument("--port", type=_port, default=8800, help="of the hub's API and web page (default 8800)")
    p.add_argument(
        "--dir", type=Path, metavar="DIR", help="keep databases and logs here (a new folder); default: a temporary one, removed at the end"
    )
    return p


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


async def _main(args: argparse.Namespace) -> int:
    _check_port(args.port)
    plays = history.load(args.records, DISPUTED_AT)
    if not plays.events:
        raise InvalidInput("--records", "holds no row that can be played", remedy="longshore-models import scms FILE says why, row by row")
    _tell_history(plays)
    if args.report is not None:
        make_room(args.report)
    if args.dir is not None:
        if args.dir.exists() and any(args.dir.iterdir()):
            raise ConfigError(f"{args.dir} is not empty", remedy="name a new folder")
        args.dir.mkdir(parents=True, exist_ok=True)
        return await _stage(args, plays, args.dir)
    with tempfile.TemporaryDirectory(prefix="longshore-demo-") as folder:
        return await _stage(args, plays, Path(folder))


def make_room(file: Path) -> None:
    """Make the folder of the report now, not after the play. Errors: ConfigError."""
    try:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file.parent} is no folder, nor can it be made: {error.strerror}", remedy="name another file") from error
    if file.is_dir():
        raise ConfigError(f"{file} is a folder", remedy="name a file in it")


def _tell_history(plays: history.History) -> None:
    """What is about to be played, and what the file will not show."""
    left_out = ", one real delivery left out for the conflict" if plays.disputed else ""
    print(f"{plays.events:,} events of real orders, {plays.report.rows_skipped_total} rows skipped{left_out}", file=sys.stderr)
    for reason, rows in plays.report.skipped.items():
        print(f"  skipped: {rows} x {reason}", file=sys.stderr)
    idle = [node for node in CUT if not any(day.node == node for day in plays.days)]
    if idle or not plays.disputed:
        print(
            f"  note: nothing of this file belongs to {' or '.join(idle) or DISPUTED_AT}: the cut or the conflict shows little",
            file=sys.stderr,
        )


def _check_port(port: int) -> None:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as e:
            raise ConfigError(
                f"port {port} is in use", remedy="stop what listens there, or choose another: make demo ARGS='--port 8801'"
            ) from e


async def _stage(args: argparse.Namespace, plays: history.History, root: Path) -> int:
    site = await build(root, api_port=args.port)
    stopped = asyncio.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)
    try:
        play = asyncio.create_task(_play(args, plays, site))
        wait = asyncio.create_task(stopped.wait())
        await asyncio.wait((play, wait), return_when=asyncio.FIRST_COMPLETED)
        if not play.done():
            play.cancel()
            await asyncio.gather(play, return_exceptions=True)
            return 130
        wait.cancel()
        counted = _count(root, site, play.result())
        _publish(args, counted)
        if not args.once:
            print(f"\nThe web page stays up at {site.hub.url} until Ctrl-C.", file=sys.stderr)
            await stopped.wait()
        return 0 if counted["ok"] else 1
    finally:
        await site.stop()


async def _play(args: argparse.Namespace, plays: history.History, site: Site) -> Player:
    seconds = args.seconds if args.seconds is not None else 24.0 if args.once else 60.0
    with Screen(site.hub.url) as screen:
        player = Player(site, plays, seconds=seconds, tell=screen.show)
        await player.run()
    return player


def _count(root: Path, site: Site, player: Player) -> dict[str, Any]:
    counted = report.count(root / "hub", [e.dir for e in site.edges.values()])
    counted["balanced"] = bool(player.scene.totals.get("balanced"))
    counted["restarts"] = {n: e.starts - 1 for n, e in site.edges.items()}
    counted["ok"] = (
        counted["balanced"] and counted["lost"] == counted["appliedTwice"] == 0 and counted["settled"] == counted["captured"] > 0
    )
    return counted


def _publish(args: argparse.Namespace, counted: dict[str, Any]) -> None:
    print(render(counted))
    if args.report is not None:
        args.report.write_text(json.dumps(counted, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
