"""A disk that tells what was written from what is durable, and that can refuse.

Everybody sees what was written (the page cache). A power loss keeps what was fsynced, and of everything else a part by
chance: each file's content as a whole, cut off, as it was, or not at all; each entry of a directory for itself. After
an fsync that failed a second one of the same file succeeds and makes nothing durable, as on Linux.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import TypeAlias


class Killed(BaseException):
    """The process that was about to touch the disk has been killed instead."""

    reason = "killed by SIGKILL"


class File:
    """An inode."""

    __slots__ = ("data", "durable", "lost")

    def __init__(self) -> None:
        self.data = b""
        self.durable: bytes | None = None
        self.lost = False


Change: TypeAlias = tuple[tuple[str, File | None], ...]
"""Entries of one directory that change at once: path -> file, or None when it goes."""


class Fuse:
    """Whoever carries it is killed at the n-th touch of the disk; 0: not at all."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0

    def burn(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                raise Killed


class Disk:
    """Paths are `directory/name`. Every method that changes something takes the fuse of who does it."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._files: dict[str, File] = {}
        self._durable: dict[str, File] = {}
        self._pending: dict[str, list[Change]] = {}
        self._refusals = 0
        self._refusal = 0.0
        self._only = ""
        self.on_change: Callable[[str], None] | None = None
        """Told the path after every change of what is visible."""

    # refusing

    def refuse(self, count: int, share: float, only: str = "") -> None:
        """Of the next `count` touches (of paths that contain `only`) a share fails."""
        self._refusals, self._refusal, self._only = count, share, only

    def heal(self) -> None:
        self._refusals = 0

    def _touch(self, fuse: Fuse, path: str, code: int) -> None:
        if fuse.left:
            fuse.burn()
        if self._refusals and self._only in path:
            self._refusals -= 1
            if self._random.random() < self._refusal:
                raise OSError(code, os.strerror(code), path)

    # what programs do

    def write(self, fuse: Fuse, path: str, data: bytes) -> None:
        """Make the file if it is not there, and let `data` be its content."""
        self._touch(fuse, path, errno.ENOSPC)
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = File()
            self._enter(((path, file),))
        file.data = data

    def fsync(self, fuse: Fuse, path: str) -> None:
        file = self._files[path]
        try:
            self._touch(fuse, path, errno.EIO)
        except OSError:
            file.lost = True
            raise
        if not file.lost:
            file.durable = file.data

    def rename(self, fuse: Fuse, old: str, new: str) -> None:
        self._touch(fuse, new, errno.EIO)
        file = self._files[new] = self._files.pop(old)
        self._enter(((old, None), (new, file)))
        if self.on_change is not None:
            self.on_change(new)

    def unlink(self, fuse: Fuse, path: str) -> None:
        self._touch(fuse, path, errno.EIO)
        if self._files.pop(path, None) is not None:
            self._enter(((path, None),))
            if self.on_change is not None:
                self.on_change(path)

    def sync(self, fuse: Fuse, directory: str) -> None:
        """fsync of a directory."""
        self._touch(fuse, directory + "/", errno.EIO)
        for change in self._pending.pop(directory, ()):
            self._durable.update(change)  # type: ignore[arg-type]  # an entry that is gone is None here

    def read(self, path: str) -> bytes | None:
        file = self._files.get(path)
        return file.data if file is not None else None

    def list(self, directory: str) -> list[str]:
        """Names, in order."""
        skip = len(directory) + 1
        return sorted(path[skip:] for path in self._files if path.startswith(directory + "/"))

    def _enter(self, change: Change) -> None:
        self._pending.setdefault(change[0][0].split("/")[0], []).append(change)

    # what the world does

    def power_loss(self) -> None:
        """Afterwards everything that is there is durable."""
        chance = self._random.random
        for changes in self._pending.values():
            for change in changes:
                if chance() < 0.5:
                    self._durable.update(change)  # type: ignore[arg-type]  # as above
        self._pending.clear()
        self._files = {path: file for path, file in self._durable.items() if file is not None}
        self._durable = dict(self._files)
        for file in self._files.values():
            if file.durable is not file.data:
                kept = self._random.choice((file.durable or b"", file.data, file.data[: len(file.data) // 2]))
                file.data = kept
            file.durable, file.lost = file.data, False
