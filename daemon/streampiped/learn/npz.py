"""Portable state as an npz file: arrays as numpy writes them, everything else as one JSON text beside them.

Written without pickle and read without it: no byte of such a file names a class or runs code. The same state gives the
same bytes, so that a checksum tells whether a file is what was written. docs/specs/models.md is the contract.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streampiped.aligned import ITEM_BYTES, aligned_empty
from streampiped.errors import StateError

TREE: Final = "tree.npy"
TAG: Final = "~"
"""The one key of a map that stands for what JSON has no form for; state has no such key but in maps that are quoted."""
HEADER_BYTES_MAX: Final = 10_000  # of an array's description, which numpy evaluates as a literal; ours have some 80
DEPTH_MAX: Final = 64
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, ValueError, KeyError, IndexError, TypeError, EOFError, OSError, RecursionError,
    NotImplementedError, struct.error,
)  # fmt: skip
"""What reading bytes that are no such file may raise."""


def to_npz(state: Mapping[str, Any]) -> bytes:
    """The whole file. TypeError for what is not portable."""
    arrays: list[np.ndarray[Any, Any]] = []
    text = json.dumps(_encode(state, arrays), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    members = {TREE: np.frombuffer(text.encode("ascii"), dtype=np.uint8)}
    members |= {f"a{place}.npy": array for place, array in enumerate(arrays)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            with archive.open(zipfile.ZipInfo(name), "w") as member:  # a fixed date, whenever it is written
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def from_npz(data: bytes) -> dict[str, Any]:
    """What `to_npz` was given; StateError when these are no such bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            tree = json.loads(_array(archive, TREE).tobytes())
            count = len(archive.namelist()) - 1
            state = _decode(tree, [_array(archive, f"a{place}.npy") for place in range(count)], 0)
    except _DAMAGE as error:
        raise StateError(f"no model: {error}") from error
    if not isinstance(state, dict):
        raise StateError("no model: its tree is no map")
    return state


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    """At an aligned address: no arithmetic may depend on where an allocator had put it."""
    with archive.open(name) as member:
        found = np.lib.format.read_array(member, allow_pickle=False, max_header_size=HEADER_BYTES_MAX)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} is an array of {found.dtype}")
    if found.itemsize != ITEM_BYTES:
        return np.array(found, order="K")
    order = "F" if found.flags.f_contiguous and not found.flags.c_contiguous else "C"
    result = aligned_empty(found.size, found.dtype).reshape(found.shape, order=order)  # type: ignore[call-overload]  # a literal
    result[...] = found
    return result  # type: ignore[no-any-return]  # of the dtype that was asked for


def _encode(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    match value:
        case np.ndarray():
            if value.dtype.kind not in "biuf":
                raise TypeError(f"an array of {value.dtype} is not portable")
            arrays.append(value)
            return {TAG: ["array", len(arrays) - 1]}
        case np.generic():
            return _encode(value.item(), arrays)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {TAG: ["float", repr(value)]}
        case bytes():
            return {TAG: ["bytes", base64.b64encode(value).decode("ascii")]}
        case list() | tuple():
            return [_encode(item, arrays) for item in value]
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("a map with keys that are no text is not portable")
            fields = {key: _encode(item, arrays) for key, item in value.items()}
            return {TAG: ["map", fields]} if TAG in fields else fields
    raise TypeError(f"{type(value).__name__} is not portable")


def _decode(value: Any, arrays: list[np.ndarray[Any, Any]], depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_decode(item, arrays, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: _decode(item, arrays, depth + 1) for key, item in value.items()}
    kind, what = value[TAG]
    match kind:
        case "array" if isinstance(what, int) and 0 <= what < len(arrays):
            return arrays[what]
        case "float":
            return float(what)
        case "bytes":
            return base64.b64decode(what, validate=True)
        case "map" if isinstance(what, dict):
            return {key: _decode(item, arrays, depth + 1) for key, item in what.items()}
    raise ValueError(f"unknown {kind!r}")
