"""How the command line speaks to the edge that runs: its LAN API on this machine, with errors turned back into ours."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge_agent import whereabouts
from edge_agent.config import EdgeConfig
from edge_agent.init import TOKEN_FILE
from protocols.commands import as_commands
from protocols.errors import ConfigError, Conflict, InvalidInput, LedgerBusy, LedgerFull, LongshoreError, NotKnown, TooLarge, TransportError
from protocols.trust import read_secret

TIMEOUT_S: Final = 30.0
COMMANDS: Final = {
    "/v1/conflicts": "longshore-edge conflicts ls",
    "/v1/quarantine": "longshore-edge queue quarantine ls",
    "/v1/peers": "longshore-edge peer ls",
}
"""what the API's remedies name, as somebody at a command line writes it"""
_ANSWER_BYTES: Final = 64_000_000


class LocalApi:
    """One keep-alive connection, opened when first needed. Errors: TransportError, and whatever the API's problem documents stand for."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}")
        if parts.scheme not in ("", "http") or not parts.hostname:
            raise InvalidInput("url", f"{url} is not the address of an edge.", remedy="Write it like http://127.0.0.1:8700.")
        self.url = f"http://{parts.netloc}"
        self._token = token
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT_S)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> dict[str, Any]:
        """Send JSON to a path."""
        return self._ask("POST", path, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def delete(self, path: str) -> dict[str, Any]:
        """Remove what a path names."""
        return self._ask("DELETE", path, None)

    def send(self, path: str, body: bytes, media: str) -> dict[str, Any]:
        """Send bytes of a type to a path, and read JSON."""
        return self._ask("POST", path, body, media)

    def fetch(self, path: str, media: str) -> tuple[bytes, Mapping[str, str]]:
        """The bytes at a path, which must be of a type, and the headers they came with (names in lower case)."""
        status, headers, body = self._exchange("GET", path, None, {"Accept": media})
        if headers.get("content-type", "") != media:
            _read(status, body, self.url)
            raise TransportError(f"What answers at {self.url} sends no {media}.", remedy="Is that edge of the same version?")
        return body, headers

    def append(self, events: Sequence[object]) -> dict[str, Any]:
        """Hand over a batch; returns `{"ids", "accepted", "repeated"}` once it is on disk there."""
        return self._ask("POST", "/v1/events", json.dumps(list(events), ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def __enter__(self) -> LocalApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, media: str = "application/json") -> dict[str, Any]:
        headers = {"Accept": "application/json"} | ({"Content-Type": media} if body is not None else {})
        status, _, text = self._exchange(method, path, body, headers)
        return _read(status, text, self.url)

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            text = answer.read(_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TransportError(
                f"No edge answers at {self.url}: {why}.", remedy="Start it with `longshore-edge run`, or say where it is with --url."
            ) from None
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def _read(status: int, text: bytes, url: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise TransportError(f"What answers at {url} is not a Longshore edge (HTTP {status}).", remedy="Look what runs there.")
    if status < 300:
        return data
    raise _error(status, data)


def _error(status: int, problem: dict[str, Any]) -> LongshoreError:
    """Our error that a problem document stands for."""
    detail, remedy = str(problem.get("detail", f"HTTP {status}")), as_commands(str(problem.get("remedy", "")), COMMANDS)
    if status in (413, 422):
        field = str(problem.get("field", "body"))
        kind = TooLarge if status == 413 else InvalidInput
        return kind(field, detail.removeprefix(f"{field}: "), remedy=remedy, allowed=tuple(problem.get("allowed", ())))
    if status in (401, 403):
        return ConfigError(detail, remedy=remedy)
    kinds: dict[int, type[LongshoreError]] = {404: NotKnown, 409: Conflict, 503: LedgerBusy, 507: LedgerFull}
    return kinds.get(status, TransportError)(detail, remedy=remedy)


def api_of(config: EdgeConfig) -> LocalApi:
    """The API of the edge of this configuration, with the token that `init` left beside it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(config.api.host, config.api.host)  # noqa: S104 - read, not bound
    url = whereabouts.told(config) or f"http://{f'[{host}]' if ':' in host else host}:{config.api.port}"
    return LocalApi(url, token_beside(config.file))


def token_beside(config_file: Path) -> str | None:
    """The token beside a configuration file, if it is (still) there: an operator may have taken it away."""
    path = config_file.parent / TOKEN_FILE
    return read_secret(path, what="token").strip() if path.exists() else None
