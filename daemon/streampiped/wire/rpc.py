"""MessagePack-RPC as bytes: request `[0, id, method, params]`, response `[1, id, error, result]`,
notification `[2, method, params]` (https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md).

Two additions, both readable for existing clients: params are one map of names to values (a list with one map,
or an empty list, is taken too), and an error is `{"code": ExitCode, "message": str}`.

Pure: no sockets and no clock. Both programs import it, so it must stay cheap: NamedTuple instead of
dataclass, because dataclasses imports inspect, 10 ms of the control tool's start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from streampiped.errors import ExitCode, RpcError

PROTOCOL: Final = 1
"""Version of methods and answers; raised when an old client would misunderstand a new daemon or the
reverse."""

MESSAGE_BYTES_MAX: Final = 1 << 20  # a status of 60 processes is 20 kB, 10 k rows to predict 1 MB
SCANNER_BYTES: Final = 4 << 10  # first size of a decoder's parse buffer; most messages are smaller
ITEMS_MAX: Final = 1 << 17  # entries of one list or map; more do not fit usefully into MESSAGE_BYTES_MAX
NESTING_MAX: Final = 32  # levels of params and results; ours have 4. Keeps recursive code after us safe
METHOD_CHARS_MAX: Final = 128  # a method's name ends in log lines
ID_MAX: Final = (1 << 32) - 1  # the specification's uint32

REQUEST: Final = 0
RESPONSE: Final = 1
NOTIFICATION: Final = 2


class Request(NamedTuple):
    id: int
    method: str
    params: Mapping[str, Any]


class Response(NamedTuple):
    """`error` is None or `{"code", "message"}`; then `result` means nothing."""

    id: int
    error: Mapping[str, Any] | None
    result: Any


class Notification(NamedTuple):
    method: str
    params: Mapping[str, Any]


Message: TypeAlias = "Request | Response | Notification"


def encode(message: Message, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """The message as bytes. RpcError FAILED when a value has no MessagePack form or the whole is too
    large."""
    match message:
        case Request():
            kind = REQUEST
        case Response():
            kind = RESPONSE
        case Notification():
            kind = NOTIFICATION
    try:
        data = msgpack.packb([kind, *message], use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise RpcError(f"cannot be sent as MessagePack: {error}") from error
    if len(data) > bytes_max:
        raise RpcError(f"a message of {len(data)} bytes, at most {bytes_max}")
    return bytes(data)


def failure(error: RpcError) -> dict[str, Any]:
    """The error object of a response."""
    return {"code": error.code, "message": str(error)}


def unwrap(response: Response) -> Any:
    """The result, or the RpcError that the other side sent."""
    if response.error is None:
        return response.result
    raise RpcError(str(response.error["message"]), response.error["code"])


class Decoder:
    """Bytes in any pieces to messages. After an RpcError the stream has no meaning any more: drop the
    connection.

    A message is built only once all of it is here. A header of three bytes may announce a list of 65535
    entries, and the parser allocates them before it sees the lie: 3 kB of nested headers cost 68 MiB
    (measured). Its `skip` finds the end of a message without building anything, so what is built is at most
    proportional to what was sent."""

    def __init__(self, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._pending = bytearray()
        # no limit of its own (`_next_size` keeps ours), and not the 1 MiB per client that it would allocate at once
        self._scanner = msgpack.Unpacker(max_buffer_size=0, read_size=SCANNER_BYTES)
        self._scanned = 0

    @property
    def pending(self) -> int:
        """Bytes received and not yet part of a message that was given out."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Take the bytes now; give the messages one by one as they are asked for, so that a busy server
        builds only what it can handle (ask for all of them before the next `feed`). Every message before a
        mistake is given, then RpcError PROTOCOL raised, however the bytes were cut."""
        self._pending += data
        self._scanner.feed(data)
        return self._messages()

    def _messages(self) -> Iterator[Message]:
        while (size := self._next_size()) is not None:
            data = bytes(self._pending[:size])
            del self._pending[:size]
            yield _message(data)

    def _next_size(self) -> int | None:
        """Bytes of the next message, None while it is torn."""
        if self._pending and self._pending[0] not in _FIRST_BYTES:
            raise _garbage("it does not begin like a MessagePack-RPC message")
        try:
            self._scanner.skip()
        except msgpack.OutOfData:
            size = None
        except msgpack.UnpackException as error:
            raise _garbage(f"it is not MessagePack ({type(error).__name__})") from error
        else:
            start, self._scanned = self._scanned, self._scanner.tell()
            size = self._scanned - start
        if (len(self._pending) if size is None else size) > self._bytes_max:
            raise _garbage(f"a message is longer than {self._bytes_max} bytes")
        return size


_FIRST_BYTES: Final = (0x93, 0x94)  # lists of three and four: HTTP or a stray `ls` ends at its first byte


def _message(data: bytes) -> Message:
    """One complete message from its bytes."""
    try:
        fields = msgpack.unpackb(data, max_array_len=ITEMS_MAX, max_map_len=ITEMS_MAX, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _garbage(f"its values are not acceptable ({error})") from error
    match fields:
        case [0, int(number), str(method), params] if _is_id(number) and len(method) <= METHOD_CHARS_MAX:
            return Request(number, method, _keywords(params))
        case [1, int(number), error, result] if _is_id(number) and not _too_deep(result, NESTING_MAX):
            return Response(number, _error_object(error), result)
        case [2, str(method), params] if len(method) <= METHOD_CHARS_MAX:
            return Notification(method, _keywords(params))
    raise _garbage("it is neither request, response nor notification")


def _is_id(number: int) -> bool:
    return 0 <= number <= ID_MAX and not isinstance(number, bool)


def _keywords(params: Any) -> dict[str, Any]:
    match params:
        case []:
            return {}
        case [dict(only)] | dict(only):
            if all(isinstance(name, str) for name in only) and not _too_deep(only, NESTING_MAX):
                return only
    raise _garbage("its params are not one map of names to values")


def _error_object(error: Any) -> dict[str, Any] | None:
    """Ours as it is; a foreign server's error, whatever it is, as text."""
    match error:
        case None | {"code": int(), "message": str()}:
            return error
    return {"code": int(ExitCode.FAILED), "message": str(error)}


def _too_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_too_deep(entry, levels - 1) for entry in value)


def _garbage(reason: str) -> RpcError:
    return RpcError(f"not understood: {reason}", ExitCode.PROTOCOL)
