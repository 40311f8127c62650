"""The cross-check: is the model that is served the one that was measured?

The newest held-out rows are kept with what was predicted in band. After an epoch is committed the trainer's API is
asked to score them as they stood in that epoch's snapshot. The answer belongs to no result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.late.held import HeldOut, by_source
from streampiped.learn.lookback import Lookback
from streampiped.learn.past import LAGS, MEMORIES, Looks
from streampiped.measure.window import Window
from streampiped.records import Array, Batch, origins
from streampiped.stages.base import ApiCall
from streampiped.stages.tasks import Held

CELLS_MAX: Final = 1 << 16  # numbers in one question; 9 bytes each, and a request may have 1 MiB

LATE_MAX: Final = 512  # rows of one question where labels come late, half of what the trainer keeps of them

WIDE: Final = {"lags": LAGS, "discounted": len(MEMORIES)}
"""Fields of `Looks` with several numbers to a row."""
PAST: Final = sum(WIDE.get(name, 1) for name in Looks.__slots__)

STRIDE: Final = 8192  # rows whose past is looked at together

Measure = Callable[[Array, Array], dict[str, Any]]
"""(targets, predictions) -> the figures that the trainer's `score` gives as well."""


class CrossCheck:
    """A reservoir of `capacity` rows, a question about it for each epoch, and the last answer."""

    def __init__(self, stage: str, capacity: int, apart: Sequence[str]) -> None:
        """`apart`: float columns that are no features, whatever the trainer picks."""
        self._stage = stage
        self._capacity = capacity
        self._apart = frozenset(apart)
        self._asked: tuple[int, int, dict[str, Any], str] | None = None
        self.told: dict[str, Any] = {"asked": 0, "answered": 0, "error": None}
        """What is known of it, for the report's operations."""
        self._columns: tuple[str, ...] = ()
        self._rows: Window | None = None
        self._late = Late()
        self._questions = HeldOut()
        self.restore(None)

    def keep(self, batch: Batch, held: Held) -> None:
        """Take in a batch's held-out rows with every float column that may be a feature, for the trainer picks by name,
        and with what was known of the labels before them, for some of its members look at nothing else.

        The newest are kept and not an even sample of the whole stream, because they were predicted by the models
        nearest to the one that will be asked.
        """
        if not self._capacity:
            return
        if self._rows is None:
            if not len(held.places) and held.labels is None:
                return
            self._columns = tuple(name for name in batch.schema.floats if name not in self._apart)
        rows = self._rows or self._new_rows()
        shape = len(self._columns) + PAST + 2, len(held.places)
        table = np.full(shape, np.nan) if len(held.places) else np.empty(shape)
        if self._columns and len(held.places):
            table[: len(self._columns)] = batch.matrix(self._columns)[held.places].T
        table[-2], table[-1] = held.targets, held.predictions
        if held.labels is None:
            rows.append(table.T)
            return
        self._late.add(held.labels, held.places, table)
        if self._late.rows >= STRIDE:
            rows.append(self._late.told(self._past, len(self._columns)).T)
            self._late = Late()

    def keep_late(self, batch: Batch, held: Held) -> None:
        """Take in a batch's held-out rows where labels come late: the trainer knows what was asked, by where the label
        stands."""
        if self._capacity:
            scored = np.column_stack((held.targets, held.predictions))
            most = min(self._capacity, LATE_MAX)
            self._questions = self._questions.extended(origins(batch, held.places), scored, most)

    def state(self) -> dict[str, Any]:
        """The argument of `restore`. What is asked for once the next epoch is committed is what there is now."""
        self._freeze()
        return {
            "columns": list(self._columns),
            "rows": self._rows.rows() if self._rows else None,
            "past": self._past.state(),
            "late": self._late.state(),
            "questions": self._questions.state() if self._questions.keys else None,
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Become what `state` gave; None: there were no rows."""
        self._columns, self._rows = (), None
        self._past = Lookback()
        self._late = Late()
        self._questions = HeldOut()
        if state is not None:
            self._columns = tuple(state["columns"])
            if state["rows"] is not None:
                self._new_rows().restore(state["rows"])
            self._past.restore(state["past"])
            self._late.restore(state["late"])
            if state.get("questions") is not None:
                self._questions = HeldOut.from_state(state["questions"])
        self._freeze()

    def _freeze(self) -> None:
        self._candidate: Array | None = None
        self._asked_late = self._questions
        if self._rows is None:
            return
        self._candidate = self._rows.rows()
        if self._late.rows:
            past = Lookback()
            past.restore(self._past.state())
            late = self._late.told(past, len(self._columns)).T
            self._candidate = np.concatenate((self._candidate, late))[-self._capacity :]

    def question(self, epoch: int, measure: Measure, name: Callable[[Array], list[Any]], figure: str) -> ApiCall | None:
        """Ask for the rows of that epoch's snapshot, which its model had not learned. `name` makes of the targets kept
        what the trainer knows them as; the difference is told of `figure`."""
        if self._asked_late.keys:
            return self._late_question(epoch, measure, name, figure)
        rows = self._candidate
        if rows is None or not len(rows) or not self._columns:
            return None
        rows = rows[-(CELLS_MAX // rows.shape[1]) :]
        *features, targets, predictions = rows.T
        features, past = features[: len(self._columns)], rows[:, len(self._columns) : -2]
        self._asked = epoch, len(rows), measure(targets, predictions), figure
        self.told["asked"] += 1
        columns = {name: values.tolist() for name, values in zip(self._columns, features, strict=True)}
        params = {"rows": columns, "targets": name(targets), "version": epoch}
        if not np.isnan(past).any():
            params["past"] = _named(past)
        return ApiCall(self._stage, "score", params)

    def _late_question(self, epoch: int, measure: Measure, name: Callable[[Array], list[Any]], figure: str) -> ApiCall:
        asked, order = by_source(self._asked_late.keys)
        targets, predictions = self._asked_late.table[order].T
        self._asked = epoch, len(order), measure(targets, predictions), figure
        self.told["asked"] += 1
        return ApiCall(self._stage, "score", {"asked": asked, "targets": name(targets), "version": epoch})

    def answer(self, result: Any, error: str | None) -> None:
        """Keep the comparison. The in-band predictions are those of the models of their time, a little older than
        the epoch's; so the two scores are near, and equal only where nothing was learned in between."""
        if self._asked is None:
            return
        (epoch, rows, in_band, figure), self._asked = self._asked, None
        if error is not None:
            self.told["error"] = error
            return
        served = dict(result)
        self.told |= {
            "answered": self.told["answered"] + 1,
            "error": None,
            "epoch": epoch,
            "rows": rows,
            "served": served,
            "in_band": in_band,
            f"{figure}_difference": _difference(served.get(figure), in_band.get(figure)),
        }

    def _new_rows(self) -> Window:
        self._rows = Window(self._capacity, len(self._columns) + PAST + 2)
        return self._rows


class Late:
    """Rows and labels of some batches, whose past is looked at together: for a batch alone that would take a fifth of
    the evaluator's time."""

    __slots__ = ("_labels", "_places", "_tables", "rows")

    def __init__(self) -> None:
        self._labels: list[Array] = []
        self._places: list[NDArray[np.intp]] = []
        self._tables: list[Array] = []
        self.rows = 0

    def add(self, labels: Array, places: NDArray[np.intp], table: Array) -> None:
        """`labels` of a batch, NaN where it is not known, and a column of the `table` for each of the `places`."""
        self._labels.append(labels)
        if len(places) or not self._tables:
            self._places.append(places + self.rows)
            self._tables.append(table)
        self.rows += len(labels)

    def told(self, past: Lookback, place: int) -> Array:
        """The table of all, with the past of its rows from line `place` on; `past` goes on by the labels."""
        labels, places, table = self._gathered()
        looks, table = past.follow(labels, np.isfinite(labels), places), table.copy()
        for name in Looks.__slots__:
            width = WIDE.get(name, 1)
            table[place : place + width] = getattr(looks, name).T
            place += width
        return table

    def state(self) -> dict[str, Any] | None:
        """Portable and exact: the argument of `restore`."""
        if not self.rows:
            return None
        return dict(zip(("labels", "places", "table"), self._gathered(), strict=True))

    def _gathered(self) -> tuple[Array, NDArray[np.intp], Array]:
        """Labels, places and table of all, which stay in one piece: a snapshot puts together what came since the last
        one, and not thousands of batches of one row again and again while the stream waits."""
        if len(self._labels) > 1:
            self._labels, self._places = [np.concatenate(self._labels)], [np.concatenate(self._places)]
            self._tables = [np.concatenate(self._tables, axis=1)]
        return self._labels[0], self._places[0], self._tables[0]

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Become what `state` saw; to be called on a new one."""
        if state is not None:
            self.add(state["labels"], state["places"], state["table"])


def _named(past: Array) -> dict[str, Any]:
    """The same as the trainer's `score` takes it: a list for each field, one entry per row."""
    result, place = {}, 0
    for name in Looks.__slots__:
        width = WIDE.get(name, 1)
        part = past[:, place : place + width]
        result[name] = (part if name in WIDE else part[:, 0]).tolist()
        place += width
    return result


def _difference(served: float | None, in_band: float | None) -> float | None:
    return None if served is None or in_band is None else served - in_band
