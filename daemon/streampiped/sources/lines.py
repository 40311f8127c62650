"""Lines of a file by byte offset, bounded or followed across rotation and truncation.

A *row* is the number of a line over all files that were read, header lines not counted; a *position* is the file's
identity, the marks of the files before it, the offset of the first line not taken, and its row. Lines of two files
never stand in the buffer together, so the offset is always one of the file that is open.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from streampiped.errors import SourceError
from streampiped.sources.identity import HEAD_BYTES, TAIL_BYTES, Identity, Mark, hash_of, tail_of
from streampiped.sources.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from streampiped.sources.rotation import at_home, begin, find, find_copy, first_after, listing, marked, marks, successor
from streampiped.stages.base import Emit, State

CHUNK_BYTES: Final = 256 << 10  # per read: a few thousand lines, and little to throw away at a reset
LINE_BYTES_MAX: Final = 1 << 20
"""A longer line is skipped and rejected: without a bound, a file without newlines would fill the memory. Not smaller
than CHUNK_BYTES: then only a line that began in an earlier chunk can be too long."""
TOO_LONG: Final = b"\xff"
"""Stands for a line that was too long. It is no UTF-8, so that every parser rejects it in its own way."""


class LineFile:
    """The lines of one path. `fill`, then `peek` or `take`; `seek` first."""

    def __init__(self, path: Path, *, follow: bool, emit: Emit) -> None:
        self._path = path
        self._follow = follow
        self._emit = emit
        self._notify: Inotify | None = None
        self._watch = -1
        self._fd = -1
        self.row = 0
        self.opened = 0  # files so far; another number means another file
        self.offset = 0  # of the first line not taken
        self._read_to = 0
        self._lines: list[bytes] = []
        self._next = 0  # in `_lines`: before it everything is taken
        self._rest = b""  # behind the last newline
        self._dropped = 0  # bytes of a line that became too long
        self._number = 0  # of the first line not taken, counted since the file was opened
        self._odd: dict[int, int] = {}  # line number -> bytes in the file beyond those in the buffer
        self._head = b""  # the first bytes that were read, at most HEAD_BYTES
        self._tail = b""  # the last ones before `offset`, as far as they are known
        self._header_end = 0
        self._torn = False  # the line before `offset` has no newline
        self._finished = False
        self._known: tuple[Mark, ...] | None = None  # of the files before the open one, or before the one to come

    def seek(self, position: State | None) -> None:
        """Go to what `position` returned; None: the first line of the file that is at the path now."""
        self._let_go()
        self.row = int(position["row"]) if position else 0
        self._known = None
        if position is None:
            return
        wanted = None if position["identity"] is None else Identity.from_state(position["identity"])
        if "before" in position:  # an older version has no marks
            known = map(Mark.from_state, position["before"])
            self._known = at_home(self._path, known, wanted.inode if wanted else None)
        if wanted is not None:
            self._go(wanted, int(position["offset"]))

    def position(self) -> State:
        """Opens the file if it is there: who has read nothing of it must know all the same which one it is."""
        if self._fd < 0:
            self._open_first()
        identity = None if self._fd < 0 else self._identity().to_state()
        before = [mark.to_state() for mark in self._marks()]
        return {"identity": identity, "before": before, "offset": self.offset, "row": self.row}

    @property
    def finished(self) -> bool:
        """Nothing will ever be added to the buffer: the end of a file that is not followed."""
        return self._finished

    @property
    def buffered(self) -> int:
        return len(self._lines) - self._next

    def fill(self, limit: int) -> int:
        """Read until `limit` lines are in the buffer or there are no more now; how many can be taken, at most
        `limit`. Raises SourceError."""
        if self.buffered < limit and not self._finished and self._opened():
            del self._lines[: self._next]
            self._next = 0
            while len(self._lines) < limit and self._read_more():
                pass
        return min(limit, self.buffered)

    def peek(self, count: int) -> list[bytes]:
        """The next lines, without their newlines; they stay."""
        return self._lines[self._next : self._next + count]

    def fitting(self, count: int, size: int) -> int:
        """How many of the next `count` lines have no more than `size` bytes; one at least."""
        if self._read_to - self.offset > size:  # else all that is buffered
            for number, line in enumerate(self.peek(count)):
                size -= len(line)
                if size < 0:
                    return max(1, number)
        return count

    def take(self, count: int) -> list[bytes]:
        """The next lines, without their newlines; the position moves behind them."""
        lines = self.peek(count)
        self._skip(lines)
        self.row += len(lines)
        return lines

    def skip_header(self) -> None:
        """Move behind the next line without counting it as a row."""
        self._skip(self.peek(1))
        self._header_end = self.offset

    def wake_fd(self) -> int | None:
        """Readable when the file has grown or the directory has changed; only while following."""
        return self._notify.fd if self._notify else None

    def close(self) -> None:
        self._let_go()
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    # --- one file --------------------------------------------------------------------------------------------------

    def _begin(self, offset: int) -> None:
        """Empty buffers, the next byte to read being at `offset`."""
        self.offset = self._read_to = offset
        self._lines, self._next = [], 0
        self._rest, self._dropped = b"", 0
        self._number, self._odd = 0, {}
        self._head = self._tail = b""
        self._header_end, self._torn = 0, False
        self._finished = False

    def _open(self, fd: int, offset: int) -> None:
        self._let_go()
        self._fd = fd
        self.opened += 1
        self._begin(offset)
        self._head = os.pread(fd, min(offset, HEAD_BYTES), 0)
        self._tail = os.pread(fd, min(offset, TAIL_BYTES), max(0, offset - TAIL_BYTES))
        self._torn = not self._tail.endswith(b"\n") if offset else False

    def _go(self, wanted: Identity, offset: int) -> None:
        while True:
            self._open(find(self._path, wanted, offset, self._known), offset)
            if wanted.is_held_by(self._fd, offset):  # else it was truncated between the look and the reading
                break
        if self._known is None:
            self._known = marks(self._path, listing(self._path), self._fd)

    def _open_first(self) -> bool:
        """Open what is at the path, or what has come since it was not there; False: nothing."""
        if self._known is None:
            fd, self._known = begin(self._path)
        else:
            fd = first_after(self._path, self._known)
        if fd is not None:
            self._open(fd, 0)
        return fd is not None

    def _let_go(self) -> None:
        if self._notify is not None and self._watch >= 0:
            self._notify.unwatch(self._watch)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._watch = -1
        self._begin(0)

    def _opened(self) -> bool:
        """Open what is to be read. A file that is followed may not be there yet."""
        if self._follow:
            self._listen()
        if self._fd < 0 and not self._open_first():
            if not self._follow:
                raise SourceError(f"{self._path} does not exist")
            return False
        return True

    def _listen(self) -> None:
        """Take the wake-ups so far, and be woken by whatever happens after; reading comes after this, so that no
        change falls in between."""
        if self._notify is None:
            self._notify = Inotify()
            try:
                self._notify.watch(self._path.parent, IN_CREATE | IN_MOVED_TO)
            except OSError as error:
                raise SourceError(f"{self._path.parent} cannot be watched: {error.strerror}") from error
        self._notify.drain()
        for path in (f"/proc/self/fd/{self._fd}", self._path) if self._fd >= 0 else (self._path,):
            try:  # both the file being read, wherever it was moved to, and the one that comes after it
                watch = self._notify.watch(path, IN_MODIFY)
            except FileNotFoundError:
                continue
            self._watch = watch if path != self._path else self._watch

    def _read_more(self) -> bool:
        """Put the next bytes into the buffer; False: there is nothing now."""
        chunk = os.pread(self._fd, CHUNK_BYTES, self._read_to)
        if self._follow:  # looked at after reading: what was read before a truncation is right
            if self._is_truncated():
                return self._restart()
            if len(self._head) < HEAD_BYTES and (copy := self._overtaking()) is not None:
                return self._turn_to(copy)
        if chunk:
            if self._torn:
                return self._mend(chunk)
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            self._read_to += len(chunk)
            self._split(chunk)
            return True
        return self._rotate() if self._follow else self._finish()

    def _mend(self, chunk: bytes) -> bool:
        """Bytes behind a line that was taken, or will be, for whole although it had no newline."""
        if self.buffered:
            return False
        if not chunk.startswith(b"\n"):
            raise SourceError(
                f"{self._path}: the line at position {self.row - 1} had no newline and was taken for whole at the end "
                f"of the file; now it goes on with {chunk.splitlines()[0][:40]!r}. A line that is added should begin "
                "behind a newline: take back what was added to the old one, or start afresh"
            )
        self._torn = False
        self._head += b"\n" if len(self._head) < HEAD_BYTES else b""
        self._tail = b""
        self.offset += 1
        self._read_to += 1
        return True

    def _skip(self, lines: list[bytes]) -> None:
        self._next += len(lines)
        self.offset += sum(map(len, lines)) + len(lines)
        odd = [n for n in self._odd if n < self._number + len(lines)]
        for number in odd:
            self.offset += self._odd.pop(number)
        self._number += len(lines)
        self._tail = b"" if odd else (self._tail + _end_of(lines))[-TAIL_BYTES:]

    def _marks(self) -> tuple[Mark, ...]:
        """Of the files before the open one. One that holds no more than the header of this one tells nothing: files
        without a line may stand anywhere, and another of them could be taken for it."""
        header = self._head[: self._header_end]
        return tuple(mark for mark in self._known or () if not mark.is_part_of(header))

    def _identity(self) -> Identity:
        """By what was taken alone: a position must not depend on how much was read ahead."""
        return Identity.of(self._fd, self._head[: self.offset], self._tail_hash())

    def _tail_hash(self) -> str:
        """From what was read, and where that is not kept (a line too long, or without its newline) from the file."""
        if not self.offset:
            return ""
        if len(self._tail) == min(self.offset, TAIL_BYTES):
            return hash_of(self._tail)
        return "" if self._is_truncated() else tail_of(self._fd, self.offset)

    def _split(self, chunk: bytes) -> None:
        parts = (self._rest + chunk).split(b"\n")
        self._rest = parts.pop()
        if parts and (self._dropped or len(parts[0]) > LINE_BYTES_MAX):
            self._odd[self._number + self.buffered] = self._dropped + len(parts[0]) - len(TOO_LONG)
            parts[0] = TOO_LONG
            self._dropped = 0
        self._lines += parts
        if len(self._rest) > LINE_BYTES_MAX:
            self._dropped += len(self._rest)
            self._rest = b""

    def _close_line(self) -> None:
        """The last line has no newline and never will: it is a line all the same, one byte shorter."""
        if self._rest or self._dropped:
            number = self._number + self.buffered
            self._split(b"\n")
            self._odd[number] = self._odd.get(number, 0) - 1
            self._torn = True

    def _finish(self) -> bool:
        if os.fstat(self._fd).st_size < self._read_to:
            raise SourceError(f"{self._path} was truncated while it was being read; `follow = true` expects that")
        self._close_line()
        self._finished = True
        return False

    # --- following -------------------------------------------------------------------------------------------------

    def _rotate(self) -> bool:
        """At the end of the open file: go on to the next one, once every line of this one was taken."""
        if self.buffered:
            return False
        following = successor(self._path, self._fd, self._marks())
        if following is None:
            return False
        if os.fstat(self._fd).st_size > self._read_to:  # written to between the last read and the look at the names
            os.close(following)
            return True
        self._close_line()
        if self.buffered:
            os.close(following)
            return False
        self._known = marked(self._fd, self._marks())
        self._open(following, 0)
        self._emit("source_rotated", path=str(self._path), row=self.row)
        self._listen()
        return True

    def _is_truncated(self) -> bool:
        """Shorter than what was read, or begun anew and grown since."""
        if os.fstat(self._fd).st_size < self._read_to:
            return True
        return os.pread(self._fd, len(self._head), 0) != self._head

    def _restart(self) -> bool:
        """The file was truncated (copytruncate): read the rest from the copy when there is one, then from the top.
        Lines that are in the buffer are taken first; they are what the copy begins with behind the offset."""
        if self.buffered:
            return False
        copy = self._copy(truncated=True)
        if copy is not None:
            return self._turn_to(copy)
        self._emit("source_truncated", path=str(self._path), row=self.row, offset=self.offset)
        self._open(os.dup(self._fd), 0)
        self._listen()
        return True

    def _overtaking(self) -> int | None:
        """The copy, when the file was truncated and has grown to what was read, or beyond, with the same beginning: a
        header. A file that was read further is told by its first bytes."""
        return self._copy(truncated=False)

    def _copy(self, *, truncated: bool) -> int | None:
        return find_copy(self._path, self._fd, self._identity(), self.offset, self._marks(), truncated=truncated)

    def _turn_to(self, copy: int) -> bool:
        if self.buffered:
            os.close(copy)
            return False
        self._open(copy, self.offset)
        self._listen()
        return True


def _end_of(lines: list[bytes]) -> bytes:
    """The last TAIL_BYTES of the lines and their newlines, or a few more."""
    kept: list[bytes] = []
    size = 0
    for line in reversed(lines):
        kept.append(line)
        size += len(line) + 1
        if size >= TAIL_BYTES:
            break
    return b"".join(line + b"\n" for line in reversed(kept))
