"""What a hub is told: `hub.toml` as a frozen value. The table below is the file, its comments, the checks and the documents at once."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hub import bridge_config, workers_config
from hub.bridge_config import Bridge
from hub.workers_config import Workers
from protocols.callers import is_loopback
from protocols.errors import ConfigError, InvalidInput
from protocols.limits import TEXT_CHARS
from protocols.policies import load as load_policies
from protocols.policy import Policies
from protocols.settings import Loaded, Setting, Source, Value, load, render
from protocols.topics import check_level, check_node
from protocols.transport.versions import AUTO, CHOICES
from protocols.trust import HubAddress, format_address, read_secret

FILE: Final = "hub.toml"
KEY_FILE: Final = "hub.key"
TOKEN_FILE: Final = "api.token"
LEAST_PASSWORD_CHARS: Final = 12
"""of the hub's password at an external broker, where the hub writes the broker's files"""
LEDGER_FILE: Final = "hub.db"
STORE_FILE: Final = "store.db"
REGISTER_DIR: Final = "backups.d"
"""what is remembered of the store's backups outside of the store, which may come back older"""
LOCK_FILE: Final = "run.lock"
PORTS_FILE: Final = "run.ports.json"
"""where a running hub says on which ports it listens, for commands that ask it"""
SSL_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
_GIB: Final = 1024**3

