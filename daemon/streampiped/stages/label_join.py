"""Labels that come late: which rows of a batch are questions, which are their labels, and what the batch gets.

A row without label is a question: it is predicted, and what was known is kept under its id. A row with a label whose
id is waiting is the question's label: it gets what was served for the question, so that whoever scores the row scores
that, and the model learns the question's features now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from pydantic import Field

from streampiped.classes import Codes, Label
from streampiped.errors import OptionError
from streampiped.learn.late.class_delayed import ClassLateForecast, DelayedClassPool
from streampiped.learn.late.delayed import DelayedPool, LateForecast, LateRows
from streampiped.learn.late.held import HeldOut, Origin
from streampiped.learn.late.pending import COUNTS, Id, Joined, Pending
from streampiped.records import Batch, IntArray
from streampiped.stages.base import StageOptions
from streampiped.stages.learning_tasks import CLASS_COLUMNS

GUESSES: Final = ("guess_mean", "guess_last")
"""The columns with the mean and the newest of the labels that were known when a row was asked."""
CLASS_GUESSES: Final = ("guess_prior", "guess_last")
"""Of classes: the most frequent and the newest."""
GUESS_SHARE: Final = "guess_share"
"""The probability that the shares of the classes known then gave to the label of the row."""

HELD_ROWS: Final = 1024
"""Held-out questions that can be asked for again: twice what the evaluator asks for, which leaves some of them out."""

AnyPool: TypeAlias = DelayedPool | DelayedClassPool
AnyForecast: TypeAlias = LateForecast | ClassLateForecast


class LabelOptions(StageOptions):
    """Labels come later, by id."""

    id: str
    """Column, int or text, that is the same in a question and in its label."""
    wait_rows_max: int = Field(default=100_000, ge=1, le=10_000_000)
    """Questions that wait at most: for one more the oldest is given up. With 10 features each takes 300 bytes of every
    snapshot, of two classes 400, and 120 more for each further class."""
    immediate: bool = False
    """A label whose id is not waiting belongs to the features of its own row, which is predicted and learned at once;
    false: it is late, and only counted."""


class LabelJoin:
    """The questions that wait, and how a batch goes through them."""

    def __init__(self, options: LabelOptions, target: str) -> None:
        self._options = options
        self._target = target
        self._pending: Pending[Any] | None = None
        self.held = HeldOut()
        """What the questions of held-out labels were: see `Asked.question`."""

    def check(self, batch: Batch) -> None:
        """OptionError when the batch has no such columns."""
        schema, name, target = batch.schema, self._options.id, self._target
        if target in schema.ints:
            raise OptionError(
                f"trainer: {target!r} is an int column, in which no label can be missing; labels that come late need a "
                "float target, or classes as text: let its source read it so"
            )
        if name in schema.floats:
            raise OptionError(f"trainer: {name!r} (labels.id) is a float column; let its source read it as int or text")
        if name not in schema.names:
            raise OptionError(f"trainer: no column {name!r} (labels.id); there are {list(schema.names)}")

    def join(self, pool: AnyPool, batch: Batch) -> Joined:
        """What each row of the batch is, by its id and whether it has a label."""
        self.check(batch)
        column, ids = batch[self._target], batch[self._options.id]
        numbers = isinstance(column, np.ndarray)
        told = np.isfinite(column) if numbers else np.array([label is not None for label in column], dtype=np.bool_)
        listed: Sequence[Id | None] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return self._pending_of(pool).join(listed, told, immediate=self._options.immediate)

    def work(self, pool: AnyPool, rows: LateRows, parts: Iterable[slice]) -> AnyForecast:
        """Of all rows; `parts` are gone through one by one, as telling the pool of a shift between two is theirs."""
        pending, found = self._pending_of(pool), []
        for part in parts:
            row = part.start
            while row < part.stop:
                found.append(pool.follow(rows[row : part.stop], pending))
                row += len(found[-1])
        kind: Any = ClassLateForecast if isinstance(pool, DelayedClassPool) else LateForecast
        result: AnyForecast = kind.joined(found)
        return result

    def keep(self, pool: AnyPool, keys: Sequence[Origin], lines: IntArray) -> None:
        """Questions of this batch's labels that are held out, by where these labels stand in the stream."""
        if keys:
            self.held = self.held.extended(keys, self._pending_of(pool).read(lines).question(), HELD_ROWS)

    def told(self) -> dict[str, int]:
        """For the report: how many wait, and what has become of the others."""
        counts = self._pending.counts if self._pending is not None else dict.fromkeys(COUNTS, 0)
        return {"waiting": len(self._pending) if self._pending is not None else 0, **counts}

    def state(self) -> dict[str, Any] | None:
        """Portable and exact: the argument of `restore`."""
        if self._pending is None:
            return None
        return {**self._pending.state(), "held": self.held.state()}

    def restore(self, state: Mapping[str, Any] | None, pool: AnyPool | None) -> None:
        """Wait for what `state` waited for; None: for nothing. `pool`: whose members answered."""
        self._pending, self.held = None, HeldOut()
        if state is not None and pool is not None:
            self._pending_of(pool).restore(state)
            if state.get("held") is not None:
                self.held = HeldOut.from_state(state["held"])

    def _pending_of(self, pool: AnyPool) -> Pending[Any]:
        if self._pending is None:
            self._pending = pool.waiting(self._options.wait_rows_max)
        return self._pending


def columns_of(forecast: AnyForecast, prediction: str) -> dict[str, Any]:
    """What the batch gets, by name."""
    numbers = {"model_version": forecast.version, "model_generation": forecast.generation}
    if isinstance(forecast, LateForecast):
        return {
            prediction: forecast.prediction,
            f"{prediction}_low": forecast.low,
            f"{prediction}_high": forecast.high,
            **dict(zip(GUESSES, (forecast.guess_mean, forecast.guess_last), strict=True)),
            **numbers,
        }
    guesses = forecast.guess_prior, forecast.guess_last
    return {
        prediction: _named(forecast.prediction, forecast.labels),
        **dict(zip(CLASS_COLUMNS, (forecast.probability, forecast.score), strict=True)),
        **{name: _named(codes, forecast.labels) for name, codes in zip(CLASS_GUESSES, guesses, strict=True)},
        GUESS_SHARE: forecast.guess_share,
        **numbers,
    }


def _named(codes: Codes, labels: Sequence[Label]) -> list[Any]:
    by_code = [*labels, None]  # UNKNOWN is the last place
    return [by_code[code] for code in codes.tolist()]
