"""A stage's state as bytes: msgpack with arrays as `[dtype, shape, bytes]`, behind a prefix with a checksum.

Never pickle: a snapshot can be read without running anybody's code. docs/specs/snapshots.md is the contract.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgpack
import numpy as np

from streampiped.errors import StateError

MAGIC: Final = b"SPST"
VERSION: Final = 1
PREFIX: Final = struct.Struct("<4sHHIQ")  # magic, version, reserved, CRC-32 of the body, bytes of the body
ARRAY_EXT: Final = 1  # msgpack extension: an array
BIGINT_EXT: Final = 2  # msgpack extension: an int beyond 64 bits, as decimal text (generator states have them)


def pack(kind: str, state: Mapping[str, Any]) -> bytes:
    """`kind` names the class that wrote it, `module:Class`."""
    body: bytes = msgpack.packb([kind, state], default=_default, strict_types=True, unicode_errors="surrogatepass")
    return PREFIX.pack(MAGIC, VERSION, 0, zlib.crc32(body), len(body)) + body


def unpack(data: bytes, kind: str) -> dict[str, Any]:
    """The state that `pack` was given; StateError when it is damaged or of another kind."""
    if len(data) < PREFIX.size:
        raise StateError(f"snapshot of {len(data)} bytes is too short")
    magic, version, _, checksum, length = PREFIX.unpack_from(data)
    body = data[PREFIX.size :]
    if magic != MAGIC or version != VERSION:
        raise StateError(f"snapshot starts with {magic!r} version {version}, expected {MAGIC!r} version {VERSION}")
    if len(body) != length or zlib.crc32(body) != checksum:
        raise StateError(f"snapshot is damaged: {len(body)} of {length} bytes, checksum {zlib.crc32(body):08x}")
    try:
        found, state = msgpack.unpackb(body, ext_hook=_ext_hook, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise StateError(f"snapshot cannot be read: {error}") from error
    if found != kind:
        raise StateError(f"snapshot was written by {found}, expected {kind}")
    result: dict[str, Any] = state
    return result


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufS":
            raise TypeError(f"array of dtype {value.dtype} is not portable state")
        order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        meta = msgpack.packb([value.dtype.str, list(value.shape), order])
        return msgpack.ExtType(ARRAY_EXT, meta + value.tobytes(order))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int):
        return msgpack.ExtType(BIGINT_EXT, str(value).encode())
    raise TypeError(f"{type(value).__name__} is not portable state")


def _ext_hook(code: int, data: bytes) -> Any:
    if code == BIGINT_EXT:
        return int(data)
    if code != ARRAY_EXT:
        raise StateError(f"snapshot has an unknown extension {code}")
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    dtype, shape, order = unpacker.unpack()
    flat = np.frombuffer(data, dtype=np.dtype(dtype), offset=unpacker.tell())
    return flat.reshape(shape, order=order).copy(order=order)
