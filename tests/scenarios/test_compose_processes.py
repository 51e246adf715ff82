"""docker-compose.yml run natively: its services' own commands and settings, with other names of hosts, ports and paths.

Mosquitto, Kafka and PostgreSQL are this machine's; what only a container shows (users, capabilities, images) is not seen here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.health import healthy
from tests.support.engines.kafka import Kafka
from tests.support.engines.postgres import Postgres
from tests.support.needs import needs, where
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.support.ports import free_port, listening
from tests.support.procs import Child, python, started
from tests.support.source import ROOT

pytestmark = [pytest.mark.slow, needs("mosquitto"), needs("kafka"), needs("postgres"), needs("promtool")]

SERVICES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
SECRETS: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["secrets"]
BIN: Final = Path(sys.executable).parent
MODULES: Final = {"longshore-hub": "hub.cli", "longshore-edge": "edge_agent.cli"}
MADE: Final = "./var/compose/"


class System:
    """The whole of it in one folder, which `prepare.sh` made."""

    def __init__(self, folder: Path, kafka: Kafka, postgres: Postgres) -> None:
        self.folder, self._kafka = folder, kafka
        env = {**os.environ, "LONGSHORE_BIN": str(BIN), "BROKER_NAME": "localhost"}
        subprocess.run([ROOT / "deploy/compose/prepare.sh", folder], env=env, check=True, capture_output=True, timeout=WITHIN_S)
        self.ports = {name: free_port() for name in ("mosquitto", "hub", "projector", "edge-a", "edge-b", "prometheus")}
        (folder / "secrets/postgres_password").write_text(postgres.password, "utf-8")
        self._dsn = postgres.database("orders")
        (folder / "hub/hub.toml.d").mkdir(mode=0o700)
        (folder / "hub/hub.toml.d/compose.toml").write_text(self.here((ROOT / "deploy/compose/hub.toml").read_text("utf-8")), "utf-8")

    def here(self, text: str) -> str:
        """A configuration of the containers with the names of this machine."""
        text = re.sub(r"/run/secrets/(\w+)", lambda found: str(self._secret(found[1])), text)
        text = text.replace('host = "0.0.0.0"', 'host = "127.0.0.1"').replace("port = 8800", f"port = {self.ports['hub']}")
        text = text.replace('host = "mosquitto"', 'host = "localhost"').replace("port = 8883", f"port = {self.ports['mosquitto']}")
        text = text.replace("kafka:9092", self._kafka.servers).replace("host=postgres port=5432 user=longshore dbname=orders", self._dsn)
        for name in ("hub:8800", "edge-a:8700", "edge-b:8700"):
            text = text.replace(name, f"127.0.0.1:{self.ports[name.split(':')[0]]}")
        return text.replace("/etc/mosquitto/", f"{self.folder}/broker/").replace("/var/lib/mosquitto/", f"{self.folder}/mosquitto/")

    def _secret(self, name: str) -> Path:
        return self.folder / str(SECRETS[name]["file"]).removeprefix(MADE)

    def mosquitto(self) -> list[str]:
        """Its command, over the shipped configuration."""
        text = self.here((ROOT / "deploy/mosquitto/mosquitto.conf").read_text("utf-8"))
        text = text.replace("listener 8883", f"listener {self.ports['mosquitto']} 127.0.0.1")
        (self.folder / "mosquitto.conf").write_text(("user root\n" if os.geteuid() == 0 else "") + text, "utf-8")
        return [where("mosquitto"), "-c", str(self.folder / "mosquitto.conf")]

    def command(self, name: str) -> list[str]:
        """A service's own command."""
        data = self.folder / ("hub" if "hub" in SERVICES[name]["image"] else name)
        words = [str(word).replace("/data/", f"{data}/") for word in SERVICES[name]["command"]]
        words = [str(self.ports["projector"]) if word == "8810" else "127.0.0.1" if word == "0.0.0.0" else word for word in words]
        return python("-m", MODULES[words[0]], *words[1:])

    def environment(self, name: str) -> dict[str, str]:
        """A service's own environment. Edges were told the port that compose publishes."""
        told = {key: self.here(str(value)) for key, value in SERVICES[name].get("environment", {}).items()}
        if not name.startswith("edge"):
            return told
        address = re.search(r'"(longshore\+mqtts://[^"]+)"', (self.folder / name / "edge.toml").read_text("utf-8"))
        assert address
        there = address[1].replace(":8883/", f":{self.ports['mosquitto']}/")
        return told | {"LONGSHORE_API__HOST": "127.0.0.1", "LONGSHORE_API__PORT": str(self.ports[name]), "LONGSHORE_HUB__ADDRESS": there}

    def call(self, name: str, path: str, body: Any = None) -> Any:
        """A request to the API of a service, with its token; None where it does not answer yet."""
        token = (self.folder / name / "api.token").read_text("utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[name]}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return None

    def prometheus(self) -> list[str]:
        """Its configuration as compose mounts it; the projector by its address instead of by name."""
        folder = self.folder / "prometheus"
        text = self.here((ROOT / "deploy/compose/prometheus.yml").read_text("utf-8")).replace("15s", "1s")
        there = f'static_configs: [{{ targets: ["127.0.0.1:{self.ports["projector"]}"] }}]'
        text = re.sub(r"dns_sd_configs: \[.*\]", there, text)
        (folder / "prometheus.yml").write_text(text, "utf-8")
        shutil.copy(ROOT / "deploy/prometheus/longshore.rules.yml", folder)
        listen = f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}"
        program = str(Path(where("promtool")).with_name("prometheus"))
        return [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}", listen]

    def asked(self, query: str) -> dict[str, float]:
        """A PromQL query: values by job and instance."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            found = json.load(answer)["data"]["result"]
        return {f"{one['metric'].get('job')} {one['metric'].get('instance')}": float(one["value"][1]) for one in found}


@contextmanager
def system(folder: Path) -> Iterator[System]:
    """With its engines; nothing of ours runs yet."""
    with ExitStack() as undo:
        kafka, postgres = Kafka(folder / "kafka"), Postgres()
        undo.callback(kafka.stop)
        undo.callback(postgres.discard)
        kafka.start()
        postgres.start()
        yield System(folder / "made", kafka, postgres)


EVENT: Final = {"orderId": "GLOBAL1234", "source": "DOCK", "status": "SHIPPED", "timestamp": "2026-05-21T14:05:12Z"}


def test_the_services_of_compose_work_together(tmp_path: Path) -> None:
    with system(tmp_path) as whole, ExitStack() as undo:

        def up(name: str) -> Child:
            return undo.enter_context(started(whole.command(name), env=whole.environment(name)))

        edge = up("edge-a")  # first, and before there is anything: it captures
        edge.wait_until(lambda: healthy(f"http://127.0.0.1:{whole.ports['edge-a']}/healthz"), what="healthy")
        assert whole.call("edge-a", "/v1/events", EVENT)["accepted"] == 1
        broker = undo.enter_context(started(whole.mosquitto()))
        broker.wait_until(lambda: listening(whole.ports["mosquitto"]), what="listening")
        topics = subprocess.run(whole.command("topics"), capture_output=True, text=True, check=False, timeout=WITHIN_S)
        assert topics.returncode == 0, topics.stderr
        hub, projector, other = up("hub"), up("projector"), up("edge-b")
        projector.wait_until(lambda: healthy(f"http://127.0.0.1:{whole.ports['projector']}/readyz"), what="ready")
        other.wait_until(lambda: healthy(f"http://127.0.0.1:{whole.ports['edge-b']}/healthz"), what="healthy")
        assert whole.call("edge-b", "/v1/events", {**EVENT, "orderId": "GLOBAL1235"})["accepted"] == 1

        def shown() -> bool:
            said = whole.call("hub", "/v1/orders")
            return said is not None and {one["orderId"] for one in said["orders"]} == {"GLOBAL1234", "GLOBAL1235"}

        hub.wait_until(shown, what="showing both orders")
        hub.wait_until(lambda: healthy(f"http://127.0.0.1:{whole.ports['hub']}/readyz"), what="ready")
        watch = undo.enter_context(started(whole.prometheus()))
        watch.wait_until(lambda: healthy(f"http://127.0.0.1:{whole.ports['prometheus']}/-/ready"), what="ready")
        watch.wait_until(lambda: list(whole.asked("up").values()) == [1.0] * 4, what="scraping all four")
        assert list(whole.asked("longshore_orders").values()) == [2.0]
        assert all(one.end() == 0 for one in (edge, other, projector, hub))