SETTINGS: Final = (
    Setting("hub", "org", "", "The organisation; orders that name none belong to it.", required=True),
    Setting("hub", "region", "central", "The region this hub stands for."),
    Setting("hub", "node", "hub", "The name of this hub; it is in its address and on every receipt."),
    Setting("storage", "data_dir", ".", "Where hub.db, store.db and run.lock live.", path=True),
    Setting("storage", "store_dir", "", "Where store.db lives, if several workers of this machine share it; else in data_dir.", path=True),
    Setting(
        "storage",
        "budget_bytes",
        20 * _GIB,
        "How large hub.db may grow; at the budget edges get no more credit and keep what they have.",
        "bytes",
        least=1_000_000,
    ),
    Setting(
        "storage",
        "pressure_percent",
        80,
        "Of the budget; beyond it facts that the central store has go even where no backup of it is registered.",
        least=1,
        most=100,
    ),
    Setting("storage", "floor_days", 7, "Facts that the central store and its backups have stay at least as long.", least=0, most=3_650),
    Setting(
        "store",
        "kind",
        "sqlite",
        "The central store: store.db in the data directory, or a PostgreSQL server (13 or newer).",
        allowed=("sqlite", "postgres"),
    ),
    Setting("store", "dsn", "", 'Where PostgreSQL is, without a password: "host=db port=5432 user=longshore dbname=orders".'),
    Setting("store", "password_file", "", "Holds the password of this hub at PostgreSQL; only its owner may read it.", path=True),
    Setting("store", "sslmode", "", "TLS to PostgreSQL; verify-full checks who answers.", allowed=("", *SSL_MODES)),
    Setting("store", "sslrootcert", "", "Authority (PEM) that signed PostgreSQL's certificate.", path=True),
    Setting(
        "store",
        "process",
        "auto",
        "What writes store.db: a process of its own, or the hub's; auto: its own where the hub may use two cores or more.",
        allowed=("auto", "own", "hub"),
    ),
    Setting("api", "host", "127.0.0.1", "Address of the HTTP API and the web pages. Beyond loopback every caller needs the token."),
    Setting("api", "port", 8800, "Its port; 0 takes a free one.", least=0, most=65_535),
    Setting("api", "token_hashes", "", "Hashes of the bearer tokens that may call, with spaces between them. `init` makes the first."),
    Setting("api", "token_file", TOKEN_FILE, "The token that commands on this machine call with; only its owner may read it.", path=True),
    Setting("api", "loopback_without_token", False, "Whether programs and people on this very machine may call without a token."),
    Setting(
        "api",
        "max_held_bytes",
        32_000_000,
        "Bytes of request bodies held at once; more are answered 503.",
        "bytes",
        least=4_000_000,
        most=1_000_000_000,
    ),
    Setting(
        "api",
        "https",
        False,
        "Whether browsers come by HTTPS (the session cookie is then marked Secure). TLS itself is done by a reverse proxy in front.",
    ),
    Setting("broker", "kind", "embedded", "The MQTT broker: the hub's own, or one that runs elsewhere.", allowed=("embedded", "external")),
    Setting("broker", "host", "127.0.0.1", "Where the embedded broker listens, or where the external one is."),
    Setting("broker", "port", 1883, "Its port; 0 takes a free one (embedded only).", least=0, most=65_535),
    Setting("broker", "advertise", "", "Host that edges use to reach the broker, if it is not `host`: it goes into the hub's address."),
    Setting(
        "broker",
        "cert_file",
        "",
        "Certificate chain (PEM) of the embedded broker, needed beyond loopback; or of this hub, where an external one asks for it.",
        path=True,
    ),
    Setting("broker", "key_file", "", "Private key (PEM) of the certificate.", path=True),
    Setting(
        "broker",
        "process",
        "auto",
        "What the embedded broker runs in: a process of its own, or the hub's; auto: its own where the hub may use two cores or more.",
        allowed=("auto", "own", "hub"),
    ),
    Setting("broker", "max_connections", 4_096, "Connections the embedded broker takes.", least=1, most=100_000),
    Setting("broker", "username", "", "Of this hub at an external broker."),
    Setting("broker", "password_file", "", "Holds the password of this hub at an external broker.", path=True),
    Setting("broker", "tls", False, "Whether the external broker is reached by TLS."),
    Setting("broker", "ca_file", "", "Authority (PEM) that signed the external broker's certificate, if not the system's.", path=True),
    Setting("broker", "mqtt", AUTO, "Version of MQTT at an external broker; auto: 5 where it has it, else 3.1.1.", allowed=CHOICES),
    Setting(
        "broker",
        "keepalive_s",
        30,
        "How often the line to an external broker shows that it lives: one that is dead is noticed within twice as long.",
        "seconds",
        least=5,
        most=3_600,
    ),
    Setting(
        "broker",
        "reconnect_most_s",
        15,
        "Without a line to an external broker, the wait between attempts doubles up to this, with jitter.",
        "seconds",
        least=1,
        most=3_600,
    ),
    Setting("sync", "credit_facts", 10_000, "Facts each node may have under way at once.", "facts", least=100, most=1_000_000),
    Setting(
        "sync", "store_check_s", 60, "How often the central store is asked again for all that it holds.", "seconds", least=1, most=86_400
    ),
    Setting(
        "sync",
        "offline_after_s",
        30,
        "A node not heard from for so long counts as out of reach; three heartbeats of an edge.",
        "seconds",
        least=1,
        most=86_400,
    ),
    Setting(
        "backup",
        "required",
        False,
        "Nothing is freed anywhere before a backup of the central store is complete, not even where room runs out.",
    ),
    Setting(
        "backup",
        "keep",
        0,
        "So many complete backups of the store stay, the newest; older ones expire. Until then nodes keep what they lack. 0: all stay.",
        least=0,
        most=10_000,
    ),
    Setting(
        "backup",
        "max_age_days",
        0,
        "Backups of the store that were begun longer ago expire, but for the newest complete one. 0: none does.",
        "days",
        least=0,
        most=3_650,
    ),
    Setting(
        "conflicts", "policy_file", "", "A table of policies (YAML) in place of the shipped one; see protocols/CONFLICTS.md.", path=True
    ),
    *bridge_config.SETTINGS,
    *workers_config.SETTINGS,
    Setting("log", "level", "info", "What is worth a line.", allowed=("debug", "info", "warning", "error")),
    Setting("log", "format", "text", "Lines for people, or JSON for machines.", allowed=("text", "json")),
    Setting("log", "trace", False, "A line for each fact that is received, bridged or applied, with its trace id."),
)

