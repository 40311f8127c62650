"""Whether the errors have grown: the one-sided Page-Hinkley test on |residual|, scaled by its own recent mean.

Page, "Continuous inspection schemes" (1954). Scaled, so that one threshold serves every label; one-sided, so that a
model that gets better is no alarm; and with each residual bounded, so that single spikes are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any, Final

import numpy as np

from streampiped.records import Array

SLACK: Final = 0.4  # of the mean |residual|: growth up to that is none
ALARM: Final = 30.0  # summed excess; one false alarm in e**42 rows of Gaussian residuals, in e**16 of Laplacian ones
BOUND: Final = 5.0  # mean |residual|s that one row counts at most: four rows are needed for an alarm
MEMORY: Final = 500.0  # rows that the mean remembers
WARM_UP: Final = 100  # rows before there is a mean to be judged by


class PageHinkley:
    """State: the mean, the sum of excess and the rows since the last alarm."""

    __slots__ = ("_mean", "_sum", "rows")

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """After an alarm: learn anew what is usual."""
        self.rows = 0
        self._mean = 0.0
        self._sum = 0.0

    def find(self, residuals: Array) -> int | None:
        """The place among these, oldest first, at which there is an alarm; None: there is none. Changes nothing."""
        if self.rows < WARM_UP or self._mean <= 0.0 or not len(residuals):
            return None
        if len(residuals) == 1:
            return 0 if self._height(abs(float(residuals[0]))) > ALARM else None
        over = np.flatnonzero(self._heights(np.abs(residuals)) > ALARM)
        return int(over[0]) if over.size else None

    def learn(self, residuals: Array) -> None:
        """Take in a block, oldest first, of which only the last row may be an alarm."""
        if not len(residuals):
            return
        if len(residuals) == 1:
            self._learn_one(abs(residuals.item()))
            return
        sizes = np.abs(residuals)
        if self.rows >= WARM_UP and self._mean > 0.0:
            self._sum = float(self._heights(sizes)[-1])
            sizes = np.minimum(sizes, BOUND * self._mean)
        self._follow(float(sizes.sum()), len(sizes))

    def _learn_one(self, size: float) -> None:
        """`learn` of one row, to the same bits in plain numbers."""
        if self.rows >= WARM_UP and self._mean > 0.0:
            self._sum = self._height(size)
            bound = BOUND * self._mean
            size = bound if size > bound else size
        self._follow(size, 1)

    def _follow(self, total: float, rows: int) -> None:
        weight = MEMORY * (1.0 - exp(-self.rows / MEMORY))
        kept = weight * exp(-rows / MEMORY)
        self._mean = (kept * self._mean + total) / (kept + rows)
        self.rows += rows

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"rows": self.rows, "mean": self._mean, "sum": self._sum}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rows, self._mean, self._sum = int(state["rows"]), float(state["mean"]), float(state["sum"])

    def _height(self, size: float) -> float:
        """`_heights` of one row."""
        excess = min(size / self._mean, BOUND) - (1.0 + SLACK) + self._sum
        return excess - min(excess, 0.0)

    def _heights(self, sizes: Array) -> Array:
        """The summed excess behind each row, never below 0: the sum's height over the lowest that it has been."""
        excess = np.cumsum(np.minimum(sizes / self._mean, BOUND) - (1.0 + SLACK)) + self._sum
        heights: Array = excess - np.minimum(np.minimum.accumulate(excess), 0.0)
        return heights
