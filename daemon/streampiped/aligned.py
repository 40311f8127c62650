"""Arrays that begin on a cache line, for unaligned float64 gives other last bits in sums and products."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

COLUMN_ALIGN_BYTES: Final = 64  # one cache line, and one AVX-512 register
ITEM_BYTES: Final = 8  # both numeric types are 8 bytes wide
PIECES: Final = 16  # small arrays that share an allocation: who keeps one of them keeps the memory of all
PIECE_LINES_MAX: Final = 64  # 4 KiB: a row of 64 columns

_PIECES: Final[dict[int, list[NDArray[Any]]]] = {lines: [] for lines in range(1, PIECE_LINES_MAX + 1)}


def aligned_empty(items: int, dtype: Any) -> NDArray[Any]:
    """An uninitialised 1-D array of 8-byte items whose first byte is on a column boundary. What is small is cut from
    memory for PIECES such: to ask where an allocation lies takes 1 us."""
    lines = -(-items * ITEM_BYTES // COLUMN_ALIGN_BYTES)
    if not 0 < lines <= PIECE_LINES_MAX:
        return _aligned(items, dtype) if lines else np.empty(0, dtype)
    try:
        piece = _PIECES[lines].pop()  # never the same for two threads
    except IndexError:
        piece, *others = _aligned(lines * PIECES * COLUMN_ALIGN_BYTES // ITEM_BYTES, np.float64).reshape(PIECES, -1)
        _PIECES[lines] += others
    return piece[:items] if dtype is np.float64 else piece[:items].view(dtype)


def _aligned(items: int, dtype: Any) -> NDArray[Any]:
    raw = np.empty(items * ITEM_BYTES + COLUMN_ALIGN_BYTES, dtype=np.uint8)
    skip = -raw.ctypes.data % COLUMN_ALIGN_BYTES
    return raw[skip : skip + items * ITEM_BYTES].view(dtype)
