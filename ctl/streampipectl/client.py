"""The blocking client of the control socket, and where that socket is.

Blocking with kernel timeouts (SO_RCVTIMEO, SO_SNDTIMEO) instead of Python's: with those, connect() to a busy
daemon waits for its turn, where a non-blocking one fails at once with EAGAIN. Everything that goes wrong is
an RpcError whose text is the line that the operator reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import (
    PROTOCOL,
    Decoder,
    Message,
    Notification,
    Request,
    Response,
    encode,
    unwrap,
)

ANSWER_S: Final = 5.0  # the supervisor answers in milliseconds; longer than a machine under memory pressure stalls
READ_BYTES: Final = 64 << 10
SOCKET_NAME: Final = "control.sock"
SYSTEM_RUNTIME_DIR: Final = "/run/streampipe"
SYSTEM_CONFIG: Final = "/etc/streampipe/streampipe.toml"
OWN_RUNTIME_DIR: Final = "var/run"


def socket_path(given: str | None, runtime_dir: str | None, environment: Mapping[str, str]) -> str:
    """The control socket: as given, in the directory given, in STREAMPIPE_RUNTIME_DIR, that of the system's
    service if it is there (or is installed, and no daemon was started in the current directory), else that of a
    daemon started in the current directory."""
    if given is not None:
        return given
    directory = runtime_dir or environment.get("STREAMPIPE_RUNTIME_DIR")
    if directory:
        return os.path.join(directory, SOCKET_NAME)
    system = os.path.join(SYSTEM_RUNTIME_DIR, SOCKET_NAME)
    try:
        os.stat(system)
    except PermissionError:
        return system  # there, and not for us: say that rather than 'not running'
    except OSError:
        own = os.path.join(OWN_RUNTIME_DIR, SOCKET_NAME)
        installed = os.path.exists(SYSTEM_CONFIG) and not os.path.exists(OWN_RUNTIME_DIR)
        return system if installed else own  # the service is down, and that is what the message should be about
    return system


class Client:
    """One connection: `call` for answers, `notifications` for what comes by itself after a subscription."""

    def __init__(self, path: str, patience: float = ANSWER_S) -> None:
        """Connect and agree on the protocol. RpcError UNREACHABLE, also when nothing came for `patience` seconds,
        NOT_PERMITTED or PROTOCOL."""
        self.path = path
        self._patience = patience
        self._decoder = Decoder()
        self._messages: Iterator[Message] = iter(())
        self._waiting: deque[Notification] = deque()
        self._number = 0
        self._socket = _connected(path, patience)
        self.daemon: Mapping[str, Any] = self._greeted()

    def _greeted(self) -> Mapping[str, Any]:
        """Who answers. A daemon that does not even greet has been asked for nothing, so nothing goes on there."""
        try:
            greeting: Mapping[str, Any] = self.call("hello", {"protocol": PROTOCOL})
        except RpcError as error:
            if error.code == ExitCode.TIMED_OUT:
                raise RpcError(str(error), ExitCode.UNREACHABLE) from None
            raise
        return greeting

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For `select`: readable when `arrived` has something."""
        return self._socket.fileno()

    def call(self, method: str, params: Mapping[str, Any], timeout: float | None = None) -> Any:
        """The result. RpcError with the daemon's code; TIMED_OUT when nothing came for `timeout` seconds;
        UNREACHABLE when the connection broke."""
        number = self.ask(method, params)
        while True:
            match self._next(timeout or self._patience):
                case Response() as response if response.id == number:
                    return unwrap(response)
                case Notification() as notification:
                    self._waiting.append(notification)

    def ask(self, method: str, params: Mapping[str, Any]) -> int:
        """Ask without waiting; the number of the response that `arrived` will give."""
        self._number += 1
        with contextlib.suppress(ConnectionError):  # refused at once: the reason is waiting to be read
            self._send(encode(Request(self._number, method, params)))
        return self._number

    def arrived(self) -> list[Response | Notification]:
        """What has come, without waiting: once after the last `call`, and whenever the descriptor is readable. RpcError
        UNREACHABLE when the connection broke."""
        found: list[Response | Notification] = list(self._waiting)
        self._waiting.clear()
        found += self._heard()
        if select.select([self._socket], [], [], 0)[0]:
            self._messages = self._decoder.feed(self._received(self._patience))
            found += self._heard()
        return found

    def _heard(self) -> Iterator[Response | Notification]:
        """The rest of what was received."""
        for message in self._messages:
            _check_farewell(self.path, message)
            if not isinstance(message, Request):
                yield message

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            raise RpcError(f"{self.path}: no answer after {self._patience:g} s", ExitCode.TIMED_OUT) from None

    def notifications(self, timeout: float | None) -> Iterator[Notification]:
        """What was subscribed to, for ever; RpcError TIMED_OUT after `timeout` seconds of silence (None:
        never)."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            message = self._next(timeout)
            if isinstance(message, Notification):
                yield message

    def _next(self, timeout: float | None) -> Message:
        while (message := next(self._messages, None)) is None:
            self._messages = self._decoder.feed(self._received(timeout))
        _check_farewell(self.path, message)
        return message

    def _received(self, timeout: float | None) -> bytes:
        _set_timeout(self._socket, socket.SO_RCVTIMEO, timeout or 0.0)
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            raise RpcError(f"{self.path}: no answer after {timeout:g} s", ExitCode.TIMED_OUT) from None
        except OSError as error:
            raise BrokenError(f"{self.path}: the connection broke: {error.strerror}", ExitCode.UNREACHABLE) from error
        if not data:
            raise BrokenError(f"{self.path}: the daemon closed the connection", ExitCode.UNREACHABLE)
        return data


class BrokenError(RpcError):
    """The daemon is gone without a word, as one that was killed is."""


class GoingDownError(RpcError):
    """The daemon ends in an orderly way, and has said so."""


def _check_farewell(path: str, message: Message) -> None:
    if isinstance(message, Notification) and message.method == "goodbye":
        orderly = message.params.get("code") == ExitCode.OK
        kind = GoingDownError if orderly else RpcError
        raise kind(f"{path}: {message.params.get('message')}", ExitCode.UNREACHABLE)


def _connected(path: str, patience: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _set_timeout(connection, socket.SO_SNDTIMEO, patience)
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _refusal(path, error, patience) from None
    return connection


def _refusal(path: str, error: OSError, patience: float) -> RpcError:
    """Why the socket cannot be opened, as one line."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return RpcError(f"streampipe is not running: there is no {path}", ExitCode.UNREACHABLE)
        case ConnectionRefusedError():
            return RpcError(f"streampipe is not running: nobody answers at {path}", ExitCode.UNREACHABLE)
        case PermissionError():
            return RpcError(_not_permitted(path), ExitCode.NOT_PERMITTED)
        case BlockingIOError():
            return RpcError(f"streampipe does not answer at {path} for {patience:g} s", ExitCode.UNREACHABLE)
    return RpcError(f"{path}: {error.strerror or error}", ExitCode.UNREACHABLE)


def _not_permitted(path: str) -> str:
    """Names the group that would be permitted: that of the socket, or of the directory that hides it."""
    place = os.path.abspath(path)
    while place != "/":
        try:
            found = os.stat(place)
        except OSError:
            place = os.path.dirname(place)
            continue
        group = _group(found.st_gid)
        if found.st_mode & 0o070:
            return f"{path}: permission denied; it is for root and group {group}; usermod -aG {group} USER adds one"
        return f"{path}: permission denied; it is for root and {_user(found.st_uid)} alone"
    return f"{path}: permission denied"


def _group(gid: int) -> str:
    import grp  # only on the way out with an error

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _set_timeout(connection: socket.socket, option: int, seconds: float) -> None:
    """`struct timeval` of socket(7); 0 means for ever."""
    whole = int(seconds)
    connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, int((seconds - whole) * 1e6)))
