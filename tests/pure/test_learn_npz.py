"""learn/npz.py: portable state to bytes and back, and every way in which such bytes may be wrong."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.aligned import COLUMN_ALIGN_BYTES
from streampiped.errors import StateError
from streampiped.learn.estimators import equal
from streampiped.learn.npz import from_npz, to_npz

STATE: dict[str, Any] = {
    "none": None,
    "flags": [True, False],
    "ints": [0, -1, 2**80],
    "floats": [0.1, -0.0, math.inf, -math.inf, 5e-324],
    "text": 'Zürich "\ud800" \n',
    "bytes": b"\x00\xff",
    "nested": {"~": "tuple", "items": [{"~": {"~": 1}}]},
    "empty": {"list": [], "map": {}, "array": np.zeros((0, 3))},
    "c": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "kinds": [np.array([True]), np.array([1, 2], dtype=np.int32), np.array([1], dtype=np.uint64), np.float32([0.1])],
    "nan": np.array([math.nan, math.inf]),
}


def same(one: Any, other: Any) -> bool:
    """Bit for bit, memory order included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return equal(one, other) and one.flags.f_contiguous == other.flags.f_contiguous
    return equal(one, other)


def test_state_comes_back_bit_for_bit() -> None:
    """Every portable value, with signs of zeros, infinities, types, shapes and memory order of arrays."""
    assert same(STATE, from_npz(to_npz(STATE)))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.dictionaries(st.text() | st.just("~"), VALUES))
def test_any_state_comes_back(state: dict[str, Any]) -> None:
    """Whatever a state is made of, its keys included."""
    assert same(state, from_npz(to_npz(state)))


def test_same_state_same_bytes() -> None:
    """The bytes follow from the state alone: a checksum tells whether a file is what was written."""
    assert to_npz(STATE) == to_npz(from_npz(to_npz(STATE)))


def test_numpy_can_read_it() -> None:
    """It is an npz file as numpy knows it, without pickle."""
    with np.load(io.BytesIO(to_npz(STATE)), allow_pickle=False) as found:
        assert {"tree", "a0"} <= set(found.files)


def test_arrays_come_back_aligned() -> None:
    """No arithmetic depends on where an allocator had put an array of 8-byte numbers."""
    found = from_npz(to_npz({"a": [np.arange(float(n)) for n in range(1, 20)]}))["a"]
    assert all(array.ctypes.data % COLUMN_ALIGN_BYTES == 0 for array in found)


@pytest.mark.parametrize("value", [np.array(["x"]), np.array([object()]), {1: 2}, {1, 2}, object()])
def test_what_is_not_portable_is_refused(value: Any) -> None:
    """Nothing is written that could not be read without running code."""
    with pytest.raises(TypeError, match="portable"):
        to_npz({"value": value})


def test_torn_bytes_are_refused() -> None:
    """Cut off anywhere, it is no model, and says so."""
    data = to_npz({"a": np.arange(4.0), "b": [1, {"c": 2.5}]})
    for length in range(len(data)):
        with pytest.raises(StateError):
            from_npz(data[:length])


@pytest.mark.parametrize(
    "tree",
    [b"[]", b"{", b'{"a":{"~":["array",9]}}', b'{"a":{"~":["array",-1]}}', b'{"a":{"~":["object","os.system"]}}',
     b'{"a":{"~":1}}', b'{"a":{"~":["bytes","?"]}}', b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", b"[" * 5000],
)  # fmt: skip
def test_foreign_trees_are_refused(tree: bytes) -> None:
    """A tree that `to_npz` does not write is no model, whatever it names."""
    buffer = io.BytesIO()
    np.savez(buffer, tree=np.frombuffer(tree, dtype=np.uint8), a0=np.zeros(1))
    with pytest.raises(StateError):
        from_npz(buffer.getvalue())


def test_pickles_are_not_read() -> None:
    """An array of objects, which numpy would unpickle, is refused unread."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in (("tree.npy", np.frombuffer(b"{}", np.uint8)), ("a0.npy", np.array([print], dtype=object))):
            with archive.open(name, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=True)
    with pytest.raises(StateError, match="allow_pickle"):
        from_npz(buffer.getvalue())
