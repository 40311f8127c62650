"""Labels that were not believed: what became of them, and which of them a row may go by all the same.

One label far off may be a spike, or the first of another level. What it is shows later; what was meant by those before
it is known. So a label in doubt is gone by as long as at most GRACE more of them have passed than have lasted.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.scaling import LARGEST
from streampiped.records import Array

GRACE: Final = 1


class Doubts:
    """The labels so far.

    >>> doubts = Doubts()
    >>> doubts.follow(np.array([1.0, 9.0, 9.1, 1.0, 9.0, 1.0]), np.array([True, False, False, True, False, True]))
    array([nan, nan, 9. , 9.1, nan, 9. ])
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
        if isnan(self._newest) and np.count_nonzero(known) == len(known):
            return None
        doubted = ~known & (np.abs(labels) <= LARGEST)
        if isnan(self._newest) and not doubted.any():
            return None
        rows = np.arange(1, len(labels) + 1)
        # Before each row and behind the last: where the newest label in doubt stands, the one of earlier blocks at 0,
        # and where the newest that was believed; then the newest is in doubt where it stands behind.
        newest = np.maximum.accumulate(np.concatenate(([0], np.where(doubted, rows, 0))))
        believed = np.maximum.accumulate(np.concatenate(([0 if isnan(self._newest) else -1], np.where(known, rows, 0))))
        in_doubt = newest > believed
        series = np.concatenate(([self._newest], labels))
        passed = self.passed + np.concatenate(([0], np.cumsum(in_doubt[:-1] & known)))
        result = np.where(in_doubt & (self.lasted + GRACE >= passed), series[newest], nan)[:-1]
        self._newest = float(series[newest[-1]]) if in_doubt[-1] else nan
        self.passed = int(passed[-1])
        return result

    def now(self, rows: int) -> Array | None:
        """What `rows` rows that come next, all at once, may go by; None: nothing."""
        return None if isnan(self._newest) or self.lasted + GRACE < self.passed else np.full(rows, self._newest)

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
