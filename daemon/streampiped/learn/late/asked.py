"""What a question of numbers that waits for its label holds: a line of the table of `pending.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.learn.past import LAGS, MEMORIES, Looks
from streampiped.records import Array

SERVED: Final = ("prediction", "low", "high", "version", "row")
LOOKS: Final = 2 + LAGS + len(MEMORIES) + 2  # numbers of a `Looks` row


class Asked:
    """Lines of the table: features, looks, an answer per member, and what was served. `row`: of the stream, at which it
    was asked."""

    __slots__ = ("_columns", "table")

    def __init__(self, table: Array, columns: int) -> None:
        self.table = table
        self._columns = columns

    @classmethod
    def of(cls, features: Array, looks: Looks, answers: Sequence[Array], served: Mapping[str, Any]) -> Asked:
        """`served`: SERVED by name, an array or one number for all."""
        rows, columns = features.shape
        table = np.empty((rows, columns + LOOKS + len(answers) + len(SERVED)))
        table[:, :columns] = features
        result = cls(table, columns)
        for name in Looks.__slots__:
            getattr(result.looks, name)[...] = getattr(looks, name)
        for place, answer in enumerate(answers):
            table[:, columns + LOOKS + place] = answer
        for name in SERVED:
            result.served(name)[...] = served[name]
        return result

    def features(self) -> Array:
        """A copy, aligned and in C order."""
        result: Array = aligned_empty(len(self.table) * self._columns, np.float64).reshape(-1, self._columns)
        result[...] = self.table[:, : self._columns]
        return result

    def question(self) -> Array:
        """Features and looks alone: the lines of a shorter table, of which nothing else may be read."""
        return self.table[:, : self._columns + LOOKS]

    @property
    def looks(self) -> Looks:
        """Views."""
        table = self.table[:, self._columns : self._columns + LOOKS]
        lags, mean, discounted = slice(1, 1 + LAGS), 1 + LAGS, slice(2 + LAGS, -2)
        return Looks(table[:, 0], table[:, lags], table[:, mean], table[:, discounted], table[:, -2], table[:, -1])

    def answers(self) -> list[Array]:
        """Per member, as it gave them."""
        return list(np.ascontiguousarray(self.table[:, self._columns + LOOKS : -len(SERVED)].T))

    def served(self, name: str) -> Array:
        """A view of one of SERVED."""
        view: Array = self.table[:, SERVED.index(name) - len(SERVED)]
        return view


class AskedForm:
    """Of lines with so many `columns` of features and answers of these `members`."""

    def __init__(self, columns: int, members: Sequence[str]) -> None:
        self.columns = columns
        self.members = tuple(members)

    @property
    def width(self) -> int:
        return self.columns + LOOKS + len(self.members) + len(SERVED)

    def asked(self, table: Array) -> Asked:
        return Asked(table, self.columns)

    def taken_over(self, table: Array, members: Sequence[str]) -> Array:
        if members == list(self.members):
            return np.array(table, dtype=np.float64)
        first = self.columns + LOOKS
        answers = np.full((len(table), len(self.members)), np.nan)
        for place, name in enumerate(self.members):
            if name in members:
                answers[:, place] = table[:, first + members.index(name)]
        return np.column_stack((table[:, :first], answers, table[:, -len(SERVED) :]))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing: it is as it was made."""
