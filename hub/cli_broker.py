"""`longshore-hub broker acl|passwords`: the files of a Mosquitto beside the hub, from the registry.

Both are read from hub.db, also while the hub runs, and of several workers from the register that they share: what is admitted at one is
admitted at all. Nothing is changed there. Passwords are handed on as the hashes that nodes put on their
cards; the hub's own comes from `broker.password_file`. The same registry gives the same files, so `--check` can say whether they are old.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hub import config as settings
from hub.cli_ask import config_of, say
from hub.config import HubConfig
from hub.store.leases import SharedNode
from hub.workers_files import shared_nodes
from protocols import mosquitto
from protocols.errors import ConfigError, InvalidInput
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.trust import MADE_BY_HAND, read_secret

OK: Final = 0
FAILED: Final = 1
HUB_USER: Final = "hub"
"""where no `broker.username` is set"""
RELOAD: Final = "let Mosquitto read it: systemctl reload mosquitto (or SIGHUP)"
_ACL_HEAD: Final = "# Written by `longshore-hub broker acl`. Do not edit: write it anew as nodes come and go."
_PASSWORDS_NEED: Final = "Make one (openssl rand -base64 24), keep it in a file of mode 0600 and name that in broker.password_file."


def add(commands: Any, make: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser(
        "broker", help="the files of a Mosquitto beside the hub", description="The files of a Mosquitto beside the hub."
    )
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    acl = make(
        inner, "acl", write_acl, "write an acl_file: each admitted node its own topics, the hub the other side of them",
        "longshore-hub broker acl --out /etc/mosquitto/longshore.acl",
    )  # fmt: skip
    acl.add_argument(
        "--patterns", action="store_true", help="one pattern for all nodes instead; written once, but it confines nodes by name only"
    )
    passwords = make(
        inner, "passwords", write_passwords, "write a password_file: hashes of the nodes' and the hub's broker passwords",
        "longshore-hub broker passwords --out /etc/mosquitto/longshore.passwords",
    )  # fmt: skip
    for command in (acl, passwords):
        command.add_argument("--out", metavar="FILE", help="write it there, whole or not at all (default: standard output)")
        command.add_argument("--check", metavar="FILE", help="only compare with FILE; exit 1 if it is not what would be written")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the files need of the registry. `hashes`: by node, only of those whose card had one."""

    nodes: list[Address]
    hashes: Mapping[str, str]

    @property
    def lacking(self) -> list[str]:
        """Nodes whose password Mosquitto cannot be told."""
        return [a.node for a in self.nodes if a.node not in self.hashes]


def read_admitted(config: HubConfig) -> Admitted:
    """From hub.db, beside a hub that runs, and what other workers admitted. Errors: ConfigError: no hub has run and no node was added;
    LedgerError: the workers' register is away, and without it nodes would be left out."""
    file, shared = config.storage.path(settings.LEDGER_FILE), {one.node: one for one in shared_nodes(config)}
    if not file.exists() and shared:
        return _merged({}, {}, shared)
    if not file.exists():
        raise ConfigError(f"There is no {file}: no node was ever added.", remedy="Add one: longshore-hub nodes add CARD")
    db = Db(file, read_only=True)
    try:
        rows = db.query("SELECT org, region, site, node FROM nodes ORDER BY node")
        made = db.one("SELECT 1 FROM sqlite_master WHERE name='mosquitto'") is not None
        hashes = {str(node): str(text) for node, text in db.query("SELECT node, hash FROM mosquitto ORDER BY node")} if made else {}
    finally:
        db.close()
    return _merged({str(row[3]): Address(*row) for row in rows}, hashes, shared)


def _merged(own: Mapping[str, Address], hashes: Mapping[str, str], shared: Mapping[str, SharedNode]) -> Admitted:
    """This worker's nodes and those of the register, in which a card that was read again is the newer one."""
    nodes = {**own, **{name: Address(one.org, one.region, one.site, name) for name, one in shared.items()}}
    known = {**hashes, **{name: one.mosquitto_hash for name, one in shared.items() if one.mosquitto_hash}}
    return Admitted([nodes[name] for name in sorted(nodes)], {name: known[name] for name in sorted(known)})


