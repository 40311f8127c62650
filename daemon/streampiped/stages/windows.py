"""Rolling windows over the last `window` rows, across batch borders.

A window's value depends on the values in it and on nothing else: not on where batches were cut, nor on how long the
pipeline has run, as a running sum's would. Windows of 2**k rows are built from two of half the length, and one of any
length from those of its binary digits: O(rows * log window), vectorised, and always added up in the same order.

Missing values (NaN) and infinities are left out; a window without any value is NaN. The first rows of a stream have the
windows that there are. `std` is of the population (divided by n), from merged moments: Chan, Golub, LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances" (1979). `lag` is the value `window` rows ago as it
stands, NaN before there was one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np

from streampiped.records import Array

WINDOW_MAX: Final = 100_000  # rows; a column's last rows are part of every snapshot (800 kB)

Function: TypeAlias = Literal["mean", "std", "min", "max", "sum", "lag"]
Parts: TypeAlias = tuple[Array, ...]
"""One window per row, as the arrays that its kind of merge needs."""


def rolling(function: Function, window: int, tail: Array, values: Array) -> Array:
    """The function of the window that ends at each of `values`. `tail` is what came before them, at least `window`
    values, NaN where the stream had not begun.

    >>> nan = float("nan")
    >>> rolling("mean", 2, np.array([nan, 1.0]), np.array([3.0, nan, 5.0])).tolist()
    [2.0, 3.0, 5.0]
    >>> rolling("lag", 2, np.array([nan, 1.0]), np.array([3.0, nan, 5.0])).tolist()
    [nan, 1.0, 3.0]
    """
    rows = len(values)
    series = np.concatenate([tail[len(tail) - window :], values])
    if function == "lag":
        return series[:rows]
    series = np.where(np.isfinite(series), series, np.nan)
    with np.errstate(all="ignore"):
        return _REDUCERS[function](series, window)[-rows:] if rows else values


def next_tail(tail: Array, values: Array) -> Array:
    """The last `len(tail)` values, a copy."""
    return np.concatenate([tail, values])[len(values) :]


def _windows(leaf: Parts, window: int, merge: Callable[[Parts, Parts], Parts]) -> Parts:
    """Merge every `window` consecutive leaves: entry i covers leaves i .. i + window - 1."""
    power, size = leaf, 1  # entry i of `power` covers `size` leaves from i on
    result, covered = leaf, 0
    while True:
        if window & size:
            result = _adjoin(result, power, covered, merge) if covered else power
            covered += size
        if covered == window:
            return result
        power = _adjoin(power, power, size, merge)
        size *= 2


def _adjoin(first: Parts, second: Parts, covered: int, merge: Callable[[Parts, Parts], Parts]) -> Parts:
    """Merge each window of `first`, which covers `covered` leaves, with the one of `second` that begins behind it."""
    later = tuple(array[covered:] for array in second)
    return merge(tuple(array[: len(later[0])] for array in first), later)


def _merge_moments(first: Parts, second: Parts) -> Parts:
    """Number of values, their mean, sum of squared deviations from it."""
    (count_1, mean_1, squares_1), (count_2, mean_2, squares_2) = first, second
    count = count_1 + count_2
    share = count_2 / np.maximum(count, 1.0)
    delta = mean_2 - mean_1
    return count, mean_1 + delta * share, squares_1 + squares_2 + delta * delta * count_1 * share


def _moments(series: Array, window: int) -> Parts:
    present = ~np.isnan(series)
    leaf = (present.astype(np.float64), np.where(present, series, 0.0), np.zeros(len(series)))
    return _windows(leaf, window, _merge_moments)


def _mean(series: Array, window: int) -> Array:
    count, mean, _ = _moments(series, window)
    return np.where(count > 0, mean, np.nan)


def _std(series: Array, window: int) -> Array:
    count, _, squares = _moments(series, window)
    return np.sqrt(squares / np.where(count > 0, count, np.nan))


def _sum(series: Array, window: int) -> Array:
    present = ~np.isnan(series)
    leaf = (present.astype(np.float64), np.where(present, series, 0.0))
    count, total = _windows(leaf, window, lambda a, b: (a[0] + b[0], a[1] + b[1]))
    return np.where(count > 0, total, np.nan)


def _min(series: Array, window: int) -> Array:
    return _windows((series,), window, lambda a, b: (np.fmin(a[0], b[0]),))[0]


def _max(series: Array, window: int) -> Array:
    return _windows((series,), window, lambda a, b: (np.fmax(a[0], b[0]),))[0]


_REDUCERS: Final[dict[str, Callable[[Array, int], Array]]] = {
    "mean": _mean,
    "std": _std,
    "sum": _sum,
    "min": _min,
    "max": _max,
}
