"""The normalizer: the input gate, where what is missing, infinite, absurd or stuck is counted and mended.

Works on the float columns as the block stores them, in whole-table passes: no record is ever touched alone. By default
values stay in their own units (docs/decisions/own-units.md); a column can be scaled online as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streampiped.aligned import aligned_empty
from streampiped.cleaning.column_gate import COUNTS, LIMIT, Gate
from streampiped.cleaning.label_gate import LabelGate
from streampiped.cleaning.look import Passed
from streampiped.errors import OptionError, StateError
from streampiped.learn.features import numbers_of
from streampiped.learn.scaling import Standardiser
from streampiped.marks import BOUNDED, IMPUTED, LABEL_REBASED, MARKS, QUARANTINED, REBASED
from streampiped.records import Array, Batch, Block, IntArray, schema_of, stride_of
from streampiped.stages.base import Stage, StageContext, StageOptions, State

Policy: TypeAlias = Literal["clean", "scale", "center", "pass", "drop"]
STATE_VERSION: Final = 2
"""Of the snapshot. One that says none has the moments of another statistic."""


class NormalizerOptions(StageOptions):
    """Options of `[stages.normalizer]`."""

    columns: Literal["all"] | list[str] = "all"
    """Float columns to mend; "all" is every one but the target."""
    target: str = "y"
    """Column of labels: never touched unless `columns` or `policy` name it; bad ones are marked."""
    policy: dict[str, Policy] = Field(default_factory=dict)
    """Policy of single columns, against `default_policy` for the others."""
    default_policy: Literal["clean", "scale", "center", "pass"] = "clean"
    """What is done with a column: mended and left in its own unit, also brought to mean 0 and deviation 1 by what was
    seen, only to mean 0, or nothing."""
    missing: Literal["impute", "keep", "drop_row"] = "impute"
    """A missing or infinite value becomes the discounted mean, stays missing, or its row is dropped."""
    limit: float = Field(default=LIMIT, ge=0)
    """Standard deviations beyond which a value counts as being at the limit; 0 for no limit."""
    quarantine: bool = True
    """Mark labels that are missing or absurd, so that they are neither learned nor scored."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """What the labels are, as the trainer's option of this name: "auto" takes a float column for numbers and an int
    column for classes. The number of a class is a name: nothing of its size is absurd."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What happens to each float column of the output, in block order."""

    names: tuple[str, ...]
    active: NDArray[np.bool_]
    """Not `pass`: missing values and absurd ones are handled."""
    centered: NDArray[np.bool_]
    scaled: NDArray[np.bool_]


