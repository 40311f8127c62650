"""Running moments of many columns at once: count, mean and the sum of squared deviations.

Welford's update in the merged form of Chan, Golub and LeVeque (1983, "Algorithms for computing the sample variance"):
a batch's own moments are taken in two passes and merged. Sums of x and of x squared would be simpler and lose
everything at a large mean: at y = 1e9 they give R2 0.9985 where 0.7498 is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array


class Moments:
    """Moments of `width` columns. Values that are not finite are not seen.

    The arrays are replaced, never changed in place, so that whoever was handed one (a snapshot) may keep it.

    >>> m = Moments(2)
    >>> m.update(np.array([[1.0, 3.0], [5.0, np.nan]]))
    >>> m.count.tolist(), m.mean.tolist(), m.variance().tolist()
    ([2.0, 1.0], [2.0, 5.0], [1.0, 0.0])
    """

    __slots__ = ("count", "m2", "mean")

    def __init__(self, width: int) -> None:
        self.count: Array = np.zeros(width)  # float: it only ever takes part in float arithmetic, exact to 2**53
        self.mean: Array = np.zeros(width)
        self.m2: Array = np.zeros(width)

    def update(self, table: Array) -> None:
        """Take in a batch, `(columns, rows)` as its block stores it: one row of the table per column."""
        self.merge(moments_of(table))

    def merge(self, other: Moments) -> None:
        """Become the moments of both. Where both are empty the mean stays 0."""
        count = self.count + other.count
        some = np.maximum(count, 1.0)
        apart = other.mean - self.mean
        self.mean = self.mean + apart * (other.count / some)
        self.m2 = self.m2 + other.m2 + apart * apart * (self.count * (other.count / some))
        self.count = count

    def discount(self, which: NDArray[np.bool_], rows: float) -> None:
        """Let the history of the named columns weigh as much as `rows` rows at most; mean and variance stay."""
        kept = np.where(which, np.minimum(self.count, rows), self.count)
        self.m2 = self.m2 * (kept / np.maximum(self.count, 1.0))
        self.count = kept

    def variance(self) -> Array:
        """Population variance; 0 where nothing was seen."""
        return self.m2 / np.maximum(self.count, 1.0)

    def state(self) -> dict[str, Any]:
        """Portable, and exact: the argument of `from_state`."""
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Moments:
        result = cls(0)
        result.count, result.mean, result.m2 = (np.array(state[k], dtype=np.float64) for k in ("count", "mean", "m2"))
        return result


def moments_of(table: Array) -> Moments:
    """The moments of one batch, `(columns, rows)`.

    The sum that gives the mean also tells whether anything is missing: a clean batch, which is nearly every batch,
    pays no pass for it. The squares are summed by numpy's pairwise sum and not by einsum or BLAS, which add
    in one running total and, for some processors, in an order that depends on where the array stands.
    """
    columns, rows = table.shape
    result = Moments(columns)
    if rows == 0:
        return result
    with np.errstate(invalid="ignore", over="ignore"):
        total = table.sum(axis=1)
        if np.isfinite(total).all():
            result.count = np.full(columns, float(rows))
            result.mean = total / rows
            apart = table - result.mean[:, None]
        else:
            present = np.isfinite(table)
            result.count = np.count_nonzero(present, axis=1).astype(np.float64)
            result.mean = np.where(present, table, 0.0).sum(axis=1) / np.maximum(result.count, 1.0)
            apart = np.where(present, table - result.mean[:, None], 0.0)
        np.multiply(apart, apart, out=apart)
        result.m2 = apart.sum(axis=1)
    return result
