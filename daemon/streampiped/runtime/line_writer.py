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
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

PENDING_BYTES_MAX: Final = 256 << 10  # kept for a slow reader: four full pipes; beyond, lines are dropped and counted
CLOSE_WAIT_S: Final = 0.2  # the last words of a daemon matter, but nobody waits long for a reader that is not there
FALLBACK_BYTES: Final = 512  # one write where no own description could be had; poll(2) promises PIPE_BUF at most


class _Waiting(NamedTuple):
    """A line that was taken; `said` losses stand in the notice before it."""

    data: bytes
    said: int


class LineWriter:
    """Writes whole lines to `fd` without ever blocking; nothing raises.

    A line that was begun is finished before the next one, whatever happens between. When more than
    PENDING_BYTES_MAX wait, lines are dropped and counted, and `notice(count)` gives the line that says so as soon
    as there is room again. What waits is written by the next `write` or by `flush`; the shell may register `fileno`
    for writing while `pending` is not zero.
    """

    def __init__(self, fd: int, notice: Callable[[int], bytes]) -> None:
        self._notice = notice
        self._waiting: deque[_Waiting] = deque()
        self._sent = 0  # bytes of the first one that are out already
        self._torn = False  # the rest of a line was lost to an error after its beginning had gone out
        self.pending = 0
        """Bytes that wait for the reader."""
        self.dropped = 0
        """Lines lost and not yet said."""
        self.dropped_total = 0
        self._socket: socket.socket | None = None
        self._chunk = PENDING_BYTES_MAX  # bytes of one write
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

    def fileno(self) -> int:
        return self._fd

    def write(self, line: bytes) -> bool:
        """Take one line (or block of lines that belong together); False: it was dropped and counted."""
        self.flush()
        note = self._notice(self.dropped) if self.dropped else b""
        if self._torn and not self._waiting:
            note = b"\n" + note
        data = note + line
        if self.pending + len(data) > PENDING_BYTES_MAX:
            self._lose(1, 0)
            return False
        self._waiting.append(_Waiting(data, self.dropped))
        self.pending += len(data)
        self.dropped = 0
        self.flush()
        return True

    def flush(self) -> None:
        """Write of what waits as much as goes without blocking."""
        while self._waiting:
            data = self._waiting[0].data
            try:
                sent = self._send(data[self._sent : self._sent + self._chunk])
            except BlockingIOError:
                return
            except OSError:  # the reader is gone for good (EPIPE, EIO), or the disk behind a file is full
                self._give_up()
                return
            self.pending -= sent
            self._sent += sent
            if self._sent == len(data):
                self._torn = False
                self._waiting.popleft()
                self._sent = 0

    def _give_up(self) -> None:
        """Count what waits as lost, with what its notices would have said."""
        self._torn = self._torn or self._sent > 0
        self._lose(len(self._waiting), sum(line.said for line in self._waiting))
        self._waiting.clear()
        self._sent = self.pending = 0

    def _lose(self, lines: int, said: int) -> None:
        self.dropped += lines + said
        self.dropped_total += lines

    def _send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._chunk == FALLBACK_BYTES and not self._ready(0):
            raise BlockingIOError
        return os.write(self._fd, data)

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
