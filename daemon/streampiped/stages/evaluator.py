"""The evaluator: scores the predictions that travel with the records, and asks the trainer's API for the same.

Everything in `results` comes in band and is part of the snapshot, so that it is bit-identical however often the
pipeline was killed. The cross-check (`crosscheck.py`) is asked after an epoch is committed and belongs to
`operations`: its answer may come late or never.

What is a score is the task's business: `learn/regression.py` for a float target. Here are the columns, the counts and
the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streampiped.errors import OptionError, StateError
from streampiped.learn.metrics import scores_of
from streampiped.learn.regression import RegressionScores, Rows
from streampiped.learn.report import render
from streampiped.marks import MARKS, QUARANTINED
from streampiped.records import Array, Batch, held_out
from streampiped.stages.base import ApiCall, Stage, StageContext, StageOptions, State
from streampiped.stages.crosscheck import CrossCheck

SCHEMA: Final = "streampipe-report/1"  # docs/specs/report.md
LAYOUT: Final = 2  # of the snapshot; another one is refused
COUNTS: Final = ("rows", "missing_target", "quarantined", "unpredicted", "model_version")
GUESSES: Final = ("guess_mean", "guess_last")  # the trainer's columns when labels come late
CLASS_COLUMNS: Final = ("probability", "score")


class EvaluatorOptions(StageOptions):
    """Options of `[stages.evaluator]`."""

    target: str = "y"
    prediction: str = "prediction"
    last: int = Field(default=10_000, ge=2, le=1_000_000)
    """Rows of the window beside the total; 56 bytes each, in memory and in every snapshot."""
    reservoir: int = Field(default=512, ge=0, le=10_000)
    """Newest held-out rows kept for the cross-check; 0 for none."""
    holdout: float = Field(default=0.02, ge=0, le=1)
    """Must be the trainer's."""
    trainer: str = "trainer"
    """Name of the stage whose API is asked."""


class Evaluator(Stage):
    """Passes every batch on as it is."""

    Options: ClassVar[type[StageOptions]] = EvaluatorOptions

    def __init__(self, options: EvaluatorOptions, context: StageContext) -> None:
        self._options = options
        self._context = context
        self._interval = (f"{options.prediction}_low", f"{options.prediction}_high")
        apart = (options.target, options.prediction, *self._interval, *GUESSES, *CLASS_COLUMNS)
        self._check = CrossCheck(options.trainer, options.reservoir, apart)
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        targets, predictions = (self._column(batch, n) for n in (self._options.target, self._options.prediction))
        scored = self._scorable(batch, np.isfinite(targets), np.isfinite(predictions))
        spared = np.flatnonzero(scored & held_out(self._context.pipeline_seed, batch, self._options.holdout))
        if len(spared):
            self._check.keep(batch, spared, targets[spared], predictions[spared])
        with np.errstate(over="ignore", invalid="ignore"):
            self._scores.add(self._rows(batch, targets, predictions, scored, spared))
        self._counts["rows"] += batch.rows
        return batch

    def snapshot(self) -> State:
        columns, reservoir = self._check.freeze()
        return {
            "layout": LAYOUT,
            "counts": self._counts.copy(),
            "scores": self._scores.state(),
            "columns": columns,
            "reservoir": reservoir,
        }

    def restore(self, state: State | None) -> None:
        if state is not None and state.get("layout") != LAYOUT:
            raise StateError(f"the snapshot has layout {state.get('layout', 1)}, this evaluator reads {LAYOUT}")
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._scores = RegressionScores(self._options.last)
        if state is None:
            self._check.restore((), None)
            return
        self._counts |= state["counts"]
        self._scores.restore(state["scores"])
        self._check.restore(state["columns"], state["reservoir"])

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "summary":
            scores = self._scores.total()
            counts = {"rows": self._counts["rows"], "scored": scores.rows}
            return scores.values() | counts | {"verdict": self._scores.verdict()}
        if method == "report":
            results = params.get("sections", {}) | self._results()
            operations = {"crosscheck": dict(self._check.told)}
            return {"results": results, "operations": operations, "text": render(results, operations)}
        raise KeyError(method)

    def committed(self, epoch: int) -> ApiCall | None:
        """Ask for the reservoir as it was in that epoch's snapshot."""
        return self._check.question(epoch, lambda y, p: scores_of(y, p).values(), lambda y: list(y.tolist()), "mse")

    def api_answer(self, result: Any, error: str | None) -> None:
        self._check.answer(result, error)

    def _column(self, batch: Batch, name: str) -> Array:
        if name not in batch.schema.floats and name not in batch.schema.ints:
            raise OptionError(f"evaluator: no numeric column {name!r}; there are {list(batch.schema.names)}")
        return np.asarray(batch[name], dtype=np.float64)

    def _scorable(self, batch: Batch, known: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows are scored, with each of the others under one count."""
        counts = self._counts
        counts["missing_target"] += int(batch.rows - np.count_nonzero(known))
        if MARKS in batch.schema.ints:
            bad = (batch[MARKS] & QUARANTINED) != 0
            if bad.any():
                counts["quarantined"] += int(np.count_nonzero(bad & known))
                known = known & ~bad
        scored = known & predicted
        counts["unpredicted"] += int(np.count_nonzero(known) - np.count_nonzero(scored))
        if batch.rows and "model_version" in batch.schema.ints:
            counts["model_version"] = int(batch["model_version"][-1])
        return scored

    def _rows(
        self, batch: Batch, targets: Array, predictions: Array, scored: NDArray[np.bool_], spared: NDArray[np.intp]
    ) -> Rows:
        """What the scores need of the rows that are scored."""
        places = None if scored.all() else np.flatnonzero(scored)
        floats = batch.schema.floats

        def chosen(name: str) -> Array | None:
            if name not in floats:
                return None
            column: Array = batch[name]
            return column if places is None else column[places]

        low, high = map(chosen, self._interval)
        by_mean, by_last = map(chosen, GUESSES)
        late = None if by_mean is None or by_last is None else (_guess(by_mean), _guess(by_last))
        return Rows(
            first=self._counts["rows"],
            rows=batch.rows,
            places=places,
            targets=targets if places is None else targets[places],
            predictions=predictions if places is None else predictions[places],
            low=low,
            high=high,
            guesses=late,
            spared=spared if places is None else np.searchsorted(places, spared),
            generations=batch["model_generation"] if "model_generation" in batch.schema.ints else None,
        )

    def _results(self) -> dict[str, Any]:
        scores = self._scores.results(self._counts["rows"])
        head = {"schema": SCHEMA, "verdict": scores.pop("verdict"), "task": "regression"}
        return {**head, **self._counts, **scores}


def _guess(values: Array) -> Array:
    """A guess that knew no label yet is 0, as a guess of ours is."""
    return np.where(np.isfinite(values), values, 0.0)
