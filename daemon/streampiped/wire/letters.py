"""The record in a dead letter as bytes: a msgpack map of column names to values.

Whatever a stage can be given must survive: NaN and infinities, and text with lone surrogates, which UTF-8 has no
form for. It is written by a stage, kept as it is, and read by a stage (to replay it) and by the operator's tool, so it
must stay cheap to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack

from streampiped.errors import StateError

_SURROGATES: Final = "surrogatepass"


def pack(record: Mapping[str, Any]) -> bytes:
    """Values are None, bool, int of 64 bits, float, str or bytes; anything else is a wrong program (TypeError)."""
    data: bytes = msgpack.packb(dict(record), unicode_errors=_SURROGATES, strict_types=True)
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given; StateError when it is no such map."""
    try:
        record = msgpack.unpackb(data, unicode_errors=_SURROGATES)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise StateError(f"the record of a dead letter cannot be read ({len(data)} bytes): {error}") from error
    if not isinstance(record, dict) or not all(isinstance(name, str) for name in record):
        raise StateError(f"the record of a dead letter should be a map of names to values, it is {str(record)[:80]}")
    return record
