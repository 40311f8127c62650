"""Scores of several predictors over the same rows, as sums that can be merged: `metrics.Scores` for all at once.

What does not depend on the predictor (rows, the targets' moments) is kept once, and a block of rows is one pass over a
table with a line for each predictor: four predictors cost about what one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.measure.metrics import Scores, merged_moments
from streampiped.records import Array

Inside: TypeAlias = "NDArray[np.int8] | NDArray[np.bool_]"

_WHOLE: Final = ("rows", "intervals", "covered")
_PARTS: Final = ("origin", "offset", "m2")


class Tally:
    """Running scores of `predictors` predictors, the first of which is the model.

    >>> t = tally_of(np.array([1.0, 3.0]), np.array([[1.0, 2.0], [0.0, 1.0]]))
    >>> t.scores(0).values()["mse"], t.scores(1).values()["mse"]
    (0.5, 2.5)
    """

    __slots__ = ("absolute", "covered", "intervals", "m2", "offset", "origin", "rows", "squared")

    def __init__(self, predictors: int) -> None:
        self.rows = 0
        self.origin = 0.0  # as in Scores
        self.offset = 0.0
        self.m2 = 0.0
        self.squared = [0.0] * predictors
        self.absolute = [0.0] * predictors
        self.intervals = 0
        """Rows that came with an interval."""
        self.covered = 0
        """Of them, those whose target lies in it."""

    def merge(self, other: Tally) -> None:
        """Become the tally over the rows of both."""
        if other.rows == 0:
            return
        if self.rows == 0:
            self.origin = other.origin
        self.offset, self.m2 = merged_moments(self, other)
        self.rows += other.rows
        self.squared = list(map(add, self.squared, other.squared))
        self.absolute = list(map(add, self.absolute, other.absolute))
        self.intervals += other.intervals
        self.covered += other.covered

    def scores(self, predictor: int) -> Scores:
        squared, absolute = self.squared[predictor], self.absolute[predictor]
        return Scores(self.rows, self.origin, self.offset, self.m2, squared, absolute)

    def coverage(self) -> float | None:
        """The share of intervals that held their target."""
        return self.covered / self.intervals if self.intervals else None


def tally_of(targets: Array, predicted: Array) -> Tally:
    """The tally of these rows: `predicted` is `(predictors, rows)`."""
    return split(targets, predicted, np.zeros(0, dtype=np.intp), None)[0]


def split(targets: Array, predicted: Array, spared: NDArray[np.intp], inside: Inside | None) -> tuple[Tally, Tally]:
    """Tallies of the rows that are not `spared` (places of few rows, ascending) and of those that are.

    `inside` is 1 for a row whose interval holds the target, 0 for one whose does not, -1 for one without an interval;
    booleans where all have one.
    The spared rows are taken out of the table and not subtracted from the sums: a difference of sums keeps nothing of
    a small error beside a large one.
    """
    learned, held = Tally(len(predicted)), Tally(len(predicted))
    if len(targets) == 0:
        return learned, held
    if len(targets) == 1:
        _fill_one(held if len(spared) else learned, targets.item(), predicted, inside)
        return learned, held
    origin = float(targets[0])
    errors = predicted - targets
    apart = targets - origin
    if len(spared):
        _fill(held, origin, apart[spared], errors[:, spared], None if inside is None else inside[spared])
        apart[spared] = 0.0
        errors[:, spared] = 0.0
    _fill(learned, origin, apart, errors, inside, spared)
    learned.intervals -= held.intervals
    learned.covered -= held.covered
    return learned, held


def _fill_one(tally: Tally, target: float, predicted: Array, inside: Inside | None) -> None:
    """`_fill` by one row, to the same bits in a third of the time: it is its own mean."""
    if inside is not None and (there := inside.item()) >= 0:
        tally.intervals, tally.covered = 1, int(there)
    errors = [each - target for each in predicted[:, 0].tolist()]
    tally.rows, tally.origin = 1, target
    tally.absolute, tally.squared = [abs(error) for error in errors], [error * error for error in errors]


def _fill(
    tally: Tally,
    origin: float,
    apart: Array,
    errors: Array,
    inside: Inside | None,
    out: NDArray[np.intp] | None = None,
) -> None:
    """Make an empty tally that of these rows but those `out`, which are 0 in `apart`, the targets' distance from
    `origin`, and in `errors`. Both are used up."""
    rows = len(apart) - (0 if out is None else len(out))
    if inside is not None:
        tally.intervals, tally.covered = len(inside), int(np.count_nonzero(inside))
        if inside.dtype != np.bool_:
            without = int(np.count_nonzero(inside < 0))
            tally.intervals, tally.covered = tally.intervals - without, tally.covered - without
    if rows == 0:
        return
    tally.rows, tally.origin = rows, origin
    tally.offset = float(np.add.reduce(apart)) / rows
    apart -= tally.offset
    if out is not None:
        apart[out] = 0.0
    apart *= apart
    tally.m2 = float(np.add.reduce(apart))
    np.abs(errors, out=errors)
    tally.absolute = np.add.reduce(errors, axis=1).tolist()
    errors *= errors
    tally.squared = np.add.reduce(errors, axis=1).tolist()


def state_of(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Tallies as arrays, portable and exact: the argument of `from_state`."""
    whole = {name: np.array([getattr(t, name) for t in tallies], dtype=np.int64) for name in _WHOLE}
    parts = {name: np.array([getattr(t, name) for t in tallies], dtype=np.float64) for name in _PARTS}
    tables = {name: np.array([getattr(t, name) for t in tallies], dtype=np.float64) for name in ("squared", "absolute")}
    return {**whole, **parts, **tables}


def from_state(state: Mapping[str, Any]) -> list[Tally]:
    tables = {name: state[name].tolist() for name in Tally.__slots__}
    result = []
    for place, squared in enumerate(tables["squared"]):
        tally = Tally(len(squared))
        for name, values in tables.items():
            setattr(tally, name, values[place])
        result.append(tally)
    return result


def merged(tallies: Sequence[Tally], predictors: int) -> Tally:
    """The tally over the rows of all."""
    result = Tally(predictors)
    for tally in tallies:
        result.merge(tally)
    return result
