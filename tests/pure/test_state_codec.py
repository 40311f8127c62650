"""A stage's state as bytes: what is portable comes back to the bit, what is damaged is found.

docs/specs/snapshots.md is the contract.
"""

from __future__ import annotations

import datetime
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.errors import StateError
from streampiped.wire.state import ARRAY_EXT, BIGINT_EXT, PREFIX, pack, unpack

KIND = "streampiped.stages.normalizer:Normalizer"
RESERVED = (6, 7)  # bytes of the prefix that mean nothing yet


def raw(body: bytes, **prefix: Any) -> bytes:
    """A snapshot by the letter of the specification; `prefix` overrides a field of its prefix."""
    fields = {"magic": b"SPST", "version": 1, "reserved": 0, "checksum": zlib.crc32(body), "length": len(body)}
    return struct.pack("<4sHHIQ", *(fields | prefix).values()) + body


def there_and_back(value: Any) -> Any:
    return unpack(pack(KIND, {"value": value}), KIND)["value"]


PINNED: list[tuple[Mapping[str, Any], Any]] = [
    # state, msgpack behind the kind
    ({}, {}),
    ({"rows": 3, "mean": -0.5, "name": "x", "none": None, "raw": b"\x00"}, None),
    ({"deep": [1, [2.5, {"a": True}]]}, None),
    (
        {"array": np.array([1.0, 2.0])},
        {"array": msgpack.ExtType(ARRAY_EXT, msgpack.packb(["<f8", [2], "C"]) + struct.pack("<2d", 1.0, 2.0))},
    ),
    ({"big": 2**64}, {"big": msgpack.ExtType(BIGINT_EXT, b"18446744073709551616")}),
]


@pytest.mark.parametrize(("state", "fields"), PINNED, ids=lambda value: "-".join(value or ["same"]))
def test_byte_form(state: Mapping[str, Any], fields: Any) -> None:
    """A snapshot has exactly the specification's bytes, in both directions."""
    by_letter = raw(msgpack.packb([KIND, state if fields is None else fields]))
    assert pack(KIND, state) == by_letter
    assert pack(KIND, unpack(by_letter, KIND)) == by_letter


ARRAYS: dict[str, Any] = {
    "float64": np.array([1.5, np.nan, -0.0, np.inf, 5e-324]),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "uint32": np.arange(5, dtype=np.uint32),
    "bool": np.array([True, False]),
    "float32": np.array([0.1], np.float32),
    "bytes": np.array([b"ab", b""]),
    "big_endian": np.array([1.5], ">f8"),
    "empty": np.zeros(0),
    "empty_table": np.zeros((0, 3)),
    "scalar": np.array(2.5),
    "rows": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every_other": np.arange(10.0)[::2],
    "slice_of_columns": np.asfortranarray(np.arange(12.0).reshape(3, 4))[:, 1:3],
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_array_keeps_its_bits_type_and_order(array: Any) -> None:
    """An array comes back with its bits, type, shape and memory order, writable and on its own memory."""
    found = there_and_back(array)
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    if array.flags.f_contiguous or array.flags.c_contiguous:
        assert found.flags.f_contiguous == array.flags.f_contiguous
        assert found.flags.c_contiguous == array.flags.c_contiguous
    assert found.flags.writeable
    assert found.flags.owndata or found.base.flags.owndata


def test_same_product_from_a_restored_matrix() -> None:
    """A product with a restored Fortran-ordered matrix has the bits that it had before."""
    rng = np.random.default_rng(3)
    matrix, vector = np.asfortranarray(rng.standard_normal((17, 33))), rng.standard_normal(33)
    assert (there_and_back(matrix) @ vector).tobytes() == (matrix @ vector).tobytes()


@pytest.mark.parametrize("name", ["PCG64", "Philox", "MT19937", "SFC64"])
def test_random_generator_goes_on(name: str) -> None:
    """A random generator's state, integers of 128 bits and all, gives the same numbers after a restore."""
    before = getattr(np.random, name)(5)
    np.random.Generator(before).standard_normal(3)
    after = getattr(np.random, name)(6)
    after.state = there_and_back(before.state)
    assert (
        np.random.Generator(after).standard_normal(9).tobytes()
        == np.random.Generator(before).standard_normal(9).tobytes()
    )


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.float64(1.5), 1.5), (np.int32(-3), -3), (np.bool_(True), True), ((1, (2,)), [1, [2]]), (-(2**200), -(2**200))],
    ids=repr,
)
def test_what_stands_for_something_plain(value: Any, plain: Any) -> None:
    """numpy's scalars come back as Python's, tuples as lists, integers of any size as themselves."""
    found = there_and_back(value)
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, 1j, np.array([1j]), np.array([None]), np.array(["text"]), datetime.date(2024, 1, 1), print],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_portable_is_refused(value: Any) -> None:
    """What another machine or version could not read, or only by running code, is refused with its type."""
    with pytest.raises(TypeError, match="is not portable state"):
        pack(KIND, {"value": value})


def test_other_kind_is_refused() -> None:
    """The state of another class is refused, with both names."""
    with pytest.raises(StateError, match=r"written by a:A, expected b:B"):
        unpack(pack("a:A", {}), "b:B")


def test_every_damage_is_found() -> None:
    """Cut off anywhere, with a byte more, or with any single bit flipped, a snapshot is refused as such."""
    data = pack(KIND, {"coefficients": np.arange(3.0), "rows": 5})
    for damaged in [data[:cut] for cut in range(len(data))] + [data + b"\0"]:
        with pytest.raises(StateError):
            unpack(damaged, KIND)
    for at in set(range(len(data))) - set(RESERVED):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(StateError):
                unpack(bytes(flipped), KIND)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (raw(b"", magic=b"SPFR"), "starts with b'SPFR'"),
        (raw(b"", version=2), "version 2"),
        (raw(b"\xc1"), "cannot be read"),
        (raw(b"\x05"), "cannot be read"),
        (raw(msgpack.packb([KIND])), "cannot be read"),
        (raw(msgpack.packb([KIND, {"x": msgpack.ExtType(9, b"")}])), "unknown extension 9"),
        (raw(msgpack.packb([KIND, {"x": msgpack.ExtType(ARRAY_EXT, b"\x93")}])), "cannot be read"),
        (
            raw(msgpack.packb([KIND, {"x": msgpack.ExtType(ARRAY_EXT, msgpack.packb(["O", [1], "C"]))}])),
            "cannot be read",
        ),
    ],
)
def test_what_is_no_snapshot_is_refused(data: bytes, words: str) -> None:
    """Whatever breaks the specification is a StateError that says what is wrong, also with a right checksum."""
    with pytest.raises(StateError, match=words):
        unpack(data, KIND)
    assert PREFIX.size == 20


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(text, values, max_size=5))
@settings(max_examples=80, deadline=None)
def test_any_portable_state_round_trips(state: dict[str, Any]) -> None:
    """Any state of portable values comes back equal, and packs into the same bytes again."""
    data = pack(KIND, state)
    assert unpack(data, KIND) == state
    assert pack(KIND, unpack(data, KIND)) == data
