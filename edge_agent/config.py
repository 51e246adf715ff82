"""The configuration of an edge: `edge.toml` and the environment, read once into a frozen value.

One description of every setting (the fields of the section classes below) is what the reader checks against, what `init` writes as a
commented file, what `--help` and the documents list. Whatever is not described is an error that names the key: a misspelt setting would
otherwise be a setting that is silently not made.

Order of precedence: `LONGSHORE_SECTION__KEY` in the environment, then the file, then the default. Secrets are named by their file. A
relative path is relative to the folder of the configuration file, never to where the command was typed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge_agent.core import EdgeIdentity, EdgeSettings
from edge_agent.relay import RelaySettings
from protocols.callers import is_loopback
from protocols.errors import ConfigError, InvalidInput
from protocols.event import EventDefaults
from protocols.limits import FRAME_FACTS
from protocols.policies import load as load_policies
from protocols.policy import Policies
from protocols.sync.uplink import UplinkSettings
from protocols.topics import Address
from protocols.transport.versions import AUTO, CHOICES
from protocols.trust import EDGE, KINDS, HubAddress, check_staff, parse_address

ENV_PREFIX: Final = "LONGSHORE_"
FILE_NAME: Final = "edge.toml"
_DAY_MS: Final = 86_400_000


def _setting(default: Any, doc: str, *, least: int | None = None, most: int | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A field of a section. `MISSING` as default: there is none, the file must say. The bounds are inclusive."""
    return field(default=default, metadata={"doc": doc, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Who this edge is. Changing any of it makes it another node for the hub."""

    name: str = _setting(MISSING, "The node's name, unique at its hub: a-z 0-9 -, at most 32.")
    site: str = _setting(MISSING, "The site it stands at; also the site of events that do not say one.")
    region: str = _setting(MISSING, "The region of the site; also the region of events that do not say one.")
    org: str = _setting(MISSING, "The organisation; orders without an org belong to it.")
    kind: str = _setting(EDGE, "edge: follows the orders of its site; phone: the tasks of its staff.", choices=KINDS)
    staff: str = _setting("", "Who works on a phone; also the actor of events that do not say one. After a change: `longshore-edge card`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Where facts go."""

    address: str = _setting(
        MISSING, "What `longshore-hub init` printed. It pins the hub's key: longshore+mqtt[s]://HOST:PORT/ORG?hub=…&key=…"
    )
    url: str = _setting(
        "",
        "Sync over HTTP instead of MQTT: the address of a gateway's API, or of the hub's, such as https://hub.example:8800. Empty: MQTT.",
    )
    token_file: str = _setting(
        "",
        "With url: a file (mode 0600) with a token of that gateway's API. Empty: the node's name and broker password, as a hub takes them.",
    )
    handout_ms: int = _setting(
        3_000, "With url: after so long without an answer of the hub, facts are handed to the gateway to keep.", least=100, most=3_600_000
    )
    ca_file: str = _setting("", "Certificate authority (PEM) of the broker or of url, where the system's are not enough.")
    cert_file: str = _setting("", "Certificate (PEM) of this node, where the broker asks its clients for one. With key_file.")
    key_file: str = _setting("", "Private key (PEM, without a password, mode 0600) of that certificate.")
    mqtt: str = _setting(AUTO, "Version of MQTT; auto: 5 where the broker has it (the embedded one has not), else 3.1.1.", choices=CHOICES)
    keepalive_s: int = _setting(30, "How often the line shows that it lives.", least=5, most=3_600)
    reconnect_most_s: int = _setting(
        60,
        "Without a line, the wait between attempts doubles up to this, with jitter: a region does not return in step.",
        least=1,
        most=3_600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The HTTP API for the machines and people of the site."""

    host: str = _setting("127.0.0.1", "Address to listen on. 0.0.0.0: every network this machine is on; tokens then cross it in the clear.")
    port: int = _setting(8_700, "Port to listen on; 0 takes a free one and prints it.", least=0, most=65_535)
    token_hashes: tuple[str, ...] = _setting((), "Hashes of the bearer tokens that may call. `init` keeps the first token in api.token.")
    loopback_without_token: bool = _setting(False, "Let programs on this very machine call without a token.")
    max_waiting_requests: int = _setting(1_024, "Requests that may wait for the disk; more are answered 503.", least=1, most=100_000)
    max_held_bytes: int = _setting(
        16_000_000, "Bytes of request bodies held at once; more are answered 503.", least=4_000_000, most=1_000_000_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where facts lie, and how much room they have."""

    ledger_file: str = _setting("ledger.db", "The ledger. Two more files of its name stand beside it while the edge runs.")
    key_file: str = _setting("node.key", "The node's private key, mode 0600. A new key is a new node.")
    card_file: str = _setting("node.card.json", "The public card that `longshore-hub nodes add` takes.")
    password_file: str = _setting("broker.password", "The password at the hub's broker, mode 0600.")
    lock_file: str = _setting("run.lock", "Keeps a second process off the same data.")
    budget_bytes: int = _setting(
        1_000_000_000, "Room for the ledger. When it is used up and nothing may be freed, requests are answered 507.", least=1_000_000
    )
    telemetry_bytes: int = _setting(
        0, "Of it for telemetry; what is superseded goes first, then the oldest, as signed records. 0: a quarter of the budget.", least=0
    )
    reserve_bytes: int = _setting(0, "Of it kept for facts of orders when telemetry has used the rest. 0: a tenth of the budget.", least=0)
    ballast_bytes: int = _setting(
        32_000_000,
        "Set aside on the disk beside the ledger, and given back when the disk is full, so that it can recover by itself. 0: none.",
        least=0,
        most=10_000_000_000,
    )
    pressure_percent: int = _setting(80, "Of the budget; beyond it settled facts go even where no backup is configured.", least=1, most=100)
    custody_bytes: int = _setting(
        200_000_000,
        "Of the budget, for what is kept for others until it is settled; when it is used up, peers are answered 507.",
        least=100_000,
    )
    floor_days: int = _setting(7, "Settled facts stay at least as long.", least=0, most=3_650)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """How eagerly facts are sent. The defaults suit links from a satellite's to a fibre's."""

    frame_facts: int = _setting(500, "Facts in one frame at most.", least=1, most=FRAME_FACTS)
    window_facts: int = _setting(10_000, "Facts under way without a receipt at most.", least=1, most=1_000_000)
    live_share_percent: int = _setting(25, "Of the window, kept for what was just captured while a backlog drains.", least=0, most=90)
    linger_ms: int = _setting(20, "A new fact waits so long for others to share its frame.", least=0, most=10_000)
    retry_ms: int = _setting(
        5_000, "Without a receipt for so long, ask the hub what it holds; later where round trips take long.", least=100, most=3_600_000
    )
    retry_most_ms: int = _setting(300_000, "The wait doubles up to this.", least=100, most=86_400_000)
    idle_hello_ms: int = _setting(300_000, "Having heard nothing for so long, ask.", least=1_000, most=86_400_000)
    stall_ms: int = _setting(
        60_000, "Connected, something to send and no progress for so long: a new connection.", least=1_000, most=3_600_000
    )
    heartbeat_ms: int = _setting(10_000, "How often the hub hears what waits here.", least=500, most=3_600_000)
    zlib_level: int = _setting(6, "1 is fast, 9 is small.", least=1, most=9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    """What people do about facts that did not know of each other."""

    policy_file: str = _setting("", "A table of policies (YAML) in place of the shipped one; see protocols/CONFLICTS.md.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is said on standard error."""

    level: str = _setting("info", "How much.", choices=("debug", "info", "warning", "error"))
    format: str = _setting("auto", "auto: lines for people on a terminal, JSON elsewhere.", choices=("auto", "text", "json"))
    trace: bool = _setting(False, "A line for each fact that is committed, with its trace id.")


SECTIONS: Final[dict[str, type]] = {
    "node": Node, "hub": Hub, "api": Api, "storage": Storage, "sync": Sync, "conflicts": Conflicts, "log": Log,
}  # fmt: skip
_FILES: Final = tuple(("storage", f.name) for f in fields(Storage) if f.name.endswith("_file"))
_PATHS: Final = (
    ("hub", "ca_file"),
    ("hub", "cert_file"),
    ("hub", "key_file"),
    ("hub", "token_file"),
    ("conflicts", "policy_file"),
    *_FILES,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings, for readers, documents and checks. `default` is None where the file must say."""

    section: str
    name: str
    type: str
    default: Any
    doc: str
    least: int | None
    most: int | None
    choices: tuple[str, ...]

    @property
    def key(self) -> str:
        """As people name it: `api.port`."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"{ENV_PREFIX}{self.section}__{self.name}".upper()


def _rows() -> dict[str, Setting]:
    rows = [
        Setting(section, f.name, str(f.type), None if f.default is MISSING else f.default, **f.metadata)
        for section, kind in SECTIONS.items()
        for f in fields(kind)
    ]
    return {row.key: row for row in rows}


SETTINGS: Final[dict[str, Setting]] = _rows()


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Everything an edge is told. Paths are absolute; `hub_address` is `hub.address`, parsed."""

    file: Path
    node: Node
    hub: Hub
    api: Api
    storage: Storage
    sync: Sync
    conflicts: Conflicts
    log: Log
    hub_address: HubAddress

    @property
    def address(self) -> Address:
        """Where this node stands in the tree of topics."""
        return Address(self.node.org, self.node.region, self.node.site, self.node.name)

    @property
    def defaults(self) -> EventDefaults:
        """What an event means when it does not say."""
        return EventDefaults(self.node.org, self.node.region, self.node.site, self.node.staff or None)

    def identity(self, version: str) -> EdgeIdentity:
        """Who the core speaks for, and to whom."""
        return EdgeIdentity(self.address, self.hub_address.hub, self.hub_address.public_key, version)

    def policies(self) -> Policies:
        """The table that judges conflicts. Errors: ConfigError, with file and line."""
        return load_policies(self.conflicts.policy_file)

    def core_settings(self) -> EdgeSettings:
        """What the core is bounded by."""
        s = self.sync
        uplink = UplinkSettings(
            frame_facts=s.frame_facts, window_facts=s.window_facts, live_share_percent=s.live_share_percent, linger_ms=s.linger_ms,
            retry_ms=s.retry_ms, retry_most_ms=s.retry_most_ms, idle_hello_ms=s.idle_hello_ms, stall_ms=s.stall_ms, level=s.zlib_level,
        )  # fmt: skip
        return EdgeSettings(
            uplink=uplink, relay=RelaySettings(custody_bytes=self.storage.custody_bytes),
            handout_ms=self.hub.handout_ms if self.hub.url else None, heartbeat_ms=s.heartbeat_ms, budget_bytes=self.storage.budget_bytes,
            pressure_percent=self.storage.pressure_percent, telemetry_bytes=self.storage.telemetry_bytes,
            reserve_bytes=self.storage.reserve_bytes, floor_ms=self.storage.floor_days * _DAY_MS, policies=self.policies(),
        )  # fmt: skip


# ------------------------------------------------------------ reading


def load_config(path: str | Path, environ: Mapping[str, str]) -> EdgeConfig:
    """Read a configuration file and what overrides it. Errors: ConfigError, naming the key and what would be right."""
    file = Path(path).expanduser().absolute()
    values = _read_file(file)
    for key, text in _overrides(environ).items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = _from_text(SETTINGS[key], text)
    for section, name in _PATHS:
        _resolve(values.get(section, {}), name, file.parent)
    made = {section: _section(section, kind, values.get(section, {}), file) for section, kind in SECTIONS.items()}
    return _checked(EdgeConfig(file, hub_address=_address(made["hub"].address), **made))


def _read_file(file: Path) -> dict[str, dict[str, Any]]:
    """Sections and keys, all known; values of the right type and within their bounds."""
    raw = _parse_toml(file)
    values: dict[str, dict[str, Any]] = {}
    for section, entries in raw.items():
        if section not in SECTIONS:
            raise _unknown(section, tuple(SECTIONS), f"{file}: [{section}] is not a section")
        if not isinstance(entries, dict):
            raise ConfigError(f"{file}: {section} must be a section", remedy=f"Write [{section}] and its settings below it.")
        names = tuple(f.name for f in fields(SECTIONS[section]))
        for name, value in entries.items():
            if name not in names:
                raise _unknown(name, names, f"{file}: {section}.{name} is not a setting")
            values.setdefault(section, {})[name] = check(SETTINGS[f"{section}.{name}"], value)
    return values


def _parse_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration at {file}.", remedy="Run `longshore-edge init` first, or name the file with --config."
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}.") from None


def _unknown(name: str, known: tuple[str, ...], what: str) -> ConfigError:
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return ConfigError(f"{what}.", remedy=f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}.")


def _overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings in the environment. `__` parts section and key, so LONGSHORE_ANYTHING without it is nobody's setting."""
    variables = {row.variable: key for key, row in SETTINGS.items()}
    found = {}
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX) and "__" in variable:
            if variable not in variables:
                raise _unknown(variable, tuple(variables), f"{variable} (in the environment) is not a setting")
            found[variables[variable]] = environ[variable]
    return found


def _from_text(row: Setting, text: str) -> Any:
    """A value of the environment: there everything is text."""
    if row.type == "int":
        try:
            return check(row, int(text))
        except ValueError:
            raise _wrong(row, repr(text), "a whole number") from None
    if row.type == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise _wrong(row, repr(text), "true or false")
        return text.lower() in ("true", "1")
    return check(row, [part.strip() for part in text.split(",") if part.strip()] if row.type.startswith("tuple") else text)


_TYPES: Final[dict[str, tuple[type[Any], str]]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "tuple[str, ...]": (list, "a list of texts"),
}


def check(row: Setting, value: Any) -> Any:
    """The value of a setting as the section holds it. Errors: ConfigError."""
    wanted, words = _TYPES[row.type]
    if type(value) is not wanted or (isinstance(value, list) and not all(type(item) is str for item in value)):
        raise _wrong(row, json.dumps(value, default=str), words)
    if isinstance(value, int) and ((row.least is not None and value < row.least) or (row.most is not None and value > row.most)):
        raise _wrong(row, str(value), _range(row))
    if row.choices and value not in row.choices:
        raise _wrong(row, repr(value), f"one of {', '.join(row.choices)}")
    return tuple(value) if isinstance(value, list) else value


def _range(row: Setting) -> str:
    if row.most is None:
        return f"a number from {row.least}"
    return f"a number from {row.least} to {row.most}"


def _wrong(row: Setting, value: str, wanted: str) -> ConfigError:
    return ConfigError(f"{row.key} is {value}, and must be {wanted}.", remedy=row.doc)


def _resolve(entries: dict[str, Any], name: str, folder: Path) -> None:
    if entries.get(name):
        entries[name] = str(folder / Path(entries[name]).expanduser())


def _section(section: str, kind: type, entries: dict[str, Any], file: Path) -> Any:
    missing = [f.name for f in fields(kind) if f.name not in entries and f.default is MISSING]
    if missing:
        row = SETTINGS[f"{section}.{missing[0]}"]
        raise ConfigError(f"{file}: {row.key} is missing.", remedy=row.doc)
    given = {f.name: entries.get(f.name, f.default) for f in fields(kind)}
    for name in given:
        if (section, name) in _PATHS and name not in entries:
            _resolve(given, name, file.parent)
    return kind(**given)


def _address(text: str) -> HubAddress:
    try:
        return parse_address(text)
    except InvalidInput as error:
        raise ConfigError(f"hub.address: {error.reason}", remedy=error.remedy) from None


def _checked(config: EdgeConfig) -> EdgeConfig:
    """What no single setting says."""
    try:
        Address.of(config.node.org, config.node.region, config.node.site, config.node.name)
        check_staff(config.node.kind, config.node.staff)
    except InvalidInput as error:
        raise ConfigError(f"node.{'name' if error.field == 'node' else error.field}: {error.reason}", remedy=error.remedy) from None
    if config.hub_address.org != config.node.org:
        raise ConfigError(
            f"node.org is {config.node.org}, and the hub at hub.address is of {config.hub_address.org}.", remedy="Make them one."
        )
    if config.hub.url:
        _check_url(config)
    else:
        require_tls(config.hub_address)
    if config.conflicts.policy_file:
        config.policies()
    s = config.storage
    if s.reserve_bytes >= s.budget_bytes or s.telemetry_bytes > s.budget_bytes:
        raise ConfigError(
            "storage.telemetry_bytes and storage.reserve_bytes are parts of storage.budget_bytes.", remedy="Make them smaller than it is."
        )
    wrong = [text for text in config.api.token_hashes if not text.startswith("sha256$")]
    if wrong:
        raise ConfigError("api.token_hashes holds something that is not a hash.", remedy="Put hashes there (sha256$…), never tokens.")
    return config


def _check_url(config: EdgeConfig) -> None:
    """Errors: ConfigError: no address of an API, or a password would cross a network in the clear."""
    try:
        parts = urlsplit(config.hub.url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and not (parts.query or parts.username)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        good = port_is_fine = False
    if not good or not port_is_fine:
        raise ConfigError(f"hub.url is {config.hub.url!r}, and is no address of an API.", remedy="Write it like https://hub.example:8800.")
    if parts.scheme == "http" and not config.hub.token_file and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"hub.url: {parts.hostname} is beyond this machine, and the node's password would cross the network in the clear.",
            remedy="Use https://, or, for a gateway on the same network, hub.token_file.",
        )


def require_tls(address: HubAddress) -> None:
    """Beyond this machine a line without TLS would show everybody the password. Errors: ConfigError."""
    if not address.tls and not is_loopback(address.host):
        raise ConfigError(
            f"hub.address: {address.host} is beyond this machine, and the line to it would have no TLS.",
            remedy="Let the hub's broker have a certificate, and use its longshore+mqtts:// address.",
        )


# ------------------------------------------------------------ writing


def render(given: Mapping[str, Any]) -> str:
    """A commented configuration: what is `given` (by `section.name`) is set, everything else is a comment with its default."""
    lines = [
        "# The configuration of a Longshore edge. A setting behind # has that value already; remove the # to change it.",
        f"# Each can be overridden in the environment as {ENV_PREFIX}SECTION__KEY. Relative paths begin where this file is.",
    ]
    for section, kind in SECTIONS.items():
        lines += ["", f"[{section}]", f"# {(kind.__doc__ or '').strip()}"]
        for row in (SETTINGS[f"{section}.{f.name}"] for f in fields(kind)):
            lines += ["", f"# {row.doc}"]
            lines.append(f"{row.name} = {_toml(given[row.key])}" if row.key in given else f"# {row.name} = {_toml(row.default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """JSON's spelling of text, numbers, booleans and lists of text is also TOML's, but for the escape of DEL."""
    if value is None:
        return '""'
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
