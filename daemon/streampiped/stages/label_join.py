"""Labels that come late: which rows of a batch are questions, which are their labels, and what the batch gets.

A row without label is a question: it is predicted, and what was known is kept under its id. A row with a label whose
id is waiting is the question's label: it gets what was served for the question, so that whoever scores the row scores
that, and the model learns the question's features now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streampiped.errors import OptionError
from streampiped.learn.delayed import DelayedPool, LateForecast, LateRows
from streampiped.learn.pending import COUNTS, Id, Pending
from streampiped.records import Array, Batch
from streampiped.stages.base import StageOptions

GUESSES: Final = ("guess_mean", "guess_last")
"""The columns with the mean and the newest of the labels that were known when a row was asked."""


class LabelOptions(StageOptions):
    """Labels come later, by id."""

    id: str
    """Column, int or text, that is the same in a question and in its label."""
    wait_rows_max: int = Field(default=100_000, ge=1, le=10_000_000)
    """Questions that wait at most: for one more the oldest is given up. With 10 features each takes 300 bytes of every
    snapshot."""
    immediate: bool = False
    """A label whose id is not waiting belongs to the features of its own row, which is predicted and learned at once;
    false: it is late, and only counted."""


class LabelJoin:
    """The questions that wait, and how a batch goes through them."""

    def __init__(self, options: LabelOptions, target: str) -> None:
        self._options = options
        self._target = target
        self._pending: Pending | None = None

    def check(self, batch: Batch) -> None:
        """OptionError when the batch has no such columns."""
        schema, name = batch.schema, self._options.id
        if self._target not in schema.floats:
            raise OptionError(f"trainer: labels that come late need a float target, and {self._target!r} is none")
        if name in schema.floats:
            raise OptionError(f"trainer: {name!r} (labels.id) is a float column; let its source read it as int or text")
        if name not in schema.names:
            raise OptionError(f"trainer: no column {name!r} (labels.id); there are {list(schema.names)}")

    def rows(
        self, pool: DelayedPool, batch: Batch, features: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]
    ) -> LateRows:
        """The batch's rows, sorted; `known` and `learnable` are narrowed to labels of questions."""
        self.check(batch)
        pending = self._pending_of(pool)
        targets, ids = batch[self._target], batch[self._options.id]
        listed: Sequence[Id | None] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        joined = pending.join(listed, np.isfinite(targets), immediate=self._options.immediate)
        tells = joined.tells
        return LateRows(features, targets, known & tells, learnable & tells, joined.asks, tells, joined.lines)

    def work(self, pool: DelayedPool, rows: LateRows, parts: Iterable[slice]) -> LateForecast:
        """Of all rows; `parts` are gone through one by one, as telling the pool of a shift between two is theirs."""
        pending, found = self._pending_of(pool), []
        for part in parts:
            row = part.start
            while row < part.stop:
                found.append(pool.follow(rows[row : part.stop], pending))
                row += len(found[-1])
        return LateForecast.joined(found)

    def told(self) -> dict[str, int]:
        """For the report: how many wait, and what has become of the others."""
        counts = self._pending.counts if self._pending is not None else dict.fromkeys(COUNTS, 0)
        return {"waiting": len(self._pending) if self._pending is not None else 0, **counts}

    def state(self) -> dict[str, Any] | None:
        """Portable and exact: the argument of `restore`."""
        return self._pending.state() if self._pending is not None else None

    def restore(self, state: Mapping[str, Any] | None, pool: DelayedPool | None) -> None:
        """Wait for what `state` waited for; None: for nothing. `pool`: whose members answered."""
        self._pending = None
        if state is not None and pool is not None:
            self._pending_of(pool).restore(state)

    def _pending_of(self, pool: DelayedPool) -> Pending:
        if self._pending is None:
            members = [slot.name for slot in pool.slots]
            self._pending = Pending(self._options.wait_rows_max, pool.columns, members)
        return self._pending


def columns_of(forecast: LateForecast, prediction: str) -> dict[str, Any]:
    """What the batch gets, by name."""
    return {
        prediction: forecast.prediction,
        f"{prediction}_low": forecast.low,
        f"{prediction}_high": forecast.high,
        **dict(zip(GUESSES, (forecast.guess_mean, forecast.guess_last), strict=True)),
        "model_version": forecast.version,
        "model_generation": forecast.generation,
    }
