"""Which file a position belongs to, by content: a path does not say, for files are renamed, copied and truncated.

A file is known by a hash of the first bytes that were read and of the last ones. Device numbers change over a reboot
and inodes with a copy; an inode is also used again by the next file created after a deletion. The first bytes alone do
not tell an export that was made anew, with the same beginning and other records behind it. What files that begin alike
cannot tell (a header that every one of them repeats) the order of rotation does, see `rotation.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampiped.errors import SourceError
from streampiped.stages.base import State

TAIL_BYTES: Final = 4096  # before the offset; one page to read
HEAD_BYTES: Final = 4096  # enough to reach beyond a header that every rotated file repeats; one page to read


@dataclass(frozen=True, slots=True)
class Identity:
    """`head` is the hex hash of the first `head_bytes` bytes, fewer than HEAD_BYTES where the offset is smaller; `tail`
    that of the last TAIL_BYTES before the offset, empty when they are not known."""

    device: int
    inode: int
    head_bytes: int
    head: str
    tail: str = ""

    @classmethod
    def of(cls, fd: int, head: bytes, tail: str) -> Identity:
        """Of the open file that began with `head` when it was read; it may have been truncated since."""
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, len(head), hash_of(head), tail)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Identity:
        return cls(state["device"], state["inode"], state["head_bytes"], state["head"], state.get("tail", ""))

    def to_state(self) -> State:
        state = {"device": self.device, "inode": self.inode, "head_bytes": self.head_bytes, "head": self.head}
        return {**state, "tail": self.tail}

    def is_held_by(self, fd: int, offset: int) -> bool:
        """Whether the open file holds what was read up to `offset`; every file holds nothing."""
        if os.fstat(fd).st_size < offset or hash_of(os.pread(fd, self.head_bytes, 0)) != self.head:
            return False
        return not self.tail or tail_of(fd, offset) == self.tail

    def is_inode_of(self, fd: int) -> bool:
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


@dataclass(frozen=True, slots=True)
class Mark:
    """A whole file, to know it again by: hashes of its first HEAD_BYTES and its last TAIL_BYTES. They are empty when it
    could not be read; then its inode must do."""

    size: int
    inode: int
    head: str
    tail: str

    @classmethod
    def of(cls, fd: int) -> Mark:
        status = os.fstat(fd)
        head = hash_of(os.pread(fd, min(status.st_size, HEAD_BYTES), 0))
        return cls(status.st_size, status.st_ino, head, tail_of(fd, status.st_size))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Mark:
        return cls(state["size"], state["inode"], state["head"], state["tail"])

    def to_state(self) -> State:
        return {"size": self.size, "inode": self.inode, "head": self.head, "tail": self.tail}

    @property
    def content(self) -> tuple[int, str, str]:
        return self.size, self.head, self.tail

    def begins(self, fd: int) -> bool:
        """Whether the open file is at least as long, and begins with all of this one."""
        if os.fstat(fd).st_size < self.size or hash_of(os.pread(fd, min(self.size, HEAD_BYTES), 0)) != self.head:
            return False
        return tail_of(fd, self.size) == self.tail

    def is_part_of(self, head: bytes) -> bool:
        """Whether this is a file that holds nothing but a beginning of `head`."""
        return self.size <= len(head) and hash_of(head[: self.size]) == self.head


def open_read(path: Path) -> int:
    """A descriptor for reading. Raises FileNotFoundError as it is, and SourceError for everything else."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from error


def tail_of(fd: int, offset: int) -> str:
    """Of the last TAIL_BYTES before `offset`; empty when the file does not reach so far."""
    start = max(0, offset - TAIL_BYTES)
    data = os.pread(fd, offset - start, start)
    return hash_of(data) if len(data) == offset - start else ""


def hash_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
