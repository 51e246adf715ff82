"""A disk that loses power: files in memory under SQLite, a journal of everything written to them, and what may be left of it.

`Disk` is what a process sees; SQLite reaches it through `CrashVfs`. `Surface` plays a disk's journal again up to any point and says what
the platter may hold if the power went there:

- what was synced is there; of what was not, each sector (512 or 4,096 bytes) is as any of the writes since left it, in any mixture
  (dropped, torn, reordered), or garbage within what was written of it;
- a file's size is any that it had since its last sync, whatever became of the bytes;
- a name's making or removal is undone unless the directory was synced since; SQLite syncs it with the first sync of a journal or WAL;
- after a sync that failed, what it should have written is gone for the disk while processes go on seeing it (as on Linux).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

import apsw

BASE: Final = "unix-excl"
"""whose locks and shared memory are used: in the heap, as nothing of either outlives a power loss"""
_JOURNALS: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Op(NamedTuple):
    """One point of input and output. `what`: write, truncate, sync, badsync (it failed), create, unlink, dirsync."""

    what: str
    inode: int = 0
    at: int = 0
    data: bytes = b""
    name: str = ""


Fault = Callable[[str, str], None]
"""called before each point with its kind and the file's name; raises what the disk answers"""


class Disk:
    """Files by name, and the journal of what happened to them. `begun`: what was on the platter at first."""

    def __init__(self, begun: Mapping[str, bytes] | None = None) -> None:
        self.begun = dict(begun or {})
        self.ops: list[Op] = []
        self.files = {name: _Inode(i + 1, bytearray(data)) for i, (name, data) in enumerate(self.begun.items())}
        self.fault: Fault | None = None
        self._inodes = len(self.files)

    @property
    def now(self) -> int:
        """How many points lie behind."""
        return len(self.ops)

    def meet(self, what: str, name: str) -> None:
        """Let the fault, if there is one, strike."""
        if self.fault is not None:
            self.fault(what, name)

    def create(self, name: str) -> _Inode:
        """A new, empty file."""
        self.meet("create", name)
        self._inodes += 1
        inode = self.files[name] = _Inode(self._inodes, bytearray())
        self.ops.append(Op("create", inode.number, name=name))
        return inode

    def unlink(self, name: str, *, dirsync: bool) -> None:
        """Remove a name."""
        self.meet("unlink", name)
        inode = self.files.pop(name)
        self.ops.append(Op("unlink", inode.number, name=name))
        if dirsync:
            self.dirsync(name)

    def dirsync(self, name: str) -> None:
        """Names are safe now."""
        self.meet("dirsync", name)
        self.ops.append(Op("dirsync"))

    def sync(self, inode: _Inode, name: str) -> None:
        """What was written to this file is safe now, or, where the fault says no, never will be."""
        try:
            self.meet("sync", name)
        except apsw.Error:
            self.ops.append(Op("badsync", inode.number))
            raise
        self.ops.append(Op("sync", inode.number))


@dataclass(slots=True)
class _Inode:
    number: int
    data: bytearray


# ------------------------------------------------------------ what SQLite sees


