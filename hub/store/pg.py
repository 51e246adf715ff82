"""PostgreSQL, touched in one place: one connection, durable by default, errors that say whose fault they are.

Every statement is bounded on both ends: the server ends what takes too long, and where the server itself does not answer any more this end
gives up and closes. The password comes from a file of its own, never from the connection string, and is in no message.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg import conninfo, errors, pq
from psycopg.adapt import Transformer
from psycopg.waiting import Ready, Wait

from protocols.errors import ConfigError, LedgerAway, LedgerBroken, LedgerBusy, LedgerError, LedgerFull
from protocols.trust import MADE_BY_HAND, read_secret

T = TypeVar("T")
OLDEST_SERVER: Final = 130_000
"""as the server counts versions"""
CONNECT_S: Final = 5
STATEMENT_MS: Final = 15_000
SILENCE_S: Final = 5.0
"""beyond the server's own limit; then it is taken for dead"""
_COPY_BYTES: Final = 262_144
"""that are given to the server at once"""
LONG: Final = 0
"""for `limit`: as long as it takes"""
_SETTINGS: Final = (
    "SET synchronous_commit = on",
    "SET client_min_messages = warning",
    "SET idle_in_transaction_session_timeout = 120000",
    "SET lock_timeout = 20000",
    "SET jit = off",  # for queries of milliseconds it costs more than it spares
)

_FULL: Final = ("53100",)
_RACED: Final = ("40001", "40P01", "23505")
_BUSY: Final = ("55P03", "55006", "57P03", "53300")
_OPERATORS: Final = {
    "28P01": "the password is not that of this user",
    "28000": "the server does not let this user in",
    "3D000": "there is no such database",
    "42501": "this user may not do that",
    "3F000": "there is no such schema",
}
"""what whoever runs the hub can mend, by SQLSTATE"""
_REFUSALS: Final = (
    (re.compile(r"password authentication failed|no password supplied|SCRAM"), "28P01"),
    (re.compile(r"database \".*\" does not exist"), "3D000"),
    (re.compile(r"role \".*\" does not exist|no pg_hba.conf entry|authentication failed|not permitted to log in"), "28000"),
    (re.compile(r"permission denied"), "42501"),
)
"""a connection that is refused has no SQLSTATE in libpq, only these words"""
_TLS: Final = re.compile(r"SSL|certificate|root\.crt", re.IGNORECASE)


Asked = tuple[str, Sequence[bytes | None]]
"""a statement of `together`, with `?` for each parameter, and its parameters in the server's binary form (`hub.store.pg_values`)"""


class Answer(NamedTuple):
    """Of one statement: its rows, and how many it wrote."""

    rows: list[tuple[Any, ...]]
    written: int


class Raced(LedgerBusy):
    """Another transaction changed what this one had read, or both waited for each other: nothing was stored, try again from the start."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the database is. `dsn`: libpq's connection string or URI, without a password. Empty texts leave libpq's default."""

    dsn: str
    password_file: str = ""
    sslmode: str = ""
    sslrootcert: str = ""

    def place(self) -> str:
        """Host and database for people; nothing secret."""
        parts = self._parts()
        host = parts.get("host") or parts.get("hostaddr") or "the local socket"
        return f"PostgreSQL at {host}:{parts.get('port') or 5432}/{parts.get('dbname') or parts.get('user') or ''}"

    def _parts(self) -> dict[str, Any]:
        try:
            return dict(conninfo.conninfo_to_dict(self.dsn))
        except psycopg.Error:  # its words quote the string, which may hold a secret
            raise ConfigError(
                "store.dsn is not a connection string", remedy='Write it like "host=db user=longshore dbname=orders".'
            ) from None

    def arguments(self) -> dict[str, Any]:
        """What libpq is told. Errors: ConfigError."""
        parts = self._parts()
        if not self.dsn.strip():
            raise ConfigError("store.dsn is empty", remedy='Write it like "host=db user=longshore dbname=orders".')
        if "password" in parts:
            raise ConfigError("store.dsn holds a password", remedy="Put it into a file that only this user may read: store.password_file.")
        if self.password_file:
            parts["password"] = read_secret(self.password_file, what="password of the central store", missing=MADE_BY_HAND).strip()
        parts |= {name: text for name, text in (("sslmode", self.sslmode), ("sslrootcert", self.sslrootcert)) if text}
        if self.sslrootcert and not Path(self.sslrootcert).is_file():
            raise ConfigError(f"{self.sslrootcert}: no such file", remedy="store.sslrootcert names the authority (PEM) of the server.")
        alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
        return {"connect_timeout": CONNECT_S, "application_name": "longshore", **alive, **parts}


