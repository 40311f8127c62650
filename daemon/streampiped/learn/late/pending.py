"""Questions that wait by id for their label: what was known, answered and served when they were asked.

Ids stand in the order of asking in a dict, the rest in one table of float64 with a line for each waiting question, so
that a snapshot is one array. A line that has become free is used again by the next batch; the table is never longer
than `wait_rows_max` and the rows of one batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array, IntArray

Id: TypeAlias = "int | str"

LINES_FIRST: Final = 256  # of the table; it doubles when they are not enough
NO_LINE: Final = -1
COUNTS: Final = ("asked", "answered", "given_up", "late", "repeated", "without_id")


@dataclass(frozen=True, slots=True)
class Joined:
    """What each row of a batch is: `asks` a prediction, `tells` the label of a question, both (its label is in the same
    row), or neither (a late label). `lines` of the table, NO_LINE where it is neither."""

    asks: NDArray[np.bool_]
    tells: NDArray[np.bool_]
    lines: IntArray


class Lines(Protocol):
    """What `write` takes and `read` gives: lines of the table, and views of what they hold."""

    table: Array


A = TypeVar("A", bound=Lines)
Kept = TypeVar("Kept", bound=Lines, covariant=True)


class Form(Protocol[Kept]):
    """What a line holds. It may become wider, at its end: `Pending.fit`."""

    members: tuple[str, ...]

    @property
    def width(self) -> int:
        """Numbers of a line."""
        ...

    def asked(self, table: Array) -> Kept: ...

    def taken_over(self, table: Array, members: Sequence[str]) -> Array:
        """Lines that were written by these members, as ours: of one that is new there is no answer."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Pending(Generic[A]):
    """At most `wait_rows_max` questions; for one more, the oldest is given up.

    >>> from streampiped.learn.late.asked import AskedForm
    >>> pending = Pending(2, AskedForm(1, ["mean"]))
    >>> joined = pending.join([7, 8, 9, 7, 9], np.array([False, False, False, True, True]), immediate=False)
    >>> joined.asks.tolist(), joined.tells.tolist(), pending.counts["given_up"], pending.counts["late"]
    ([True, True, True, False, False], [False, False, False, False, True], 1, 1)
    """

    def __init__(self, wait_rows_max: int, form: Form[A]) -> None:
        self._max = wait_rows_max
        self.form = form
        """What its lines hold."""
        self._lines: OrderedDict[Id, int] = OrderedDict()
        self._free: list[int] = []
        self._left: list[int] = []  # lines of this batch's answered and given up questions: free behind it
        self._table: Array = np.zeros((0, form.width))
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

    def fit(self) -> None:
        """To be called when the form has become wider; what is new is 0 in what waits already."""
        if (more := self.form.width - self._table.shape[1]) > 0:
            self._table = np.pad(self._table, ((0, 0), (0, more)))

    def write(self, lines: IntArray, asked: A) -> None:
        self._table[lines] = asked.table

    def read(self, lines: IntArray) -> A:
        """A copy; NaN for NO_LINE."""
        table = np.full((len(lines), self._table.shape[1]), np.nan)
        there = lines != NO_LINE
        table[there] = self._table[lines[there]]
        return self.form.asked(table)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`. Oldest first, and the same wherever the lines are."""
        ids = list(self._lines)
        numbers = not any(isinstance(key, str) for key in ids)
        return {
            "ids": np.array(ids, dtype=np.int64) if numbers else ids,
            "table": self._table[list(self._lines.values())],
            "members": list(self.form.members),
            "counts": dict(self.counts),
            **self.form.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Wait for what `state` waited for, up to our own limit. A member that is new has answered nothing."""
        ids = state["ids"].tolist() if isinstance(state["ids"], np.ndarray) else state["ids"]
        surplus = max(0, len(ids) - self._max)
        self.counts = {name: int(state["counts"][name]) for name in COUNTS}
        self.counts["given_up"] += surplus
        self.form.restore(state)
        self._table = self.form.taken_over(state["table"][surplus:], list(state["members"]))
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
