"""The MessagePack-RPC codec: fed whole, byte by byte, torn, and with what is no message at all."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import (
    ID_MAX,
    MESSAGE_BYTES_MAX,
    NESTING_MAX,
    Decoder,
    Message,
    Notification,
    Request,
    Response,
    encode,
    failure,
    unwrap,
)

CASES: list[tuple[Message, list[Any]]] = [
    (Request(1, "status", {"usage": True}), [0, 1, "status", {"usage": True}]),
    (Request(ID_MAX, "x", {}), [0, ID_MAX, "x", {}]),
    (Response(7, None, [1.5, None, "ü", b"\x00"]), [1, 7, None, [1.5, None, "ü", b"\x00"]]),
    (Response(7, {"code": 4, "message": "no"}, None), [1, 7, {"code": 4, "message": "no"}, None]),
    (Notification("log", {"event": "e"}), [2, "log", {"event": "e"}]),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
maps = st.dictionaries(st.text(), values, max_size=4)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, st.integers(0, ID_MAX), st.text(max_size=20), maps),
    st.builds(Response, st.integers(0, ID_MAX), st.none(), values),
    st.builds(Notification, st.text(max_size=20), maps),
)


def decoded(data: bytes, pieces: int | None = None) -> list[Message]:
    """The messages of the bytes, fed in pieces of so many bytes."""
    decoder = Decoder()
    step = pieces or max(len(data), 1)
    return [m for at in range(0, len(data), step) for m in decoder.feed(data[at : at + step])]


@pytest.mark.parametrize(("message", "fields"), CASES)
def test_wire_form(message: Message, fields: list[Any]) -> None:
    """Each kind of message has exactly the specification's list on the wire, in both directions."""
    assert msgpack.unpackb(encode(message)) == fields
    assert decoded(msgpack.packb(fields)) == [message]


@pytest.mark.parametrize("pieces", [None, 1, 3])
def test_pieces_do_not_matter(pieces: int | None) -> None:
    """Whole, byte by byte or in threes: the same messages come out."""
    data = b"".join(encode(message) for message, _ in CASES)
    assert decoded(data, pieces) == [message for message, _ in CASES]


@given(st.lists(messages, max_size=4), st.integers(1, 40))
def test_round_trip(sent: list[Message], pieces: int) -> None:
    """What was encoded is decoded to itself, however it was cut."""
    assert decoded(b"".join(map(encode, sent)), pieces) == sent


def test_torn_tail_waits() -> None:
    """A message is given with its last byte, and not one earlier."""
    data = encode(CASES[0][0])
    decoder = Decoder()
    assert list(decoder.feed(data[:-1])) == []
    assert decoder.pending == len(data) - 1
    assert list(decoder.feed(data[-1:])) == [CASES[0][0]]
    assert decoder.pending == 0


@pytest.mark.parametrize("params", [[], [{}], {}])
def test_params_of_other_clients(params: Any) -> None:
    """No parameters, as a list, a list with one map or a map, are the same."""
    assert decoded(msgpack.packb([0, 1, "status", params])) == [Request(1, "status", {})]


def test_foreign_error_is_text() -> None:
    """An error object that is not ours becomes its text with code 1."""
    (response,) = decoded(msgpack.packb([1, 3, "broken", None]))
    assert isinstance(response, Response)
    with pytest.raises(RpcError, match="broken") as caught:
        unwrap(response)
    assert caught.value.code == ExitCode.FAILED


def test_error_keeps_code_and_text() -> None:
    """An RpcError crosses the wire with its code and message."""
    sent = RpcError("no such stage", ExitCode.NO_SUCH_STAGE)
    (response,) = decoded(encode(Response(1, failure(sent), None)))
    assert isinstance(response, Response)
    with pytest.raises(RpcError, match="no such stage") as caught:
        unwrap(response)
    assert caught.value.code == ExitCode.NO_SUCH_STAGE


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "text": b"hello\n",
    "zeros": bytes(16),
    "reserved byte": b"\x94\xc1\xc1\xc1\xc1",
    "unknown kind": msgpack.packb([3, 1, "m", {}]),
    "negative id": msgpack.packb([0, -1, "m", {}]),
    "id is a boolean": msgpack.packb([0, True, "m", {}]),
    "id too large": msgpack.packb([0, ID_MAX + 1, "m", {}]),
    "method is bytes": msgpack.packb([0, 1, b"m", {}]),
    "method too long": msgpack.packb([0, 1, "m" * 200, {}]),
    "params by position": msgpack.packb([0, 1, "m", [1, 2]]),
    "params are a number": msgpack.packb([0, 1, "m", 5]),
    "param names are bytes": msgpack.packb([0, 1, "m", {b"a": 1}]),
    "request of three": msgpack.packb([0, 1, "m"]),
    "not utf-8": b"\x94\x00\x01\xa1\xff\x80",
    "extension type": msgpack.packb([0, 1, "m", {"a": msgpack.ExtType(5, b"x" * 4)}]),
    "too deep": msgpack.packb([0, 1, "m", {"a": nested(NESTING_MAX)}]),
    "deeper than the parser": b"\x94\x00\x01\xa1m" + b"\x91" * 5000,
    "too long": b"\x94\x00\x01\xa1m" + b"\xc6\x7f\xff\xff\xff" + bytes(MESSAGE_BYTES_MAX),
}


@pytest.mark.parametrize("pieces", [None, 7])
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage(data: bytes, pieces: int | None) -> None:
    """What is no message is a protocol error, and the message before it still counts."""
    whole = encode(CASES[0][0]) + data
    step = 4096 if len(data) > MESSAGE_BYTES_MAX else pieces or len(whole)
    got: list[Message] = []
    assert outcome(whole, step, got) == ExitCode.PROTOCOL
    assert got == [CASES[0][0]]


@given(st.binary(max_size=64))
def test_random_bytes(data: bytes) -> None:
    """Random bytes give messages or a protocol error, never another exception, and cutting them changes
    nothing."""
    whole: list[Message] = []
    pieces: list[Message] = []
    assert outcome(data, 64, whole) == outcome(data, 5, pieces)
    assert whole == pieces


def outcome(data: bytes, step: int, got: list[Message]) -> int | None:
    """Feed in pieces, collect into `got`; the code of the error if there was one."""
    decoder = Decoder()
    try:
        for at in range(0, len(data), step):
            got.extend(decoder.feed(data[at : at + step]))
    except RpcError as error:
        return error.code
    return None


def test_deepest_allowed() -> None:
    """One level less than too deep is taken."""
    (request,) = decoded(msgpack.packb([0, 1, "m", {"a": nested(NESTING_MAX - 1)}]))
    assert isinstance(request, Request)


def test_announced_sizes_cost_nothing() -> None:
    """3 kB that announce a thousand nested lists of 65535 entries take less than 1 MiB of memory."""
    tracemalloc.start()
    try:
        assert decoded(b"\x94\x00\x01\xa1m" + b"\xdc\xff\xff" * 1000) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [object(), {1, 2}, 1 << 70])
def test_unknown_value(value: Any) -> None:
    """A value without MessagePack form is an RpcError of the sender."""
    with pytest.raises(RpcError, match="MessagePack"):
        encode(Response(1, None, value))


def test_too_large_to_send() -> None:
    """A message above the limit is not sent."""
    with pytest.raises(RpcError, match="at most"):
        encode(Response(1, None, bytes(MESSAGE_BYTES_MAX)))
