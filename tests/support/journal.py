"""journald's end of the native protocol, as systemd.io/JOURNAL_NATIVE_PROTOCOL describes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
DATAGRAM_BYTES = 1 << 20


def decoded(data: bytes) -> dict[str, str]:
    """The fields of one entry. Bytes that are none fail, as does a field that comes twice."""
    fields: dict[str, str] = {}
    while data:
        line, end, rest = data.partition(b"\n")
        assert end, f"no line end after {line!r}"
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            value, end, data = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert (len(value), end) == (size, b"\n")
        assert name.decode() not in fields, name
        fields[name.decode()] = value.decode()
    return fields


class Journald:
    """A datagram socket at `path`, read like journald does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.large = 0
        """Entries that came by a memfd."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def entries(self) -> list[dict[str, str]]:
        """Those that have come since the last time."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._socket, DATAGRAM_BYTES, 4)
                found.append(decoded(self._content(*fds) if fds else data))
        return found

    def _content(self, fd: int) -> bytes:
        """journald refuses a memfd that somebody could still change."""
        self.large += 1
        try:
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALED
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Gone, and the path with it."""
        self._socket.close()
        self.path.unlink()


@contextmanager
def journald(path: Path) -> Iterator[Journald]:
    each = Journald(path)
    try:
        yield each
    finally:
        with contextlib.suppress(FileNotFoundError):
            each.close()
