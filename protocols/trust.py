"""Who said it: node keys, signatures, passwords, tokens, node cards and hub addresses. The only importer of `cryptography`.

Identity is the key, never a name a peer claims: a node signs every frame with its Ed25519 key, the hub admits the public half from a
signed node card, and an edge pins the hub's public key from the address string that it was given. Certificates and roles come later as
further fields of a new card version; a version 1 card with fields that nobody knows is refused rather than half understood.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols.details import check_text
from protocols.errors import ConfigError, InvalidInput, NotVerified
from protocols.limits import TEXT_CHARS
from protocols.mosquitto import check_password_hash
from protocols.topics import check_level, check_node

PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SEED_BYTES: Final = 32

_CARD_VERSION: Final = "node-card/1"
_CARD_CONTEXT: Final = b"longshore/node-card/1\n"
"""Signed before the card's JSON, so that a signature over a card can never pass for one over a frame."""
_KEY_FILE_HEAD: Final = "longshore-key-1:"
_KEYS_CACHED: Final = 4_096

_Y_MASK: Final = (1 << 255) - 1
_P: Final = (1 << 255) - 19
_SMALL_ORDER: Final = frozenset(
    (
        0,
        1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        _P - 1,
        _P,
        _P + 1,
    )
)
"""y of the points of small order on edwards25519: under such a "key" anybody can sign (RFC 8032, 8.9; the list of libsodium)."""


# --- keys and signatures ---------------------------------------------------------------------------------------------------------


class NodeKey:
    """A node's private key. Signs; knows its public half; is saved in one file that only its owner may read."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: the 32 bytes of an Ed25519 private key (RFC 8032)."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.public: Final[bytes] = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> NodeKey:
        """A new key from the operating system's randomness."""
        return cls(secrets.token_bytes(SEED_BYTES))

    @classmethod
    def load(cls, path: str | Path) -> NodeKey:
        """Read a saved key. Raises ConfigError if it is missing, damaged, or readable by anybody but its owner."""
        text = read_secret(path, what="key")
        if not text.startswith(_KEY_FILE_HEAD):
            raise ConfigError(f"{path} is not a Longshore key file.", remedy="Restore it from your copy; a new key is a new node.")
        seed = _decode64(text.removeprefix(_KEY_FILE_HEAD).strip())
        if seed is None or len(seed) != SEED_BYTES:
            raise ConfigError(f"The key in {path} is damaged.", remedy="Restore it from your copy; a new key is a new node.")
        return cls(seed)

    def save(self, path: str | Path) -> None:
        """Write the key to a new file of mode 0600 and sync it. Raises ConfigError if the file exists: keys are never overwritten."""
        write_secret(path, _KEY_FILE_HEAD + _encode64(self._seed) + "\n", what="key")

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `data`. Deterministic."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"NodeKey({fingerprint(self.public)})"


def verify(public: bytes, signature: bytes, data: bytes) -> None:
    """Return if `signature` over `data` is by the owner of the 32-byte `public` key; raise NotVerified otherwise."""
    try:
        _public_key(public).verify(signature, data)
    except InvalidSignature:
        raise NotVerified(f"The signature is not by the key {fingerprint(public)}.") from None


@lru_cache(maxsize=_KEYS_CACHED)
def _public_key(public: bytes) -> Ed25519PublicKey:
    """Loading a key costs a good part of a verification, and a hub sees the same few thousand keys all day."""
    if len(public) != PUBLIC_BYTES:
        raise NotVerified(f"A public key has {PUBLIC_BYTES} bytes, not {len(public)}.")
    if int.from_bytes(public, "little") & _Y_MASK in _SMALL_ORDER:
        raise NotVerified("The public key is a point of small order: anybody could sign for it.")
    return Ed25519PublicKey.from_public_bytes(public)


def fingerprint(public: bytes) -> str:
    """A public key as people compare it: `SHA256:` and 24 characters (144 bits) of base64url. Stable for ever."""
    return "SHA256:" + _encode64(hashlib.sha256(public).digest())[:24]


# --- secret files ----------------------------------------------------------------------------------------------------------------