HEAD: Final = """
Longshore hub. Every setting is here; those that begin with # have their default.
Environment variables override: LONGSHORE_SECTION__KEY, as in LONGSHORE_API__PORT=8801.
Files beside this one, in hub.toml.d/*.toml, are read after it, in the order of their names.
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Section [hub]."""

    org: str
    region: str
    node: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Section [storage]. `data_dir` is absolute or relative to the working folder."""

    data_dir: str
    budget_bytes: int
    pressure_percent: int = 80
    floor_days: int = 7
    store_dir: str = ""

    def path(self, name: str) -> Path:
        """A file of the data directory, or of the central store."""
        return Path(self.store_dir if self.store_dir and name in (STORE_FILE, workers_config.FILE) else self.data_dir) / name


@dataclass(frozen=True, slots=True)
class Store:
    """Section [store]."""

    kind: str = "sqlite"
    dsn: str = ""
    password_file: str = ""
    sslmode: str = ""
    sslrootcert: str = ""
    process: str = "auto"

    @property
    def sqlite(self) -> bool:
        """Whether it is a file beside the hub's own."""
        return self.kind == "sqlite"


@dataclass(frozen=True, slots=True)
class Api:
    """Section [api]."""

    host: str
    port: int
    token_hashes: str
    token_file: str
    loopback_without_token: bool
    max_held_bytes: int
    https: bool


@dataclass(frozen=True, slots=True)
class Broker:
    """Section [broker]."""

    kind: str
    host: str
    port: int
    advertise: str
    cert_file: str
    key_file: str
    max_connections: int
    username: str
    password_file: str
    tls: bool
    ca_file: str
    mqtt: str = AUTO
    process: str = "auto"
    keepalive_s: int = 30
    reconnect_most_s: int = 15

    @property
    def embedded(self) -> bool:
        """Whether the broker runs inside the hub."""
        return self.kind == "embedded"

    @property
    def secure(self) -> bool:
        """Whether edges reach it by TLS."""
        return bool(self.cert_file) if self.embedded else self.tls


@dataclass(frozen=True, slots=True)
class Sync:
    """Section [sync]."""

    credit_facts: int
    store_check_s: int
    offline_after_s: int


@dataclass(frozen=True, slots=True)
class Backup:
    """Section [backup]."""

    required: bool
    keep: int
    max_age_days: int


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Section [conflicts]."""

    policy_file: str


@dataclass(frozen=True, slots=True)
class Log:
    """Section [log]."""

    level: str
    format: str
    trace: bool = False


@dataclass(frozen=True, slots=True)
class HubConfig:
    """The whole configuration. `file` is where it was read; the hub's key stands beside it."""

    file: Path
    hub: Identity
    storage: Storage
    store: Store
    api: Api
    broker: Broker
    sync: Sync
    backup: Backup
    conflicts: Conflicts
    bridge: Bridge
    workers: Workers
    log: Log

    @property
    def key_file(self) -> Path:
        """The hub's private key."""
        return self.file.parent / KEY_FILE

    def policies(self) -> Policies:
        """The table that judges conflicts. Errors: ConfigError, with file and line."""
        return load_policies(self.conflicts.policy_file)


def read_config(path: str | Path, env: Mapping[str, str] = os.environ) -> HubConfig:
    """The configuration in a file (or in the `hub.toml` of a folder). Errors: ConfigError, in one line, with what to do."""
    file = config_file(path)
    return from_loaded(read_settings(file, env), file)


def read_settings(file: Path, env: Mapping[str, str] = os.environ) -> Loaded:
    """The values of a file, its drop-in folder and the environment, with their origins."""
    drop_ins = sorted(file.with_name(f"{file.name}.d").glob("*.toml"))
    return load(SETTINGS, [Source(str(one), _text(one)) for one in (file, *drop_ins)], env, folder=file.parent)


def config_file(path: str | Path) -> Path:
    """The file itself, also where its folder was named."""
    found = Path(path)
    return found / FILE if found.is_dir() else found


def from_loaded(loaded: Loaded, file: Path) -> HubConfig:
    """The value, with what only a look at several settings can tell checked."""
    parts: dict[str, Any] = loaded.values
    config = HubConfig(
        file,
        Identity(**parts["hub"]),
        Storage(**parts["storage"]),
        Store(**parts["store"]),
        Api(**parts["api"]),
        Broker(**parts["broker"]),
        Sync(**parts["sync"]),
        Backup(**parts["backup"]),
        Conflicts(**parts["conflicts"]),
        Bridge(**parts["bridge"]),
        Workers(**parts["workers"]),
        Log(**parts["log"]),
    )
    _check_names(config.hub, loaded.origins)
    _check_broker(config.broker)
    if config.broker.embedded:
        check_ports((config.api.host, config.api.port), (config.broker.host, config.broker.port))
    check_store(config.store)
    bridge_config.check(config.bridge)
    workers_config.check(config.workers, embedded=config.broker.embedded)
    if config.conflicts.policy_file:
        config.policies()
    return config


