"""Scores of a regression as mergeable sums, and the guesses that a model has to beat.

Equal to scikit-learn's mean_squared_error, mean_absolute_error and r2_score to 1e-9, in any cutting into batches and at
any offset of the target; what is divided by in R2 is merged by Chan's rule about an origin (see `moments.py`), since a
difference of naive sums cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any, Protocol

import numpy as np

from streampiped.records import Array


class Moments(Protocol):
    """Of targets: how many, and about an origin where their mean is and their squared deviations from it."""

    rows: int
    origin: float
    offset: float
    m2: float


def merged_moments(one: Moments, other: Moments) -> tuple[float, float]:
    """`offset` from the origin of `one`, and `m2`, over the rows of both (Chan); `other` has rows."""
    rows = one.rows + other.rows
    apart = (other.origin - one.origin) + (other.offset - one.offset)
    m2 = one.m2 + (other.m2 + apart * apart * (one.rows * (other.rows / rows)))
    return one.offset + apart * (other.rows / rows), m2


@dataclass(slots=True)
class Scores:
    """Running scores of one predictor.

    >>> s = Scores()
    >>> s.add(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    >>> s.values()
    {'rows': 2, 'mse': 0.5, 'rmse': 0.7071067811865476, 'mae': 0.5, 'r2': 0.5}
    """

    rows: int = 0
    origin: float = 0.0
    """The first target."""
    offset: float = 0.0
    """The mean target's distance from it."""
    m2: float = 0.0
    """Sum of squared deviations of the targets from their mean."""
    squared: float = 0.0
    """Sum of squared errors."""
    absolute: float = 0.0
    """Sum of absolute errors."""

    def add(self, targets: Array, predictions: Array) -> None:
        """Score rows whose targets and predictions are finite."""
        if len(targets) == 0:
            return
        origin = self.origin if self.rows else float(targets[0])
        with np.errstate(over="ignore", invalid="ignore"):
            errors = targets - predictions
            apart = targets - origin
            offset = float(apart.mean())
            apart -= offset
            part = Scores(
                rows=len(targets),
                origin=origin,
                offset=offset,
                m2=float((apart * apart).sum()),
                squared=float((errors * errors).sum()),
                absolute=float(np.abs(errors).sum()),
            )
        self.merge(part)

    def merge(self, other: Scores) -> None:
        """Become the scores over the rows of both."""
        if other.rows == 0:
            return
        if self.rows == 0:
            self.origin = other.origin
        self.offset, self.m2 = merged_moments(self, other)
        self.squared += other.squared
        self.absolute += other.absolute
        self.rows += other.rows

    def mse(self) -> float | None:
        return number(self.squared / self.rows) if self.rows else None

    def r2(self) -> float | None:
        """None below two rows, and for a constant target, of which there is nothing to explain (scikit-learn makes up 1
        or 0)."""
        if self.rows < 2 or self.m2 == 0.0:
            return None
        return number(1.0 - self.squared / self.m2)

    def values(self) -> dict[str, Any]:
        """rows, mse, rmse, mae, r2; None is 'cannot be said' (no rows, or an overflow)."""
        mse = self.mse()
        return {
            "rows": self.rows,
            "mse": mse,
            "rmse": None if mse is None else sqrt(mse),
            "mae": number(self.absolute / self.rows) if self.rows else None,
            "r2": self.r2(),
        }

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `from_state`."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scores:
        return cls(**state)


def scores_of(targets: Array, predictions: Array) -> Scores:
    """The scores of these rows alone."""
    result = Scores()
    result.add(targets, predictions)
    return result


def skill(model: Scores, guess: Scores) -> float | None:
    """The share of the guess's squared error that the model avoids: 1 is perfect, 0 is no better, below 0 is worse.
    None when there is nothing to avoid."""
    if not guess.rows or guess.squared == 0.0 or not isfinite(guess.squared):
        return None
    return number(1.0 - model.squared / guess.squared)


class Guesses:
    """The running mean and the last value as predictions, both test-then-train and row by row.

    Row by row also within a batch: so they know more than a model that sees a batch's targets only after predicting
    all of it. That makes them a little harder to beat, and independent of how the stream is cut. Before
    the first target both guess 0.

    >>> g = Guesses()
    >>> [v.tolist() for v in g.follow(np.array([2.0, 4.0, 9.0]))]
    [[0.0, 2.0, 3.0], [0.0, 2.0, 4.0]]
    """

    __slots__ = ("last", "mean", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.mean = 0.0
        self.last = 0.0

    def follow(self, targets: Array) -> tuple[Array, Array]:
        """(running mean, last value) before each of these finite targets, which are then taken in."""
        if len(targets) == 0:
            return np.zeros(0), np.zeros(0)
        if len(targets) == 1:
            return self._follow_one(float(targets[0]))
        origin = self.mean if self.rows else float(targets[0])  # sums of deviations: exact also far from 0
        known = self.rows + np.arange(1, len(targets) + 1)
        means = origin + np.cumsum(targets - origin) / known
        by_mean = np.concatenate(([self.mean], means[:-1]))
        by_last = np.concatenate(([self.last], targets[:-1]))
        self.rows, self.mean, self.last = int(known[-1]), float(means[-1]), float(targets[-1])
        return by_mean, by_last

    def _follow_one(self, target: float) -> tuple[Array, Array]:
        """`follow` of one row, to the same bits in a ninth of the time."""
        before = np.array([self.mean]), np.array([self.last])
        origin = self.mean if self.rows else target
        self.rows += 1
        self.mean, self.last = origin + (target - origin) / self.rows, target
        return before

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"rows": self.rows, "mean": self.mean, "last": self.last}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rows, self.mean, self.last = int(state["rows"]), float(state["mean"]), float(state["last"])


def number(value: float) -> float | None:
    """None for what no report can say: NaN and infinities."""
    return value if isfinite(value) else None