def write_secret(path: str | Path, text: str, *, what: str) -> None:
    """Write `text` to a new file of mode 0600, synced to disk. Raises ConfigError naming `what` if it exists or cannot be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists; a {what} is never overwritten.", remedy="Move it away first if you mean it.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write the {what} to {path}: {error.strerror}.") from None
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


MADE_BY_INIT: Final = "Run init first, or restore it from your copy."
MADE_BY_HAND: Final = "Make it first, for its owner alone: (umask 077; cat > FILE), then the password, Enter, Ctrl-D."


def read_secret(path: str | Path, *, what: str, missing: str = MADE_BY_INIT) -> str:
    """The text of a secret file. Raises ConfigError if it is missing (`missing`: what to do then), unreadable, or open to others than its
    owner."""
    try:
        with open(path, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(f"The {what} in {path} can be read by others (mode {mode:04o}).", remedy=f"Run: chmod 600 {path}")
            return file.read(65_536)
    except FileNotFoundError:
        raise ConfigError(f"There is no {what} at {path}.", remedy=missing) from None
    except OSError as error:
        raise ConfigError(f"Cannot read the {what} in {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The {what} in {path} is damaged: it is not text.") from None


@contextmanager
def owner_only() -> Iterator[None]:
    """What is made meanwhile (databases and the files beside them, configurations, folders) is its owner's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def narrow(folder: Path) -> str:
    """Close a folder to others. Returns what to say where it stays open: it is not ours, is shared by all, or holds other things."""
    found = folder.stat()
    if not found.st_mode & 0o077:
        return ""
    shared = found.st_mode & stat.S_ISVTX or found.st_uid != os.geteuid() or any(folder.iterdir())
    if not shared:
        try:
            folder.chmod(0o700)
            return ""
        except OSError:  # a file system without modes, or of somebody else
            pass
    return f"{folder} may be entered by others (mode {stat.S_IMODE(found.st_mode):04o}) and was left so; its files are for their owner only"


# --- passwords and tokens --------------------------------------------------------------------------------------------------------

_SCRYPT_N: Final = 1_024
"""Of a new hash. Passwords are 192 random bits that the product makes, which nobody guesses at any cost; what a higher one would slow down
is a hub that starts again and is met by all of its nodes at once. Cards of before say 16,384 and stay good."""
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_SCRYPT_N_MAX: Final = 65_536
_SCRYPT_MEMORY_BYTES: Final = 96 * 1024 * 1024
_SCRYPT = re.compile(r"scrypt\$([0-9]{1,6})\$([0-9]{1,2})\$([0-9])\$([A-Za-z0-9_-]{22})\$([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class _Scrypt:
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes


def new_password() -> str:
    """A random broker password of 192 bits, as 32 characters."""
    return secrets.token_urlsafe(24)


def hash_password(password: str, *, n: int = _SCRYPT_N) -> str:
    """`scrypt$n$r$p$salt$hash`, with a salt of 16 and a hash of 32 bytes in base64url.

    About 3 ms and 1 MB at the default cost. Passwords are checked once per connect, never per message, and off the event loop.
    """
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, n, _SCRYPT_R, _SCRYPT_P)
    return f"scrypt${n}${_SCRYPT_R}${_SCRYPT_P}${_encode64(salt)}${_encode64(digest)}"


def password_matches(password: str, encoded: str) -> bool:
    """Whether `password` is the one behind `encoded`; compares in constant time. Raises InvalidInput if `encoded` is no such hash."""
    want = _parse_scrypt(encoded, "passwordHash")
    return hmac.compare_digest(_scrypt(password, want.salt, want.n, want.r, want.p), want.digest)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_MEMORY_BYTES, dklen=32)


def _parse_scrypt(encoded: str, field: str) -> _Scrypt:
    """The cost is part of the text, and the text comes from a card: without bounds a card could ask for a gigabyte per connect."""
    match = _SCRYPT.fullmatch(encoded)
    if match is None:
        raise InvalidInput(field, "is not a password hash.", remedy="It looks like scrypt$1024$8$1$SALT$HASH.")
    n, r, p = (int(match[i]) for i in (1, 2, 3))
    if not (2 <= n <= _SCRYPT_N_MAX and n & (n - 1) == 0 and 1 <= r <= 8 and 1 <= p <= 4):
        raise InvalidInput(field, f"asks for a cost of n={n}, r={r}, p={p}, beyond the bounds.", remedy="Use scrypt$1024$8$1$….")
    salt, digest = _decode64(match[4]), _decode64(match[5])
    if salt is None or digest is None:
        raise InvalidInput(field, "is not a password hash: its base64 is not canonical.")
    return _Scrypt(n, r, p, salt, digest)