def _check_names(hub: Identity, origins: Mapping[str, str]) -> None:
    for key, check in (("org", check_level), ("region", check_level), ("node", check_node)):
        try:
            check(getattr(hub, key), f"hub.{key}")
        except InvalidInput as error:
            raise ConfigError(f"{origins[f'hub.{key}']}: {error.reason}", remedy=error.remedy) from None


def _check_broker(broker: Broker) -> None:
    if bool(broker.cert_file) != bool(broker.key_file):
        raise ConfigError("broker.cert_file and broker.key_file go together.", remedy="Set both, or neither.")
    if broker.embedded and not broker.cert_file and not is_loopback(broker.host):
        raise ConfigError(
            f"broker.host is {broker.host}: beyond this machine the embedded broker needs TLS.",
            remedy="Set broker.cert_file and broker.key_file, or listen on 127.0.0.1.",
        )
    if is_wildcard(broker.host) and not broker.advertise:
        raise ConfigError(
            f"broker.host is {broker.host}: edges cannot be told to connect there.", remedy="Set broker.advertise to this machine's name."
        )
    if not broker.embedded and broker.port == 0:
        raise ConfigError("broker.port is 0, but the broker is an external one.", remedy="Set the port where it listens, such as 8883.")
    if bool(broker.username) != bool(broker.password_file) and not broker.embedded:
        raise ConfigError("broker.username and broker.password_file go together.", remedy="Set both, or neither.")


def check_ports(api: tuple[str, int], broker: tuple[str, int]) -> None:
    """API and embedded broker, each (host, port), cannot listen at one place. Errors: ConfigError."""
    same_host = api[0] == broker[0] or is_wildcard(api[0]) or is_wildcard(broker[0])
    if api[1] == broker[1] != 0 and same_host:
        raise ConfigError(f"api.port and broker.port are both {api[1]}.", remedy="Give one of them another port.")


def default_port(section: str) -> int:
    """Of a hub that was told none."""
    return next(int(s.default) for s in SETTINGS if (s.section, s.key) == (section, "port"))


def check_store(store: Store) -> None:
    """What only a look at several settings of [store] can tell. Errors: ConfigError."""
    if store.sqlite:
        if store.dsn:
            raise ConfigError("store.dsn is set, but store.kind is sqlite.", remedy='Set store.kind = "postgres", or remove the dsn.')
        return
    if not store.dsn.strip():
        raise ConfigError("store.dsn is empty.", remedy='Write it like "host=db user=longshore dbname=orders".')
    if store.sslmode.startswith("verify") and not store.sslrootcert:
        raise ConfigError(f"store.sslmode is {store.sslmode}, which needs store.sslrootcert.", remedy="Name the authority's PEM file.")


def is_wildcard(host: str) -> bool:
    """Whether an address stands for all of this machine's addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def hub_address(config: HubConfig, public_key: bytes, port: int) -> str:
    """What edges are given to find this hub and to know it by its key. `port`: where the broker really listens."""
    broker, hub = config.broker, config.hub
    return format_address(HubAddress(broker.advertise or broker.host, port, hub.org, hub.node, public_key, broker.secure))


def read_token(config: HubConfig) -> str:
    """The bearer token that commands call with. Errors: ConfigError."""
    token = read_secret(config.api.token_file, what="API token").strip()
    if not 16 <= len(token) <= TEXT_CHARS or not token.isprintable():
        raise ConfigError(f"The API token in {config.api.token_file} is damaged.", remedy="Put one line of 16 to 128 characters there.")
    return token


def new_file(chosen: Mapping[str, Value]) -> str:
    """The text of a new `hub.toml`."""
    return render(SETTINGS, chosen, HEAD)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration at {path}.",
            remedy="Name yours with --config or $LONGSHORE_HUB, or make one with: longshore-hub init DIR",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
