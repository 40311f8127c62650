"""A source whose records are the arrays of an .npz file: costs nothing to read, so that the pipeline is measured."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from streampiped.records import ROWS_MAX, Batch, Span
from streampiped.stages.base import Ended, Idle, SourceStage, StageContext, StageOptions, State


class TableOptions(StageOptions):
    """`path`: written by `write`, columns in the order of `order`."""

    path: str
    batch_max: Annotated[int, Field(ge=1, le=ROWS_MAX)] = 1024


class Table(SourceStage):
    """Cuts as the generator does with a source that always has more."""

    Options = TableOptions

    def __init__(self, options: TableOptions, context: StageContext) -> None:
        self._options = options
        self._name = context.name
        with np.load(options.path) as kept:
            self._columns = {str(name): kept[str(name)] for name in kept["order"]}
        self._rows = len(next(iter(self._columns.values())))
        self._at = 0

    def read(self, now: float) -> Batch | Idle | Ended:
        if self._at >= self._rows:
            return Ended()
        size = self._options.batch_max
        part = slice(self._at, min(self._rows, self._at + size))
        columns = {name: values[part] for name, values in self._columns.items()}
        spans = (Span(self._name, part.start, part.stop - part.start),)
        batch = Batch.build(columns, sequence=self._at // size, spans=spans)
        self._at = part.stop
        return batch

    def snapshot(self) -> State:
        return {"at": self._at}

    def restore(self, state: State | None) -> None:
        self._at = int(state["at"]) if state else 0

    def total(self) -> int | None:
        return self._rows

    def position(self) -> int | None:
        return self._at