class Refused(LedgerBroken):
    """What whoever runs the hub can mend: credentials, rights, a database that is not there. Where a store is opened, a ConfigError."""


class _Bounded(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever for a server that has gone silent."""

    patience_s: float | None = STATEMENT_MS / 1_000 + SILENCE_S
    silent_s: float | None = None
    """so long it has not answered, and was given up"""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg."""
        try:
            return super().wait(gen, interval=interval, timeout=self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError as e:
            if timeout is not None or type(e).__name__ != "_WaitTimeout":
                raise
            self.silent_s = self.patience_s
            self.pgconn.finish()
            raise


class Pg:
    """One connection. The owner begins and commits; everything else only executes. `?` marks a parameter (`protocols.sql.Sql`).

    Errors: LedgerFull (the server's disk), LedgerBusy (its subclass Raced: try again), LedgerBroken (anything else: close and reopen); when
    it is made also ConfigError (credentials, database, TLS, version).
    """

    def __init__(self, server: Server) -> None:
        self.place = server.place()
        self.in_transaction = False
        self._beginning = ""
        """the statement that begins the transaction, as long as it was not sent"""
        self._names: dict[str, bytes] = {}
        self._numbers = count(1)
        arguments = server.arguments()
        try:
            self._c = _Bounded.connect(autocommit=True, **arguments)
        except psycopg.Error as e:
            raise _cannot_connect(e, self.place) from None  # its words may quote what it was given
        try:
            self._cursor = self._c.cursor(binary=True)
            self._loads = Transformer(self._c)
            self._configure()
        except (LedgerError, ConfigError):
            self.close()
            raise

    def _configure(self) -> None:
        if self._c.info.server_version < OLDEST_SERVER:
            raise ConfigError(
                f"{self.place} is of version {self._c.info.server_version // 10_000}, at least {OLDEST_SERVER // 10_000} is needed",
                remedy="Upgrade the server.",
            )
        encoding = self._c.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise ConfigError(f"{self.place} is encoded in {encoding}", remedy="Make the database with ENCODING 'UTF8'.")
        for setting in (*_SETTINGS, f"SET statement_timeout = {STATEMENT_MS}"):
            self.run(setting)

    # ------------------------------------------------------------ statements

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        with self._translated():
            self._really_begin()
            return self._cursor.execute(_placed(sql), params or None).fetchall()

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        with self._translated():
            self._really_begin()
            return self._cursor.execute(_placed(sql), params or None).fetchone()

    def run(self, sql: str, params: Sequence[Any] = ()) -> None:
        """Execute one statement for its effect."""
        with self._translated():
            self._really_begin()
            self._cursor.execute(_placed(sql), params or None)

    def count(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Execute one statement. Returns how many rows it wrote."""
        with self._translated():
            self._really_begin()
            return self._cursor.execute(_placed(sql), params or None).rowcount

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row."""
        given = list(rows)
        if given:
            with self._translated():
                self._really_begin()
                self._cursor.executemany(_placed(sql), given)

    def copy_in(self, *tables: tuple[str, bytes]) -> None:
        """COPY rows in the binary format into tables, each with its columns: all in one go. See `hub.store.pg_rows`."""
        if tables:
            sql = ";".join([*self._begin_first(), *(f"COPY {into} FROM STDIN (FORMAT binary)" for into, _ in tables)])
            with self._translated():
                self._waited(_copied(self._c.pgconn, sql.encode(), [data for _, data in tables]))

    def together(self, *asked: Asked) -> list[Answer]:
        """Several statements in one go, one after the other: asked singly, each waits for the one before it on both ends. They stay
        prepared. What one of them fails with is raised, and those behind it were not executed."""
        commands: list[Asked] = [(sql, ()) for sql in self._begin_first()]
        if not commands and not asked:
            return []
        with self._translated():
            results = self._waited(self._piped([*commands, *asked]))
            return [self._answer(result) for result in results[len(commands) :]]

    def _piped(self, asked: Sequence[Asked]) -> _Waiting[list[pq.abc.PGresult]]:
        """The result of each statement."""
        conn, fresh, places, sent = self._c.pgconn, dict[str, bytes](), list[int](), 0
        conn.enter_pipeline_mode()
        for sql, params in asked:
            name = self._names.get(sql) or fresh.get(sql)
            if name is None:
                name = fresh[sql] = b"ls%d" % next(self._numbers)
                conn.send_prepare(name, _numbered(sql).encode())
                sent += 1
            conn.send_query_prepared(name, params, param_formats=[1] * len(params), result_format=1)
            places.append(sent)
            sent += 1
        conn.pipeline_sync()
        found = yield from _until_sync(conn)
        conn.exit_pipeline_mode()
        _check(found)
        self._names |= fresh  # not after a failure: nobody knows which of them the server has
        return [found[place] for place in places]

    def _answer(self, result: pq.abc.PGresult) -> Answer:
        rows: list[tuple[Any, ...]] = []
        if result.ntuples:
            self._loads.set_pgresult(result)
            rows = self._loads.load_rows(0, result.ntuples, tuple)
        return Answer(rows, result.command_tuples or 0)

    # ------------------------------------------------------------ transactions

    def begin(self, how: str = "") -> None:
        """Begin one, with the first statement in it. `how`: ISOLATION LEVEL …; the default sees at each statement what is committed by
        then."""
        self._beginning = f"BEGIN {how}"
        self.in_transaction = True

    def _simply(self, sql: bytes) -> None:
        self._waited(_copied(self._c.pgconn, sql, ()))

    def _waited(self, doing: _Waiting[T]) -> T:
        with self._c.lock:
            return self._c.wait(doing)  # type: ignore[no-any-return]

    def _begin_first(self) -> list[str]:
        """What has to go before the next statement."""
        first, self._beginning = self._beginning, ""
        return [first] if first else []

    def _really_begin(self) -> None:
        for sql in self._begin_first():
            self._cursor.execute(sql)

    def commit(self) -> None:
        """On the server's disk when it returns. After an error nobody knows whether it is: its owner reopens and asks."""
        if not self._begin_first():
            with self._translated():
                self._simply(b"COMMIT")
        self.in_transaction = False

    def rollback(self) -> None:
        """Forget everything since `begin`; harmless without one, and on a connection that is gone."""
        if self.in_transaction:
            self.in_transaction = False
            with contextlib.suppress(psycopg.Error):
                if not self._begin_first():
                    self._simply(b"ROLLBACK")  # sent by a cursor it would have the driver forget all prepared statements, ours too

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """What is read inside is all of one commit. Nothing is written."""
        if self.in_transaction:
            yield
            return
        self.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            self.rollback()

    def limit(self, milliseconds: int) -> None:
        """How long a statement may take from here on; `LONG`: as long as it does."""
        self.run(f"SET statement_timeout = {milliseconds}")
        self._c.patience_s = milliseconds / 1_000 + SILENCE_S if milliseconds else None

    def ping(self) -> None:
        """Returns when the server has answered; it is not waited for as long as for work. Errors: LedgerError."""
        before, self._c.patience_s = self._c.patience_s, SILENCE_S
        try:
            self.run("SELECT 1")
        finally:
            self._c.patience_s = before

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return not self._c.closed

    def close(self) -> None:
        """Release it. Idempotent."""
        self._c.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as e:
            if self._c.silent_s is not None:
                raise LedgerBroken(f"{self.place} has not answered for {self._c.silent_s} s", remedy="it is opened again") from None
            raise translate(e, self.place) from None


@lru_cache(maxsize=1024)
def _placed(sql: str) -> str:
    """The placeholders of `Sql` as psycopg's. Our statements have neither a question mark nor a per cent sign of their own."""
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> str:
    """The placeholders of `Sql` as the server's own."""
    first, *others = sql.split("?")
    return first + "".join([f"${n}{part}" for n, part in enumerate(others, 1)])


# ------------------------------------------------------------------ what a general driver does step by step


_Waiting = Generator[Wait, Ready, T]
"""says for what of the connection it waits; `Connection.wait` goes on with it"""
_COPY_IN, _SYNC, _FAILED = pq.ExecStatus.COPY_IN, pq.ExecStatus.PIPELINE_SYNC, pq.ExecStatus.FATAL_ERROR


def _sent(conn: pq.abc.PGconn) -> _Waiting[None]:
    """All that was given is on its way. Reads meanwhile: a server that cannot say what it has done does not go on."""
    while conn.flush():
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            conn.consume_input()


def _result(conn: pq.abc.PGconn) -> _Waiting[pq.abc.PGresult | None]:
    """The next one; None ends those of a command."""
    while conn.is_busy():
        if (yield Wait.R):
            conn.consume_input()
    return conn.get_result()


def _until_sync(conn: pq.abc.PGconn) -> _Waiting[list[pq.abc.PGresult]]:
    """All results of a pipeline."""
    yield from _sent(conn)
    found: list[pq.abc.PGresult] = []
    while True:
        result = yield from _result(conn)
        if result is not None and result.status == _SYNC:
            return found
        if result is not None:
            found.append(result)
        elif conn.status != pq.ConnStatus.OK:
            _check(found)
            raise psycopg.OperationalError("the connection is lost")


def _copied(conn: pq.abc.PGconn, sql: bytes, tables: Sequence[bytes]) -> _Waiting[None]:
    """Statements of which so many are COPY, each given its rows when it asks for them."""
    conn.send_query(sql)
    yield from _sent(conn)
    left, found = iter(tables), list[pq.abc.PGresult]()
    while (result := (yield from _result(conn))) is not None:
        if result.status != _COPY_IN:
            found.append(result)
            continue
        data = memoryview(next(left))
        for start in range(0, len(data), _COPY_BYTES):
            conn.put_copy_data(data[start : start + _COPY_BYTES])
            yield from _sent(conn)
        conn.put_copy_end(None)
        yield from _sent(conn)
    _check(found)


def _check(results: Sequence[pq.abc.PGresult]) -> None:
    """Errors: psycopg.Error, the first that the server said."""
    for result in results:
        if result.status == _FAILED:
            raise errors.error_from_result(result)


def translate(e: psycopg.Error, place: str) -> LedgerError:
    """Which of ours an error of the server is."""
    state, words = e.sqlstate or "", _words(e)
    if state in _FULL:
        return LedgerFull(f"{place}: the server's disk is full", remedy="free space there; nothing of this request was stored")
    if state in _RACED:
        return Raced(f"{place}: another transaction came between ({words})", remedy="try again")
    if state in _BUSY:
        return LedgerBusy(f"{place}: {words}", remedy="it is tried again")
    if state in _OPERATORS:
        return Refused(f"{place}: {_OPERATORS[state]} ({words})", remedy="See [store] of the hub's configuration.")
    if isinstance(e, errors.QueryCanceled):
        return LedgerBroken(f"{place}: a statement took too long", remedy="it is tried again")
    return LedgerBroken(f"{place}: {words or type(e).__name__}")


def _cannot_connect(e: psycopg.Error, place: str) -> LedgerError | ConfigError:
    words = _words(e)
    state = next((state for said, state in _REFUSALS if said.search(str(e))), None)
    if state is not None:
        return ConfigError(f"{place}: {_OPERATORS[state]}", remedy="See [store] of the hub's configuration: dsn, password_file.")
    if _TLS.search(str(e)):
        return ConfigError(f"{place}: no connection by TLS ({words})", remedy="See store.sslmode and store.sslrootcert.")
    remedy = "See that it runs, and store.dsn. A hub or projector that runs tries again by itself."
    return LedgerAway(f"{place} cannot be reached ({words})", remedy=remedy)


def _words(e: psycopg.Error) -> str:
    """The server's first line, or of a connection that failed the last reason: libpq tells of each address that it tried."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    reasons = [line for line in lines if "failed: " in line]
    line = reasons[-1] if reasons and not e.sqlstate else lines[0] if lines else ""
    return line.rpartition("failed: ")[2][:200]
