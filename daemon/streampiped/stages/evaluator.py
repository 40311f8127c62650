"""The evaluator: scores the predictions that travel with the records, and asks the trainer's API for the same.

Everything in `results` comes in band and is part of the snapshot, so that it is bit-identical however often the
pipeline was killed. The cross-check (`crosscheck.py`) is asked after an epoch is committed and belongs to
`operations`: its answer may come late or never. What is scored, and how, is the task's business (`tasks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field

from streampiped.errors import StateError
from streampiped.holdout import held_out
from streampiped.measure.report import ENOUGH_ROWS, judged, render
from streampiped.records import Batch
from streampiped.stages.base import ApiCall, Stage, StageContext, StageOptions, State
from streampiped.stages.crosscheck import CrossCheck
from streampiped.stages.tasks import GUESSES, PROBABILITIES, Classification, Regression, Task, comes_late, task_of

SCHEMA: Final = "streampipe-report/2"  # docs/specs/report.md
LAYOUT: Final = 3  # of the snapshot; another one is refused
COUNTS: Final = ("rows", "missing_target", "unlabelled", "quarantined", "unpredicted", "model_version")
TASKS: Final = {task.name: task for task in (Regression, Classification)}


class EvaluatorOptions(StageOptions):
    """Options of `[stages.evaluator]`."""

    target: str = "y"
    prediction: str = "prediction"
    last: int = Field(default=10_000, ge=ENOUGH_ROWS, le=1_000_000)
    """Rows of the window beside the total, at least the 100 that a verdict takes; 56 bytes each (72 of a
    classification), in memory and in every snapshot."""
    reservoir: int = Field(default=512, ge=0, le=10_000)
    """Newest held-out rows kept for the cross-check; 0 for none."""
    holdout: float = Field(default=0.02, ge=0, le=1)
    """Must be that of the trainer whose predictions are scored: `streampiped check` compares them."""
    trainer: str = "trainer"
    """Name of the stage whose API is asked."""


class Evaluator(Stage):
    """Passes every batch on as it is."""

    Options: ClassVar[type[StageOptions]] = EvaluatorOptions

    def __init__(self, options: EvaluatorOptions, context: StageContext) -> None:
        self._options = options
        self._context = context
        interval = (f"{options.prediction}_low", f"{options.prediction}_high")
        apart = (options.target, options.prediction, *interval, *GUESSES, *PROBABILITIES)
        self._check = CrossCheck(options.trainer, options.reservoir, apart)
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        task, counts = self._task_for(batch), self._counts
        held = task.take(batch, counts, held_out(self._context.pipeline_seed, batch, self._options.holdout))
        if comes_late(batch):  # a label's row has not the features that were predicted
            self._check.keep_late(batch, held)
        else:
            self._check.keep(batch, held)
        if batch.rows and "model_version" in batch.schema.ints:
            counts["model_version"] = int(batch["model_version"][-1])
        counts["rows"] += batch.rows
        return batch

    def snapshot(self) -> State:
        return {
            "layout": LAYOUT,
            "counts": self._counts.copy(),
            "task": self._task.name if self._task else None,
            "scores": self._task.state() if self._task else None,
            "crosscheck": self._check.state(),
        }

    def restore(self, state: State | None) -> None:
        if state is not None and state.get("layout") != LAYOUT:
            raise StateError(f"the snapshot has layout {state.get('layout', 1)}, this evaluator reads {LAYOUT}")
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._task: Task | None = None
        if state is None:
            self._check.restore(None)
            return
        self._counts |= state["counts"]
        if state["task"] is not None:
            self._task = TASKS[state["task"]](self._options.target, self._options.prediction, self._options.last)
            self._task.restore(state["scores"])
        self._check.restore(state["crosscheck"])

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "summary":
            summary = self._told().summary()
            return summary | {"rows": self._counts["rows"], "scored": summary["rows"]}
        if method == "report":
            results = params.get("sections", {}) | self._results()
            results["verdict"] = judged(results["verdict"], results.get("model"))
            operations = {"crosscheck": dict(self._check.told)}
            return {"results": results, "operations": operations, "text": render(results, operations)}
        raise KeyError(method)

    def committed(self, epoch: int) -> ApiCall | None:
        """Ask for the reservoir as it was in that epoch's snapshot."""
        task = self._told()
        return self._check.question(epoch, task.measured, task.named, task.figure)

    def api_answer(self, result: Any, error: str | None) -> None:
        self._check.answer(result, error)

    def _task_for(self, batch: Batch) -> Task:
        """The present task; the first batch decides."""
        if self._task is None:
            self._task = task_of(batch, self._options.target, self._options.prediction, self._options.last)
        return self._task

    def _told(self) -> Task:
        """The task to be asked; before the first batch a regression of nothing."""
        return self._task or Regression(self._options.target, self._options.prediction, self._options.last)

    def _results(self) -> dict[str, Any]:
        task = self._told()
        scores = task.results(self._counts["rows"])
        head = {"schema": SCHEMA, "verdict": scores.pop("verdict"), "task": task.name}
        return {**head, **self._counts, **scores}
