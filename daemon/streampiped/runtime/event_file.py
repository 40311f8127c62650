"""The event file: JSON lines, appended by one writer, bounded by rotation, readable from the end.

`events.jsonl` is the newest; `events.jsonl.1`, `.2` ... are older. A line is in the file whole or not at all.
Nothing is fsynced: a log that survives a power cut is the journal's work, and an fsync would stall the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

FILE_NAME: Final = "events.jsonl"
FILE_MODE: Final = 0o640  # the group reads, as with the control socket
READ_BLOCK_BYTES: Final = 64 << 10  # one step backwards; a page of `logs` lies within one or two

_HEAD = re.compile(rb'\{"ts":([0-9.eE+]*),"level":"(\w+)","event":"[^"]*","stage":"((?:[^"\\]|\\.)*)"')


class EventFile:
    """Appends lines to `directory/events.jsonl`; `files_kept` older files of `file_bytes_max` bytes stay."""

    def __init__(self, directory: Path, *, file_bytes_max: int, files_kept: int) -> None:
        self.path = directory / FILE_NAME
        self._bytes_max = file_bytes_max
        self._kept = files_kept
        self._fd = -1
        self._inode = (0, 0)

    def append(self, line: bytes) -> None:
        """Write one line, or several as one. Raises OSError (a full disk, a directory that is gone), and then nothing
        of it is in the file; the next call tries anew."""
        try:
            self._append(line)
        except OSError:
            self.close()  # look at the path again next time: the directory may have come back
            raise

    def files(self) -> list[Path]:
        """Those that exist, newest first."""
        older = (self.path.with_name(f"{FILE_NAME}.{n}") for n in range(1, self._kept + 1))
        return [path for path in (self.path, *older) if path.exists()]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        size = self._ready_size()
        if size and size + len(line) > self._bytes_max:
            self._rotate()
            size = self._ready_size()
        if os.write(self._fd, line) < len(line):
            with contextlib.suppress(OSError):  # else the next open closes the torn line with a newline
                os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _ready_size(self) -> int:
        """The size of the file at the path, which is open afterwards. Looking at every write (one stat, 1 us) means
        that an operator may delete, move or truncate the file at any time."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
            if self._fd >= 0 and (found.st_dev, found.st_ino) == self._inode:
                return found.st_size
        self.close()
        return self._open()

    def _open(self) -> int:
        """Open the file and give its size; a torn last line, left by a killed writer, is closed with a newline."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, FILE_MODE)
        found = os.fstat(self._fd)
        self._inode = (found.st_dev, found.st_ino)
        if found.st_size and os.pread(self._fd, 1, found.st_size - 1) != b"\n":
            os.write(self._fd, b"\n")
            return found.st_size + 1
        return found.st_size

    def _rotate(self) -> None:
        """Every file one number up, the oldest away. Readers hold on to what they have open."""
        self.close()
        if not self._kept:
            os.unlink(self.path)
            return
        for n in range(self._kept - 1, -1, -1):
            older = self.path.with_name(f"{FILE_NAME}.{n}") if n else self.path
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, self.path.with_name(f"{FILE_NAME}.{n + 1}"))


def lines_backwards(path: Path, bytes_max: int) -> Iterator[bytes]:
    """The whole lines of the file, newest first, from its last `bytes_max` bytes. A file that cannot be read
    is empty; a line still being written at the end is left out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        end = os.fstat(fd).st_size
        stop = max(0, end - bytes_max)
        rest, whole = b"", False
        while end > stop:
            start = max(stop, end - READ_BLOCK_BYTES)
            lines = (os.pread(fd, end - start, start) + rest).split(b"\n")
            rest, end = lines[0], start
            for line in reversed(lines[1:]):
                if whole and line:
                    yield line
                whole = True
        if stop == 0 and whole and rest:
            yield rest
    finally:
        os.close(fd)


class Head(NamedTuple):
    """Of an event: what it is chosen by."""

    level: str
    stage: str
    ts: float


def head_of(line: bytes) -> Head | None:
    """The head of a line without parsing it as JSON, which is 10 times dearer; None when it is no event."""
    found = _HEAD.match(line)
    if found is None:
        return None
    try:
        return Head(found[2].decode(), found[3].decode("utf-8", "replace"), float(found[1]))
    except ValueError:
        return None