class Normalizer(Stage):
    """Adds the int column `marks`: what was done to each row (`streampiped.marks`)."""

    Options: ClassVar[type[StageOptions]] = NormalizerOptions

    def __init__(self, options: NormalizerOptions, context: StageContext) -> None:
        self._options = options
        self._emit = context.emit
        self._dropped = frozenset(name for name, policy in options.policy.items() if policy == "drop")
        self._layout: _Layout | None = None
        self.restore(None)

    def process(self, batch: Batch) -> Batch | None:
        """The batch with mended float columns; None when every row was dropped."""
        if self._dropped:
            batch = batch.without(self._dropped)
        first = self._layout is None
        layout = self._layout_of(batch)
        if first:
            self._look_for_labels(batch, layout)
        self._rows += batch.rows
        if batch.rows == 0 or not layout.names:
            return _marked(batch, batch.floats, np.zeros(batch.rows, dtype=np.int64))
        table = batch.matrix(layout.names).T
        if self._options.missing == "drop_row" and not (keep := self._whole_rows(table, layout)).all():
            self._rows_dropped += int(np.count_nonzero(~keep))
            self._gate.count_missing(table[:, ~keep])
            batch = batch.select(keep)
            if batch.rows == 0:
                return None
            table = batch.matrix(layout.names).T
        passed = self._gate.take(table, layout.active, impute=self._options.missing == "impute")
        marks = self._marks_of(batch, passed)
        data = self._scaled(passed.table, layout)
        unchanged = data is table and batch.floats.names == layout.names
        return _marked(batch, batch.floats if unchanged else _block_of(layout.names, data), marks)

    def snapshot(self) -> State:
        return {
            "version": STATE_VERSION,
            "names": list(self._names),
            "rows": self._rows,
            "rows_dropped": self._rows_dropped,
            "gate": self._gate.state(),
            "label": self._label.state(),
            "scaler": self._scaler.state(),
        }

    def restore(self, state: State | None) -> None:
        if state is not None and state.get("version", 1) != STATE_VERSION:
            raise StateError(
                f"the snapshot has version {state.get('version', 1)} of the normalizer's state, this one reads version "
                f"{STATE_VERSION}; start with a fresh state"
            )
        self._layout = None  # the schema may be another one after a restart
        self._names: tuple[str, ...] = tuple(state["names"]) if state else ()
        self._rows = int(state["rows"]) if state else 0
        self._rows_dropped = int(state["rows_dropped"]) if state else 0
        self._begin()
        if state:
            self._gate.restore(state["gate"])
            self._label.restore(state["label"])
            self._scaler.restore(state["scaler"])

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "section":
            return {"name": "gate", "results": self._summary(), "operations": {}}
        if method != "summary":
            raise KeyError(method)
        summary = self._summary()
        columns = summary["columns"].values()
        return {**summary, **{kind: sum(column[kind] for column in columns) for kind in COUNTS}}

    def api(self) -> Mapping[str, Callable[..., Any]]:
        """transform."""
        return {"transform": self.transform}

    def transform(self, columns: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
        """What would become of these columns, name -> values, at this moment, each value by itself; nothing is learned
        and nothing counted. Names that are not ours are left aside; `takes` are those that are. ValueError for what are
        no numbers."""
        layout = _layout(self._options, self._names) if self._names else None
        takes = [name for name, active in zip(layout.names, layout.active, strict=True) if active] if layout else []
        made = {}
        for name in takes if layout else ():
            if name in columns and layout is not None:
                made[name] = self._transformed(layout, layout.names.index(name), numbers_of(columns[name], name))
        return {"takes": takes, "columns": made}

    def _transformed(self, layout: _Layout, place: int, values: Array) -> list[float | None]:
        if values.ndim != 1:
            raise ValueError(f"{layout.names[place]} must be a list of numbers or None")
        gate = self._gate
        low, high = (float(bound[place]) for bound in gate.bounds())
        mean = gate.mean[place] if self._options.missing == "impute" else np.nan
        with np.errstate(over="ignore", invalid="ignore"):
            believed = np.where(np.isfinite(values), np.clip(values, low, high), mean)
            mended = believed * gate.scale[place] + gate.shift[place]
        shift, factor = self._scaler.scale()
        if layout.centered[place]:
            mended = (mended - shift[place]) * (factor[place] if layout.scaled[place] else 1.0)
        return [None if math.isnan(value) else value for value in mended.tolist()]

    def _summary(self) -> dict[str, Any]:
        label = self._label
        return {
            "rows": self._rows,
            "rows_dropped": self._rows_dropped,
            "columns": {name: self._column_summary(place) for place, name in enumerate(self._names)},
            "label": {
                "name": self._options.target,
                "quarantined_missing": label.counts["missing"],
                "quarantined_spike": label.counts["spikes"],
                "rebased": label.counts["rebased"],
                "mean": label.level.mean,
                "deviation": label.level.deviation,
            },
        }

    def _column_summary(self, place: int) -> dict[str, Any]:
        gate = self._gate
        return {
            "state": gate.state_of(place),
            "seen": int(gate.seen[place]),
            **{kind: int(gate.counts[kind][place]) for kind in COUNTS},
            "mean": float(gate.mean[place]),
            "deviation": float(gate.deviation()[place]),
        }

    def _begin(self) -> None:
        width = len(self._names)
        self._gate = Gate(width, self._options.limit)
        self._label = LabelGate()
        self._scaler = Standardiser(width, 0.0)

    def _layout_of(self, batch: Batch) -> _Layout:
        """By name: columns that were learned in another order are taken in the one that was learned."""
        names = batch.schema.floats
        if MARKS in names or MARKS in batch.schema.texts:
            raise OptionError(f"normalizer: the stream's column {MARKS!r} is not int; the gate's own has this name")
        if self._layout is None or set(self._layout.names) != set(names):
            if not self._names:
                self._names = names
                self._begin()
            if set(names) != set(self._names):
                gone, new = sorted(set(self._names) - set(names)), sorted(set(names) - set(self._names))
                raise OptionError(
                    f"the stream has lost the float columns {gone} and has {new} new, this normalizer has learned "
                    f"{list(self._names)}; start with a fresh state, or give the stream its columns back"
                )
            self._layout = _layout(self._options, self._names)
        return self._layout

    def _look_for_labels(self, batch: Batch, layout: _Layout) -> None:
        """A target that the stream has not is most likely one that was not told to us: its labels would be mended, and
        the missing ones made up. What has none at all may go on."""
        target = self._options.target
        unnamed = self._options.columns == "all"  # what was chosen by name was meant
        if self._options.quarantine and unnamed and target not in batch.schema.names and layout.active.any():
            mended = [name for name, active in zip(layout.names, layout.active, strict=True) if active]
            self._emit("target_missed", target=target, mended=", ".join(mended))

    @staticmethod
    def _whole_rows(table: Array, layout: _Layout) -> NDArray[np.bool_]:
        return np.asarray((np.isfinite(table) | ~layout.active[:, None]).all(axis=0))

    def _judged(self, batch: Batch) -> tuple[NDArray[np.bool_], list[int]] | None:
        """As `LabelGate.take`; None when the stream has no numbers as labels."""
        target, task = self._options.target, self._options.task
        if target in batch.schema.floats:
            labels = np.asarray(batch[target])
            return self._label.take(labels) if task != "classification" else (self._label.missing(labels), [])
        if target in batch.schema.ints and task == "regression":
            return self._label.take(np.asarray(batch[target], dtype=np.float64))
        return None

    def _marks_of(self, batch: Batch, passed: Passed) -> IntArray:
        marks = np.zeros(batch.rows, dtype=np.int64)
        if passed.imputed is not None and passed.bounded is not None:
            marks |= np.where(passed.imputed.any(axis=0), IMPUTED, 0) | np.where(passed.bounded.any(axis=0), BOUNDED, 0)
            marks[passed.rebased] |= REBASED
        if self._options.quarantine and (judged := self._judged(batch)) is not None:
            bad, rebased = judged
            if np.count_nonzero(bad):
                marks[bad] |= QUARANTINED
            if rebased:
                marks[rebased] |= LABEL_REBASED
        return marks

    def _scaled(self, table: Array, layout: _Layout) -> Array:
        """Centered and scaled by the moments including this batch (learn/scaling.py says why). Of a column that is not
        centered nothing is learned: an infinite label is there."""
        if not layout.centered.any():
            return table
        self._scaler.learn(table if layout.centered.all() else np.where(layout.centered[:, None], table, 0.0))
        shift, factor = self._scaler.scale()
        scaled = (table - np.where(layout.centered, shift, 0.0)[:, None]) * np.where(layout.scaled, factor, 1.0)[
            :, None
        ]
        return np.where(layout.centered[:, None], scaled, table)


def _marked(batch: Batch, floats: Block, marks: IntArray) -> Batch:
    """The batch with these floats, and the marks behind its integers."""
    ints = batch.ints
    if MARKS in batch.schema.ints:  # of another gate before this one
        marks = marks | batch[MARKS]
        names = tuple(name for name in ints.names if name != MARKS)
        ints = Block.build(names, batch.rows, (batch[name] for name in names), np.int64)
    ints = Block.joined(ints, Block.build((MARKS,), batch.rows, (marks,), np.int64))
    return Batch(
        schema_of(floats.names, ints.names, batch.schema.texts),
        batch.rows,
        floats,
        ints,
        batch.texts,
        sequence=batch.sequence,
        spans=batch.spans,
        ingest_ns=batch.ingest_ns,
    )


def _block_of(names: tuple[str, ...], table: Array) -> Block:
    rows = table.shape[1]
    data = aligned_empty(len(names) * stride_of(rows), np.float64)
    whole = data.reshape(len(names), -1)
    whole[:, rows:] = 0
    whole[:, :rows] = table
    return Block(names, rows, data)


def _layout(options: NormalizerOptions, names: tuple[str, ...]) -> _Layout:
    """The policies for this schema; raises OptionError for a name that no float column has."""
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
        centered=np.array([kind in ("center", "scale") for kind in kinds], dtype=np.bool_),
        scaled=np.array([kind == "scale" for kind in kinds], dtype=np.bool_),
    )
