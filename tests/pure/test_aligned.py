"""Arrays on a cache line, however small."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.aligned import COLUMN_ALIGN_BYTES, PIECE_LINES_MAX, aligned_empty


@pytest.mark.parametrize("items", [0, 1, 7, 8, 9, 136, 8 * PIECE_LINES_MAX, 8 * PIECE_LINES_MAX + 1])
def test_each_stands_by_itself(items: int) -> None:
    """As long as wanted, of the type that was wanted, on a boundary, and in nobody else's memory: what is written to
    one of many stays, whatever is written to the others."""
    made = [aligned_empty(items, dtype) for dtype in (np.float64, np.int64) * 40]
    for number, array in enumerate(made):
        array[:] = number
    for number, array in enumerate(made):
        assert array.shape == (items,)
        assert array.dtype == (np.float64, np.int64)[number % 2]
        assert not items or array.ctypes.data % COLUMN_ALIGN_BYTES == 0
        assert array.tolist() == [number] * items