def write_acl(args: argparse.Namespace) -> int:
    """`broker acl`."""
    config = config_of(args)
    user = hub_user(config)
    if args.patterns:
        lines, admitted = mosquitto.acl_patterns(hub_user=user), None
    else:
        admitted = read_admitted(config)
        _distinct(user, admitted)
        lines = mosquitto.acl(admitted.nodes, hub_user=user)
    return _deliver(args, "\n".join([_ACL_HEAD, *lines]) + "\n", len(admitted.nodes) if admitted else None)


def write_passwords(args: argparse.Namespace) -> int:
    """`broker passwords`. Exit 1 where nodes are left out because their cards are old."""
    config = config_of(args)
    user, admitted = hub_user(config), read_admitted(config)
    _distinct(user, admitted)
    password = _hub_password(config)
    lines = [f"{user}:{mosquitto.password_hash(password, mosquitto.salt_of(user, password))}"]
    lines += [f"{node}:{text}" for node, text in admitted.hashes.items()]
    code = _deliver(args, "\n".join(lines) + "\n", len(admitted.hashes), lacking=admitted.lacking)
    for node in admitted.lacking:
        print(
            f"left out: {node}: its card is an old one; `longshore-edge card` there, then `longshore-hub nodes add` here", file=sys.stderr
        )
    return FAILED if admitted.lacking else code


def hub_user(config: HubConfig) -> str:
    """The hub's user name at the broker. Errors: ConfigError where no line of Mosquitto's files could hold it."""
    user = config.broker.username or HUB_USER
    if not user.isprintable() or any(c in user for c in ":#+/ "):
        raise ConfigError("broker.username cannot stand in Mosquitto's files.", remedy="Use letters, digits, - and _.")
    return user


def _distinct(user: str, admitted: Admitted) -> None:
    if any(a.node == user for a in admitted.nodes):
        raise ConfigError(
            f"The hub's user at the broker, {user}, is also the name of a node, which would get the hub's rights.",
            remedy="Set broker.username to a name that no node has.",
        )


def _hub_password(config: HubConfig) -> str:
    if not config.broker.password_file:
        raise ConfigError("The hub has no password at the broker.", remedy=_PASSWORDS_NEED)
    password = read_secret(config.broker.password_file, what="broker password", missing=MADE_BY_HAND).strip()
    if len(password) < settings.LEAST_PASSWORD_CHARS:
        why = f"is shorter than {settings.LEAST_PASSWORD_CHARS} characters"
        raise ConfigError(f"The broker password in {config.broker.password_file} {why}.", remedy=_PASSWORDS_NEED)
    return password


# ------------------------------------------------------------------ out


def _deliver(args: argparse.Namespace, text: str, nodes: int | None, *, lacking: list[str] | None = None) -> int:
    if args.check and args.out:
        raise InvalidInput("--check", "and --out exclude each other.", remedy="Give one of them.")
    if args.check:
        return _compare(args, text)
    if not args.out:
        if args.json:
            say({"nodes": nodes, "lacking": lacking or [], "lines": text.splitlines()})
        else:
            print(text, end="")
        return OK
    changed = replace_file(Path(args.out), text)
    if args.json:
        say({"file": args.out, "nodes": nodes, "lacking": lacking or [], "changed": changed})
    elif changed:
        print(f"wrote {args.out}{'' if nodes is None else f': the hub and {nodes:,} nodes'}; {RELOAD}")
    else:
        print(f"{args.out} is as it should be")
    return OK


def _compare(args: argparse.Namespace, text: str) -> int:
    try:
        same = Path(args.check).read_text("utf-8") == text
    except FileNotFoundError:
        same = False
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--check", f"{args.check} cannot be read ({getattr(error, 'strerror', None) or 'not text'}).") from None
    if args.json:
        say({"file": args.check, "same": same})
    else:
        print(f"{args.check} {'is as it should be' if same else 'is old: write it anew with --out, then reload Mosquitto'}")
    return OK if same else FAILED


def replace_file(path: Path, text: str) -> bool:
    """Whole or not at all; mode and owner of a file that was there stay, so that Mosquitto's user may still read it. False: it was the
    same. Errors: ConfigError."""
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return False
        part.write_text(text, "utf-8")
        if path.exists():
            shutil.copymode(path, part)
            with contextlib.suppress(PermissionError):  # whoever may not give files away keeps his own
                os.chown(part, path.stat().st_uid, path.stat().st_gid)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"Cannot write {path}: {error.strerror}.", remedy="Choose another --out, or run it as who may write there."
        ) from None
    return True
