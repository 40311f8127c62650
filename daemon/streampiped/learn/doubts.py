"""Labels that were not believed: what became of them, and which of them a row may go by all the same.

One label far off may be a spike, or the first of another level. What it is shows later; what was meant by those before
it is known. So a label in doubt is gone by as long as no more of them have passed than have lasted.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.scaling import LARGEST
from streampiped.records import Array


class Doubts:
    """The labels so far.

    >>> doubts = Doubts()
    >>> doubts.follow(np.array([1.0, 9.0, 9.1, 1.0, 9.0, 1.0]), np.array([True, False, False, True, False, True]))
    array([nan, nan, 9. , 9.1, nan, nan])
    """

    __slots__ = ("_newest", "lasted", "passed")

    def __init__(self) -> None:
        self._newest = nan  # the label before the next row, if it is in doubt
        self.lasted = 0
        """Times that another level was believed."""
        self.passed = 0
        """Times that labels in doubt were followed by one that was believed at once."""

    def follow(self, labels: Array, known: NDArray[np.bool_]) -> Array | None:
        """The label in doubt that each row may go by, NaN where there is none; then take in these labels. None: no row
        may. A label that is there and not `known` is in doubt."""
        doubted = ~known & (np.abs(labels) <= LARGEST)
        if isnan(self._newest) and not doubted.any():
            return None
        result = np.full(len(labels), nan)
        for row, (label, is_known, is_doubted) in enumerate(
            zip(labels.tolist(), known.tolist(), doubted.tolist(), strict=True)
        ):
            if self.lasted >= self.passed:
                result[row] = self._newest
            if is_doubted:
                self._newest = label
            elif is_known and not isnan(self._newest):
                self._newest = nan
                self.passed += 1
        return result

    def confirm(self) -> None:
        """Another level is believed."""
        self.lasted += not isnan(self._newest)
        self._newest = nan

    def copy(self) -> Doubts:
        twin = Doubts()
        twin.restore(self.state())
        return twin

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"newest": self._newest, "lasted": self.lasted, "passed": self.passed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._newest = float(state["newest"])
        self.lasted, self.passed = int(state["lasted"]), int(state["passed"])
