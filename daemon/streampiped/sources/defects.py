"""Injected defects: what real inputs do to a pipeline, seeded and counted, so that a test knows what must be found.

Sparse by construction: per block and kind the number of hit cells is drawn first (binomial), then which; a stream with
one defect in ten thousand cells costs nearly nothing. Kinds are applied in the order of their fields, the later one
wins a cell that two have hit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from streampiped.records import Array
from streampiped.stages.base import StageOptions

SPIKE: Final = 1e3  # added away from zero: a thousand standard deviations of a feature
LABEL_ERROR: Final = 1e6  # added to or taken from a bad label: absurd for any target the stream has

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Hits: TypeAlias = NDArray[np.intp]


def philox(seed: int, stream: int, block: int) -> np.random.Generator:
    """The generator of (seed, stream, block): block b owns the counter values [b * 2**128, (b + 1) * 2**128)."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=np.array([0, 0, block, 0], dtype=np.uint64), key=key))


class UnitChange(StageOptions):
    """From record `at` on the column comes in another unit: every value is multiplied by `factor`."""

    at: Annotated[int, Field(ge=0)]
    column: str
    factor: float


class DeadColumn(StageOptions):
    """From record `at` on the column is stuck at zero."""

    at: Annotated[int, Field(ge=0)]
    column: str


def _listed(value: Any) -> Any:
    """One table is as good as a list of one."""
    return [value] if isinstance(value, Mapping) else value


class DefectOptions(StageOptions):
    """Shares are of all feature cells, of all records with `bad_labels`."""

    missing: Share = 0.0
    """NaN."""
    infinite: Share = 0.0
    """Plus or minus infinity."""
    spikes: Share = 0.0
    """A value a thousand standard deviations away."""
    unit_change: Annotated[tuple[UnitChange, ...], BeforeValidator(_listed)] = ()
    dead: Annotated[tuple[DeadColumn, ...], BeforeValidator(_listed)] = ()
    bad_labels: Share = 0.0
    """The target is missing, or 1e6 off; half and half."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are named."""
        return tuple(c.column for c in self.unit_change) + tuple(c.column for c in self.dead)


class Defects:
    """The injector of one stream. `apply` a block, then `count` the stretches of it that are given out."""

    def __init__(self, options: DefectOptions, seed: int, names: tuple[str, ...]) -> None:
        """`names` are the rows of the tables to come, the target last."""
        self._options = options
        self._seed = seed
        self._names = names
        self._hits: dict[str, Hits] = {}
        self._counts: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        """Cells (records, for unit_change, dead and bad_labels) hit so far, by kind; a kind that never hit is
        absent."""
        return dict(self._counts)

    def restore(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def count(self, first: int, end: int) -> None:
        """Records [first, end) of the block that was applied last are given out."""
        for kind, rows in self._hits.items():
            hit = int(np.searchsorted(rows, end) - np.searchsorted(rows, first))
            if hit:
                self._counts[kind] = self._counts.get(kind, 0) + hit

    def apply(self, table: Array, block: int) -> None:
        """Damage one block in place: `(columns, rows)`, the target last."""
        options, features = self._options, table[:-1]
        self._hits = {}
        self._scatter("missing", options.missing, features, block, 16, _missing)
        self._scatter("infinite", options.infinite, features, block, 17, _infinite)
        self._scatter("spikes", options.spikes, features, block, 18, _spike)
        for change in options.unit_change:
            self._from(change, table, block, "unit_change", change.factor)
        for dead in options.dead:
            self._from(dead, table, block, "dead", 0.0)
        self._scatter("bad_labels", options.bad_labels, table[-1:], block, 19, _bad_label)

    def _scatter(
        self, kind: str, share: float, cells: Array, block: int, stream: int, damage: Callable[[Array, Array], Array]
    ) -> None:
        """Damage a random `share` of the cells; `damage` gets their values and a uniform draw for each."""
        if not share:
            return
        random = philox(self._seed, stream, block)
        count = int(random.binomial(cells.size, share))
        columns, rows = np.divmod(random.choice(cells.size, count, replace=False, shuffle=False), cells.shape[1])
        cells[columns, rows] = damage(cells[columns, rows], random.random(count))
        self._hits[kind] = np.sort(rows)

    def _from(self, change: UnitChange | DeadColumn, table: Array, block: int, kind: str, factor: float) -> None:
        rows = table.shape[1]
        first = max(0, change.at - block * rows)
        if first >= rows:
            return
        values = table[self._names.index(change.column), first:]
        values[:] = values * factor if factor else 0.0
        self._hits[kind] = np.sort(np.concatenate([self._hits.get(kind, _NO_HITS), np.arange(first, rows)]))


_NO_HITS: Hits = np.empty(0, dtype=np.intp)


def _missing(values: Array, draw: Array) -> Array:
    return np.full_like(values, np.nan)


def _infinite(values: Array, draw: Array) -> Array:
    return np.where(draw < 0.5, np.inf, -np.inf)


def _spike(values: Array, draw: Array) -> Array:
    return values + np.copysign(SPIKE, values)


def _bad_label(values: Array, draw: Array) -> Array:
    absurd = values + np.where(draw < 0.75, LABEL_ERROR, -LABEL_ERROR)
    return np.where(draw < 0.5, np.nan, absurd)
