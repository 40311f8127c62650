"""Prediction intervals that keep their coverage whatever happens: adaptive conformal inference on the interval's width.

After Gibbs and Candès, "Adaptive conformal inference under distribution shift" (2021), in the form of quantile tracking
(Angelopoulos, Candès, Tibshirani, "Conformal PID control", 2023), on a logarithmic scale. Half the width is a *factor*
of the residuals' present size, a discounted mean: a miss multiplies the factor, a hit lessens it by a ninth of that.
Over any stretch of rows the coverage differs from the target by log(factor after / factor before) / (STEP * rows) and,
within the factor's bounds, nothing else: no assumption on the data is needed. A width that followed by itself, without
the size, had to miss some thirty rows more until it was as wide as residuals that have grown twentyfold.

Before the first residual nothing is known, and the width is NaN: one of 0 would say that the answer is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp, nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array

COVERAGE: Final = 0.9
STEP: Final = 0.1  # per row, of the factor's logarithm
WIDER: Final = exp(STEP * COVERAGE)
NARROWER: Final = exp(-STEP * (1.0 - COVERAGE))
SIZE_ROWS: Final = 50  # residuals that the size remembers; of 20 it is so uncertain that intervals are 3 % wider
FIRST_ROWS: Final = 10  # residuals whose largest is the first width
FACTOR: Final = 2.0  # where they say nothing, all being 0
FACTOR_MIN: Final = 0.01  # where more than nine of ten are 0 it would go down for ever, and be as long in coming back
FACTOR_MAX: Final = 100.0  # ten times what is needed: at most a tenth of any residuals are above ten times their mean


class Intervals:
    """Half the width of the interval around a prediction."""

    __slots__ = ("_factor", "_largest", "_rows", "_size")

    def __init__(self) -> None:
        self._rows = 0  # residuals so far, at most SIZE_ROWS
        self._largest = 0.0  # of the first
        self._size = 0.0
        self._factor = FACTOR

    @property
    def width(self) -> float:
        """For the next row, in the label's unit; NaN before the first residual."""
        return self._factor * self._size if self._rows else nan

    def follow(self, residuals: Array, known: NDArray[np.bool_]) -> Array:
        """The half width that each row had, then take in the residuals that are `known`."""
        return np.array(self.widths(np.abs(residuals).tolist(), known.tolist()))

    def widths(self, sizes: Iterable[float], known: Iterable[bool]) -> list[float]:
        """`follow` of residuals without their signs. A plain loop: 60 ns a row."""
        wider, narrower = WIDER, NARROWER
        factor, rows, widths = self._factor, self._rows, []
        size = self._size if rows else nan
        for apart, is_known in zip(sizes, known, strict=True):
            widths.append(factor * size)
            if not is_known:
                continue
            if rows >= FIRST_ROWS:
                if apart > factor * size:
                    factor = min(factor * wider, FACTOR_MAX)
                elif factor > FACTOR_MIN:
                    factor *= narrower
            if rows < SIZE_ROWS:
                size = size if rows else 0.0
                rows += 1
            size += (apart - size) / rows
            if rows <= FIRST_ROWS:
                self._largest = max(self._largest, apart)
                factor = self._largest / size if size > 0.0 else FACTOR
        self._size, self._factor, self._rows = size if rows else 0.0, factor, rows
        return widths

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"rows": self._rows, "largest": self._largest, "size": self._size, "factor": self._factor}

    def restore(self, state: Mapping[str, Any]) -> None:
        if "width" in state:  # an older version's, which knew no size
            state = {"rows": len(state["first"]), "largest": state["width"], "size": state["width"], "factor": 1.0}
        self._rows, self._largest = int(state["rows"]), float(state["largest"])
        self._size, self._factor = float(state["size"]), float(state["factor"])
