"""The normalizer: the input gate, where what is missing, infinite or absurd is counted and the rest scaled online.

Works on the float columns as the block stores them, in whole-table passes: no record is ever touched alone. A column
that is to be left alone is one with shift 0 and factor 1, for which `(x - 0) * 1` is x itself, so that one pass serves
all columns and the output is written once, straight into its block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streampiped.errors import OptionError
from streampiped.learn.scaling import FLOAT_MAX, LIMIT, Standardiser
from streampiped.records import Array, Batch, Block, IntArray, aligned_empty, stride_of
from streampiped.stages.base import Stage, StageContext, StageOptions, State

Policy: TypeAlias = Literal["scale", "center", "pass", "drop"]
COUNTS = ("missing", "infinite", "imputed")


class NormalizerOptions(StageOptions):
    """Options of `[stages.normalizer]`."""

    columns: Literal["all"] | list[str] = "all"
    """Float columns to normalise; "all" is every one but the target."""
    target: str = "y"
    """Column that is never touched unless `columns` or `policy` name it."""
    policy: dict[str, Policy] = Field(default_factory=dict)
    """Policy of single columns, against `default_policy` for the others."""
    default_policy: Literal["scale", "center", "pass"] = "scale"
    missing: Literal["impute", "keep", "drop_row"] = "impute"
    """A missing or infinite value becomes the running mean (0 once scaled), stays missing, or its row is dropped."""
    limit: float = Field(default=LIMIT, ge=0)
    """Standard deviations beyond which a value counts as being at the limit; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What happens to each float column of the output, in block order."""

    names: tuple[str, ...]
    active: NDArray[np.bool_]
    """Not `pass`: centered at least, and its missing values handled."""
    scaled: NDArray[np.bool_]


class Normalizer(Stage):
    """Scales by the running moments including the batch (learn/scaling.py says why)."""

    Options: ClassVar[type[StageOptions]] = NormalizerOptions

    def __init__(self, options: NormalizerOptions, context: StageContext) -> None:
        self._options = options
        self._dropped = frozenset(name for name, policy in options.policy.items() if policy == "drop")
        self._layout: _Layout | None = None
        self.restore(None)

    def process(self, batch: Batch) -> Batch | None:
        """The batch with normalised float columns; None when every row was dropped."""
        if self._dropped:
            batch = batch.without(self._dropped)
        layout = self._layout_of(batch)
        self._rows += batch.rows
        if batch.rows == 0 or not layout.names:
            return batch
        table = batch.matrix(layout.names).T
        missing = self._count_missing(table, layout)
        if missing is not None and self._options.missing == "drop_row":
            keep = np.logical_not((missing & layout.active[:, None]).any(axis=0))
            self._rows_dropped += int(np.count_nonzero(~keep))
            batch = batch.select(keep)
            if batch.rows == 0:
                return None
            table = batch.matrix(layout.names).T
            missing = missing[:, keep]
        floats = Block(layout.names, batch.rows, self._normalised(table, missing, layout))
        return Batch(
            batch.schema,
            batch.rows,
            floats,
            batch.ints,
            batch.texts,
            sequence=batch.sequence,
            spans=batch.spans,
            ingest_ns=batch.ingest_ns,
        )

    def snapshot(self) -> State:
        return {
            "names": list(self._names),
            "rows": self._rows,
            "rows_dropped": self._rows_dropped,
            "counts": dict(self._counts),
            "scaler": self._scaler.state(),
        }

    def restore(self, state: State | None) -> None:
        self._layout = None  # the schema may be another one after a restart
        self._names: tuple[str, ...] = tuple(state["names"]) if state else ()
        self._rows = int(state["rows"]) if state else 0
        self._rows_dropped = int(state["rows_dropped"]) if state else 0
        self._scaler = Standardiser(len(self._names), self._options.limit)
        self._counts: dict[str, IntArray] = _no_counts(len(self._names))
        if state:
            self._scaler.restore(state["scaler"])
            self._counts = {kind: np.array(state["counts"][kind], dtype=np.int64) for kind in COUNTS}

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != "summary":
            raise KeyError(method)
        columns = {name: self._column_summary(place) for place, name in enumerate(self._names)}
        totals = {kind: sum(column[kind] for column in columns.values()) for kind in (*COUNTS, "out_of_range")}
        return {"rows": self._rows, "rows_dropped": self._rows_dropped, **totals, "columns": columns}

    def _column_summary(self, place: int) -> dict[str, Any]:
        scaler = self._scaler
        return {
            **{kind: int(self._counts[kind][place]) for kind in COUNTS},
            "out_of_range": int(scaler.outside[place]),
            "rebased": int(scaler.rebased[place]),
            "seen": int(scaler.moments.count[place]),
            "mean": float(scaler.moments.mean[place]),
            "deviation": float(scaler.deviation()[place]),
        }

    def _layout_of(self, batch: Batch) -> _Layout:
        names = batch.schema.floats
        if self._layout is None or self._layout.names != names:
            self._layout = _layout(self._options, batch)
            if not self._names:
                self._names = names
                self._scaler = Standardiser(len(names), self._options.limit)
                self._counts = _no_counts(len(names))
        if names != self._names:
            raise OptionError(
                f"the stream has the float columns {list(names)}, this normalizer has learned {list(self._names)}; "
                "start with a fresh state, or give the stream its columns back"
            )
        return self._layout

    def _count_missing(self, table: Array, layout: _Layout) -> NDArray[np.bool_] | None:
        """Which values are missing or infinite, counted; None when all are there."""
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isfinite(table.sum()):  # a NaN or infinity anywhere shows in the sum
                return None
        missing = ~np.isfinite(table)
        empty = np.count_nonzero(np.isnan(table), axis=1)
        gone = np.count_nonzero(missing, axis=1)
        imputed = gone * layout.active if self._options.missing == "impute" else np.zeros_like(gone)
        for kind, counts in zip(COUNTS, (empty, gone - empty, imputed), strict=True):
            self._counts[kind] = self._counts[kind] + counts
        return missing if gone.any() else None

    def _normalised(self, table: Array, missing: NDArray[np.bool_] | None, layout: _Layout) -> Array:
        """The data of the output block. The moments learn from the same pass."""
        rows = table.shape[1]
        data = aligned_empty(len(layout.names) * stride_of(rows), np.float64)
        whole = data.reshape(len(layout.names), -1)
        whole[:, rows:] = 0
        out = whole[:, :rows]
        clean = table if missing is None else np.where(missing, np.nan, table)
        bounded = self._scaler.learn(clean)
        shift, factor = self._scaler.scale()
        np.subtract(bounded, np.where(layout.active, shift, 0.0)[:, None], out=out)
        np.multiply(out, np.where(layout.scaled, factor, 1.0)[:, None], out=out)
        if missing is not None and self._options.missing == "impute":
            out[missing & layout.active[:, None]] = 0.0
        if self._options.limit:
            self._clip(out, layout)
        if bounded is not table and not layout.active.all():
            out[~layout.active] = table[~layout.active]  # counted above, but left as they came
        return cast(Array, data)

    def _clip(self, out: Array, layout: _Layout) -> None:
        """A column that just came alive has no limit to be judged by before it is scaled; here it has."""
        bound = np.where(layout.scaled, self._options.limit, FLOAT_MAX)
        inside = (out.max(axis=1) <= bound) & (out.min(axis=1) >= -bound)  # false with a NaN that was kept
        if not inside.all():
            np.clip(out, -bound[:, None], bound[:, None], out=out)


def _no_counts(columns: int) -> dict[str, IntArray]:
    return {kind: np.zeros(columns, dtype=np.int64) for kind in COUNTS}


def _layout(options: NormalizerOptions, batch: Batch) -> _Layout:
    """The policies for this schema; raises OptionError for a name that no float column has."""
    names = batch.schema.floats
    chosen = [name for name in names if name != options.target] if options.columns == "all" else options.columns
    policies: dict[str, Policy] = dict.fromkeys(chosen, options.default_policy)
    policies |= {name: policy for name, policy in options.policy.items() if policy != "drop"}
    for name in policies:
        if name not in names:
            raise OptionError(f"normalizer: no float column {name!r} in the stream; there are {list(names)}")
    kinds = [policies.get(name, "pass") for name in names]
    return _Layout(
        names=names,
        active=np.array([kind != "pass" for kind in kinds], dtype=np.bool_),
        scaled=np.array([kind == "scale" for kind in kinds], dtype=np.bool_),
    )
