"""Online standardisation: every column to mean 0 and standard deviation 1 by what has been seen of it so far.

A batch is scaled with the moments *including* it. The state before it would leave a first batch unscaled, and with
it the one step from which a linear model with a constant step hardly recovers; for features this leaks nothing, since
no target is in them. (A target is scaled by the moments before the batch when it is predicted; see `model.py`.)

A value further than `limit` standard deviations from the mean of what came before counts as being that far away:
one spike of 1e6 would otherwise flatten its column for the rest of the stream. Clipping alone is as bad when
the spike turns out to be a lasting shift (R2 0.16 in field trials), so a shift that lasts is believed:
after `REBASE_ROWS` values outside, in batches most of which are outside, the history is discounted to that many rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, Final

import numpy as np

from streampiped.learn.moments import Moments
from streampiped.records import Array, IntArray

LIMIT: Final = 10.0  # standard deviations; up to here a step of 0.01 does not overshoot (0.01 * 10**2 = 1)
FAR_INSIDE: Final = 0.999  # of the limit: nearer to it, how its sum is rounded decides
LIMIT_AFTER: Final = 100  # rows; before, a standard deviation is too uncertain to judge by
REBASE_ROWS: Final = 64  # rows outside before a shift is believed; a burst of spikes is shorter
CONSTANT_RELATIVE: Final = float(16 * np.finfo(np.float64).eps)  # deviation / |mean| that rounding alone can give
CONSTANT_BELOW: Final = 1e-150  # a smaller deviation has a square that underflows
LARGEST: Final = 1e70  # of a number that is learned: a product of four, as of two squared errors, is finite
FLOAT_MAX: Final = np.finfo(np.float64).max


class Standardiser:
    """Moments, limits and the shifts being watched, for `width` columns.

    `limit` is in standard deviations; 0 means no limit. NaN is missing; infinite values must be NaN already.

    >>> s = Standardiser(1)
    >>> seen = s.learn(np.array([[1.0, 3.0]]))
    >>> shift, factor = s.scale()
    >>> ((seen - shift[:, None]) * factor[:, None]).tolist()
    [[-1.0, 1.0]]
    """

    __slots__ = ("_deviation", "_scale", "_streak", "limit", "moments", "outside", "rebased")

    def __init__(self, width: int, limit: float = LIMIT) -> None:
        self.limit = limit
        self.moments = Moments(width)
        self.outside: IntArray = np.zeros(width, dtype=np.int64)
        """Values that were beyond the limit, per column."""
        self.rebased: IntArray = np.zeros(width, dtype=np.int64)
        """Lasting shifts that were believed, per column."""
        self._streak: IntArray = np.zeros(width, dtype=np.int64)
        self._deviation: Array | None = None  # of the moments as they are, once it was asked for
        self._scale: tuple[Array, Array] | None = None

    def learn(self, table: Array) -> Array:
        """Take in a batch `(columns, rows)` and return it with the values beyond the limits brought to them; the
        very same array when there are none."""
        rows = table.shape[1]
        if rows == 0 or (rows == 1 and self._learn_one(table)):
            return table
        low, high = self._bounds()
        least = most = table[:, 0]
        if rows > 1:
            least, most = np.minimum.reduce(table, axis=1), np.maximum.reduce(table, axis=1)
        inside = (least >= low) & (most <= high)  # false with a NaN: the slow way sorts it out
        if np.count_nonzero(inside) < len(inside) or np.count_nonzero(self._streak):
            table = self._bounded(table, low, high)
        self.moments.update(table)
        self._deviation = self._scale = None
        return table

    def scale(self) -> tuple[Array, Array]:
        """(shift, factor): `(x - shift) * factor` has mean 0 and deviation 1; the factor of a constant column is 0,
        as its deviations can only be rounding errors and should not be blown up to size 1."""
        if self._scale is None:
            deviation = self.deviation()
            if len(deviation) == 1:
                factor = np.array([1.0 / one if (one := deviation.item()) > 0.0 else 0.0])
                self._scale = self.moments.mean, factor
                return self._scale
            if np.count_nonzero(deviation) == len(deviation):
                factor = 1.0 / deviation
            else:
                factor = np.divide(1.0, deviation, out=np.zeros(len(deviation)), where=deviation > 0)
            self._scale = self.moments.mean, factor
        return self._scale

    def deviation(self) -> Array:
        """As `deviation_of`."""
        if self._deviation is None:
            self._deviation = deviation_of(self.moments)
        return self._deviation

    def state(self) -> dict[str, Any]:
        """Portable, and exact: the argument of `restore`."""
        return {
            "moments": self.moments.state(),
            "outside": self.outside,
            "rebased": self.rebased,
            "streak": self._streak,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.moments = Moments.from_state(state["moments"])
        self.outside = np.array(state["outside"], dtype=np.int64)
        self.rebased = np.array(state["rebased"], dtype=np.int64)
        self._streak = np.array(state["streak"], dtype=np.int64)
        self._deviation = self._scale = None

    def copy(self) -> Standardiser:
        """An independent one in the same state; cheap, as the arrays are never changed in place."""
        result = Standardiser.__new__(Standardiser)
        result.limit, result.moments = self.limit, self.moments.copy()
        result.outside, result.rebased, result._streak = self.outside, self.rebased, self._streak
        result._deviation, result._scale = self._deviation, self._scale
        return result

    def _learn_one(self, table: Array) -> bool:
        """`learn` of one row by a shorter way; False: it was not to be gone, and nothing was done."""
        return self._learn_number(table.item()) if len(table) == 1 else self._learn_row(table)

    def _learn_number(self, value: float) -> bool:
        """`learn` of one value of one column, to the same bits in a fifth of the time. False: it is missing, the first,
        or not plainly inside the limits, and nothing was done."""
        count, mean, deviation = self.moments.count.item(), self.moments.mean.item(), self.deviation().item()
        if count >= LIMIT_AFTER and deviation > 0.0 and self.limit > 0.0:
            reach = self.limit * deviation
            inside = mean - reach <= value <= mean + reach
        else:
            inside = isfinite(value)
        if not count or not inside or self._streak.item() or not self.moments.update_number(value):
            return False
        self._deviation = np.array([deviation_of_number(self.moments)])
        self._scale = None
        return True

    def _learn_row(self, table: Array) -> bool:
        """`learn` of one value of each of several columns, to the same bits in half the time. False: one of them is
        missing, the first, or not far inside the limits, and nothing was done."""
        moments, row = self.moments, table[:, 0]
        if np.count_nonzero(self._streak) or np.count_nonzero(moments.count) < len(row):
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(row - moments.mean)
            if self.limit and np.count_nonzero(apart < FAR_INSIDE * self.limit * self.deviation()) < len(row):
                return False
            if not moments.update_row(row):
                return False
        self._deviation = self._scale = None
        return True

    def _bounds(self) -> tuple[Array, Array]:
        """What is still believed, per column; the largest floats where nothing can be said."""
        deviation, mean = self.deviation(), self.moments.mean
        known = (self.moments.count >= LIMIT_AFTER) & (deviation > 0)
        if not self.limit:
            known[:] = False
        with np.errstate(over="ignore"):
            reach = self.limit * deviation
            low, high = np.maximum(mean - reach, -FLOAT_MAX), np.minimum(mean + reach, FLOAT_MAX)
        if np.count_nonzero(known) == len(known):
            return low, high
        return np.where(known, low, -FLOAT_MAX), np.where(known, high, FLOAT_MAX)

    def _bounded(self, table: Array, low: Array, high: Array) -> Array:
        beyond = (table < low[:, None]) | (table > high[:, None])
        outside = np.count_nonzero(beyond, axis=1)
        present = np.count_nonzero(np.isfinite(table), axis=1)
        self.outside = self.outside + outside
        most = outside * 2 > present
        streak = np.where(most, self._streak + outside, np.where(present > 0, 0, self._streak))
        believed = streak >= REBASE_ROWS
        self._streak = np.where(believed, 0, streak)
        if believed.any():
            self.rebased = self.rebased + believed
            self.moments.discount(believed, REBASE_ROWS)
            low, high = np.where(believed, -FLOAT_MAX, low), np.where(believed, FLOAT_MAX, high)
        if not outside.any():
            return table
        return np.clip(table, low[:, None], high[:, None])


def deviation_of_number(moments: Moments) -> float:
    """`deviation_of` of a single column."""
    deviation = sqrt(moments.m2.item() / max(moments.count.item(), 1.0))
    return 0.0 if deviation <= max(CONSTANT_RELATIVE * abs(moments.mean.item()), CONSTANT_BELOW) else deviation


def deviation_of(moments: Moments) -> Array:
    """Standard deviations; exactly 0 for what is constant up to rounding."""
    deviation: Array = np.sqrt(moments.variance())
    constant = deviation <= np.maximum(CONSTANT_RELATIVE * np.abs(moments.mean), CONSTANT_BELOW)
    return np.where(constant, 0.0, deviation) if np.count_nonzero(constant) else deviation
