"""Everything the evaluator keeps and says of a regression, apart from where the rows come from.

`add` takes what can be scored of a batch; `results` are the figures of docs/specs/report.md. All of it follows from
the rows alone, in bounded memory: the sums, at most 128 tallies of the curve, the window and the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.measure.breakdown import Breakdown, Places
from streampiped.measure.calibration import bins_of
from streampiped.measure.discounted import DiscountedMean
from streampiped.measure.metrics import Guesses, Scores, number, scores_of, skill
from streampiped.measure.recent import Recent
from streampiped.measure.report import verdict_of
from streampiped.measure.skill import compare
from streampiped.measure.tally import Inside, Tally, split
from streampiped.measure.window import Window
from streampiped.records import Array

BASELINES: Final = ("running_mean", "last_value", "discounted_mean")
PREDICTORS: Final = ("model", *BASELINES)
INTERVALS: Final = 0.9  # what the trainer's intervals are meant to cover
SAMPLE: Final = 256  # held-out rows that a picture of predicted against actual has
EXACT: Final = 1e-9  # of a constant label: a prediction nearer to it than that is right
WINDOW_COLUMNS: Final = 1 + len(PREDICTORS) + 2  # target, predictions, low, high


@dataclass(frozen=True, slots=True)
class Rows:
    """What can be scored of a batch."""

    places: Places
    targets: Array
    predictions: Array
    low: Array | None
    high: Array | None
    guesses: tuple[Array, Array] | None
    """Running mean and last value as they stood when the row was predicted, NaN where there was no label yet; None: the
    labels were there at once."""
    levels: tuple[tuple[int, float], ...] = ()
    """(rows, label): behind so many of these rows the label has another level, of which this is the first."""


class RegressionScores:
    """Scores of the model and of three guesses over a stream."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.restore(None)

    def add(self, rows: Rows) -> None:
        """Score them. Without a row that can be scored only the generation may change."""
        table, blind = self._table(rows)
        targets, predicted, inside = table[0], table[1 : 1 + len(PREDICTORS)], _inside(rows)

        def parts(part: slice, held: NDArray[np.intp]) -> tuple[Tally, Tally, Tally | None]:
            within = None if inside is None else inside[part]
            if blind is None or not blind[part].any():
                return *split(targets[part], predicted[:, part], held, within), None
            return _apart(targets[part], predicted[:, part], held, within, blind[part])

        self._breakdown.add(rows.places, parts)
        if blind is not None:
            table[2:5, blind] = np.nan
        if len(targets):
            self._recent.add(targets, table[1])
            self._window.append(table.T)
            if len(rows.places.spared):
                self._sample.append(table[[1, 0, -2, -1]][:, rows.places.spared].T)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            "breakdown": self._breakdown.state(),
            "recent": self._recent.state(),
            "guesses": self._guesses.state(),
            "discounted": self._discounted.state(),
            "window": self._window.rows(),
            "sample": self._sample.rows(),
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Become what `state` saw; None: nothing was scored yet."""
        self._breakdown = Breakdown(len(PREDICTORS))
        self._recent = Recent()
        self._guesses = Guesses()
        self._discounted = DiscountedMean()
        self._window = Window(self._last, WINDOW_COLUMNS)
        self._sample = Window(SAMPLE, 4)
        if state is None:
            return
        self._breakdown.restore(state["breakdown"])
        self._recent.restore(state["recent"])
        self._guesses.restore(state["guesses"])
        self._discounted.restore(state["discounted"])
        self._window.restore(state["window"])
        self._sample.restore(state["sample"])

    def total(self) -> Scores:
        """Of the model, over all rows."""
        return self._breakdown.total().scores(0)

    @staticmethod
    def _verdict(table: Array) -> str:
        """By the rows that had a label before them."""
        targets, *predicted = table[: 1 + len(PREDICTORS), np.isfinite(table[2])]
        scores = [scores_of(targets, each) for each in predicted]
        skills = {
            name: skill(scores[0], each)
            for name, each in zip(BASELINES, scores[1:], strict=True)
            if each.mse() is not None
        }
        constant = _constant(table)
        if constant is None:
            return verdict_of(skills, table.shape[1])
        exact = bool((np.abs(predicted[0] - constant) <= EXACT * abs(constant)).all())
        return verdict_of(skills, table.shape[1], exact=exact)

    def results(self, rows: int) -> dict[str, Any]:
        """Plain numbers, all of them determined by the records alone; `rows` came in all."""
        table, recent = self._windowed()
        total, told, parts = self._breakdown.total(), self._breakdown.told(), self._breakdown.parts
        figures = {name: tally.scores(0).values() for name, tally in parts.items()}
        warm_up, after = self._breakdown.curve.warm_up(rows)
        return {
            "verdict": self._verdict(table),
            "judged_by": "squared_error",
            "constant": _constant(table),
            "scored": total.rows,
            "total": total.scores(0).values(),
            "last": {**recent["model"].values(), "window": self._last},
            "recent": self._recent.values(),
            "held_out": figures["held_out"],
            "learned": figures["learned"],
            "blind": figures["blind"],
            "warm_up": warm_up.scores(0).values(),
            "after_warm_up": after.scores(0).values(),
            "generation": {
                **figures["generation"],
                "number": self._breakdown.generation,
                "since_row": self._breakdown.since_row,
            },
            "gap": _gap(figures["held_out"]["mse"], figures["learned"]["mse"]),
            "baselines": {
                name: {
                    "total": total.scores(place).values(),
                    "last": recent[name].values(),
                    "after_warm_up": after.scores(place).values(),
                }
                for place, name in enumerate(BASELINES, 1)
            },
            "skill": _skills(table, told),
            "coverage": _coverage(table, total),
            "curve": self._curve_results(),
            "calibration": bins_of(table[1], table[0]),
            "sample": [[number(v) for v in row] for row in self._sample.rows().tolist()],
        }

    def _windowed(self) -> tuple[Array, dict[str, Scores]]:
        """The window by columns, and each predictor's scores over it. A guess that knew no label yet was 0 as well; in
        the table it is NaN."""
        table = np.ascontiguousarray(self._window.rows().T)
        scores = {"model": scores_of(table[0], table[1])}
        blind = np.isnan(table[2])
        for place, name in enumerate(BASELINES, 2):
            scores[name] = scores_of(table[0], np.where(blind, 0.0, table[place]))
        return table, scores

    def _begin_guesses(self, label: float) -> None:
        """The guesses follow another level at once, as the model does."""
        self._guesses, self._discounted = Guesses(), DiscountedMean()
        for each in (self._guesses, self._discounted):
            each.follow(np.array([label]))

    def _table(self, rows: Rows) -> tuple[Array, NDArray[np.bool_] | None]:
        """A line for each column of the window, a column for each row; and which rows had no label before them, None if
        all had: everybody guesses 0 there."""
        table = np.empty((WINDOW_COLUMNS, len(rows.targets)))
        table[0], table[1] = rows.targets, rows.predictions
        blind = None
        if rows.guesses is None:
            if not self._guesses.rows and len(rows.targets):
                blind = np.arange(len(rows.targets)) == 0
            start = 0
            for stop, label in (*rows.levels, (len(rows.targets), None)):
                part = rows.targets[start:stop]
                table[2, start:stop], table[3, start:stop] = self._guesses.follow(part)
                table[4, start:stop] = self._discounted.follow(part)
                start = stop
                if label is not None:
                    self._begin_guesses(label)
        else:
            unknown = np.isnan(rows.guesses[0]) | np.isnan(rows.guesses[1])
            blind = unknown if unknown.any() else None
            table[2:4] = rows.guesses
            table[2:4, unknown] = 0.0
            table[4] = np.nan  # what a discounted mean knew when the row was predicted nobody says
        table[5] = np.nan if rows.low is None else rows.low
        table[6] = np.nan if rows.high is None else rows.high
        return table, blind

    def _curve_results(self) -> dict[str, Any]:
        width = self._breakdown.curve.rows_per_bin
        bins = [
            {
                "from": place * width,
                "rows": tally.rows,
                "mse": tally.scores(0).mse(),
                "running_mean": tally.scores(1).mse(),
                "last_value": tally.scores(2).mse(),
                "covered": tally.coverage(),
            }
            for place, tally in enumerate(self._breakdown.curve.bins)
        ]
        return {"rows_per_bin": width, "bins": bins}


def _constant(table: Array) -> float | None:
    """The label that all rows of the window have; None: they differ, or there are none."""
    targets = table[0]
    return float(targets[0]) if len(targets) and (targets == targets[0]).all() else None


def _apart(
    targets: Array, predicted: Array, held: NDArray[np.intp], inside: Inside | None, blind: NDArray[np.bool_]
) -> tuple[Tally, Tally, Tally]:
    """As `tally.split`, with the `blind` rows taken out into a tally of their own."""
    told = ~blind
    spared = np.zeros(len(targets), dtype=np.bool_)
    spared[held] = True

    def of(rows: NDArray[np.bool_], spared: NDArray[np.intp]) -> tuple[Tally, Tally]:
        return split(targets[rows], predicted[:, rows], spared, None if inside is None else inside[rows])

    nobody = np.zeros(0, dtype=np.intp)
    return *of(told, np.flatnonzero(spared[told])), of(blind, nobody)[0]


def _inside(rows: Rows) -> Inside | None:
    """As `tally.split` takes it; None without intervals."""
    if rows.low is None or rows.high is None:
        return None
    inside = (rows.low <= rows.targets) & (rows.targets <= rows.high)
    width = rows.high - rows.low
    return inside if isfinite(width.sum()) else np.where(np.isfinite(width), inside, -1).astype(np.int8)


def _gap(held_out: float | None, learned: float | None) -> dict[str, float | None]:
    ratio = number(held_out / learned) if held_out is not None and learned else None
    return {"mse_held_out": held_out, "mse_learned": learned, "ratio": ratio}


def _skills(table: Array, told: Tally) -> dict[str, Any]:
    """Of rows that had a label before them: before the first nobody can be told from another."""
    table = table[:, np.isfinite(table[2])]
    with np.errstate(over="ignore", invalid="ignore"):
        squared = (table[1 : 1 + len(PREDICTORS)] - table[0]) ** 2
    return {
        name: {"total": skill(told.scores(0), told.scores(place)), **compare(squared[0], squared[place])}
        for place, name in enumerate(BASELINES, 1)
    }


def _coverage(table: Array, total: Tally) -> dict[str, Any]:
    low, high = table[-2], table[-1]
    width = high - low
    there = np.isfinite(width)
    inside = (low <= table[0]) & (table[0] <= high) & there
    rows = int(np.count_nonzero(there))
    return {
        "target": INTERVALS,
        "rows": total.intervals,
        "total": total.coverage(),
        "last": int(np.count_nonzero(inside)) / rows if rows else None,
        "width": number(float(width[there].mean())) if rows else None,
    }
