"""A seeded regression stream: y = intercept + sum(c_j * x_j) + noise, with new coefficients at chosen records.

Everything is a function of (seed, record number). Records are made in blocks on a fixed grid, each from its own
stretch of one Philox counter, and batches are slices of blocks: so a position restores in O(1), and record n has the
same bits whatever the batch boundaries were. The target is summed column by column and not by a matrix product: the
order of additions in BLAS depends on the number of rows it is given.

Source of the generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from streampiped.aligned import aligned_empty
from streampiped.records import Array, Batch, Block, Schema, Span, stride_of
from streampiped.sources.base import Connector, Ready
from streampiped.sources.defects import DefectOptions, Defects, philox
from streampiped.stages.base import StageOptions, State

BLOCK_ROWS: Final = 4096
"""Records per grid block: 9 columns are 295 kB and stay in the second-level cache, while the set-up of a block
(9 us for its generator) costs 2 ns per record. Part of what a seed means: another value is another stream."""
FEATURES_MAX: Final = 1024  # columns; a block of 4096 records is 34 MB then

COEFFICIENTS: Final = 1  # streams of one seed; the defects have theirs
RECORDS: Final = 2


class SyntheticOptions(StageOptions):
    """`type = "synthetic"`."""

    type: Literal["synthetic"] = "synthetic"
    records: Annotated[int, Field(ge=0)] = 0
    """0: the stream never ends."""
    features: Annotated[int, Field(ge=1, le=FEATURES_MAX)] = 8
    """Columns x1, x2, ..., standard normal."""
    target: Annotated[str, Field(min_length=1)] = "y"
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what no model can learn."""
    nonlinearity: float = 0.0
    """Weight of sin(2 * x1) + x1 * x2 (x1 squared with a single feature) in the target."""
    seed: int | None = None
    """None: the stage's own seed, which follows from the pipeline's."""
    drift_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Record numbers, ascending; from each one on other coefficients hold."""
    defects: DefectOptions = DefectOptions()

    @model_validator(mode="after")
    def _fits(self) -> SyntheticOptions:
        if list(self.drift_at) != sorted(set(self.drift_at)):
            raise ValueError(f"drift_at should be ascending record numbers, got {list(self.drift_at)}")
        names = self.feature_names
        if self.target in names:
            raise ValueError(f"target {self.target!r} is also the name of a feature")
        for column in self.defects.columns:
            if column not in (*names, self.target):
                raise ValueError(
                    f"defects: no column {column!r}; there are {names[0]} to {names[-1]} and {self.target}"
                )
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"x{i + 1}" for i in range(self.features))


class SyntheticSource(Connector):
    """Records are `features` columns and the target, all float64, at positions 0, 1, 2, ..."""

    def __init__(self, options: SyntheticOptions, name: str, seed: int) -> None:
        self._options = options
        self._name = name
        self._seed = (seed if options.seed is None else options.seed) % (1 << 64)
        self._schema = Schema(floats=(*options.feature_names, options.target))
        self._defects = Defects(options.defects, self._seed, self._schema.floats)
        self._row = 0
        self._block = -1
        self._table: Array = np.empty((options.features + 1, BLOCK_ROWS))
        self._regime = -1
        self._coefficients: Array = np.empty(0)

    def ready(self, limit: int, now: float) -> Ready:
        if not self._options.records:
            return Ready(limit)
        left = max(0, self._options.records - self._row)
        return Ready(min(left, limit), last=left <= limit)

    def read(self, limit: int) -> Batch:
        start, end = self._row, self._row + limit
        names = self._schema.floats
        data = aligned_empty(len(names) * stride_of(limit), np.float64)
        table = data.reshape(len(names), -1)
        table[:, limit:] = 0
        row = start
        while row < end:
            block, offset = divmod(row, BLOCK_ROWS)
            self._load(block)
            count = min(BLOCK_ROWS - offset, end - row)
            table[:, row - start : row - start + count] = self._table[:, offset : offset + count]
            self._defects.count(offset, offset + count)
            row += count
        self._row = end
        empty = Block((), limit, aligned_empty(0, np.int64))
        spans = (Span(self._name, start, limit),)
        return Batch(self._schema, limit, Block(names, limit, data), empty, {}, spans=spans)

    def position(self) -> State:
        return {"row": self._row, "defects": self._defects.counts()}

    def seek(self, position: State | None) -> None:
        self._row = int(position["row"]) if position else 0
        self._defects.restore(position["defects"] if position else {})

    def total(self) -> int | None:
        return self._options.records or None

    def given(self) -> int | None:
        return self._row

    def summary(self) -> Mapping[str, Any]:
        return {"records": self._row, "defects": self._defects.counts()}

    def coefficients(self, row: int) -> Array:
        """The true coefficients at record `row`, the intercept last; for tests and documentation."""
        return self._regime_coefficients(bisect_right(self._options.drift_at, row))

    def _load(self, block: int) -> None:
        """Make `self._table` the records of grid block `block`."""
        if block == self._block:
            return
        self._block = block
        philox(self._seed, RECORDS, block).standard_normal(out=self._table)
        start, drift_at = block * BLOCK_ROWS, self._options.drift_at
        cuts = drift_at[bisect_right(drift_at, start) : bisect_left(drift_at, start + BLOCK_ROWS)]
        edges = [start, *cuts, start + BLOCK_ROWS]
        for first, end in pairwise(edges):
            self._set_target(self._table[:, first - start : end - start], self.coefficients(first))
        self._defects.apply(self._table, block)

    def _set_target(self, table: Array, coefficients: Array) -> None:
        """Turn the last row of `table` from standard normal noise into the target."""
        target = table[-1]
        target *= self._options.noise
        target += coefficients[-1]
        for feature, coefficient in zip(table[:-1], coefficients, strict=False):
            target += feature * coefficient
        if self._options.nonlinearity:
            other = table[1] if len(table) > 2 else table[0]
            target += self._options.nonlinearity * (np.sin(2 * table[0]) + table[0] * other)

    def _regime_coefficients(self, regime: int) -> Array:
        if regime != self._regime:
            self._coefficients = philox(self._seed, COEFFICIENTS, regime).standard_normal(self._options.features + 1)
            self._regime = regime
        return self._coefficients
