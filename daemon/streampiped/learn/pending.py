"""Questions that wait by id for their label: what was known, answered and served when they were asked.

Ids stand in the order of asking in a dict, the rest in one table of float64 with a line for each waiting question, so
that a snapshot is one array. A line that has become free is used again by the next batch; the table is never longer
than `wait_rows_max` and the rows of one batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.past import LAGS, MEMORIES, Looks
from streampiped.records import Array, IntArray, aligned_empty

Id: TypeAlias = "int | str"

LINES_FIRST: Final = 256  # of the table; it doubles when they are not enough
NO_LINE: Final = -1
SERVED: Final = ("prediction", "low", "high", "version", "row")
LOOKS: Final = 2 + LAGS + len(MEMORIES) + 2  # numbers of a `Looks` row
COUNTS: Final = ("asked", "answered", "given_up", "late", "repeated", "without_id")


@dataclass(frozen=True, slots=True)
class Joined:
    """What each row of a batch is: `asks` a prediction, `tells` the label of a question, both (its label is in the same
    row), or neither (a late label). `lines` of the table, NO_LINE where it is neither."""

    asks: NDArray[np.bool_]
    tells: NDArray[np.bool_]
    lines: IntArray


class Asked:
    """Lines of the table, as `write` takes them and `read` gives them: features, looks, an answer per member, and what
    was served. `row`: of the stream, at which it was asked."""

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


class Pending:
    """At most `wait_rows_max` questions; for one more, the oldest is given up.

    >>> pending = Pending(2, 1, ["mean"])
    >>> joined = pending.join([7, 8, 9, 7, 9], np.array([False, False, False, True, True]), immediate=False)
    >>> joined.asks.tolist(), joined.tells.tolist(), pending.counts["given_up"], pending.counts["late"]
    ([True, True, True, False, False], [False, False, False, False, True], 1, 1)
    """

    def __init__(self, wait_rows_max: int, columns: int, members: Sequence[str]) -> None:
        self._max = wait_rows_max
        self._columns = columns
        self._members = tuple(members)
        self._lines: OrderedDict[Id, int] = OrderedDict()
        self._free: list[int] = []
        self._left: list[int] = []  # lines of this batch's answered and given up questions: free behind it
        self._table: Array = np.zeros((0, columns + LOOKS + len(members) + len(SERVED)))
        self.counts = dict.fromkeys(COUNTS, 0)

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self._lines)

    @property
    def lines(self) -> int:
        """Of the table, used or not."""
        return len(self._table)

    def join(self, ids: Sequence[Id | None], labelled: NDArray[np.bool_], *, immediate: bool) -> Joined:
        """Sort a batch's rows, oldest first. `immediate`: a label whose id nobody has asked for is a row with features
        of its own, else it is late. 0.3 us a row."""
        self._release()
        lines: list[int] = []
        asks: list[bool] = []
        for key, has_label in zip(ids, labelled.tolist(), strict=True):
            line = self._told(key) if has_label else None
            asked = line is None and (immediate or not has_label)
            if asked:
                line = self._new_line()
                self._ask(key, line, waits=not has_label)
            elif line is None:
                self.counts["late"] += 1
            asks.append(asked)
            lines.append(NO_LINE if line is None else line)
        places = np.array(lines, dtype=np.int64)
        return Joined(np.array(asks, dtype=np.bool_), labelled & (places != NO_LINE), places)

    def write(self, lines: IntArray, asked: Asked) -> None:
        self._table[lines] = asked.table

    def read(self, lines: IntArray) -> Asked:
        """A copy; NaN for NO_LINE."""
        table = np.full((len(lines), self._table.shape[1]), np.nan)
        there = lines != NO_LINE
        table[there] = self._table[lines[there]]
        return Asked(table, self._columns)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`. Oldest first, and the same wherever the lines are."""
        ids = list(self._lines)
        numbers = not any(isinstance(key, str) for key in ids)
        return {
            "ids": np.array(ids, dtype=np.int64) if numbers else ids,
            "table": self._table[list(self._lines.values())],
            "members": list(self._members),
            "counts": dict(self.counts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Wait for what `state` waited for, up to our own limit. A member that is new has answered nothing."""
        ids = state["ids"].tolist() if isinstance(state["ids"], np.ndarray) else state["ids"]
        surplus = max(0, len(ids) - self._max)
        self.counts = {name: int(state["counts"][name]) for name in COUNTS}
        self.counts["given_up"] += surplus
        self._table = self._taken_over(state["table"][surplus:], list(state["members"]))
        self._lines = OrderedDict((key, line) for line, key in enumerate(ids[surplus:]))
        self._free, self._left = [], []

    def _told(self, key: Id | None) -> int | None:
        """The line of the question whose label this is."""
        line = self._lines.pop(key, None) if key is not None else None
        if line is not None:
            self._left.append(line)
            self.counts["answered"] += 1
        return line

    def _ask(self, key: Id | None, line: int, *, waits: bool) -> None:
        if not waits or key is None or key in self._lines:
            self._left.append(line)
            if waits:
                self.counts["without_id" if key is None else "repeated"] += 1
            return
        self.counts["asked"] += 1
        self._lines[key] = line
        if len(self._lines) > self._max:
            self._left.append(self._lines.popitem(last=False)[1])
            self.counts["given_up"] += 1

    def _new_line(self) -> int:
        if not self._free:
            before = len(self._table)
            more = min(max(before, LINES_FIRST), max(self._max - before, LINES_FIRST))
            self._table = np.concatenate((self._table, np.zeros((more, self._table.shape[1]))))
            self._free = list(range(before + more - 1, before - 1, -1))
        return self._free.pop()

    def _release(self) -> None:
        self._free += self._left
        self._left.clear()

    def _taken_over(self, table: Array, members: Sequence[str]) -> Array:
        if members == list(self._members):
            return np.array(table, dtype=np.float64)
        first = self._columns + LOOKS
        answers = np.full((len(table), len(self._members)), np.nan)
        for place, name in enumerate(self._members):
            if name in members:
                answers[:, place] = table[:, first + members.index(name)]
        return np.column_stack((table[:, :first], answers, table[:, -len(SERVED) :]))
