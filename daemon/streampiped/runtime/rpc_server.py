"""A MessagePack-RPC server on a Unix socket: the control socket of the supervisor and the API sockets of
stages.

Everything a client can do wrong ends that client alone. The bounds of `Limits` hold per client and their
number is bounded, so the most that all of them together can take is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import socket
import stat
from collections.abc import Callable, Coroutine
from typing import Any, Final

from streampiped.errors import ExitCode, RpcError, StateError
from streampiped.runtime.rpc_connection import Connection, Handler, Limits, Peer, goodbye
from streampiped.wire.rpc import encode

__all__ = ["Handler", "Limits", "Peer", "RpcServer", "listen_unix"]

PATH_BYTES_MAX: Final = 107  # sun_path of unix(7), less its final NUL
BACKLOG: Final = 128  # connections that wait for accept; beyond it connect() blocks in the client
ACCEPTS_PER_TURN: Final = 16  # so that a storm of connections does not keep the loop from its other work
ACCEPT_PAUSE_S: Final = 0.2  # without free descriptors the listener stays readable: accepting would spin


class RpcServer:
    """Serves `handler` on the Unix socket `path` from `start` to `close`, on the loop that runs `start`.

    `on_drop(peer or None, reason)` is told of every client that was ended for its behaviour,
    `on_fault(method, exception)` of an exception in the handler that is not an RpcError."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        handler: Handler,
        *,
        mode: int = 0o660,
        group: str | None = None,
        limits: Limits | None = None,
        on_drop: Callable[[Peer | None, str], None] = lambda peer, reason: None,
        on_fault: Callable[[str, BaseException], None] = lambda method, error: None,
    ) -> None:
        self.path = os.fspath(path)
        self.handler = handler
        self.limits = limits or Limits()
        self.on_drop = on_drop
        self.on_fault = on_fault
        self._mode = mode
        self._group = group
        self._listener: socket.socket | None = None
        self._inode = (0, 0)
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly
        self._full_told = False

    @property
    def clients(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Bind and listen. StateError when somebody else serves the path, or it is no socket."""
        self.loop = asyncio.get_running_loop()
        self._listener = listen_unix(self.path, self._mode, self._group)
        self._inode = _inode(self.path)
        self.loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop: clients are told and dropped, unfinished handlers cancelled, the socket's file removed if it
        is still ours. May be called twice."""
        if self._listener is None:
            return
        self.loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        with contextlib.suppress(FileNotFoundError):
            if _inode(self.path) == self._inode:
                os.unlink(self.path)
        for task in self._tasks:
            task.cancel()
        for connection in tuple(self._connections):
            connection.part(RpcError("the daemon is going down", ExitCode.OK))  # the client did nothing wrong

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a handler to its end, whatever becomes of its client."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._full_told = False

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self._listener is None:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    self._pause(error)
                return
            sock.setblocking(False)
            self._welcome(sock)

    def _pause(self, error: OSError) -> None:
        assert self._listener is not None
        self.on_drop(None, f"no connection can be accepted: {error.strerror}")
        self.loop.remove_reader(self._listener.fileno())
        self.loop.call_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _welcome(self, sock: socket.socket) -> None:
        if len(self._connections) < self.limits.clients:
            self._connections.add(Connection(self, sock))
            return
        reason = f"there are {self.limits.clients} clients already"
        with contextlib.suppress(OSError):
            sock.send(encode(goodbye(RpcError(reason, ExitCode.UNREACHABLE))))
        sock.close()
        if not self._full_told:  # once per time of being full: refusing must not fill the log
            self._full_told = True
            self.on_drop(None, reason)


def listen_unix(path: str, mode: int, group: str | None) -> socket.socket:
    """A listening Unix socket at `path`, non-blocking, in place of a stale one.

    Group bits of `mode` are given only together with `group`, when it exists and we may: otherwise they would
    go to whatever primary group the daemon's user has, often one that everybody is in. Permissions are set
    before listen(), so nobody connects earlier. StateError when a live server, or something that is no
    socket, is in the way.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise StateError(f"{path}: longer than the {PATH_BYTES_MAX} bytes of a socket's path")
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(path)
        os.chmod(path, mode if _give_to(path, group) else mode & ~0o070)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _give_to(path: str, group: str | None) -> bool:
    """False: it stays our own group's. Where that is the one already nothing is asked of a sandbox without chown."""
    try:
        gid = grp.getgrnam(group or "").gr_gid
        if os.stat(path).st_gid != gid:
            os.chown(path, -1, gid)
    except (KeyError, PermissionError):
        return False
    return True


def _clear(path: str) -> None:
    """Remove the socket that a killed daemon left behind."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StateError(f"{path} exists and is no socket; remove it or choose another runtime directory")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        return
    except BlockingIOError:  # its backlog is full: alive, and busy
        raise StateError(f"{path}: a running daemon is there; stop it first") from None
    else:
        raise StateError(f"{path}: a running daemon is there; stop it first")


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
