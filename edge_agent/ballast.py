"""Room set aside on the disk: a file that is really allocated, and let go of when the disk is full.

On a full disk nothing can be deleted either: SQLite writes a deletion into its log first, and a checkpoint makes the file longer. What the
ballast gives back is enough for both, and for the records of what was let go. It is taken again once there is room.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

Allocate = Callable[[int, int, int], None]
"""(descriptor, offset, bytes): as `os.posix_fallocate`"""


def free_bytes(folder: Path) -> int:
    """What a process without privileges may still write to the disk of a folder."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


class Ballast:
    """The file at `path`, of `size` bytes; 0: there is none. Never raises for want of room: it is held, or it is not."""

    def __init__(self, path: Path, size: int, *, allocate: Allocate = os.posix_fallocate) -> None:
        self.path, self.size, self._allocate = path, size, allocate
        self.problem = ""
        """why it could not be taken the last time"""

    @property
    def held(self) -> bool:
        """Does the file stand there in its full size, with its blocks?"""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return 0 < self.size == stat.st_size and stat.st_blocks * 512 >= self.size

    def hold(self) -> bool:
        """Take the room, on disk; True when it is held. A file of another size, from another setting, goes first."""
        if not self.size:
            self.release()
            return False
        if self.held:
            return True
        self.release()
        try:
            self._make()
        except OSError as error:
            self.problem = "the disk has no room for it" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror or error)
            self.release()
            return False
        self.problem = ""
        return self.held

    def _make(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._allocate(fd, 0, self.size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Give the room back; True when there was any."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            self.problem = str(error.strerror or error)
            return False
        return True
