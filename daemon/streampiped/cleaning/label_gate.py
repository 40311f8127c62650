"""Which labels are believed: one that is missing, or absurd by the level and by the last steps, is quarantined.

Labels wander, grow and jump by themselves, so a label is a spike only when it is far from the discounted level *and* a
step to it from the last believed one is far beyond the steps so far *and* it is further out of the range of the
believed ones than WIDTHS times that range. Without the last every 1 of a label that is mostly 0 would be withheld: one
in 500 is 22 deviations off for ever. TOLD such labels in a row that are near each other are no spikes: the label has
another level, and that is believed. So are more than half of the last RECENT, near or not.

The first labels are judged by their median and MAD, and begin the level only as far as they are believed. When one of
them was absurd, and was believed before there were others, a level begins behind them as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, isfinite, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.cleaning.column_gate import MEMORY, TRIMMED
from streampiped.cleaning.shift import RECENT
from streampiped.learn.scaling import LARGEST
from streampiped.records import Array

LEVEL_LIMIT: Final = 12.0  # deviations from the level
STEP_LIMIT: Final = 12.0  # deviations of the steps between labels
WIDTHS: Final = 2.0  # of the range; lognormal and Student's t with 3 degrees of freedom stay whole over 100,000 rows
WARM_ROWS: Final = 32  # believed labels before level and steps are known
FIRST_ROWS: Final = 64  # of a batch: looked at one by one, and not the rest, until level and steps are known
WARM_MIN: Final = 8  # labels; below, everything is believed
WARM_LIMIT: Final = 64.0  # deviations by the MAD of the first labels
MAD: Final = 1.4826  # deviations of a Gaussian in its median absolute deviation
TOLD: Final = 3  # labels in a row that tell of another level; sources that repeat a bad value once are known
NEAR: Final = 0.25  # of their distance from the level, at most, that they may lie apart
COUNTS: Final = ("missing", "spikes", "rebased")


@dataclass(slots=True)
class _Spread:
    """A discounted mean and deviation."""

    mean: float = 0.0
    variance: float = 0.0
    weight: float = 0.0

    def learn(self, values: Array) -> None:
        """Far ones count as being TRIMMED deviations away."""
        if not len(values):
            return
        low, high = self._trim()
        values = np.minimum(np.maximum(values, low), high)
        mean = float(np.add.reduce(values)) / len(values)
        apart = values - mean
        self._merge(mean, float(np.add.reduce(apart * apart)) / len(values), len(values))

    def learn_one(self, value: float) -> None:
        low, high = self._trim()
        self._merge(min(max(value, low), high), 0.0, 1)

    def _trim(self) -> tuple[float, float]:
        if self.weight < WARM_ROWS or self.variance == 0.0:
            return -inf, inf
        reach = TRIMMED * self.deviation
        return self.mean - reach, self.mean + reach

    def _merge(self, mean: float, variance: float, rows: int) -> None:
        keep = self.weight * exp(-rows / MEMORY)
        total = keep + rows
        apart = mean - self.mean
        self.variance = (keep * self.variance + rows * variance) / total + apart * apart * keep * rows / total**2
        self.mean += apart * rows / total
        self.weight = total if self.variance > 0.0 else 1.0  # what has not varied may be anything yet

    @property
    def deviation(self) -> float:
        return sqrt(self.variance)


class LabelGate:
    """State of one label column."""

    def __init__(self) -> None:
        self.level, self.steps = _Spread(), _Spread()
        self.last = float("nan")
        """Believed."""
        self.low, self.high = inf, -inf
        """Range of what was believed since the level is what it is."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self._recent: list[tuple[float, bool]] = []  # the newest labels, and whether they were spikes
        self._odd = False  # whether any of them was

    def take(self, labels: Array) -> tuple[NDArray[np.bool_], list[int]]:
        """Which of these labels are bad, and the rows behind which another level is believed. No row is judged by a
        label behind it."""
        with np.errstate(over="ignore", invalid="ignore"):
            first = FIRST_ROWS if self.level.weight < WARM_ROWS else 0
            if not 0 < first < len(labels):
                return self._take(labels)
            (bad, rebased), (more, later) = self._take(labels[:first]), self._take(labels[first:])
            return np.concatenate((bad, more)), rebased + [first + row for row in later]

    def _take(self, labels: Array) -> tuple[NDArray[np.bool_], list[int]]:
        if self._are_clean(labels):
            self._believe(labels)
            self._remember([(label, False) for label in labels[-RECENT:].tolist()])
            return np.zeros(len(labels), dtype=np.bool_), []
        return self._one_by_one(labels)

    def missing(self, labels: Array) -> NDArray[np.bool_]:
        """Which of these labels, that are no quantities, are none; the others are not judged."""
        bad = ~np.isfinite(labels)
        self.counts["missing"] += int(np.count_nonzero(bad))
        return bad

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        spreads = [[each.mean, each.variance, each.weight] for each in (self.level, self.steps)]
        recent = [[label, int(spike)] for label, spike in self._recent]
        span = [self.low, self.high]
        return {"spreads": spreads, "last": self.last, "range": span, "counts": dict(self.counts), "recent": recent}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.level, self.steps = (_Spread(*map(float, spread)) for spread in state["spreads"])
        self.last = float(state["last"])
        self.low, self.high = map(float, state["range"])
        self.counts = {name: int(state["counts"][name]) for name in COUNTS}
        self._recent = [(float(label), bool(spike)) for label, spike in state["recent"]]
        self._odd = any(spike for _, spike in self._recent)

    def _are_clean(self, labels: Array) -> bool:
        if self._odd or self.level.weight < WARM_ROWS or self.level.deviation == 0.0:
            return False
        low, high = self._bounds()
        if len(labels) == 1:
            return low <= float(labels[0]) <= high
        return bool(labels.min() >= low and labels.max() <= high)

    def _bounds(self) -> tuple[float, float]:
        """What is no spike, whatever came before it."""
        reach, width = LEVEL_LIMIT * self.level.deviation, WIDTHS * (self.high - self.low)
        return min(self.level.mean - reach, self.low - width), max(self.level.mean + reach, self.high + width)

    def _believe(self, labels: Array) -> None:
        if not len(labels):
            return
        if len(labels) == 1 and self.level.weight >= WARM_ROWS:  # the same bits in a sixth of the time
            self._believe_one(float(labels[0]))
            return
        series = np.concatenate(([self.last], labels)) if isfinite(self.last) else labels
        self.steps.learn(series[1:] - series[:-1])
        self.level.learn(labels)
        self.last = float(labels[-1])
        self.low, self.high = min(self.low, float(labels.min())), max(self.high, float(labels.max()))

    def _believe_one(self, label: float) -> bool:
        """True when the first labels are there and one of them was absurd: what was made of it is to be forgotten."""
        if isfinite(self.last):
            self.steps.learn_one(label - self.last)
        warm = self.level.weight < WARM_ROWS
        self.level.learn_one(label)
        self.last, self.low, self.high = label, min(self.low, label), max(self.high, label)
        return warm and self.level.weight >= WARM_ROWS and self._end_warm_up()

    def _end_warm_up(self) -> bool:
        """The first labels are all there: one that was believed for want of others to compare it with is forgotten."""
        first = np.array([label for label, spike in self._recent if not spike])
        middle, reach = _middle_of(first)
        near = first[np.abs(first - middle) <= reach]
        if reach > 0.0 and (self.low < middle - reach or self.high > middle + reach):
            self.level, self.steps = _Spread(), _Spread()
            self.last, self.low, self.high = float("nan"), inf, -inf
            self._believe(near)
            self.counts["rebased"] += 1
            return True
        return False

    def _remember(self, recent: list[tuple[float, bool]]) -> None:
        self._recent = (self._recent + recent)[-RECENT:]

    def _is_spike(self, label: float) -> bool:
        level, steps = self.level, self.steps
        width = WIDTHS * (self.high - self.low)
        if self.low - width <= label <= self.high + width or level.deviation == 0.0:
            return False
        if level.weight < WARM_ROWS:
            first = np.array([each for each, _ in self._recent])
            middle, reach = _middle_of(first) if len(first) >= WARM_MIN else (0.0, 0.0)
            return reach > 0.0 and abs(label - middle) > reach
        far = abs(label - level.mean) > LEVEL_LIMIT * level.deviation
        return far and abs(label - self.last - steps.mean) > STEP_LIMIT * steps.deviation

    def _one_by_one(self, labels: Array) -> tuple[NDArray[np.bool_], list[int]]:
        """A row takes two microseconds here; only batches with something odd come this way, and the first rows."""
        bad = np.zeros(len(labels), dtype=np.bool_)
        rebased: list[int] = []
        for row, label in enumerate(labels.tolist()):
            if not abs(label) <= LARGEST:
                bad[row] = True
                self.counts["spikes" if isfinite(label) else "missing"] += 1
                continue
            spike = self._is_spike(label)
            self._remember([(label, spike)])
            if not spike:
                if self._believe_one(label):
                    rebased.append(row)
                continue
            bad[row] = True
            self.counts["spikes"] += 1
            if self._has_moved():
                self._rebase()
                rebased.append(row)
        self._odd = any(spike for _, spike in self._recent)
        return bad, rebased

    def _has_moved(self) -> bool:
        newest = self._recent[-TOLD:]
        if len(newest) == TOLD and all(spike for _, spike in newest):
            labels = [label for label, _ in newest]
            if max(labels) - min(labels) <= NEAR * min(abs(label - self.level.mean) for label in labels):
                return True
        return sum(spike for _, spike in self._recent) > RECENT // 2

    def _rebase(self) -> None:
        """Believe the level of the spikes in the window."""
        told = np.array([label for label, spike in self._recent if spike])[-TOLD:]
        middle = float(np.median(told))
        near = told[np.abs(told - middle) <= LEVEL_LIMIT * (float(np.median(np.abs(told - middle))) or 1.0)]
        self.level = _Spread()
        self.level.learn(near)
        self.last = float(near[-1])
        self.low, self.high = float(near.min()), float(near.max())
        self._recent = []
        self.counts["rebased"] += 1


def _middle_of(labels: Array) -> tuple[float, float]:
    """The median, and how far from it a label is believed; 0 when most are equal, and nothing can be said."""
    middle = float(np.median(labels))
    return middle, WARM_LIMIT * MAD * float(np.median(np.abs(labels - middle)))
