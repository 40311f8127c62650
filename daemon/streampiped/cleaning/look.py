"""One look at a table of columns: its extremes, and how it repeats itself. Every pass over the values is made once."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array, IntArray

Flags: TypeAlias = NDArray[np.bool_]
Item = TypeVar("Item", bound=np.generic)

DEAD_ROWS: Final = 16  # equal values in a row, at least, before a column is dead
DEAD_CHANCE: Final = log(1e-9)  # of such a run in a column as it was before, at most


@dataclass(frozen=True, slots=True)
class Look:
    """A table `(columns, rows)`, what is least and greatest in each column, and how it repeats itself."""

    table: Array
    least: Array
    most: Array
    same: Flags
    """`(columns, rows - 1)`: values equal to the one before."""
    begins: Flags
    """Whether the first value is equal to the last of the table before."""
    repeats: IntArray
    """How many of `same`."""

    def tail(self, run: IntArray) -> IntArray:
        """Values before the next that are equal to the last, `run` having been that before this table."""
        columns, rows = self.table.shape
        if rows == 1:
            return np.where(self.begins, run + 1, 0)
        if not self.same[:, -1].any():
            return np.zeros(columns, dtype=np.int64)
        tail = rows - 1 + np.where(self.begins, run + 1, 0)
        ended = ~self.same[:, ::-1]
        return np.asarray(np.where(ended.any(axis=1), ended.argmax(axis=1), tail))

    def has_run(self, need: IntArray, run: IntArray) -> Flags:
        """Which columns have a run of at least so many equal values, `run` as in `tail`."""
        before = np.where(self.begins, run + 1, 0)
        result = before + self.repeats + 1 >= need  # no run is longer than all repetitions together
        for column in map(int, np.flatnonzero(result)):
            ends = np.flatnonzero(~self.same[column])
            edges = np.concatenate(([-1 - before[column]], ends, [self.same.shape[1]]))
            result[column] = np.diff(edges).max() >= need[column]
        return np.asarray(result)


@dataclass(frozen=True, slots=True)
class Passed:
    """A table that has passed: its output `(columns, rows)`, and which cells were imputed, bounded, re-based there."""

    table: Array
    imputed: Flags | None
    bounded: Flags | None
    rebased: IntArray
    """Rows from which on some column is mapped anew; mostly empty."""


NOWHERE: Final[IntArray] = np.zeros(0, dtype=np.int64)


def filled(table: Array, present: Flags, last: Array) -> Array:
    """What is missing as the value before it: nothing new, for whatever is asked of the column."""
    columns = np.arange(len(table))[:, None]
    places = np.maximum.accumulate(np.where(present, np.arange(1, table.shape[1] + 1), 0), axis=1)
    return np.asarray(np.column_stack((last, table))[columns, places])


def look_at(table: Array, last: Array) -> Look:
    """`last`: the last value of each column before this table, NaN where there was none."""
    if table.shape[1] == 1:
        row = table[:, 0]
        same, none = np.zeros((len(table), 0), dtype=np.bool_), np.zeros(len(table), dtype=np.int64)
        return Look(table, row, row, same, row == last, none)
    same = table[:, 1:] == table[:, :-1]
    repeats = np.count_nonzero(same, axis=1) if np.count_nonzero(same) else np.zeros(len(table), dtype=np.int64)
    least, most = np.minimum.reduce(table, axis=1), np.maximum.reduce(table, axis=1)
    return Look(table, least, most, same, table[:, 0] == last, repeats)


def chosen(which: Flags | None, new: NDArray[Item], old: NDArray[Item]) -> NDArray[Item]:
    """`new` for the columns in `which` (None: all), else `old`."""
    return new if which is None else np.where(which, new, old)


def moments_of(table: Array) -> tuple[Array, Array]:
    """Mean and variance of each column of `(columns, rows)`, whole and finite."""
    rows = table.shape[1]
    if rows == 1:
        return table[:, 0], np.zeros(len(table))
    mean = np.add.reduce(table, axis=1) / rows
    apart = table - mean[:, None]
    return mean, np.add.reduce(np.multiply(apart, apart, out=apart), axis=1) / rows


def stuck_rows(repeats: IntArray, seen: IntArray, varied: Flags) -> IntArray:
    """Equal values in a row after which a column is dead, by how often it repeats a value when it lives."""
    chance = (repeats + 1.0) / (seen + 2.0)
    rows = np.maximum(DEAD_ROWS, np.ceil(DEAD_CHANCE / np.log(np.minimum(chance, 1.0 - 1e-12))))
    return np.asarray(np.where(varied, np.minimum(rows, 1e18), 1e18), dtype=np.int64)
