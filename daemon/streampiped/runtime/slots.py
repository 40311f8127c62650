"""Memory that stages share: made by the supervisor, written by one stage, seen by those behind it."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Final

RETURN: Final = struct.Struct("<HhI")
"""What a reader says to the owner: slot, by how many holds more (or fewer), generation. Written whole or not at all."""
RETURNS_READ: Final = 4096  # of them in one read, half of what a pipe holds


class SharedMemory:
    """Of one owner in one generation, and the pipe on which all who read it say what they hold; the supervisor's end.

    One pipe for all of them: who passes a slot on to several says so before the first of those can give it back, and
    the owner has to hear it in that order."""

    def __init__(self, size: int) -> None:
        self.memory = os.memfd_create("streampipe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.memory, size)  # takes no memory yet
            # a file that shrinks below its mapping is a SIGBUS for everybody who looks at it
            fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.returned, self.returning = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            os.close(self.memory)
            raise

    def close(self) -> None:
        """Stages that have mapped it keep the memory until they let go."""
        for fd in (self.memory, self.returned, self.returning):
            os.close(fd)


def mapped(fd: int, *, writable: bool) -> mmap.mmap:
    """The whole memory; the descriptor is not needed any more. Unmapped when nobody has a view of it."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, protection)


def read_returns(fd: int) -> list[tuple[int, int, int]]:
    """What readers have said since: (slot, holds, generation)."""
    try:
        return list(RETURN.iter_unpack(os.read(fd, RETURN.size * RETURNS_READ)))
    except BlockingIOError:
        return []


def returns_unread(fd: int) -> int:
    """How many of them the pipe has room for."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // RETURN.size


def give_back(fd: int, slot: int, holds: int, generation: int) -> None:
    """Say to the owner by how much the holds of a slot change."""
    os.write(fd, RETURN.pack(slot, holds, generation))
