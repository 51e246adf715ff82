"""What Mosquitto reads: lines of its password file and of its ACL file. The rules themselves are `topics`'.

Mosquitto 2 knows PBKDF2 with SHA-512 as `$7$iterations$salt$hash`, which no hash of another kind can be turned into. So a node makes one of
its own broker password when it makes its card, and the hub, which never sees the password, hands it on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final

from protocols.errors import InvalidInput
from protocols.topics import Access, Address, Direction, Rule, channel_filters, hub_acl, node_acl

_ITERATIONS: Final = 101
"""As `mosquitto_passwd` does. Slow hashes defend passwords that can be guessed: ours are 192 random bits."""
_ITERATIONS_MOST: Final = 100_000
"""Mosquitto computes it at each login, in its only thread."""
SALT_BYTES: Final = 12
_HASH_BYTES: Final = 64
_LINE = re.compile(r"\$7\$([1-9][0-9]{0,5})\$([A-Za-z0-9+/=]{16,88})\$([A-Za-z0-9+/=]{88})")


def password_hash(password: str, salt: bytes) -> str:
    """A password as it stands behind the name in a `password_file`: `$7$101$salt$hash`, in base64. `salt`: SALT_BYTES, random."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS, _HASH_BYTES)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def salt_of(user: str, password: str) -> bytes:
    """A salt that is the same for the same user and password, so that a file written twice is the same file."""
    return hashlib.blake2b(f"{user}\0{password}".encode(), digest_size=SALT_BYTES, person=b"ls-mosquitto").digest()


def check_password_hash(text: str, field: str) -> str:
    """`text` if Mosquitto can read it, at a cost that it can bear. Raises InvalidInput naming `field`."""
    match = _LINE.fullmatch(text)
    if match is None or not _is64(match[2]) or len(base64.b64decode(match[3])) != _HASH_BYTES:
        raise InvalidInput(field, "is not a hash that Mosquitto reads.", remedy="It looks like $7$101$SALT$HASH.")
    if int(match[1]) > _ITERATIONS_MOST:
        raise InvalidInput(field, f"asks for {match[1]} iterations, at most {_ITERATIONS_MOST} are taken.")
    return text


def _is64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


# ------------------------------------------------------------------ access


def acl(nodes: Iterable[Address], *, hub_user: str, org: str | None = None) -> list[str]:
    """Lines of an `acl_file`: the hub's user first, then each node, whose user name is its node id. No wildcards for nodes."""
    lines = _lines(hub_user, hub_acl(org))
    for address in nodes:
        lines += ["", *_lines(address.node, node_acl(address))]
    return lines


def _lines(user: str, rules: Iterable[Rule]) -> list[str]:
    return [f"user {user}", *(f"topic {access.value} {pattern}" for access, pattern in rules)]


def acl_patterns(*, hub_user: str, org: str | None = None) -> list[str]:
    """The same for all nodes at once, as patterns on the user's name: never to be written anew as nodes come and go. A node may then
    use its channels under any org, region and site, but under no other node's name; the hub believes signatures, not places.
    """
    own = {Direction.FROM_NODE: Access.WRITE, Direction.TO_NODE: Access.READ}
    lines = [*_lines(hub_user, hub_acl(org)), ""]
    return [*lines, *(f"pattern {own[direction].value} {text}" for direction, text in channel_filters("%u", org))]
