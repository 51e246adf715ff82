"""A hub whose central store is a PostgreSQL server, as real processes: the server away, killed, restored from a dump; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import cli
from hub.cli_ask import Client
from hub.config import read_config
from hub.store.pg import Server
from tests.scenarios.test_backup_processes import Pair, closes, freed, rows
from tests.support.commands import done
from tests.support.engines.postgres import USER, Postgres, server
from tests.support.needs import needs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies"), needs("postgres")]


class Site:
    """A server, and a hub and an edge whose store is on it."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        self.where = postgres.server("central")
        self.pair = Pair(folder, "--store", "postgres", "--dsn", self.where.dsn, "--password-file", self.where.password_file)
        more = self.pair.hub / "hub.toml.d"
        more.mkdir()
        (more / "often.toml").write_text("[sync]\nstore_check_s = 2\n")

    def orders(self) -> list[str]:
        """What the store shows, asked of the server."""
        return self.postgres.sql("SELECT order_id FROM orders JOIN states USING (okey) ORDER BY order_id", "central").split()

    def facts(self) -> list[int]:
        """Rows of the log, and how many different ones."""
        return [int(n) for n in self.postgres.sql("SELECT count(*), count(DISTINCT h) FROM log", "central").split("|")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with server() as postgres:
        yield Site(postgres, tmp_path)


def readiness(api: Client) -> dict[str, Any]:
    return dict(api.get("/readyz", fine=(200, 503)))


def test_facts_reach_the_server_and_its_views_say_so(site: Site) -> None:
    with site.pair.running() as (edge, api):
        site.pair.says("A1", "A2")
        edge.wait_until(lambda: closes(api, 2), what="settled")
        assert readiness(api)["ready"]
        assert [o["orderId"] for o in api.get("/v1/orders")["orders"]] == ["A2", "A1"]
    assert site.orders() == ["A1", "A2"]
    told = done("hub.cli", "store", "check", "--dir", site.pair.hub, "--json")
    assert (told["ok"], told["facts"] >= 2) == (True, True)
    assert done("hub.cli", "store", "rebuild", "--dir", site.pair.hub, "--json") == {"orders": 2}
    assert done("hub.cli", "store", "migrate", "--dir", site.pair.hub, "--json") == {"had": 1, "has": 1}
    assert done("hub.cli", "orders", "--dir", site.pair.hub, "--json")["orders"][0]["orderId"] == "A2"


def test_a_hub_starts_and_takes_while_the_server_is_away_and_finds_it_again(site: Site) -> None:
    site.postgres.stop()
    with site.pair.running() as (edge, api):
        site.pair.says("A1")
        edge.wait_until(lambda: rows(site.pair.hub / "hub.db", "SELECT count(*) FROM log WHERE okey IS NOT NULL") == [1], what="received")
        told = readiness(api)
        assert not told["ready"]
        assert any("PostgreSQL at 127.0.0.1" in reason and "cannot be reached" in reason for reason in told["reasons"])
        assert api.get("/v1/orders", fine=(503,))["status"] == 503
        site.postgres.start()
        edge.wait_until(lambda: closes(api, 1), what="settled")
        assert readiness(api)["ready"]
        assert len(api.get("/v1/orders")["orders"]) == 1


def test_a_server_that_freezes_is_given_up_and_the_hub_goes_on_taking(site: Site) -> None:
    taken = "SELECT count(*) FROM log WHERE okey IS NOT NULL"
    with site.pair.running() as (edge, api):
        site.pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
        site.postgres.freeze()
        try:
            for n in range(2, 5):
                site.pair.says(f"A{n}")
                edge.wait_until(lambda n=n: rows(site.pair.hub / "hub.db", taken) == [n], what=f"took {n}")  # type: ignore[misc]
            edge.wait_until(lambda: not readiness(api)["ready"], what="not ready")
        finally:
            site.postgres.thaw()
        edge.wait_until(lambda: closes(api, 4), what="settled")
    assert site.facts()[0] == site.facts()[1]


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_server_restarted_again_and_again_while_facts_flow_ends_with_each_once(site: Site, how: str) -> None:
    with site.pair.running() as (edge, api):
        for n in range(4):
            site.pair.says(*(f"A{n}{k}" for k in range(20)))
            getattr(site.postgres, how)()
            site.postgres.start()
        edge.wait_until(lambda: closes(api, 80), what="settled")
    logged, different = site.facts()
    assert logged == different
    assert len(site.orders()) == 80


def test_a_store_put_back_from_a_dump_is_refilled_and_the_list_of_dumps_survives(site: Site, tmp_path: Path) -> None:
    with site.pair.running() as (edge, api):
        site.pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
        place = ("--tool", "pg_dump", "--place", "backups/old.dump")
        first = done("hub.cli", "backups", "register", *place, "--dir", site.pair.hub, "--json")["id"]
        dump = site.postgres.folder / "old.dump"
        site.postgres.tool("pg_dump", *site.postgres.reach, "-Fc", "-f", dump, "central", password=True)
        done("hub.cli", "backups", "complete", first, "--dir", site.pair.hub)
        site.pair.says("A2", "A3")
        edge.wait_until(lambda: closes(api, 3), what="settled")
        edge.wait_until(lambda: freed(site.pair) == 1, what="freed what the dump has")
        later = done("hub.cli", "backups", "register", *place, "--dir", site.pair.hub, "--json")["id"]
        site.postgres.drop("central")
        site.postgres.sql(f'CREATE DATABASE "central" OWNER {USER}')
        site.postgres.tool("pg_restore", *site.postgres.reach, "--no-owner", f"--role={USER}", "-d", "central", dump, password=True)
        assert site.orders() == ["A1"]
        edge.wait_until(lambda: len(site.orders()) == 3 and closes(api, 3), what="refilled")
        listed = done("hub.cli", "backups", "ls", "--dir", site.pair.hub, "--json")["backups"]
        assert [(b["id"], b["state"]) for b in listed] == [(first, "complete"), (later, "begun")]
    assert site.facts()[0] == site.facts()[1]
    assert freed(site.pair) == 1


def test_hub_and_store_put_back_at_once_get_what_they_lost_from_the_edge(site: Site, tmp_path: Path) -> None:
    with site.pair.running() as (edge, api):
        site.pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
    site.pair.backup(tmp_path / "b1")
    site.postgres.stop()
    site.postgres.copy("cold")
    site.postgres.start()
    with site.pair.running() as (edge, api):
        site.pair.says("A2", "A3")
        edge.wait_until(lambda: closes(api, 3), what="settled")
    site.postgres.stop()
    site.postgres.put_back("cold")
    site.postgres.start()
    done("hub.cli", "restore", tmp_path / "b1", "--force", "--dir", site.pair.hub)
    with site.pair.running() as (edge, api):
        edge.wait_until(lambda: closes(api, 3), what="settled again")
    assert site.orders() == ["A1", "A2", "A3"]


def test_what_people_get_wrong_is_one_line_and_an_exit_code(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    wrong.chmod(0o600)
    toml = site.pair.hub / "hub.toml"
    good = toml.read_text("utf-8")
    for old, new, said in (
        (site.where.password_file, str(wrong), "the password is not that of this user"),
        ("dbname=central", "dbname=elsewhere", "there is no such database"),
    ):
        toml.write_text(good.replace(old, new), "utf-8")
        assert cli.main(["run", "--config", str(toml)]) == 3
        told = capsys.readouterr()
        assert said in told.err
        errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "Traceback" not in told.err
        assert "hunter2" not in told.err + told.out
        doctor = cli.main(["doctor", "--dir", str(site.pair.hub), "--json"])
        found = {f["what"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
        assert (doctor, found["store"]["ok"]) == (1, False)
        assert said in found["store"]["text"]
    toml.write_text(good, "utf-8")
    assert cli.main(["doctor", "--dir", str(site.pair.hub)]) in (0, 1)
    assert "answers; 0 orders" in capsys.readouterr().out


def test_init_makes_nothing_where_the_server_refuses(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = Server(site.where.dsn.replace("dbname=central", "dbname=gone"), site.where.password_file)
    args = ["--store", "postgres", "--dsn", gone.dsn, "--password-file", gone.password_file]
    assert cli.main(["init", str(tmp_path / "new"), *args]) == 3
    assert "there is no such database" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert cli.main(["init", str(tmp_path / "new"), "--dsn", gone.dsn]) == 2
    site.postgres.stop()
    assert cli.main(["init", str(tmp_path / "new"), *args]) == 0
    assert "the hub will try by itself" in capsys.readouterr().err
    config = read_config(tmp_path / "new", {})
    assert (config.store.kind, config.store.dsn, config.store.password_file) == ("postgres", gone.dsn, gone.password_file)


def test_the_hubs_own_backup_says_where_the_store_is_copied(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with site.pair.running() as (edge, api):
        site.pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
    assert cli.main(["backup", str(tmp_path / "b"), "--dir", str(site.pair.hub)]) == 0
    assert "backups register --tool pg_dump" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["hub.db", "manifest.json"]
    assert cli.main(["verify", "--dir", str(site.pair.hub)]) == 0
    assert cli.main(["audit", "--dir", str(site.pair.hub)]) == 3
    assert "store check" in capsys.readouterr().err
    assert cli.main(["backup", str(tmp_path / "c"), "--store-only", "--dir", str(site.pair.hub)]) == 2
