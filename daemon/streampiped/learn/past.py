"""What the labels before a row say of its own: the newest of them, their means and their range.

A row's label is known before the next row comes, however the stream is cut into batches: so what a row may know of the
labels before it is the same in a batch of one and of a thousand. A label that is missing or bad leaves everything as
it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array

LAGS: Final = 4  # newest labels that a row is told of
MEMORIES: Final = (10.0, 100.0)
"""Rows that the discounted means remember: the weight of a label falls to 1/e over so many later ones."""
FULL: Final = 4096  # labels whose weights sum up to what all that ever came would, in every digit of a double


def takes_of(memory: float) -> list[float]:
    """The share of the n-th label, at n - 1, in the discounted mean behind it: one by the sum of the weights, so that
    the first labels have a plain mean. From FULL labels on it is the last of these."""
    keep = float(np.exp(-1.0 / memory))
    return [(1.0 - keep) / (1.0 - keep**count) for count in range(1, FULL + 1)]


TAKES: Final = tuple(takes_of(memory) for memory in MEMORIES)


@dataclass(frozen=True, slots=True)
class Looks:
    """What each of some rows may know. `count` `(rows,)`: labels before it; `lags` `(rows, LAGS)`, newest first; `mean`
    `(rows,)`; `discounted` `(rows, len(MEMORIES))`; `low` and `high` `(rows,)`, their range. Before the first label all
    are 0, and a lag that is not there yet is the oldest there is."""

    count: Array
    lags: Array
    mean: Array
    discounted: Array
    low: Array
    high: Array

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Looks:
        return Looks(*(getattr(self, name)[rows] for name in Looks.__slots__))


class Past:
    """The labels so far.

    >>> past = Past()
    >>> looks = past.follow(np.array([2.0, np.nan, 4.0, 9.0]), np.array([True, False, True, True]))
    >>> looks.lags[:, 0].tolist(), looks.mean.tolist()
    ([0.0, 2.0, 2.0, 4.0], [0.0, 2.0, 2.0, 3.0])
    """

    __slots__ = ("_discounted", "_lags", "_mean", "_range", "rows")

    def __init__(self) -> None:
        self.rows = 0
        """Labels that were known."""
        self._lags: list[float] = []  # oldest first, at most LAGS
        self._mean = 0.0
        self._discounted = [0.0] * len(MEMORIES)
        self._range = (0.0, 0.0)

    def now(self, rows: int) -> Looks:
        """What `rows` rows that come next, all at once, may know."""
        lags, discounted = np.array(self._padded()[::-1]), np.array(self._discounted)
        return Looks(
            np.full(rows, float(self.rows)),
            np.broadcast_to(lags, (rows, LAGS)),
            np.full(rows, self._mean),
            np.broadcast_to(discounted, (rows, len(MEMORIES))),
            *(np.full(rows, bound) for bound in self._range),
        )

    def follow(self, labels: Array, known: NDArray[np.bool_]) -> Looks:
        """What each row may know, then take in the labels that are `known` (and finite)."""
        if len(labels) == 1:
            return self._follow_one(float(labels[0]), bool(known[0]))
        told = labels if np.count_nonzero(known) == len(known) else labels[known]
        # Before the n-th row as many labels are new as stand before it.
        before = slice(-1) if told is labels else np.concatenate(([0], np.cumsum(known)[:-1]))
        count = np.arange(self.rows, self.rows + len(told) + 1, dtype=np.float64)
        lags, (low, high) = self._lag_table(told), self._ranges(told)
        mean = self._means(told)
        discounted = np.column_stack([self._decay(told, place) for place in range(len(MEMORIES))])
        return Looks(count[before], lags[before], mean[before], discounted[before], low[before], high[before])

    def _follow_one(self, label: float, is_known: bool) -> Looks:
        """`follow` of one row, to the same bits in less than half the time."""
        looks = Looks(
            np.array([float(self.rows)]),
            np.array([self._padded()[::-1]]),
            np.array([self._mean]),
            np.array([self._discounted]),
            *(np.array([bound]) for bound in self._range),
        )
        if is_known:
            first = not self.rows
            self.rows += 1
            origin = label if first else self._mean
            self._mean = origin + (label - origin) / self.rows
            self._lags = [*self._lags[1 - LAGS :], label]
            place = min(self.rows, FULL) - 1
            self._discounted = [
                label if first else mean + takes[place] * (label - mean)
                for mean, takes in zip(self._discounted, TAKES, strict=True)
            ]
            low, high = (label, label) if first else self._range
            self._range = min(low, label), max(high, label)
        return looks

    def copy(self) -> Past:
        twin = Past()
        twin.rows, twin._mean, twin._range = self.rows, self._mean, self._range
        twin._lags, twin._discounted = list(self._lags), list(self._discounted)
        return twin

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        lags, discounted = np.array(self._lags, dtype=np.float64), np.array(self._discounted)
        return {
            "rows": self.rows,
            "lags": lags,
            "mean": self._mean,
            "discounted": discounted,
            "range": list(self._range),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rows, self._mean = int(state["rows"]), float(state["mean"])
        self._lags = [float(value) for value in state["lags"]]
        self._discounted = [float(value) for value in state["discounted"]]
        low, high = state["range"]
        self._range = float(low), float(high)

    def _padded(self) -> list[float]:
        oldest = self._lags[0] if self._lags else 0.0
        return [oldest] * (LAGS - len(self._lags)) + self._lags

    def _lag_table(self, told: Array) -> Array:
        """`(len(told) + 1, LAGS)`: the newest labels before each of them, and after the last."""
        series = np.concatenate((self._lags, told))
        table = np.zeros((len(told) + 1, LAGS))
        if len(series):
            oldest = [series[0]] * (LAGS - len(self._lags))
            padded = np.concatenate((oldest, series))
            for lag in range(LAGS):
                table[:, lag] = padded[LAGS - 1 - lag : LAGS + len(told) - lag]
        if not self._lags:
            table[0] = 0.0
        self._lags = series[-LAGS:].tolist()
        return table

    def _means(self, told: Array) -> Array:
        first = self._mean if self.rows else (float(told[0]) if len(told) else 0.0)  # sums of what is near 0 are exact
        known = self.rows + np.arange(1, len(told) + 1)
        apart = np.cumsum(told - first)
        means = np.concatenate(([self._mean], first + apart / known))
        self.rows += len(told)
        self._mean = float(means[-1])
        return means

    def _ranges(self, told: Array) -> tuple[Array, Array]:
        """Least and greatest before each label and after the last."""
        low, high = self._range
        begins = not self.rows and len(told) > 0  # nothing is known before the first; after it, it is the range
        if begins:
            low = high = float(told[0])
        lows = np.minimum.accumulate(np.concatenate(([low], told)))
        highs = np.maximum.accumulate(np.concatenate(([high], told)))
        self._range = float(lows[-1]), float(highs[-1])
        if begins:
            lows[0] = highs[0] = 0.0
        return lows, highs

    def _decay(self, told: Array, place: int) -> Array:
        """A discounted mean before each label and after the last; `rows` has them all. A plain loop: 60 ns a row, where
        a vectorised form needs scipy.signal or loses its digits."""
        mean, takes = self._discounted[place], TAKES[place]
        labels, first = told.tolist(), self.rows - len(told)
        means = [mean]
        if labels and not first:
            mean = labels[0]
        early = takes[first : first + len(labels)]
        means += [mean := mean + take * (label - mean) for label, take in zip(labels, early, strict=False)]
        take = takes[-1]
        means += [mean := mean + take * (label - mean) for label in labels[len(early) :]]
        self._discounted[place] = mean
        return np.array(means)
