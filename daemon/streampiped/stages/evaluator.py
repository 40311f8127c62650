"""The evaluator: scores the predictions that travel with the records, and asks the trainer's API for the same.

Everything in `results` comes in band and is part of the snapshot, so that it is bit-identical however often the
pipeline was killed. The cross-check through the API is asked after an epoch is committed and belongs to
`operations`: its answer may come late or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field

from streampiped.errors import OptionError
from streampiped.learn.metrics import Guesses, Scores, scores_of, skill
from streampiped.learn.report import render, verdict_of
from streampiped.learn.window import Window
from streampiped.records import Array, Batch, held_out
from streampiped.stages.base import ApiCall, Stage, StageContext, StageOptions, State

CELLS_MAX: Final = 1 << 16  # numbers in one question; 9 bytes each, and a request may have 1 MiB
PREDICTORS: Final = ("model", "running_mean", "last_value")
COUNTS: Final = ("rows", "missing_target", "unpredicted", "model_version")


class EvaluatorOptions(StageOptions):
    """Options of `[stages.evaluator]`."""

    target: str = "y"
    prediction: str = "prediction"
    last: int = Field(default=10_000, ge=2, le=1_000_000)
    """Rows of the window beside the total; 32 bytes each, in memory and in every snapshot."""
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
        self._asked: tuple[int, Scores] | None = None
        self._crosscheck: dict[str, Any] = {"asked": 0, "answered": 0, "error": None}
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        targets, predictions = (self._column(batch, n) for n in (self._options.target, self._options.prediction))
        known = np.isfinite(targets)
        scored = known & np.isfinite(predictions)
        self._counts["rows"] += batch.rows
        self._counts["missing_target"] += int(batch.rows - np.count_nonzero(known))
        self._counts["unpredicted"] += int(np.count_nonzero(known & ~scored))
        if batch.rows and "model_version" in batch:
            self._counts["model_version"] = int(batch["model_version"][-1])
        spared = scored & held_out(self._context.pipeline_seed, batch, self._options.holdout)
        if spared.any():
            self._held_out.add(targets[spared], predictions[spared])
            self._keep(batch, spared, targets, predictions)
        if not scored.all():
            targets, predictions = targets[scored], predictions[scored]
        self._score(targets, predictions)
        return batch

    def snapshot(self) -> State:
        self._candidate = self._reservoir_rows()
        return {
            "counts": self._counts.copy(),
            "scores": {name: scores.state() for name, scores in self._scores.items()},
            "held_out": self._held_out.state(),
            "guesses": self._guesses.state(),
            "window": self._window.rows(),
            "columns": list(self._columns),
            "reservoir": self._candidate,
        }

    def restore(self, state: State | None) -> None:
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._scores = {name: Scores() for name in PREDICTORS}
        self._held_out = Scores()
        self._guesses = Guesses()
        self._window = Window(self._options.last, 1 + len(PREDICTORS))
        self._columns: tuple[str, ...] = ()
        self._reservoir: Window | None = None
        self._candidate = self._reservoir_rows()
        if state is None:
            return
        self._counts |= state["counts"]
        self._scores = {name: Scores.from_state(state["scores"][name]) for name in PREDICTORS}
        self._held_out = Scores.from_state(state["held_out"])
        self._guesses.restore(state["guesses"])
        self._window.restore(state["window"])
        self._columns = tuple(state["columns"])
        if state["reservoir"] is not None:
            self._new_reservoir().restore(state["reservoir"])
            self._candidate = self._reservoir_rows()

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "summary":
            scores = self._scores["model"].values() | {"rows": self._counts["rows"]}
            return scores | {"scored": self._scores["model"].rows, "verdict": self._results()["verdict"]}
        if method == "report":
            results, operations = self._results(), {"crosscheck": dict(self._crosscheck)}
            return {"results": results, "operations": operations, "text": render(results, operations)}
        raise KeyError(method)

    def committed(self, epoch: int) -> ApiCall | None:
        """Ask for the reservoir as it was in that epoch's snapshot, which is what the epoch's model had not learned."""
        rows = self._candidate
        if rows is None or not len(rows) or not self._columns:
            return None
        rows = rows[-(CELLS_MAX // rows.shape[1]) :]
        *features, targets, predictions = rows.T
        self._asked = epoch, scores_of(targets, predictions)
        self._crosscheck["asked"] += 1
        columns = {name: values.tolist() for name, values in zip(self._columns, features, strict=True)}
        params = {"rows": columns, "targets": targets.tolist(), "version": epoch}
        return ApiCall(self._options.trainer, "score", params)

    def api_answer(self, result: Any, error: str | None) -> None:
        """Keep the comparison. The in-band predictions are those of the models of their time, a little older than
        the epoch's; so the two scores are near, and equal only where nothing was learned in between."""
        if self._asked is None:
            return
        (epoch, in_band), self._asked = self._asked, None
        if error is not None:
            self._crosscheck["error"] = error
            return
        self._crosscheck |= {
            "answered": self._crosscheck["answered"] + 1,
            "error": None,
            "epoch": epoch,
            "rows": in_band.rows,
            "served": dict(result),
            "in_band": in_band.values(),
            "mse_difference": _difference(result.get("mse"), in_band.mse()),
        }

    def _column(self, batch: Batch, name: str) -> Array:
        if name not in batch.schema.floats and name not in batch.schema.ints:
            raise OptionError(f"evaluator: no numeric column {name!r}; there are {list(batch.schema.names)}")
        return np.asarray(batch[name], dtype=np.float64)

    def _score(self, targets: Array, predictions: Array) -> None:
        by_mean, by_last = self._guesses.follow(targets)
        for name, values in zip(PREDICTORS, (predictions, by_mean, by_last), strict=True):
            self._scores[name].add(targets, values)
        self._window.append(np.column_stack((targets, predictions, by_mean, by_last)))

    def _keep(self, batch: Batch, spared: Any, targets: Array, predictions: Array) -> None:
        """The newest held-out rows, with every float column that may be a feature: the trainer picks by name.

        The newest and not an even sample of the whole stream, because they were predicted by the models nearest to
        the one that will be asked.
        """
        if not self._options.reservoir:
            return
        if self._reservoir is None:
            apart = {self._options.target, self._options.prediction}
            self._columns = tuple(name for name in batch.schema.floats if name not in apart)
        reservoir = self._reservoir or self._new_reservoir()
        chosen = [batch[name][spared] for name in self._columns]
        reservoir.append(np.column_stack((*chosen, targets[spared], predictions[spared])))

    def _new_reservoir(self) -> Window:
        self._reservoir = Window(self._options.reservoir, len(self._columns) + 2)
        return self._reservoir

    def _reservoir_rows(self) -> Array | None:
        """What is asked for once the next epoch is committed: the reservoir as it is now."""
        return self._reservoir.rows() if self._reservoir else None

    def _results(self) -> dict[str, Any]:
        """Plain numbers, all of them determined by the records alone."""
        targets, *guessed = self._window.rows().T
        recent = {name: scores_of(targets, values) for name, values in zip(PREDICTORS, guessed, strict=True)}
        total = self._scores
        skills = {
            name: {"total": skill(total["model"], total[name]), "last": skill(recent["model"], recent[name])}
            for name in PREDICTORS[1:]
        }
        baselines = {n: {"total": total[n].values(), "last": recent[n].values()} for n in PREDICTORS[1:]}
        return {
            "verdict": verdict_of({name: both["last"] for name, both in skills.items()}, recent["model"].rows),
            **self._counts,
            "total": total["model"].values(),
            "last": {**recent["model"].values(), "window": self._options.last},
            "held_out": self._held_out.values(),
            "baselines": baselines,
            "skill": skills,
        }


def _difference(served: float | None, in_band: float | None) -> float | None:
    return None if served is None or in_band is None else served - in_band
