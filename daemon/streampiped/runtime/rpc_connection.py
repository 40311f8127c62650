"""One client of a MessagePack-RPC server: bytes in, one request at a time, bytes out.

Own non-blocking descriptors on the loop rather than asyncio streams: a request is read only when the one
before it is answered and that answer taken, which is the whole of the backpressure. Every wait has one of two
deadlines here: a message that was begun and is not complete, and bytes that the client does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import (
    MESSAGE_BYTES_MAX,
    Decoder,
    Message,
    Notification,
    Request,
    Response,
    encode,
    failure,
)

READ_BYTES: Final = 64 << 10  # of one recv; bounds what one client does to one turn of the loop
PEER_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
ERROR_CHARS_MAX: Final = 4096  # of an error's text; a traceback of user code can be long


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server; those of a client are per client."""

    clients: int = 64  # a pipeline has a handful of operators and scrapers; more is a leak in a client
    request_bytes: int = MESSAGE_BYTES_MAX
    answer_bytes: int = MESSAGE_BYTES_MAX
    notify_bytes: int = 256 << 10  # notifications waiting for a client; 1 s of a busy log
    stall_s: float = 10.0  # to complete a message once begun, and to take anything of what waits for it


class Peer:
    """Who is on the other end, as the kernel says, and a way to tell it something."""

    __slots__ = ("_connection", "gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int, connection: Connection) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid
        self._connection = connection

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        """Send a notification, or drop it when this client is too slow; it is then told `missed {"count"}` as
        soon as it has read what waited. Never blocks, never raises for a reason that is the client's."""
        return self._connection.notify(Notification(method, params))

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call back once when the client has left; at once if it has already."""
        self._connection.on_gone(callback)


Handler: TypeAlias = Callable[[Peer, str, dict[str, Any]], Awaitable[Any]]
"""Answers a method with something MessagePack knows, or raises RpcError. Not cancelled when its client
leaves."""


class Host(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    handler: Handler
    loop: asyncio.AbstractEventLoop
    on_drop: Callable[[Peer | None, str], None]
    on_fault: Callable[[str, BaseException], None]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, whatever becomes of the client."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""


class Connection:
    """From `accept` to the end, which comes from the client, from `drop` or from the server through
    `part`."""

    def __init__(self, server: Host, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        pid, uid, gid = PEER_CREDENTIALS.unpack(credentials)
        self.peer = Peer(pid, uid, gid, self)
        self._decoder = Decoder(server.limits.request_bytes)
        self._messages: Iterator[Message] = iter(())
        self._out = bytearray()
        self._missed = 0
        self._busy = False
        self._reading = False
        self._ended = False
        self._closed = False
        self._gone: list[Callable[[], None]] = []
        self._torn_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._pump()

    # what the client sends

    def _readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return self._close()
        if data:
            self._messages = self._decoder.feed(data)
        else:
            self._ended = True
        return self._pump()

    def _pump(self) -> None:
        """Take the next request if there is one and nothing is in its way; then say what to wait for."""
        while not (self._closed or self._busy or self._out):
            try:
                message = next(self._messages, None)
            except RpcError as error:
                return self.drop(error)
            if message is None:
                break
            if isinstance(message, Request):  # a notification to a server, or a response, asks for nothing
                self._busy = True
                self._server.run(self._answer(message))
        if not self._closed:
            self._wait()
        return None

    def _wait(self) -> None:
        idle = not (self._busy or self._out)
        if idle and self._ended:
            return self._close()
        self._read_if(idle and not self._ended)
        torn = idle and self._decoder.pending > 0
        if torn and self._torn_timer is None:
            self._torn_timer = self._after_stall("its message is not complete")
        elif not torn and self._torn_timer is not None:
            self._torn_timer.cancel()
            self._torn_timer = None
        return None

    def _read_if(self, wanted: bool) -> None:
        if wanted and not self._reading:
            self._server.loop.add_reader(self._fd, self._readable)
        elif self._reading and not wanted:
            self._server.loop.remove_reader(self._fd)
        self._reading = wanted

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._server.handler(self.peer, request.method, dict(request.params))
            data = encode(Response(request.id, None, result), self._server.limits.answer_bytes)
        except RpcError as error:
            data = encode(Response(request.id, failure(error), None))
        except Exception as error:  # noqa: BLE001 - a mistake in one handler must not end the daemon
            self._server.on_fault(request.method, error)
            text = f"{request.method}: {type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
            data = encode(Response(request.id, failure(RpcError(text)), None))
        self._busy = False
        self._send(data)
        self._pump()

    # what the client gets

    def notify(self, notification: Notification) -> bool:
        if self._closed:
            return False
        try:
            data = encode(notification, self._server.limits.answer_bytes)
        except RpcError:  # too large, or a value that MessagePack does not know
            data = encode(Notification("missed", {"count": 1}))
        if self._missed or len(self._out) + len(data) > self._server.limits.notify_bytes:
            self._missed += 1
            return False
        self._send(data)
        return True

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        waiting = bool(self._out)
        self._out += data
        if not waiting:
            self._flush()
            if self._out and not self._closed:
                self._server.loop.add_writer(self._fd, self._writable)

    def _flush(self) -> None:
        """Write what goes; the deadline starts anew with everything that the client took."""
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._close()
        del self._out[:sent]
        if self._unread_timer is not None and (sent or not self._out):
            self._unread_timer.cancel()
            self._unread_timer = None
        if self._out and self._unread_timer is None:
            self._unread_timer = self._after_stall("it does not read its answers")
        return None

    def _writable(self) -> None:
        self._flush()
        if self._closed or self._out:
            return
        self._server.loop.remove_writer(self._fd)
        if self._missed:
            count, self._missed = self._missed, 0
            self._send(encode(Notification("missed", {"count": count})))
        self._pump()

    # how it ends

    def _after_stall(self, what: str) -> asyncio.TimerHandle:
        stall_s = self._server.limits.stall_s
        error = RpcError(f"{what} after {stall_s:g} s", ExitCode.PROTOCOL)
        return self._server.loop.call_later(stall_s, self.drop, error)

    def drop(self, error: RpcError) -> None:
        """End this client for what it did."""
        self._server.on_drop(self.peer, str(error))
        self.part(error)

    def part(self, error: RpcError) -> None:
        """End this client and, when nothing else waits for it, tell it why."""
        if not (self._closed or self._out):
            with contextlib.suppress(OSError):
                self._sock.send(encode(goodbye(error)))
        self._close()

    def on_gone(self, callback: Callable[[], None]) -> None:
        if self._closed:
            callback()
        else:
            self._gone.append(callback)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._server.loop.remove_reader(self._fd)
        self._server.loop.remove_writer(self._fd)
        for timer in (self._torn_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._sock.close()
        self._out.clear()
        self._server.forget(self)
        for callback in self._gone:
            callback()


def goodbye(error: RpcError) -> Notification:
    """What a client that is ended hears last, if it still listens."""
    return Notification("goodbye", failure(error))
