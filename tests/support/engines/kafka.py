"""A real Kafka for tests: one process, KRaft, on free ports, by the script that people use too (`deploy/dev/kafka.sh`).

broker = Kafka(folder)
broker.start()      # returns when metadata answers
broker.kill()       # SIGKILL; `start` again is a restart on the same ports with the same data
broker.stop()
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

from tests.support.certificates import make_certificates
from tests.support.needs import KAFKA_SCRIPT
from tests.support.patience import WITHIN_S
from tests.support.ports import lasting_port, listening
from tests.support.procs import Child

JAVA: Final = "-XX:TieredStopAtLevel=1 -XX:-UsePerfData -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
"""for a broker that lives for seconds: it starts with a third less work"""
AGAIN: Final = ("broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=400")
"""one that was killed is let in again when its old session has ended; the default is 9 s"""


@dataclass(frozen=True, slots=True)
class Secure:
    """The second listener, SASL/PLAIN over TLS: who may come, and the authority that signed its certificate."""

    servers: str
    username: str
    password: str
    ca_file: str


class Kafka:
    """See the module. `secure`: with a second listener for credentials and TLS. `settings`: lines of its configuration."""

    def __init__(self, folder: Path, *, secure: bool = False, heap: str = "384m", settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port, self._controller = lasting_port(), lasting_port()
        folder.mkdir(parents=True, exist_ok=True)
        more = folder / "more.properties"
        more.write_text("\n".join([*AGAIN, *settings, ""]))
        self._env = {"KAFKA_HEAP": heap, "KAFKA_JAVA": JAVA, "KAFKA_EXTRA": os.fspath(more)}
        self._child: Child | None = None
        self.secure: Secure | None = None
        if secure:
            self.secure = self._secured(lasting_port())

    @property
    def servers(self) -> str:
        """Where clients begin."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the broker that runs."""
        assert self._child is not None
        return self._child.pid

    def _secured(self, port: int) -> Secure:
        made = make_certificates(self.folder)
        pem = self.folder / "server.pem"
        pem.write_text(Path(made.key).read_text() + Path(made.cert).read_text() + Path(made.ca).read_text())
        pem.chmod(0o600)
        self._env |= {"KAFKA_SECURE": str(port), "KAFKA_USERS": "hub:a-long-password", "KAFKA_PEM": str(pem)}
        return Secure(f"127.0.0.1:{port}", "hub", "a-long-password", made.ca)

    @property
    def command(self) -> list[str]:
        """What runs it, with `env`."""
        return [os.fspath(KAFKA_SCRIPT), "run", os.fspath(self.folder), str(self.port), str(self._controller)]

    @property
    def env(self) -> dict[str, str]:
        """The environment of its command."""
        return dict(self._env)

    def ready(self) -> bool:
        """Whether it answers for its metadata."""
        return listening(self.port) and answers(self.servers)

    def start(self) -> None:
        """Return when it answers for its metadata."""
        self._child = Child(self.command, env=self._env)
        self._child.wait_until(self.ready, within_s=2 * WITHIN_S, what="answering")

    def kill(self) -> None:
        """A crash."""
        if self._child is not None:
            self._child.kill()
            self._child.discard()
            self._child = None

    def stop(self) -> None:
        """End it; its data stay. Idempotent. Its own way of ending takes seconds that no test needs: what it acknowledged lies with the
        system, and outlives the process."""
        self.kill()

    def freeze(self) -> None:
        """It hangs: its connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)


def answers(servers: str) -> bool:
    """Whether a broker there tells who its members are."""
    return asyncio.run(_answers(servers))


async def _answers(servers: str) -> bool:
    client = AIOKafkaClient(bootstrap_servers=servers, request_timeout_ms=15_000)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
