"""The cross-check: is the model that is served the one that was measured?

The newest held-out rows are kept with what was predicted in band. After an epoch is committed the trainer's API is
asked to score them as they stood in that epoch's snapshot. The answer belongs to no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from streampiped.learn.window import Window
from streampiped.records import Array, Batch
from streampiped.stages.base import ApiCall

CELLS_MAX: Final = 1 << 16  # numbers in one question; 9 bytes each, and a request may have 1 MiB

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
        self.restore((), None)

    def keep(self, batch: Batch, places: Any, targets: Array, predictions: Array) -> None:
        """Take in held-out rows, the `places` of the batch, with every float column that may be a feature: the trainer
        picks by name.

        The newest are kept and not an even sample of the whole stream, because they were predicted by the models
        nearest to the one that will be asked.
        """
        if not self._capacity:
            return
        if self._rows is None:
            self._columns = tuple(name for name in batch.schema.floats if name not in self._apart)
        rows = self._rows or self._new_rows()
        chosen = [batch[name][places] for name in self._columns]
        rows.append(np.column_stack((*chosen, targets, predictions)))

    def freeze(self) -> tuple[list[str], Array | None]:
        """The reservoir as it is now, which is asked for once the next epoch is committed; the columns' names first."""
        self._candidate = self._rows.rows() if self._rows else None
        return list(self._columns), self._candidate

    def restore(self, columns: Sequence[str], rows: Array | None) -> None:
        """Become what `freeze` gave."""
        self._columns = tuple(columns)
        self._rows: Window | None = None
        if rows is not None:
            self._new_rows().restore(rows)
        self.freeze()

    def question(self, epoch: int, measure: Measure, name: Callable[[Array], list[Any]], figure: str) -> ApiCall | None:
        """Ask for the rows of that epoch's snapshot, which its model had not learned. `name` makes of the targets kept
        what the trainer knows them as; the difference is told of `figure`."""
        rows = self._candidate
        if rows is None or not len(rows) or not self._columns:
            return None
        rows = rows[-(CELLS_MAX // rows.shape[1]) :]
        *features, targets, predictions = rows.T
        self._asked = epoch, len(rows), measure(targets, predictions), figure
        self.told["asked"] += 1
        columns = {name: values.tolist() for name, values in zip(self._columns, features, strict=True)}
        return ApiCall(self._stage, "score", {"rows": columns, "targets": name(targets), "version": epoch})

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
        self._rows = Window(self._capacity, len(self._columns) + 2)
        return self._rows


def _difference(served: float | None, in_band: float | None) -> float | None:
    return None if served is None or in_band is None else served - in_band
