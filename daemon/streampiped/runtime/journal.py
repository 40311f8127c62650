"""The systemd journal's socket: entries to journald, without ever waiting for it.

The native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is one datagram per entry, or, where it would be too large,
an empty one with a sealed memfd that holds it. docs/decisions/journal.md says why this is our own.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from streampiped.runtime.line_writer import CLOSE_WAIT_S, PENDING_BYTES_MAX

SOCKET_PATH: Final = "/run/systemd/journal/socket"

_GONE: Final = (errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT)
_SHORT: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class _Waiting(NamedTuple):
    """An entry that was taken; a notice tells of `said` losses, any other of none."""

    data: bytes
    said: int


class JournalWriter:
    """Sends entries (`journal_entry.py`) to journald in their order; nothing blocks, nothing raises.

    While journald has no room, or is not there, up to PENDING_BYTES_MAX wait. Beyond, entries are dropped and counted,
    and `notice(count)` gives the entry that says so, sent where they are missing. What waits is sent by the next
    `write` or by `flush`; the shell may register `fileno`, which stays the same, for writing while `pending`.
    """

    def __init__(self, notice: Callable[[int], bytes], path: str = SOCKET_PATH) -> None:
        """Raises OSError when there is no such socket."""
        self._notice = notice
        self._path = path
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._full = False
        self.dropped = 0
        """Entries lost and not yet said."""
        self.dropped_total = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending(self) -> int:
        """Bytes that wait for room. What waits for a journald that is gone is not among them: nothing would tell when
        it is back, and a socket without a peer is always writable."""
        return self._bytes if self._full else 0

    def write(self, entry: bytes) -> bool:
        """Take one entry; False: it was dropped and counted."""
        self.flush()
        if self._bytes + len(entry) > PENDING_BYTES_MAX and self._waiting:  # alone, one of any size is taken
            self.dropped += 1
            self.dropped_total += 1
            return False
        self._say_losses()
        self._take(entry, 0)
        self.flush()
        return True

    def flush(self) -> None:
        """Send of what waits as much as goes without blocking."""
        while self._waiting:
            data, said = self._waiting[0]
            try:
                self._send(data)
            except OSError as error:
                self._full = error.errno in _SHORT
                if self._full or error.errno in _GONE:
                    return
                self._forget_first()  # it can never be sent; the others may
                self.dropped += said or 1
                self.dropped_total += not said
            else:
                self._forget_first()
                if not self._waiting:
                    self._say_losses()
        self._full = False

    def close(self) -> None:
        """Give journald CLOSE_WAIT_S for what waits, then let go."""
        self.flush()
        if self._full:
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            if poll.poll(CLOSE_WAIT_S * 1000):
                self.flush()
        self._socket.close()

    def _take(self, entry: bytes, said: int) -> None:
        self._waiting.append(_Waiting(entry, said))
        self._bytes += len(entry)

    def _forget_first(self) -> None:
        self._bytes -= len(self._waiting.popleft().data)

    def _say_losses(self) -> None:
        if self.dropped:
            count, self.dropped = self.dropped, 0
            self._take(self._notice(count), count)

    def _send(self, entry: bytes) -> None:
        """After a restart of journald's socket the path leads to another one: connect once more."""
        try:
            self._send_once(entry)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._socket.connect(self._path)
            self._send_once(entry)

    def _send_once(self, entry: bytes) -> None:
        try:
            self._socket.send(entry, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_memfd(entry)

    def _send_memfd(self, entry: bytes) -> None:
        """journald takes a memfd only when nobody can change it any more."""
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with contextlib.closing(os.fdopen(fd, "wb", closefd=False)) as file:
                file.write(entry)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([], [rights], socket.MSG_NOSIGNAL)
        finally:
            os.close(fd)
