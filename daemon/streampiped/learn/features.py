"""Rows of features as the matrices that estimators take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, TypeAlias

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.records import Array

Rows: TypeAlias = Sequence[Sequence[float | None]] | Mapping[str, Sequence[float | None]]
"""Rows of an API call: a list per row in the order of the features, or name -> column."""


FEW: Final = 64  # numbers: as many are added in Python as fast as numpy is asked to


def complete(columns: Array) -> tuple[Array, int]:
    """A copy of `(rows, columns)` with every value that is not finite as 0, the mean of a scaled column, and how many
    those were.

    In C order, as scikit-learn wants it for fitting, and at an aligned address, so that no arithmetic depends on where
    the allocator happened to put it.
    """
    flat = aligned_empty(columns.size, np.float64)
    result = flat.reshape(columns.shape)
    result[...] = columns
    if len(columns) == 1 and flat.size <= FEW and isfinite(sum(flat.tolist())):  # a fourth of the time
        return result, 0
    with np.errstate(invalid="ignore", over="ignore"):
        if isfinite(np.add.reduce(result, axis=None)):
            return result, 0
    missing = ~np.isfinite(result)
    result[missing] = 0.0
    return result, int(np.count_nonzero(missing))


def matrix_of(rows: Rows, features: Sequence[str]) -> Array:
    """The complete matrix of an API call's rows; of a mapping, columns that are no features are left aside. Raises
    ValueError with a text for the caller."""
    width = len(features)
    if isinstance(rows, Mapping):
        absent = [name for name in features if name not in rows]
        if absent:
            raise ValueError(f"rows lack the columns {absent}; wanted are {list(features)}")
        table = numbers_of([rows[name] for name in features], "every column").T
    else:
        table = numbers_of(rows, "rows")
        table = table.reshape(0, width) if table.size == 0 else table
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(f"rows must be lists of {width} numbers each, in the order {list(features)}")
    return complete(table)[0]


def numbers_of(values: Any, what: str) -> Array:
    """Numbers and None (missing, NaN) as a float array; ValueError says `what` is none."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be lists of numbers or None, all of one length") from None