def new_token() -> str:
    """A bearer token for an HTTP API: `lst_` and 256 random bits."""
    return "lst_" + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token: `sha256$hex`.

    A slow, salted hash defends guessable secrets against a stolen table. A token is 256 random bits: there is nothing to guess and no
    table to precompute, so one SHA-256 is enough, and an API can afford it on each request.
    """
    return "sha256$" + hashlib.sha256(token.encode()).hexdigest()


def token_matches(token: str, stored: str) -> bool:
    """Whether `token` is the one whose `token_hash` was stored; compares in constant time."""
    return hmac.compare_digest(token_hash(token).encode(), stored.encode())


# --- node cards ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeCard:
    """What a hub needs to admit a node. All of it is public; the password is there as its salted hash only."""

    node: str
    org: str
    region: str
    site: str
    public_key: bytes
    password_hash: str
    mosquitto_hash: str = ""
    """the password once more, as Mosquitto reads it (`protocols.mosquitto`); empty in older cards"""
    staff: str = ""
    """who works on it, where it is a phone: it follows that person's tasks; empty: an edge, which follows its site"""

    @property
    def fingerprint(self) -> str:
        """Of the public key, for people to compare."""
        return fingerprint(self.public_key)


_CARD_FIELDS: Final = ("longshore", "node", "org", "region", "site", "publicKey", "brokerPassword", "signature")
_CARD_MAY: Final = ("mosquittoPassword", "kind", "staff")
"""fields that a card may lack"""
EDGE: Final = "edge"
PHONE: Final = "phone"
KINDS: Final = (EDGE, PHONE)
"""of nodes; a card without a kind is of an edge"""


def make_card(
    key: NodeKey, *, node: str, org: str, region: str, site: str, password_hash: str, mosquitto_hash: str = "", staff: str = ""
) -> dict[str, str]:
    """The JSON object of a node card, signed with the key that it carries: proof that its maker holds the private half. `staff`: who works
    on it, for a phone."""
    card = {
        "longshore": _CARD_VERSION,
        "node": check_node(node),
        "org": check_level(org, "org"),
        "region": check_level(region, "region"),
        "site": check_level(site, "site"),
        "publicKey": _encode64(key.public),
        "brokerPassword": password_hash,
    }
    _parse_scrypt(password_hash, "brokerPassword")
    if mosquitto_hash:
        card["mosquittoPassword"] = check_password_hash(mosquitto_hash, "mosquittoPassword")
    if staff:
        card |= {"kind": PHONE, "staff": check_staff(PHONE, staff)}
    return card | {"signature": _encode64(key.sign(_card_bytes(card)))}


def check_staff(kind: str, staff: str) -> str:
    """`staff` as it fits the kind of node: a phone has one person's name, an edge has none. Errors: InvalidInput naming the field."""
    if kind not in KINDS:
        raise InvalidInput("kind", "is not a kind of node.", allowed=KINDS)
    if kind == PHONE:
        if not staff:
            raise InvalidInput("staff", "is missing: a phone follows the tasks of its staff.", remedy="Say who works on it.")
        return check_text(staff, "staff", "", TEXT_CHARS)
    if staff:
        raise InvalidInput("staff", "is for phones; an edge follows its site.", remedy="Leave it out, or make the node a phone.")
    return ""


def parse_card(obj: object) -> NodeCard:
    """Validate a node card. Raises InvalidInput naming the field, also where the signature is not by the card's own key."""
    card = _card_texts(obj)
    if card["longshore"] != _CARD_VERSION:
        raise InvalidInput("longshore", "is not a card that this version reads.", allowed=(_CARD_VERSION,))
    check_node(card["node"])
    for name in ("org", "region", "site"):
        check_level(card[name], name)
    _parse_scrypt(card["brokerPassword"], "brokerPassword")
    mosquitto = check_password_hash(card["mosquittoPassword"], "mosquittoPassword") if "mosquittoPassword" in card else ""
    public = _sized64(card["publicKey"], PUBLIC_BYTES, "publicKey")
    signature = _sized64(card["signature"], SIGNATURE_BYTES, "signature")
    try:
        verify(public, signature, _card_bytes(card))
    except NotVerified as error:
        raise InvalidInput("signature", error.reason, remedy="Take the card as the node printed it; it was changed.") from None
    staff = check_staff(card.get("kind", EDGE), card.get("staff", ""))
    return NodeCard(card["node"], card["org"], card["region"], card["site"], public, card["brokerPassword"], mosquitto, staff)


