"""Following the event file across its rotations, with a position that survives anything.

The position names a file by what it *begins with* (its first line carries a time in microseconds and a pid), not by
its inode: a file system gives the inode of a deleted log file to the next one, and a restored backup gives new ones.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streampiped.sources.inotify import (
    IN_CREATE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_TO,
    Inotify,
)

HEAD_BYTES: Final = 128  # of a file's first line, kept to know it again: time, level, event, stage and pid
DONE_MAX: Final = 32  # files remembered as read to their end; more than anybody keeps
READ_BYTES: Final = 256 << 10  # per step: some 1300 lines, 30 ms of work
SCANS_MAX: Final = 8  # until two in a row agree; a rotation takes some 50 us

_LOST: Final = IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF


@dataclass(frozen=True, slots=True)
class Done:
    """Of the file that begins with `head` everything before byte `end` is handled, and no more of it was to come."""

    head: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Position:
    """Everything before byte `offset` of the file that begins with `head` has been handled, and of those that are
    `done`, the last one last."""

    head: bytes
    offset: int
    done: tuple[Done, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines, and the position after them. `torn` counts pieces that never became a line, `gaps` the places
    where files may be missing in between."""

    lines: tuple[bytes, ...]
    position: Position
    torn: int
    gaps: int


class EventFollower:
    """Reads `path` and its older files `path.1`, `path.2` ... in the order in which they were written.

    `peek` gives what comes next, `advance` says that it is handled; between both the caller commits. `fd` becomes
    readable when `peek` may have more (None: no inotify to be had, ask now and then).
    """

    def __init__(self, path: Path, position: Position | None) -> None:
        self._path = path
        self._fd = -1
        self.go_to(position)
        self._watch = -1
        self._inotify: Inotify | None = None
        with contextlib.suppress(OSError):  # the user's inotify instances may be used up
            self._inotify = Inotify()

    @property
    def fd(self) -> int | None:
        return self._inotify.fd if self._inotify else None

    def go_to(self, position: Position | None) -> None:
        """Go on from there; None: from the oldest line there is. `fd` stays the same."""
        self._become(-1)
        self._head = position.head if position else b""
        self._offset = position.offset if position else 0
        self._done = position.done if position else ()
        self._torn = self._gaps = 0

    def drain(self) -> bool:
        """Take what inotify has to say. False: the directory is not watched at present, ask now and then."""
        if self._inotify is None:
            return False
        if any(change.mask & _LOST and change.watch == self._watch for change in self._inotify.drain()):
            self._inotify.unwatch(self._watch)
            self._watch = -1
        if self._watch < 0:
            mask = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF
            with contextlib.suppress(OSError):
                self._watch = self._inotify.watch(self._path.parent, mask)
        return self._watch >= 0

    def peek(self) -> Chunk | None:
        """The next whole lines; None when there are none yet."""
        if self._fd < 0 and not self._find():
            return None
        while True:
            if self._offset and not _begins(self._fd, self._head):  # emptied, and perhaps refilled beyond where we are
                self._truncated(0)
            if not self._offset:
                self._recognise()
            data = os.pread(self._fd, READ_BYTES, self._offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) == READ_BYTES:
                return self._chunk(data, end)
            if not self._switch(len(data)):
                return None

    def advance(self, chunk: Chunk) -> None:
        """`chunk` is handled for good."""
        self._head, self._offset = chunk.position.head, chunk.position.offset
        self._torn = self._gaps = 0

    def close(self) -> None:
        self._become(-1)
        if self._inotify:
            self._inotify.close()

    def _chunk(self, data: bytes, end: int) -> Chunk:
        """The whole lines in `data`; without any it is a piece of a line beyond all limits, and taken as torn."""
        head = self._head if self._offset else data[: data.find(b"\n") + 1 or HEAD_BYTES][:HEAD_BYTES]
        lines = tuple(line for line in data[:end].split(b"\n") if line)
        position = Position(head, self._offset + (end or len(data)), self._done)
        return Chunk(lines, position, self._torn + (not end), self._gaps)

    def _find(self) -> bool:
        """Open the file of the position, the newest of its copies; if it is gone, the oldest that is not done. False:
        there is no file."""
        files = self._scan()
        if not files:
            return False
        mine = [fd for fd in files if self._head and _begins(fd, self._head)]
        chosen = max(mine, key=lambda fd: (os.fstat(fd).st_size >= self._offset, files.index(fd)), default=-1)
        if chosen < 0:
            chosen = self._oldest_new(files)
            self._gaps += bool(self._head)
            self._leave(self._offset)
        _close_all(fd for fd in files if fd != chosen)
        self._become(chosen)
        return True

    def _switch(self, unread: int) -> bool:
        """At the end of the open file: go on to the next one, if it was rotated or truncated. `unread` bytes at its
        end are no whole line."""
        here = os.fstat(self._fd)
        if here.st_size < self._offset:
            self._truncated(here.st_size)
            return True
        with contextlib.suppress(FileNotFoundError):
            newest = os.stat(self._path)
            if (newest.st_dev, newest.st_ino) != (here.st_dev, here.st_ino):
                return self._next_file(here, unread)
        return False

    def _truncated(self, size: int) -> None:
        """The open file was cut: to its handled beginning, or to nothing and written anew."""
        self._gaps += 1
        if _begins(self._fd, self._head):
            self._offset = size
        else:
            self._leave(self._offset)

    def _next_file(self, here: os.stat_result, unread: int) -> bool:
        if os.fstat(self._fd).st_size > self._offset + unread:
            return True  # written to between our last read and its rotation: read on first
        files = self._scan()
        known = [(found.st_dev, found.st_ino) for found in map(os.fstat, files)]
        mine = (here.st_dev, here.st_ino)
        if not files or known[-1] == mine:  # the newest went away again while we looked
            _close_all(files)
            return False
        chosen = self._oldest_new(files[known.index(mine) + 1 :] if mine in known else files)
        if not (self._head and _begins(chosen, self._head)):  # a copy of ours is read on where ours ended
            self._torn += bool(unread)
            self._gaps += mine not in known and len(files) > 1  # others may have come and gone in between
            self._leave(self._offset + unread)
        _close_all(fd for fd in files if fd != chosen)
        self._become(chosen)
        return True

    def _leave(self, end: int) -> None:
        """Nothing more is to come of the file that begins with `head`, which was looked at up to `end`. Should a copy
        of it ever be longer, it is read on there."""
        if self._head:
            end = max([end, *(each.end for each in self._done if each.head == self._head)])
            others = (each for each in self._done if each.head != self._head)
            self._done = (*others, Done(self._head, end))[-DONE_MAX:]
        self._head, self._offset = b"", 0

    def _recognise(self) -> None:
        """A file that is to be read from its beginning may be a copy of one that is done: put back at the log's own
        place by an operator, and written on there. It counts from where that ended, or from its own end if it is cut
        shorter."""
        if (known := self._known(self._fd)) is not None:
            self._head, self._offset = known.head, min(known.end, os.fstat(self._fd).st_size)

    def _known(self, fd: int) -> Done | None:
        return next((each for each in self._done if _begins(fd, each.head)), None)

    def _oldest_new(self, files: list[int]) -> int:
        return next((fd for fd in files if self._has_more(fd)), files[-1])

    def _has_more(self, fd: int) -> bool:
        """Neither a copy of a file that is done, nor one of ours, that ends where that was left or before."""
        if self._head and _begins(fd, self._head):
            return os.fstat(fd).st_size > self._offset
        known = self._known(fd)
        return known is None or os.fstat(fd).st_size > known.end

    def _scan(self) -> list[int]:
        """Descriptors of the files there are, oldest first. A listing made while somebody renames may show a file
        twice or not at all, so two in a row must agree."""
        before = self._list()
        for _ in range(SCANS_MAX):
            after = self._list()
            if [inode for inode, _ in before] == [inode for inode, _ in after]:
                break
            _close_all(fd for _, fd in before)
            before = after
        else:
            after = []
        _close_all(fd for _, fd in after)
        return [fd for _, fd in before]

    def _list(self) -> list[tuple[int, int]]:
        """(inode, descriptor), oldest first."""
        name = re.compile(re.escape(self._path.name) + r"(?:\.(\d+))?")
        try:
            found = [match for entry in os.listdir(self._path.parent) if (match := name.fullmatch(entry))]
        except OSError:
            return []
        result: list[tuple[int, int]] = []
        for match in sorted(found, key=lambda m: -int(m[1] or 0)):
            with contextlib.suppress(OSError):
                fd = os.open(self._path.with_name(match[0]), os.O_RDONLY | os.O_CLOEXEC)
                result.append((os.fstat(fd).st_ino, fd))
        return result

    def _become(self, fd: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd


def _begins(fd: int, head: bytes) -> bool:
    return os.pread(fd, len(head), 0) == head


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
