"""System calls of SQLite that fail: the n-th of a kind, once or from then on, under the product's own connections to real files.

SQLite's file system for Unix calls the system through a table that may be changed; the callbacks here stand in it. A sync is not in the
table: the file's descriptor is exchanged for one that cannot be synced, while reads and writes are passed to the file.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import apsw

_C: Final = ctypes.CDLL(None, use_errno=True)
_int, _size, _off, _ptr, _text = ctypes.c_int, ctypes.c_size_t, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
_TYPES: Final[dict[str, tuple[Any, ...]]] = {
    "open": (_int, _text, _int, _int),
    "close": (_int, _int),
    "pread64": (ctypes.c_ssize_t, _int, _ptr, _size, _off),
    "pread": (ctypes.c_ssize_t, _int, _ptr, _size, _off),
    "pwrite64": (ctypes.c_ssize_t, _int, _ptr, _size, _off),
    "pwrite": (ctypes.c_ssize_t, _int, _ptr, _size, _off),
    "ftruncate": (_int, _int, _off),
    "fallocate": (_int, _int, _off, _off),
    "fstat": (_int, _int, _ptr),
    "fcntl": (_int, _int, _int, _ptr),
    "mmap": (_ptr, _ptr, _size, _int, _int, _int, _off),
    "unlink": (_int, _text),
}
SYNC: Final = "sync"
KINDS: Final = ("open", "pwrite", "pread", "ftruncate", "fallocate", "fstat", "fcntl", "mmap", "unlink", SYNC)
HOWS: Final[dict[str, tuple[str, ...]]] = {"pwrite": ("EIO", "ENOSPC", "short"), "ftruncate": ("EIO", "ENOSPC"), "open": ("EIO", "ENOSPC")}
"""what a call answers; the others only EIO"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which call fails: the `nth` of a `kind` on a file whose name ends so, and how; `for_good`: all later ones too, until `repair`.

    `short`: half is written, and the rest finds no room. A sync is named by the write it follows.
    """

    kind: str
    nth: int
    how: str = "EIO"
    for_good: bool = False
    files: str = ""


class Calls:
    """The table's callbacks. `plan` says what fails; `seen` counts calls of each kind on the files that it names; `struck` failures."""

    def __init__(self, folder: str, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.seen: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.struck = 0
        self.on_first: Callable[[], None] = _nothing
        """called at the first failure, in the thread that meets it"""
        self.opened = 0
        """databases that were opened, the WAL apart"""
        self._names: dict[int, str] = {}
        self._hidden: dict[int, int] = {}
        """descriptors that cannot be synced, and the file behind each"""
        self._repaired = False
        self._half = False

    def repair(self) -> None:
        """From now on everything works."""
        self._repaired = True
        for fd, real in self._hidden.items():
            os.dup2(real, fd)
            os.close(real)
        self._hidden.clear()

    # ------------------------------------------------------------ does it fail?

    def _mine(self, name: str) -> bool:
        files = self.plan.files
        return bool(name) and (not files or os.path.basename(name).startswith(files))

    def _strikes(self, kind: str, name: str) -> bool:
        if not self._mine(name):
            return False
        self.seen[kind] += 1
        if self._repaired or self.plan.kind != kind:
            return False
        n = self.seen[kind]
        strikes = n == self.plan.nth or (self.plan.for_good and n > self.plan.nth) or (kind == "pwrite" and self._half)
        if strikes:
            self._strike()
        return strikes

    def _strike(self) -> None:
        self.struck += 1
        if self.struck == 1:
            self.on_first()

    def _fails(self, failed: int = -1) -> int:
        ctypes.set_errno(getattr(errno, "ENOSPC" if self.plan.how == "short" else self.plan.how))
        return failed

    # ------------------------------------------------------------ the calls

    def open(self, name: bytes, flags: int, mode: int) -> int:
        path = name.decode()
        inside = path.startswith(self.folder)
        if inside and self._strikes("open", path):
            return self._fails()
        fd = int(_call("open", name, flags, mode))
        if fd >= 0 and inside:
            self._names[fd] = path
            self.opened += path.endswith(".db")
        return fd

    def close(self, fd: int) -> int:
        self._names.pop(fd, None)
        hidden = self._hidden.pop(fd, None)
        if hidden is not None:
            os.close(hidden)
        return int(_call("close", fd))

    def pread(self, fd: int, at: int, size: int, offset: int) -> int:
        if self._strikes("pread", self._names.get(fd, "")):
            return self._fails()
        return int(_call(_PREAD, self._hidden.get(fd, fd), at, size, offset))

    def pwrite(self, fd: int, at: int, size: int, offset: int) -> int:
        name, real = self._names.get(fd, ""), self._hidden.get(fd, fd)
        if self._strikes("pwrite", name):
            if self.plan.how == "short" and not self._half and size > 1:
                self._half = True
                return int(_call(_PWRITE, real, at, size // 2, offset))
            self._half = False
            return self._fails()
        done = int(_call(_PWRITE, real, at, size, offset))
        if self._mine(name) and not name.endswith("-shm"):
            self._meet_sync(fd)
        return done

    def _meet_sync(self, fd: int) -> None:
        """After this write syncs of its file fail, or those of the write before do not any more."""
        self.seen[SYNC] += 1
        if self.plan.kind != SYNC or self._repaired:
            return
        if self.seen[SYNC] == self.plan.nth or (self.plan.for_good and self.seen[SYNC] > self.plan.nth):
            if fd not in self._hidden:
                self._hidden[fd] = os.dup(fd)
                deaf = os.eventfd(0)
                os.dup2(deaf, fd)
                os.close(deaf)
            self._strike()
        elif self._hidden:
            self.repair()

    def ftruncate(self, fd: int, size: int) -> int:
        if self._strikes("ftruncate", self._names.get(fd, "")):
            return self._fails()
        return int(_call("ftruncate", self._hidden.get(fd, fd), size))

    def fallocate(self, fd: int, offset: int, size: int) -> int:
        if self._strikes("fallocate", self._names.get(fd, "")):
            return errno.EIO
        return int(_call("fallocate", self._hidden.get(fd, fd), offset, size))

    def fstat(self, fd: int, into: int) -> int:
        if self._strikes("fstat", self._names.get(fd, "")):
            return self._fails()
        return int(_call("fstat", self._hidden.get(fd, fd), into))

    def fcntl(self, fd: int, command: int, argument: int) -> int:
        if self._strikes("fcntl", self._names.get(fd, "")):
            return self._fails()
        return int(_call("fcntl", self._hidden.get(fd, fd), command, argument))

    def mmap(self, at: int, size: int, protection: int, flags: int, fd: int, offset: int) -> int | None:
        if self._strikes("mmap", self._names.get(fd, "")):
            self._fails()
            return ctypes.c_void_p(-1).value
        found = _call("mmap", at, size, protection, flags, fd, offset)
        return None if found is None else int(found)

    def unlink(self, name: bytes) -> int:
        path = name.decode()
        if path.startswith(self.folder) and self._strikes("unlink", path):
            return self._fails()
        return int(_call("unlink", name))


def _nothing() -> None: ...


_REAL: dict[str, Callable[..., Any]] = {}
_PREAD = _PWRITE = ""


def _call(name: str, *arguments: Any) -> Any:
    """The system's own; its errno is the callback's."""
    return _REAL[name](*arguments)


@contextmanager
def failing(folder: str, plan: Plan) -> Iterator[Calls]:
    """For the length of a `with` block, SQLite's calls on files below a folder are counted, and fail as planned."""
    global _PREAD, _PWRITE
    vfs = apsw.VFS(f"unix-failing-{os.getpid()}", "unix")
    calls = Calls(folder, plan)
    kept: list[Any] = []
    names: list[str] = []
    try:
        for name, types in _TYPES.items():
            pointer = vfs.xGetSystemCall(name)
            if not pointer:
                continue
            kind = ctypes.CFUNCTYPE(*types, use_errno=True)
            _REAL[name] = kind(pointer)
            ours = kind(getattr(calls, name.removesuffix("64")))
            kept.append(ours)
            vfs.xSetSystemCall(name, ctypes.cast(ours, _ptr).value or 0)
            names.append(name)
        _PREAD, _PWRITE = (next(n for n in names if n.startswith(start)) for start in ("pread", "pwrite"))
        yield calls
        calls.repair()
    finally:
        for name in names:
            vfs.xSetSystemCall(name, 0)
        vfs.unregister()