def _card_texts(obj: object) -> dict[str, str]:
    if not isinstance(obj, Mapping):
        raise InvalidInput("card", "is not a JSON object.", remedy="Give the node.card.json that init wrote.")
    for name in obj:
        if name not in _CARD_FIELDS + _CARD_MAY:
            raise InvalidInput(str(name)[:64], "is not a field of a node card.", allowed=_CARD_FIELDS + _CARD_MAY)
    names = [*_CARD_FIELDS, *(name for name in _CARD_MAY if name in obj)]
    for name in names:
        value = obj.get(name)
        if not isinstance(value, str):
            raise InvalidInput(name, "is missing." if value is None else "is not text.")
    return {name: obj[name] for name in names}


def _card_bytes(card: Mapping[str, str]) -> bytes:
    """What is signed: every field but the signature, as JSON with sorted keys, no spaces, UTF-8."""
    signed = {name: card[name] for name in card if name != "signature"}
    return _CARD_CONTEXT + json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


# --- the hub's address -----------------------------------------------------------------------------------------------------------

_SCHEMES: Final = {"longshore+mqtt": False, "longshore+mqtts": True}


@dataclass(frozen=True, slots=True)
class HubAddress:
    """Where a hub is and which key it must show. `tls` is about the line; frames and receipts are signed either way."""

    host: str
    port: int
    org: str
    hub: str
    public_key: bytes
    tls: bool = False

    @property
    def fingerprint(self) -> str:
        """Of the hub's key: compare it with what `longshore-hub init` printed."""
        return fingerprint(self.public_key)


def format_address(address: HubAddress) -> str:
    """`longshore+mqtt://HOST:PORT/ORG?hub=NODE&key=BASE64URL`, or `longshore+mqtts://…` with TLS. Read back by `parse_address`."""
    scheme = "longshore+mqtts" if address.tls else "longshore+mqtt"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}/{quote(address.org)}?hub={address.hub}&key={_encode64(address.public_key)}"


def parse_address(text: str) -> HubAddress:
    """The parts of a hub's address. Raises InvalidInput naming the part that is wrong."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidInput("address", f"cannot be read: {error}.", remedy=_ADDRESS_REMEDY) from None
    if parts.scheme not in _SCHEMES:
        raise InvalidInput("address", "is not a hub's address.", remedy=_ADDRESS_REMEDY, allowed=tuple(_SCHEMES))
    if not parts.hostname or not port or parts.username is not None or parts.fragment:
        raise InvalidInput("address", "needs a host and a port and nothing else before the org.", remedy=_ADDRESS_REMEDY)
    query = _address_query(parts.query)
    return HubAddress(
        host=parts.hostname,
        port=port,
        org=check_level(parts.path.removeprefix("/"), "address.org"),
        hub=check_node(query["hub"], "address.hub"),
        public_key=_sized64(query["key"], PUBLIC_BYTES, "address.key"),
        tls=_SCHEMES[parts.scheme],
    )


_ADDRESS_REMEDY: Final = "Take it whole from `longshore-hub init`, in quotes: longshore+mqtt://HOST:PORT/ORG?hub=NODE&key=KEY"


def _address_query(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs) or sorted(found) != ["hub", "key"]:
        raise InvalidInput("address", "must end in ?hub=NODE&key=KEY, each once.", remedy=_ADDRESS_REMEDY)
    return found


# --- base64url -------------------------------------------------------------------------------------------------------------------


def _encode64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode64(text: str) -> bytes | None:
    """The bytes, or None for anything but the one canonical spelling: two spellings of a key would be two keys to a comparison."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return data if _encode64(data) == text else None


def _sized64(text: str, size_bytes: int, field: str) -> bytes:
    data = _decode64(text)
    if data is None or len(data) != size_bytes:
        raise InvalidInput(field, f"is not {size_bytes} bytes in base64url.")
    return data
