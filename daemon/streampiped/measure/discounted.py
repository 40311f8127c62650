"""The discounted mean as a guess: what a level is now, for a stream whose level moves."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import numpy as np

from streampiped.records import Array

DISCOUNT: Final = 0.99  # of the discounted mean, a row: it remembers about 100
STRETCH: Final = 1024  # rows at a time: their weights differ by 30,000 at most, and so do the roundings
_POWERS: Final[Array] = np.power(DISCOUNT, np.arange(STRETCH, dtype=np.float64))
_INVERSE: Final[Array] = 1.0 / _POWERS
_SUMS: Final[Array] = np.cumsum(_POWERS)
FULL: Final = 1.0 / (1.0 - DISCOUNT)  # the weight of an endless stream
FULL_ROWS: Final = 4096  # after so many the weight is that to the last bit


class DiscountedMean:
    """The mean in which a row counts DISCOUNT times what the next one does, as a prediction: test-then-train, row by
    row, 0 before the first target.

    >>> DiscountedMean().follow(np.array([2.0, 4.0, 9.0])).round(3).tolist()
    [0.0, 2.0, 3.005]
    """

    __slots__ = ("mean", "rows")

    def __init__(self) -> None:
        self.mean = 0.0
        self.rows = 0

    def follow(self, targets: Array) -> Array:
        """The mean before each of these finite targets, which are then taken in."""
        if len(targets) == 1:
            return self._follow_one(float(targets[0]))
        result = np.empty(len(targets))
        for start in range(0, len(targets), STRETCH):
            part = targets[start : start + STRETCH]
            rows = len(part)
            result[start] = self.mean
            if not self.rows:
                self.mean = float(part[0])
            # sums of distances from the mean so far, of which the rows so far have none
            means = part - self.mean
            means *= _INVERSE[:rows]
            np.cumsum(means, out=means)
            means *= _POWERS[:rows]
            means /= self._weights(rows)
            means += self.mean
            result[start + 1 : start + rows] = means[:-1]
            self.mean = float(means[-1])
            self.rows += rows
            if not isfinite(self.mean):  # an absurd target; the next one begins anew
                self.mean, self.rows = 0.0, 0
        return result

    def _follow_one(self, target: float) -> Array:
        """`follow` of one row, to the same bits in a tenth of the time."""
        before = self.mean
        mean = before if self.rows else target
        weight = FULL if self.rows >= FULL_ROWS else FULL * (1.0 - DISCOUNT**self.rows) * DISCOUNT + 1.0
        self.mean, self.rows = (target - mean) / weight + mean, self.rows + 1
        if not isfinite(self.mean):
            self.mean, self.rows = 0.0, 0
        return np.array([before])

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"mean": self.mean, "rows": self.rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean, self.rows = float(state["mean"]), int(state["rows"])

    def _weights(self, rows: int) -> Array | float:
        """The weight of all rows up to each of the next `rows`."""
        if self.rows >= FULL_ROWS:
            return FULL
        before = FULL * (1.0 - DISCOUNT**self.rows) * DISCOUNT
        weights: Array = before * _POWERS[:rows] + _SUMS[:rows]
        return weights
