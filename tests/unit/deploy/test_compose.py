"""docker-compose.yml and the images, as far as can be seen without an engine: the schema, secrets, users, and what they name."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.health import healthy
from edge_agent.config import load_config as read_edge
from hub.config import read_config as read_hub
from tests.support.needs import needs, where
from tests.support.patience import WITHIN_S
from tests.support.schemas import complaints, theirs
from tests.support.source import ROOT

FILE: Final = ROOT / "docker-compose.yml"
FOLDER: Final = ROOT / "deploy" / "compose"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
OURS: Final = {name: one for name, one in SERVICES.items() if "build" in one}
MADE: Final = "./var/compose/"
"""what `prepare.sh` makes"""


def test_it_is_a_compose_file() -> None:
    schema = {**theirs("compose-spec.json"), "$schema": "http://json-schema.org/draft-07/schema#"}
    assert complaints(schema, COMPOSE) == []
    wrong = {**COMPOSE, "services": {**SERVICES, "hub": {**SERVICES["hub"], "comand": ["x"]}}}
    assert complaints(schema, wrong) != []


def test_the_whole_system_is_there() -> None:
    assert {"mosquitto", "kafka", "postgres", "hub", "projector", "edge-a", "edge-b", "prometheus", "grafana"} <= set(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_names_only_what_there_is(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", [])) <= set(SERVICES)
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source.startswith(MADE) or (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    image = service["image"]
    assert re.search(r":v?\d+(\.\d+)*$", image), "a version, never latest"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_password_stands_in_it(name: str) -> None:
    told = {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}
    secret = {key: value for key, value in told.items() if re.search(r"PASSWORD|TOKEN|SECRET", key)}
    assert all(key.endswith("_FILE") and value.startswith("/run/secrets/") for key, value in secret.items())


def test_every_secret_is_a_file_that_prepare_makes() -> None:
    assert all(one["file"].startswith(MADE) for one in COMPOSE["secrets"].values())


def test_only_the_broker_is_reachable_from_other_machines() -> None:
    ports = {name: port for name, one in SERVICES.items() for port in one.get("ports", [])}
    assert {name for name, port in ports.items() if not port.startswith("127.0.0.1:")} == {"mosquitto"}
    assert ports["mosquitto"] == "8883:8883"
    assert not {"kafka", "postgres"} & set(ports)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_have_no_rights(name: str) -> None:
    service = OURS[name]
    assert service["user"].startswith("${LONGSHORE_UID:?")
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(name for name in SERVICES if name != "topics"))
def test_every_service_has_a_health_check(name: str) -> None:
    assert "healthcheck" in SERVICES[name] or "HEALTHCHECK" in stage(SERVICES[name]["build"]["target"])


# ------------------------------------------------------------------ images

DOCKERFILE: Final = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")


def stage(name: str) -> str:
    """What a stage of the Dockerfile says, with those that it stands on."""
    found = re.search(rf"^FROM (\S+) AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    assert found, f"no stage {name}"
    below = stage(found[1]) if re.search(rf"^FROM \S+ AS {found[1]}$", DOCKERFILE, re.M) else ""
    return below + found[2]


@pytest.mark.parametrize("name", ["hub", "edge"])
def test_an_image_has_its_user_and_its_health_check_and_no_tools_of_its_making(name: str) -> None:
    said = stage(name)
    assert re.findall(r"^USER (.*)$", said, re.M)[-1] == "10001:10001"
    assert "HEALTHCHECK" in said
    assert "COPY . ." not in said
    assert "--require-hashes" in stage("build")
    command = SERVICES["hub" if name == "hub" else "edge-a"]["command"]
    assert f"CMD {command}".replace("'", '"') in said


def test_the_health_check_of_the_image_asks_an_address_that_exists() -> None:
    asked = re.findall(r'"(http://127\.0\.0\.1:\d+/\w+)"', DOCKERFILE)
    assert asked == ["http://127.0.0.1:8700/healthz", "http://127.0.0.1:8800/healthz"]


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/readyz" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_health_is_an_answer_and_nothing_else(url: str) -> None:
    assert healthy(f"{url}/healthz")
    assert not healthy(f"{url}/readyz")
    assert not healthy("http://127.0.0.1:1/healthz")
    assert not healthy("nonsense")


# ------------------------------------------------------------------ what prepare.sh makes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, made with the commands of this interpreter."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


def prepare(folder: Path) -> str:
    """Run it. Returns what it said."""
    env = {**os.environ, "LONGSHORE_BIN": str(Path(sys.executable).parent)}
    done = subprocess.run([FOLDER / "prepare.sh", folder], env=env, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("bin_", "says"), [("", "LONGSHORE_BIN=.venv/bin"), ("nowhere", "make setup puts it into .venv/bin")], ids=["no docker", "no commands"]
)
def test_without_docker_it_says_what_to_do_and_makes_nothing(tmp_path: Path, bin_: str, says: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    docker = tools / "docker"
    docker.write_text("#!/bin/sh\necho noise >&2\nexit 1\n")
    docker.chmod(0o755)
    env = {**os.environ, "LONGSHORE_BIN": bin_, "PATH": f"{tools}:{os.environ['PATH']}"}
    made = tmp_path / "made"
    done = subprocess.run([FOLDER / "prepare.sh", made], env=env, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    assert (done.returncode, done.stderr.count("\n"), "noise" in done.stderr, made.exists()) == (1, 1, False, False)
    assert says in done.stderr


def test_all_that_compose_names_is_made_and_is_nobody_elses(prepared: Path) -> None:
    files = [one["file"] for one in COMPOSE["secrets"].values()]
    folders = [volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", []) if volume.startswith(MADE)]
    for name in [*files, *folders]:
        assert (prepared / name.removeprefix(MADE)).exists(), name
    for path in prepared.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
    assert {"LONGSHORE_UID", "LONGSHORE_GID"} == {line.split("=")[0] for line in (prepared / "env").read_text("utf-8").split()}


def test_a_second_time_changes_no_key_and_no_password(prepared: Path) -> None:
    kept = (
        "secrets/broker_password",
        "hub/hub.key",
        "edge-a/node.key",
        "broker/certs/server.crt",
        "edge-b/edge.toml",
        "broker/longshore.acl",
    )
    before = [(prepared / name).read_bytes() for name in kept]
    assert "ready" in prepare(prepared)
    assert [(prepared / name).read_bytes() for name in kept] == before


def test_both_edges_are_admitted_and_reach_the_broker_by_tls(prepared: Path) -> None:
    assert re.findall(r"^user (\S+)", (prepared / "broker/longshore.acl").read_text("utf-8"), re.M) == ["hub", "edge-a", "edge-b"]
    assert "longshore+mqtts://mosquitto:8883/" in (prepared / "edge-a/edge.toml").read_text("utf-8")


def test_the_settings_of_hub_and_edges_are_taken_by_the_product(prepared: Path) -> None:
    """Every key there is a setting, and its value one that is allowed; secrets are read where they are."""
    more = (FOLDER / "hub.toml").read_text("utf-8")
    for name in COMPOSE["secrets"]:
        more = more.replace(f"/run/secrets/{name}", str(prepared / COMPOSE["secrets"][name]["file"].removeprefix(MADE)))
    assert "/run/secrets" not in more
    (prepared / "hub/hub.toml.d").mkdir(mode=0o700)
    (prepared / "hub/hub.toml.d/compose.toml").write_text(more, "utf-8")
    hub = read_hub(prepared / "hub", {})
    assert (hub.broker.kind, hub.broker.tls, hub.bridge.kafka, hub.store.kind) == ("external", True, True, "postgres")
    env = {key: str(value) for key, value in SERVICES["edge-a"]["environment"].items()}
    env["LONGSHORE_HUB__CA_FILE"] = str(prepared / "secrets/broker_ca")
    edge = read_edge(prepared / "edge-a/edge.toml", env)
    assert (edge.api.host, edge.log.format, edge.hub_address.tls) == ("0.0.0.0", "json", True)


@needs("promtool")
def test_prometheus_is_configured_and_scrapes_every_service_of_ours() -> None:
    done = subprocess.run(
        [where("promtool"), "check", "config", "--syntax-only", FOLDER / "prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = (FOLDER / "prometheus.yml").read_text("utf-8")
    assert [name for name in OURS if name != "topics" and name not in said] == []
    assert {Path(path).name for path in re.findall(r"/run/secrets/\w+", said)} == set(SERVICES["prometheus"]["secrets"])
