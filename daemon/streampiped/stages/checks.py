"""Range checks: is a column's value what the outer world can have meant?

A missing value (NaN) is no violation; what is missing is counted apart. Integers are compared as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.base import StageOptions, State

MARK_COLUMN: Final = "out_of_range"
"""int64: how many checks with `action = "mark"` the row fails; there as soon as one check marks."""


class RangeCheck(StageOptions):
    """Values below `min` or above `max` are violations; both bounds are allowed values."""

    min: float | None = None
    max: float | None = None
    action: Literal["count", "mark", "drop"] = "count"
    """count only; mark the row in the column `out_of_range` too; drop the row."""

    @model_validator(mode="after")
    def _fits(self) -> RangeCheck:
        if self.min is None and self.max is None:
            raise ValueError("a check needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Checks:
    """Checks by column, with their counts."""

    def __init__(self, checks: Mapping[str, RangeCheck]) -> None:
        self._checks = checks
        self._violations: dict[str, int] = {}
        self._missing: dict[str, int] = {}
        self._dropped = 0
        self.restore(None)

    def apply(self, batch: Batch, columns: tuple[str, ...]) -> Batch:
        """The batch after the checks of `columns`. Raises OptionError for a column that is not there or text."""
        keep = np.ones(batch.rows, dtype=np.bool_)
        marks = np.zeros(batch.rows, dtype=np.int64)
        for column in columns:
            wrong = self._look(batch, column)
            if self._checks[column].action == "drop":
                keep &= ~wrong
            elif self._checks[column].action == "mark":
                marks += wrong
        if any(self._checks[column].action == "mark" for column in columns):
            earlier = batch[MARK_COLUMN] if MARK_COLUMN in batch.schema.ints else 0
            batch = batch.with_columns({MARK_COLUMN: marks + earlier})
        self._dropped += batch.rows - int(np.count_nonzero(keep))
        return batch.select(keep)

    def summary(self) -> dict[str, Any]:
        """Counts by column: values out of range, values missing; and rows dropped."""
        return {"violations": dict(self._violations), "missing": dict(self._missing), "dropped": self._dropped}

    def snapshot(self) -> State:
        return self.summary()

    def restore(self, state: State | None) -> None:
        """Counts of columns that are no longer checked are forgotten."""
        violations, missing = (state["violations"], state["missing"]) if state else ({}, {})
        self._violations = {column: int(violations.get(column, 0)) for column in self._checks}
        self._missing = {column: int(missing.get(column, 0)) for column in self._checks}
        self._dropped = int(state["dropped"]) if state else 0

    def _look(self, batch: Batch, column: str) -> NDArray[np.bool_]:
        if column not in batch or column in batch.texts:
            numeric = ", ".join(batch.schema.floats + batch.schema.ints)
            raise OptionError(f"checks.{column}: no column of numbers has this name; there are {numeric}")
        check, values = self._checks[column], batch[column]
        wrong: NDArray[np.bool_] = np.zeros(batch.rows, dtype=np.bool_)
        if check.min is not None:
            wrong |= values < check.min
        if check.max is not None:
            wrong |= values > check.max
        self._violations[column] += int(np.count_nonzero(wrong))
        self._missing[column] += int(np.count_nonzero(np.isnan(values)))
        return wrong
