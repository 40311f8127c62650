"""inotify(7): be woken when a file grows or a directory changes, instead of looking again and again.

Python has no binding of its own; these are the three calls of libc by ctypes. The descriptor is non-blocking
and close-on-exec, and becomes readable when `drain` would return something.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Final

IN_MODIFY: Final = 0x0002
IN_ATTRIB: Final = 0x0004
IN_CLOSE_WRITE: Final = 0x0008
IN_MOVED_FROM: Final = 0x0040
IN_MOVED_TO: Final = 0x0080
IN_CREATE: Final = 0x0100
IN_DELETE: Final = 0x0200
IN_DELETE_SELF: Final = 0x0400
IN_MOVE_SELF: Final = 0x0800
IN_Q_OVERFLOW: Final = 0x4000
"""The kernel dropped events: whoever follows a file must look at it as if everything had happened."""
IN_IGNORED: Final = 0x8000
"""The watch is gone (the file was deleted, or `unwatch`)."""

READ_BYTES: Final = 64 << 10  # per read; one event is at most 16 + 256 bytes, so this takes hundreds at once

_HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Change:
    """One event. `watch` is what `Inotify.watch` returned (-1 with IN_Q_OVERFLOW); `name` is the entry's name in
    a watched directory, else empty."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance. Raises OSError, also when the user has no instances (EMFILE) or watches (ENOSPC) left."""

    def __init__(self) -> None:
        self.fd = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def watch(self, path: str | os.PathLike[str], mask: int) -> int:
        """Watch a file or directory and return the watch's number. The same inode again gives the same number,
        with the new mask."""
        raw = os.fsencode(path)
        return _checked(_LIBC.inotify_add_watch(self.fd, raw, ctypes.c_uint32(mask)), os.fsdecode(raw))

    def unwatch(self, watch: int) -> None:
        """Stop watching; a watch that is gone already is no error."""
        _LIBC.inotify_rm_watch(self.fd, watch)

    def drain(self) -> list[Change]:
        """Everything that has happened since the last call; empty when there was nothing."""
        changes: list[Change] = []
        while True:
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return changes
            changes += _parse(data)

    def close(self) -> None:
        """Let go of the descriptor; twice is no error."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _parse(data: bytes) -> list[Change]:
    changes: list[Change] = []
    at = 0
    while at < len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        changes.append(Change(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length
    return changes


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
