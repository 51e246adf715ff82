"""Opening a store that keeps its caller waiting: the first time to the end, afterwards for a moment only, and nothing that came is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from hub.config import HubConfig, from_loaded, read_settings
from hub.store.port import CentralStore
from hub.stores import Patient
from protocols.errors import ConfigError, LedgerBroken, LedgerBusy
from tests.support.engines.postgres import until


class Opened:
    """A store as far as it is opened and closed here."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Server:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.error: Exception | None = None
        self.opened: list[Opened] = []

    def open(self) -> CentralStore:
        self.answers.wait(10)
        if self.error is not None:
            raise self.error
        self.opened.append(Opened())
        return cast(CentralStore, self.opened[-1])


def tried(opens: Callable[[], CentralStore]) -> Any:
    """What comes of asking until it is not busy any more."""
    found: list[Any] = []

    def done() -> bool:
        try:
            found.append(opens())
        except LedgerBusy:
            return False
        return True

    until(done)
    return found[0]


def test_the_first_opening_is_waited_for_and_its_error_raised() -> None:
    server = Server()
    server.error = ConfigError("the password is not that of this user")
    server.answers.set()
    with pytest.raises(ConfigError, match="password"):
        Patient(server.open)()


def test_later_ones_wait_for_a_moment_and_find_what_came_meanwhile() -> None:
    server = Server()
    server.answers.set()
    opens = Patient(server.open, patience_s=0.01)
    assert opens() is cast(CentralStore, server.opened[0])
    server.answers.clear()
    for _ in range(3):
        with pytest.raises(LedgerBusy, match="has not answered yet"):
            opens()
    server.answers.set()
    assert tried(opens) is server.opened[1]
    assert len(server.opened) == 2


def test_an_error_is_told_once_and_the_next_try_begins_anew() -> None:
    server = Server()
    server.answers.set()
    opens = Patient(server.open, patience_s=5)
    opens()
    server.error = LedgerBroken("cannot be reached")
    with pytest.raises(LedgerBroken, match="cannot be reached"):
        tried(opens)
    server.error = None
    assert tried(opens) is server.opened[1]


def test_what_comes_after_the_end_is_closed() -> None:
    server = Server()
    server.answers.set()
    opens = Patient(server.open, patience_s=0.01)
    opens()
    server.answers.clear()
    with pytest.raises(LedgerBusy):
        opens()
    opens.close()
    server.answers.set()
    until(lambda: len(server.opened) == 2 and server.opened[1].closed)


def test_a_file_is_opened_at_once() -> None:
    server = Server()
    server.answers.set()
    opens = Patient(server.open, at_once=True)
    assert cast(list[Opened], [opens(), opens()]) == server.opened


def configured(tmp_path: Any, **store: str) -> HubConfig:
    file = tmp_path / "hub.toml"
    lines = ["[hub]", 'org = "acme"', "[store]", *(f'{key} = "{text}"' for key, text in store.items())]
    file.write_text("\n".join(lines), "utf-8")
    return from_loaded(read_settings(file, {}), file)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ({"kind": "postgres"}, "store.dsn is empty"),
        ({"dsn": "host=db"}, "store.kind is sqlite"),
        ({"kind": "postgres", "dsn": "host=db", "sslmode": "verify-full"}, "needs store.sslrootcert"),
        ({"kind": "postgres", "dsn": "host=db", "sslmode": "maybe"}, "sslmode"),
        ({"kind": "oracle"}, "kind"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Any, store: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        configured(tmp_path, **store)
    assert "\n" not in str(caught.value)


def test_files_are_found_beside_the_configuration(tmp_path: Any) -> None:
    found = configured(tmp_path, kind="postgres", dsn="host=db dbname=orders", password_file="db.password", sslrootcert="ca.pem").store
    assert (found.password_file, found.sslrootcert) == (str(tmp_path / "db.password"), str(tmp_path / "ca.pem"))