class _Handle:
    """An open file of a `Disk`: everything but locks."""

    disk: Disk
    inode: _Inode
    name: str
    dirsync_due: bool

    def xRead(self, amount: int, offset: int) -> bytes:
        self.disk.meet("read", self.name)
        return bytes(self.inode.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self.disk.meet("write", self.name)
        mine = self.inode.data
        if len(mine) < offset:
            mine.extend(bytes(offset - len(mine)))
        mine[offset : offset + len(data)] = data
        self.disk.ops.append(Op("write", self.inode.number, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self.disk.meet("truncate", self.name)
        del self.inode.data[size:]
        self.disk.ops.append(Op("truncate", self.inode.number, size))

    def xFileSize(self) -> int:
        return len(self.inode.data)

    def xSync(self, flags: int) -> None:
        self.disk.sync(self.inode, self.name)
        if self.dirsync_due:
            self.dirsync_due = False
            self.disk.dirsync(self.name)

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xDeviceCharacteristics(self) -> int:
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)


class _Main(_Handle, apsw.VFSFile):
    """A database file: locks and shared memory come from an empty file of the same name, for which its folder must exist."""

    def __init__(self, disk: Disk, inode: _Inode, name: str, opened: Any, flags: list[int]) -> None:
        apsw.VFSFile.__init__(self, BASE, opened, flags)
        self.disk, self.inode, self.name, self.dirsync_due = disk, inode, name, False


class _Side(_Handle):
    """A WAL, a journal or a temporary file: nobody locks it."""

    def __init__(self, disk: Disk, inode: _Inode, name: str, dirsync_due: bool) -> None:
        self.disk, self.inode, self.name, self.dirsync_due = disk, inode, name, dirsync_due

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xClose(self) -> None: ...


class CrashVfs(apsw.VFS):
    """The way of every connection to the disk in `disk`, which may be another one for each connection."""

    def __init__(self, name: str) -> None:
        super().__init__(name, BASE)
        self.name = name
        self.disk = Disk()

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        """See the VFS of SQLite."""
        if name is None:
            return _Side(Disk(), _Inode(0, bytearray()), "", False)  # temporary: nothing of it matters after a power loss
        path, disk = (name.filename() if isinstance(name, apsw.URIFilename) else str(name)), self.disk
        disk.meet("open", path)
        inode = disk.files.get(path)
        if inode is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise error(apsw.CantOpenError, apsw.SQLITE_CANTOPEN)
            inode = disk.create(path)
        flags[1] = flags[0]
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Main(disk, inode, path, name, flags)
        return _Side(disk, inode, path, bool(flags[0] & _JOURNALS and flags[0] & apsw.SQLITE_OPEN_CREATE))

    def xAccess(self, pathname: str, flags: int) -> bool:
        """See the VFS of SQLite."""
        return pathname in self.disk.files

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """See the VFS of SQLite."""
        if filename not in self.disk.files:
            raise error(apsw.IOError, apsw.SQLITE_IOERR_DELETE_NOENT)
        self.disk.unlink(filename, dirsync=syncdir)


def error(kind: type[apsw.Error], extended: int) -> apsw.Error:
    """An error as SQLite itself would have raised it."""
    raised: Any = kind(f"the disk says {extended}")
    raised.result, raised.extendedresult = extended & 0xFF, extended
    assert isinstance(raised, apsw.Error)
    return raised


@contextmanager
def crash_vfs(name: str) -> Iterator[CrashVfs]:
    """A VFS of that name, for the length of a `with` block."""
    vfs = CrashVfs(name)
    try:
        yield vfs
    finally:
        vfs.unregister()


# ------------------------------------------------------------ what is left when the power goes


@dataclass(frozen=True, slots=True)
class Mood:
    """How a disk dies. `keep`: of the unsynced writes; `garble`: of the sectors that lose one; `sizes` and `names`: the share of the
    unsynced changes that is kept."""

    sector: int = 512
    keep: float = 0.0
    garble: float = 0.0
    sizes: float = 0.0
    names: float = 0.0


NOTHING: Final = Mood()
"""only what was synced"""
EVERYTHING: Final = Mood(keep=1.0, sizes=1.0, names=1.0)
"""a process was killed, and the disk did well"""
_SHARES: Final = (0.0, 0.1, 0.5, 0.9, 1.0)


def draw(rng: Random) -> Mood:
    """Any mood."""
    garble = rng.choice((0.0, 0.0, 0.2))
    return Mood(rng.choice((512, 4096)), rng.choice(_SHARES), garble, rng.choice(_SHARES), rng.choice(_SHARES))


@dataclass(slots=True)
class _Platter:
    """One file: what is safe of it, and what happened since, in order."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[Op] = field(default_factory=list)
    size: int = 0
    """as processes see it"""


class Surface:
    """A disk's journal, played from its beginning; see the module."""

    def __init__(self, begun: Mapping[str, bytes]) -> None:
        self._files = {i + 1: _Platter(bytearray(data), [], len(data)) for i, data in enumerate(begun.values())}
        self._names = {name: i + 1 for i, name in enumerate(begun)}
        self._since: list[Op] = []

    def play(self, op: Op) -> None:
        """One more point."""
        if op.what in ("create", "unlink"):
            self._files.setdefault(op.inode, _Platter())
            self._since.append(op)
        elif op.what == "dirsync":
            for one in self._since:
                self._rename(self._names, one)
            self._since = []
        else:
            self._play_file(self._files[op.inode], op)

    def _play_file(self, file: _Platter, op: Op) -> None:
        if op.what == "sync":
            if file.since:
                file.safe = _all(file)
            file.since = []
        elif op.what == "badsync":
            file.since = []  # clean for the kernel, and not on the platter
        else:
            file.since.append(op)
            file.size = op.at if op.what == "truncate" else max(file.size, op.at + len(op.data))

    @staticmethod
    def _rename(names: dict[str, int], op: Op) -> None:
        if op.what == "create":
            names[op.name] = op.inode
        elif names.get(op.name) == op.inode:
            del names[op.name]

    def left(self, rng: Random, mood: Mood) -> dict[str, bytes]:
        """The files after the power went now."""
        names = dict(self._names)
        for name in dict.fromkeys(op.name for op in self._since):
            changes = [op for op in self._since if op.name == name]
            for op in changes[: _share(rng, len(changes), mood.names)]:
                self._rename(names, op)
        return {name: _left(self._files[inode], rng, mood) for name, inode in names.items()}


def _share(rng: Random, count: int, share: float) -> int:
    """How many of the first so many are kept."""
    return sum(rng.random() < share for _ in range(count)) if 0 < share < 1 else int(count * share)


def _all(file: _Platter) -> bytearray:
    data = file.safe
    for op in file.since:
        _put(data, op)
    data.extend(bytes(max(0, file.size - len(data))))
    return data


def _put(data: bytearray, op: Op) -> None:
    if op.what == "truncate":
        del data[op.at :]
        return
    if len(data) < op.at:
        data.extend(bytes(op.at - len(data)))
    data[op.at : op.at + len(op.data)] = op.data


def _left(file: _Platter, rng: Random, mood: Mood) -> bytes:
    if not file.since:
        return bytes(file.safe)
    if mood.keep == 1.0 and mood.sizes == 1.0:
        return bytes(_all(_Platter(bytearray(file.safe), file.since, file.size)))
    if mood.keep == mood.sizes == mood.garble == 0.0:
        return bytes(file.safe)
    size = _size(file, rng, mood)
    data = bytearray(file.safe)
    data.extend(bytes(max(0, max(op.at + len(op.data) for op in file.since) - len(data))))
    for versions in _sectors(file, mood.sector):
        kept = _share(rng, len(versions), mood.keep)
        for start, part in versions[:kept]:
            data[start : start + len(part)] = part
        if kept < len(versions) and rng.random() < mood.garble:
            start, part = versions[kept]
            data[start : start + len(part)] = rng.randbytes(len(part))
    del data[size:]
    return bytes(data)


def _size(file: _Platter, rng: Random, mood: Mood) -> int:
    sizes = [len(file.safe)]
    for op in file.since:
        now = op.at if op.what == "truncate" else max(sizes[-1], op.at + len(op.data))
        if now != sizes[-1]:
            sizes.append(now)
    return sizes[_share(rng, len(sizes) - 1, mood.sizes)]


def _sectors(file: _Platter, sector: int) -> list[list[tuple[int, bytes]]]:
    """Per sector what was written into it since the last sync, in order: (where, bytes). A truncation writes zeros beyond."""
    touched: dict[int, list[tuple[int, bytes]]] = {}
    for op in file.since:
        if op.what == "truncate":
            for at in [at for at in touched if at + sector > op.at]:
                start = max(at, op.at)
                touched[at].append((start, bytes(at + sector - start)))
            continue
        end = op.at + len(op.data)
        for at in range(op.at - op.at % sector, end, sector):
            a, b = max(at, op.at), min(at + sector, end)
            touched.setdefault(at, []).append((a, op.data[a - op.at : b - op.at]))
    return list(touched.values())
