"""A bound on the head of an HTTP request, which httptools does not have: without one, anybody who can connect fills the memory.

`bounded` takes uvicorn's protocol class as an argument, so that nothing here imports a server.
"""

from __future__ import annotations

from typing import Any, Final

HEAD_BYTES: Final = 65_536
"""of request line and headers together; browsers and proxies stay below 16 kB"""


def bounded(protocol: Any, most_bytes: int = HEAD_BYTES) -> Any:
    """The protocol class, ending each connection whose request's head grows beyond `most_bytes` while it comes in."""

    class Bounded(protocol):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._in_head, self._head_bytes, self._stages = True, 0, 0

        def data_received(self, data: bytes) -> None:
            before = self._stages
            super().data_received(data)
            if self._in_head and self._stages == before:  # all of it was head
                self._head_bytes += len(data)
                if self._head_bytes > most_bytes:
                    self.transport.abort()

        def on_headers_complete(self) -> None:
            self._in_head, self._head_bytes = False, 0
            self._stages += 1
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head, self._head_bytes = True, 0
            self._stages += 1
            super().on_message_complete()

    return Bounded
