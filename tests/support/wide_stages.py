"""Stages for large batches: columns that follow from the position, passed on, added to, kept, and verified."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

from streampiped.records import Array, Batch, IntArray, Span
from streampiped.stages.base import Ended, SourceStage, Stage, StageOptions, State

COLUMNS: Final = 16
KEPT: Final = 4  # batches; more than a memory of two slots has


def expected(positions: IntArray, column: int) -> Array:
    """What stands in a column of `Wide`."""
    return np.asarray(positions * (column + 1.0) + column, dtype=np.float64)


def columns_at(start: int, rows: int) -> dict[str, Array]:
    """What `Wide` gives from this position on."""
    positions = np.arange(start, start + rows)
    return {f"x{i}": expected(positions, i) for i in range(COLUMNS)}


class WideOptions(StageOptions):
    """`records` 0: unbounded."""

    records: int = 0
    batch_max: int = 2048


class Wide(SourceStage):
    """Gives x0, x1, ... ."""

    Options = WideOptions

    def __init__(self, options: WideOptions, context: Any) -> None:
        self._options = options
        self._name = context.name
        self._next = 0

    def read(self, now: float) -> Batch | Ended:
        rows, start = self._options.batch_max, self._next
        if self._options.records:
            rows = min(rows, self._options.records - start)
        if rows <= 0:
            return Ended()
        self._next += rows
        return Batch.build(columns_at(start, rows), sequence=start, spans=(Span(self._name, start, rows),))

    def snapshot(self) -> State:
        return {"next": self._next}

    def restore(self, state: State | None) -> None:
        self._next = state["next"] if state else 0


class Add(Stage):
    """Passes the columns on and adds one."""

    def __init__(self, options: StageOptions, context: Any) -> None:
        self._name = f"by_{context.name}"

    def process(self, batch: Batch) -> Batch:
        return batch.with_columns({self._name: -batch["x1"]})


class Verify(Stage):
    """Fails when a value is not the one that was sent; counts the rows by the way that they have come."""

    def __init__(self, options: StageOptions, context: Any) -> None:
        self.restore(None)

    def process(self, batch: Batch) -> None:
        positions = batch.positions()
        for i in range(COLUMNS):
            if not np.array_equal(batch[f"x{i}"], expected(positions, i)):
                raise ValueError(f"column x{i} of the records from {positions[0]} on is not what was sent")
        for name in batch.schema.floats[COLUMNS:]:
            if not np.array_equal(batch[name], -expected(positions, 1)):
                raise ValueError(f"column {name} of the records from {positions[0]} on is not what was added")
        for span in batch.spans:
            self._counts[span.via] = self._counts.get(span.via, 0) + span.count
            self._sums[span.via] = self._sums.get(span.via, 0) + span.count * (2 * span.start + span.count - 1) // 2

    def snapshot(self) -> State:
        return {"counts": dict(self._counts), "sums": dict(self._sums)}

    def restore(self, state: State | None) -> None:
        self._counts: dict[str, int] = dict(state["counts"]) if state else {}
        self._sums: dict[str, int] = dict(state["sums"]) if state else {}


class Keeper(Stage):
    """Keeps batches against the rules, and counts those that have changed since."""

    def __init__(self, options: StageOptions, context: Any) -> None:
        self._kept: deque[tuple[Array, bytes]] = deque()
        self._changed = 0

    def process(self, batch: Batch) -> None:
        self._kept.append((batch["x1"], batch["x1"].tobytes()))
        if len(self._kept) > KEPT:
            view, then = self._kept.popleft()
            self._changed += view.tobytes() != then

    def snapshot(self) -> State:
        return {"changed": self._changed}
