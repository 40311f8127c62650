"""A message channel over a SOCK_SEQPACKET socket on the event loop: one datagram a message, descriptors beside it.

Own non-blocking descriptors on the loop instead of a transport: transports know nothing of SCM_RIGHTS.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from streampiped.errors import FrameError
from streampiped.wire.messages import MESSAGE_BYTES_MAX, Message, decode, encode

DESCRIPTORS_MAX: Final = 250  # SCM_MAX_FD is 253
MESSAGES_PER_TURN: Final = 64  # so that one talkative peer does not keep the loop
QUEUE_MAX: Final = 1000  # messages to a peer that does not read; it is stopped, and only a few kinds are ever sent then


def make_pair() -> tuple[socket.socket, socket.socket]:
    """(ours, theirs): both close-on-exec; ours is non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One datagram and its descriptors (close-on-exec); empty data is the end. Blocks as the socket does."""
    descriptors = array.array("i")
    room = socket.CMSG_LEN(DESCRIPTORS_MAX * descriptors.itemsize)
    data, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """One datagram with its descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def _copies(descriptors: Sequence[int]) -> list[int]:
    """All of them, or OSError and none."""
    made: list[int] = []
    try:
        for fd in descriptors:
            made.append(os.dup(fd))  # noqa: PERF401  what was made must be known when one fails
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


class Channel:
    """Messages to and from one peer. `on_message(message, descriptors)` owns the descriptors; `on_end()` comes once,
    when the peer is gone or sent what is no message."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._open = True
        loop.add_reader(sock.fileno(), self._readable)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def queued(self) -> int:
        """Messages that the peer has had no room for."""
        return len(self._queue)

    def send(self, message: Message, descriptors: Sequence[int] = (), *, droppable: bool = False) -> bool:
        """Send now or, without blocking, as soon as there is room; False when it was dropped because the peer is
        gone or (`droppable`) has no room. The caller keeps its descriptors. OSError, and nothing is sent, when there
        are none left for copies that have to wait."""
        if not self._open:
            return False
        data = encode(message)
        if not self._queue:
            with contextlib.suppress(BlockingIOError):
                return self._send_now(data, descriptors)
        if droppable or len(self._queue) >= QUEUE_MAX:
            return False
        copies = _copies(descriptors)
        if not self._queue:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._queue.append((data, copies))
        return True

    def drain(self) -> None:
        """Read what is there already: the last words of a peer that has died."""
        while self._open and self._read_one():
            pass

    def flush(self, seconds: float) -> None:
        """Block until what is queued has been sent, for at most `seconds`."""
        if self._open and self._queue:
            self._sock.settimeout(seconds)
            with contextlib.suppress(OSError):
                self._writable()
            self._sock.setblocking(False)

    def mute(self) -> None:
        """In a fork: say nothing any more. The socket and the loop are the parent's and are not touched."""
        self._open = False

    def close(self) -> None:
        """Let go, without `on_end`."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        if self._queue:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, descriptors in self._queue:
            for fd in descriptors:
                os.close(fd)
        self._queue.clear()

    def _send_now(self, data: bytes, descriptors: Sequence[int]) -> bool:
        try:
            send(self._sock, data, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return False  # the reading side tells the end
        return True

    def _writable(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                self._send_now(data, descriptors)
            except BlockingIOError:
                return
            self._queue.popleft()
            for fd in descriptors:
                os.close(fd)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            if not self._open or not self._read_one():
                return

    def _read_one(self) -> bool:
        try:
            data, descriptors = receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            self._end()
            return False
        try:
            message = decode(data)
        except FrameError:
            for fd in descriptors:
                os.close(fd)
            self._end()
            return False
        self._on_message(message, descriptors)
        return True

    def _end(self) -> None:
        self.close()
        self._on_end()
