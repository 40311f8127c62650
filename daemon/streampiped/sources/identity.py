"""Which file a position belongs to: files are renamed, copied and truncated, so a path alone does not say.

A file is known by a hash of its first bytes and of the last ones that were read. Device numbers change over a reboot
and inodes with a copy, therefore content decides; an inode is also used again by the next file created after a
deletion, therefore it decides only where nothing had been read, or no more than several files begin with. The first
bytes alone do not tell an export that was made anew, with the same beginning and other records behind it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampiped.errors import SourceError
from streampiped.stages.base import State

TAIL_BYTES: Final = 4096  # before the offset; one page to read
HEAD_BYTES: Final = 4096  # enough to reach beyond a header that every rotated file repeats; one page to read
ROTATED_MAX: Final = 1000  # siblings that are looked at, newest first; logrotate keeps tens

_ROTATED = re.compile(r"\.\d+|-\d{8}(-\d+)?")  # logrotate: NAME.1 or, with dateext, NAME-20260131


@dataclass(frozen=True, slots=True)
class Identity:
    """`head` is the hex hash of the first `head_bytes` bytes, fewer than HEAD_BYTES while the file was shorter; `tail`
    that of the last TAIL_BYTES before an offset, empty when they are not known."""

    device: int
    inode: int
    head_bytes: int
    head: str
    tail: str = ""

    @classmethod
    def of(cls, fd: int, head: bytes, offset: int = 0) -> Identity:
        """Of the open file whose first bytes were `head`, read up to `offset`. One that was truncated meanwhile is
        still known by its beginning: what was copied away before has it."""
        status = os.fstat(fd)
        is_whole = offset and os.pread(fd, len(head), 0) == head
        return cls(status.st_dev, status.st_ino, len(head), _hash(head), _tail(fd, offset) if is_whole else "")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Identity:
        return cls(state["device"], state["inode"], state["head_bytes"], state["head"], state.get("tail", ""))

    def to_state(self) -> State:
        state = {"device": self.device, "inode": self.inode, "head_bytes": self.head_bytes, "head": self.head}
        return {**state, "tail": self.tail}

    def matches(self, fd: int, offset: int) -> bool:
        """Whether the open file is this one and still holds what was read up to `offset`."""
        if not self.head_bytes:  # it was empty: nothing was read, only the inode can tell
            return self.is_inode_of(fd)
        if os.fstat(fd).st_size < offset or _hash(os.pread(fd, self.head_bytes, 0)) != self.head:
            return False
        return not self.tail or _tail(fd, offset) == self.tail

    def is_inode_of(self, fd: int) -> bool:
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


def open_read(path: Path) -> int:
    """A descriptor for reading. Raises FileNotFoundError as it is, and SourceError for everything else."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from error


def find(path: Path, wanted: Identity, offset: int) -> int:
    """Open the file that `wanted` is, at `path` or where it was rotated to. Raises SourceError.

    Where little had been read, a header perhaps that every rotated file repeats, several fit: then the inode decides,
    and where none has it (they were copied), nobody can."""
    found = _matching((path, *rotated(path)[::-1]), wanted, offset)
    own = [fd for fd in found.values() if wanted.is_inode_of(fd)]
    if own or len(found) == 1:
        chosen = own[0] if own else next(iter(found.values()))
        _close(fd for fd in found.values() if fd != chosen)
        return chosen
    _close(found.values())
    if found:
        raise SourceError(
            f"{path}: of what was being read only {offset} bytes are known, and {', '.join(n.name for n in found)} all "
            "begin with them. Move away those that have been read to their end; or start afresh"
        )
    if not wanted.head_bytes and path.exists():
        return open_read(path)  # nothing had been read of a file that was empty; what is there now follows it
    raise SourceError(
        f"{path} is not the file that was being read (at least {offset} bytes, inode {wanted.inode}, the same up to "
        f"there), nor is one of its rotated names ({path.name}.1, {path.name}-YYYYMMDD). Put it back, uncompressed; "
        "or start afresh"
    )


def find_copy(path: Path, wanted: Identity, offset: int) -> int | None:
    """Open the newest rotated file that holds what `wanted` held before it was truncated; None: there is none."""
    found = _matching(rotated(path)[::-1], wanted, offset)
    newest = next(iter(found.values()), None)
    _close(fd for fd in found.values() if fd != newest)
    return newest


def _matching(candidates: Iterable[Path], wanted: Identity, offset: int) -> dict[Path, int]:
    """Descriptors of the files that still hold what was read."""
    found: dict[Path, int] = {}
    for candidate in candidates:
        with contextlib.suppress(FileNotFoundError):
            fd = open_read(candidate)
            if wanted.matches(fd, offset):
                found[candidate] = fd
            else:
                os.close(fd)
    return found


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def successor(path: Path, fd: int) -> int | None:
    """Open the file that follows the open one in the order of rotation; None: the open one is still at `path`, or
    nothing has come after it yet."""
    files = list(_existing((*rotated(path), path)))
    own = os.fstat(fd)
    keys = [(status.st_dev, status.st_ino) for _, status in files]
    if (own.st_dev, own.st_ino) in keys:
        files = files[keys.index((own.st_dev, own.st_ino)) + 1 :]
    else:  # deleted meanwhile: what follows was written to later
        files = [(name, status) for name, status in files if status.st_mtime_ns >= own.st_mtime_ns]
    for name, status in files:
        if status.st_size or name != path:
            with contextlib.suppress(FileNotFoundError):
                return open_read(name)
        # An empty file at `path` may be one whose writer has not yet let go of the old one; what it still writes
        # there must come first. With its first byte in the new file it has moved over.
    return None


def rotated(path: Path) -> list[Path]:
    """The rotated siblings of `path`, oldest first."""
    names = [p for p in path.parent.glob(f"{_escaped(path.name)}*") if _ROTATED.fullmatch(p.name[len(path.name) :])]
    dated = [(status.st_mtime_ns, name) for name, status in _existing(tuple(names))]
    return [name for _, name in sorted(dated)[-ROTATED_MAX:]]


def _existing(paths: tuple[Path, ...]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat()


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)


def _tail(fd: int, offset: int) -> str:
    """Empty when the file does not reach so far."""
    start = max(0, offset - TAIL_BYTES)
    data = os.pread(fd, offset - start, start)
    return _hash(data) if len(data) == offset - start else ""


def _hash(head: bytes) -> str:
    return hashlib.blake2b(head, digest_size=16).hexdigest()
