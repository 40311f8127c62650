"""Running moments of many columns at once: count, mean and the sum of squared deviations.

Welford's update in the merged form of Chan, Golub and LeVeque (1983, "Algorithms for computing the sample variance"):
a batch's own moments are taken in two passes and merged. Sums of x and of x squared would be simpler and lose
everything at a large mean: at y = 1e9 they give R2 0.9985 where 0.7498 is true.

Means are kept as the distance from an origin, a column's first value. Chan's rule alone is good to 4e-8 at a mean of
1e9 and a deviation of 1, since a mean can only be written there to 1.2e-7; with the origin it is good to 1e-13.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
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

    __slots__ = ("count", "m2", "offset", "origin")

    def __init__(self, width: int) -> None:
        self.count: Array = np.zeros(width)  # float: it only ever takes part in float arithmetic, exact to 2**53
        self.origin: Array = np.zeros(width)
        self.offset: Array = np.zeros(width)
        """The mean's distance from the origin."""
        self.m2: Array = np.zeros(width)

    @property
    def mean(self) -> Array:
        """Means; 0 where nothing was seen."""
        return self.origin + self.offset

    def update(self, table: Array) -> None:
        """Take in a batch, `(columns, rows)` as its block stores it: one row of the table per column."""
        if table.shape[1] == 0:
            return
        if np.count_nonzero(self.count) < len(self.count):
            self.origin = np.where(self.count > 0, self.origin, _first_values(table))
        elif table.shape[1] == 1 and self._update_one(table[:, 0]):
            return
        self.merge(_moments_about(self.origin, table))

    def _update_one(self, row: Array) -> bool:
        with np.errstate(invalid="ignore", over="ignore"):
            return self.update_row(row)

    def update_row(self, row: Array) -> bool:
        """`update` by one row of columns that were all seen before, to the same bits in a third of the time: its own
        mean is itself, its own deviation 0. False: something of it is missing, and nothing was done. numpy's warnings
        of what is not finite are to be ignored."""
        offset = row - self.origin
        if np.count_nonzero(np.isfinite(offset)) < len(offset):
            return False
        count = self.count + 1.0
        apart, share = offset - self.offset, 1.0 / count
        self.offset = self.offset + apart * share
        self.m2 = self.m2 + apart * apart * (self.count * share)
        self.count = count
        return True

    def update_number(self, value: float) -> bool:
        """`_update_one` of a single column that was seen before, in plain numbers."""
        offset = value - self.origin.item()
        if not isfinite(offset):
            return False
        before, held = self.count.item(), self.offset.item()
        count = before + 1.0
        apart, share = offset - held, 1.0 / count
        self.offset = np.array([held + apart * share])
        self.m2 = np.array([self.m2.item() + apart * apart * (before * share)])
        self.count = np.array([count])
        return True

    def copy(self) -> Moments:
        """An independent one in the same state, that shares its arrays."""
        result = Moments.__new__(Moments)
        result.count, result.origin, result.offset, result.m2 = self.count, self.origin, self.offset, self.m2
        return result

    def merge(self, other: Moments) -> None:
        """Become the moments of both."""
        if np.count_nonzero(self.count) < len(self.count):
            self.origin = np.where(self.count > 0, self.origin, other.origin)
        count = self.count + other.count
        some = np.maximum(count, 1.0)
        apart = np.where(other.count > 0, (other.origin - self.origin) + (other.offset - self.offset), 0.0)
        self.offset = self.offset + apart * (other.count / some)
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
        return {"count": self.count, "origin": self.origin, "offset": self.offset, "m2": self.m2}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Moments:
        result = cls(0)
        for name in ("count", "origin", "offset", "m2"):
            setattr(result, name, np.array(state[name], dtype=np.float64))
        return result


def moments_of(table: Array) -> Moments:
    """The moments of one batch, `(columns, rows)`."""
    result = Moments(len(table))
    result.update(table)
    return result


def _first_values(table: Array) -> Array:
    """The first finite value of each column; 0 where there is none."""
    present = np.isfinite(table)
    places = present.argmax(axis=1)
    every = np.arange(len(table))
    return np.where(present[every, places], table[every, places], 0.0)


def _moments_about(origin: Array, table: Array) -> Moments:
    """The moments of a batch of at least one row, as distances from `origin`.

    The sum that gives the mean also tells whether anything is missing: a clean batch, which is nearly every batch,
    pays no pass for it. The squares are summed by numpy's pairwise sum and not by einsum or BLAS, which add
    in one running total and, for some processors, in an order that depends on where the array stands.
    """
    columns, rows = table.shape
    result = Moments(columns)
    result.origin = origin
    with np.errstate(invalid="ignore", over="ignore"):
        apart = table - origin[:, None]
        total = apart.sum(axis=1)
        if np.isfinite(total).all():
            result.count = np.full(columns, float(rows))
            result.offset = total / rows
            np.subtract(apart, result.offset[:, None], out=apart)
        else:
            present = np.isfinite(apart)
            result.count = np.count_nonzero(present, axis=1).astype(np.float64)
            result.offset = np.where(present, apart, 0.0).sum(axis=1) / np.maximum(result.count, 1.0)
            apart = np.where(present, apart - result.offset[:, None], 0.0)
        np.multiply(apart, apart, out=apart)
        result.m2 = apart.sum(axis=1)
    return result
