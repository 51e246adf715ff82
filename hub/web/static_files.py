"""The stylesheet, the script and the icon: read once, served from memory, addressed by their content so that browsers may keep them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from protocols.problem import NOT_FOUND, Problem

FOLDER: Final = Path(__file__).with_name("static")
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file and the mark of its content."""

    name: str
    data: bytes
    media_type: str
    mark: str

    @property
    def url(self) -> str:
        """Its address, which changes with its content."""
        return f"/static/{self.name}?v={self.mark}"


class StaticFiles:
    """Everything in the folder, by name: a request can reach nothing else."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {path.name: _load(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}

    def url(self, name: str) -> str:
        """For templates; KeyError for a file that is not there."""
        return self._files[name].url

    async def serve(self, request: Request) -> Response:
        """GET /static/{name}."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise Problem(NOT_FOUND, "There is no such file.")
        etag = f'"{file.mark}"'
        keep = _FOR_EVER if request.query_params.get("v") == file.mark else "no-cache"
        headers = {"etag": etag, "cache-control": keep}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=file.media_type)


def _load(path: Path) -> StaticFile:
    data = path.read_bytes()
    return StaticFile(path.name, data, _TYPES[path.suffix], blake2b(data, digest_size=8).hexdigest())
