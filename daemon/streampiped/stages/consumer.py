"""The consumer: derived and rolling columns, range checks, and the sink.

Order within a batch, so that what is wrong spoils as little as possible: checks of incoming columns, derived columns,
rolling columns, checks of those, the sink. A row that the first checks drop is in no window. Batches go on to the next
stages with the new columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from streampiped.errors import OptionError
from streampiped.records import Array, Batch
from streampiped.sinks.base import Sink
from streampiped.sinks.jsonl import JsonlSink, JsonlSinkOptions
from streampiped.sinks.null import NullOptions, NullSink
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.queued import QueuedSink
from streampiped.sinks.sqlite import SqliteOptions, SqliteSink
from streampiped.stages.base import SinkStage, StageContext, StageOptions, State
from streampiped.stages.checks import MARK_COLUMN, Checks, RangeCheck
from streampiped.stages.expressions import Expression
from streampiped.stages.windows import WINDOW_MAX, Function, next_tail, rolling

SinkOptions: TypeAlias = Annotated[
    SqliteOptions | JsonlSinkOptions | ParquetOptions | NullOptions, Field(discriminator="type")
]


class RollingOptions(StageOptions):
    """One rolling column: `function` of the last `window` rows of `column`, this row included."""

    column: str
    window: Annotated[int, Field(ge=1, le=WINDOW_MAX)]
    """Rows; for `lag`, how many rows ago."""
    function: Function
    name: str = ""
    """Of the new column; empty: COLUMN_FUNCTION_WINDOW."""

    @property
    def result(self) -> str:
        return self.name or f"{self.column}_{self.function}_{self.window}"


class ConsumerOptions(StageOptions):
    """Options of the consumer."""

    derived: Mapping[str, str] = {}
    """New column -> expression over the columns so far: + - * / **, one comparison, abs, log1p, sqrt, exp, min, max,
    clip(x, low, high), where(condition, then, else), column("odd name"). In order; a later one may use an earlier."""
    rolling: tuple[RollingOptions, ...] = ()
    """Windows over rows, across batches."""
    checks: Mapping[str, RangeCheck] = {}
    """Column -> allowed range, and what to do with a row outside."""
    sink: SinkOptions = SqliteOptions()

    @model_validator(mode="after")
    def _differ(self) -> ConsumerOptions:
        counts = Counter([*self.derived, *(r.result for r in self.rolling), MARK_COLUMN])
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"columns made twice: {', '.join(twice)} (checks make {MARK_COLUMN})")
        return self


class Consumer(SinkStage):
    """Final processing and storage."""

    Options = ConsumerOptions
    overlaps = True

    def __init__(self, options: ConsumerOptions, context: StageContext) -> None:
        self._derived = {name: Expression(f"derived.{name}", text) for name, text in options.derived.items()}
        self._rolling = options.rolling
        made = {*options.derived, *(r.result for r in options.rolling)}
        self._checks = Checks(options.checks)
        self._checked_first = tuple(column for column in options.checks if column not in made)
        self._checked_last = tuple(column for column in options.checks if column in made)
        self._sink = QueuedSink(_connect(options, context), context.tick)
        self._reach: dict[str, int] = {}  # column -> the longest of its windows
        for option in options.rolling:
            self._reach[option.column] = max(option.window, self._reach.get(option.column, 0))
        self._tails: dict[str, Array] = {}
        self._rows = 0
        self.restore(None)

    def process(self, batch: Batch) -> Batch | None:
        if self._checked_first:
            batch = self._checks.apply(batch, self._checked_first)
        if self._derived:
            batch = self._derive(batch)
        if self._rolling:
            batch = batch.with_columns(self._roll(batch))
        if self._checked_last:
            batch = self._checks.apply(batch, self._checked_last)
        if not batch.rows:
            return None
        self._rows += batch.rows
        self._sink.write(batch)
        return batch

    def snapshot(self) -> State:
        return {"rows": self._rows, "tails": dict(self._tails), "checks": self._checks.snapshot()}

    def restore(self, state: State | None) -> None:
        """A window that the configuration has made longer since begins with what is known."""
        tails = state["tails"] if state else {}
        self._tails = {column: _resized(tails.get(column), reach) for column, reach in self._reach.items()}
        self._checks.restore(state["checks"] if state else None)
        self._rows = int(state["rows"]) if state else 0

    def seal(self, epoch: int) -> None:
        self._sink.seal(epoch)

    def prepare(self, epoch: int) -> None:
        self._sink.prepare(epoch)

    def commit(self, epoch: int) -> None:
        self._sink.commit(epoch)

    def rollback(self, epoch: int | None) -> None:
        self._sink.rollback(epoch)

    def isolate(self) -> None:
        self._sink = self._sink.double()

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        """`summary`: rows handed on, what the checks counted, and where the sink stands."""
        if method != "summary":
            raise KeyError(method)
        return {"rows": self._rows, "checks": self._checks.summary(), "sink": dict(self._sink.summary())}

    def close(self) -> None:
        self._sink.close()

    def _derive(self, batch: Batch) -> Batch:
        new: dict[str, Array] = {}
        for name, expression in self._derived.items():
            if not new.keys().isdisjoint(expression.columns):  # else one rebuilt batch for all is enough
                batch, new = batch.with_columns(new), {}
            new[name] = expression.evaluate(batch)
        return batch.with_columns(new)

    def _roll(self, batch: Batch) -> dict[str, Array]:
        values = {column: _numbers(batch, column) for column in self._reach}
        result = {
            option.result: rolling(option.function, option.window, self._tails[option.column], values[option.column])
            for option in self._rolling
        }
        self._tails = {column: next_tail(tail, values[column]) for column, tail in self._tails.items()}
        return result


def _numbers(batch: Batch, column: str) -> Array:
    if column not in batch or column in batch.texts:
        numeric = ", ".join(batch.schema.floats + batch.schema.ints)
        raise OptionError(f"rolling: no column of numbers is called {column!r}; there are {numeric}")
    numbers: Array = batch[column].astype(np.float64, copy=False)
    return numbers


def _resized(tail: Array | None, rows: int) -> Array:
    """The last `rows` of `tail`, with NaN before it where it is shorter."""
    result = np.full(rows, np.nan)
    if tail is not None and len(tail):
        known = tail[-rows:]
        result[rows - len(known) :] = known
    return result


def _connect(options: ConsumerOptions, context: StageContext) -> Sink:
    match options.sink:
        case SqliteOptions():
            return SqliteSink(options.sink, context.directory, context.emit, context.retain_epochs)
        case JsonlSinkOptions():
            return JsonlSink(options.sink, context.directory, context.emit)
        case ParquetOptions():
            return _parquet(options.sink, context)
        case NullOptions():
            return NullSink()


def _parquet(options: ParquetOptions, context: StageContext) -> Sink:
    """pyarrow takes a quarter of a second and 60 MB: only who writes Parquet has it."""
    try:
        from streampiped.sinks.parquet import ParquetSink
    except ImportError as error:
        raise OptionError(
            "sink `parquet` needs pyarrow, which is not installed: pip install 'streampipe-daemon[arrow]' "
            f"brings it ({error})"
        ) from error
    return ParquetSink(options, context.directory, context.emit, context.retain_epochs)
