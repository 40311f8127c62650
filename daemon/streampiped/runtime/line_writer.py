"""Lines to a descriptor that others may leave unread: a terminal, a pipe, the journal's socket.

The supervisor must never wait for whoever reads its standard error (a pager, a stopped terminal, a full pipe).
Setting O_NONBLOCK on descriptor 2 itself is no way: the flag belongs to the open file *description*, which the
operator's shell and its other children share, and their writes would begin to fail. So pipes and terminals are
opened a second time through /proc, which makes a description of our own.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Final

PENDING_BYTES_MAX: Final = 256 << 10  # kept for a slow reader: four full pipes; beyond, lines are dropped and counted
CLOSE_WAIT_S: Final = 0.2  # the last words of a daemon matter, but nobody waits long for a reader that is not there
FALLBACK_BYTES: Final = 512  # one write where no own description could be had; poll(2) promises PIPE_BUF at most


class LineWriter:
    """Writes whole lines to `fd` without ever blocking; nothing raises.

    A line that was begun is finished before the next one, whatever happens between. When more than
    PENDING_BYTES_MAX wait, lines are dropped and counted, and `notice(count)` gives the line that says so as soon
    as there is room again. What waits is written by the next `write` or by `flush`; the shell may register `fileno`
    for writing while `pending` is not zero.
    """

    def __init__(self, fd: int, notice: Callable[[int], bytes]) -> None:
        self._notice = notice
        self._waiting = bytearray()
        self.dropped = 0
        """Lines lost and not yet said."""
        self.dropped_total = 0
        self._socket: socket.socket | None = None
        self._midline = False  # the last byte that went out was not a newline
        self._chunk = 0  # bytes of one write; 0: as many as there are
        self._fd = self._open(fd)

    def _open(self, fd: int) -> int:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            return self._socket.fileno()
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return os.dup(fd)  # a regular file does not block in this sense, and must keep its one offset
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:  # another user's terminal (su), or no /proc: then small writes, each asked for
            self._chunk = FALLBACK_BYTES
            return os.dup(fd)

    @property
    def pending(self) -> int:
        """Bytes that wait for the reader."""
        return len(self._waiting)

    def fileno(self) -> int:
        return self._fd

    def write(self, line: bytes) -> bool:
        """Take one line (or block of lines that belong together); False: it was dropped and counted."""
        self.flush()
        note = self._notice(self.dropped) if self.dropped else b""
        if len(self._waiting) + len(note) + len(line) > PENDING_BYTES_MAX:
            self.lose(1)
            return False
        if self._midline and not self._waiting:  # the rest of a line was lost to an error
            note = b"\n" + note
        self._waiting += note + line
        self.dropped = 0
        self.flush()
        return True

    def lose(self, lines: int) -> None:
        """Count lines that will never be written."""
        self.dropped += lines
        self.dropped_total += lines

    def flush(self) -> None:
        """Write of what waits as much as goes without blocking."""
        while self._waiting:
            try:
                sent = self._send()
            except BlockingIOError:
                return
            except OSError:  # the reader is gone for good (EPIPE, EIO), or the disk behind a file is full
                self.lose(self._waiting.count(b"\n"))
                self._waiting.clear()
                return
            self._midline = self._waiting[sent - 1 : sent] != b"\n"
            del self._waiting[:sent]

    def _send(self) -> int:
        if self._socket is not None:
            return self._socket.send(self._waiting, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if not self._chunk:
            return os.write(self._fd, self._waiting)
        if not self._ready(0):
            raise BlockingIOError
        return os.write(self._fd, self._waiting[: self._chunk])

    def _ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Give the reader CLOSE_WAIT_S for what waits, then let go."""
        self.flush()
        if self._waiting and self._ready(CLOSE_WAIT_S):
            self.flush()
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()
            else:
                os.close(self._fd)
