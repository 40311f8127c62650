"""Everything the evaluator keeps and says of a classification: the twin of `regression.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import ClassGuesses, Codes
from streampiped.measure.breakdown import Breakdown, Places
from streampiped.measure.calibration import bins_of
from streampiped.measure.class_metrics import Confusion, class_tallies, confusion_of, figures_of, log_losses
from streampiped.measure.metrics import number
from streampiped.measure.recent import Recent
from streampiped.measure.report import verdict_of
from streampiped.measure.skill import compare
from streampiped.measure.tally import Tally, merged
from streampiped.measure.window import Window
from streampiped.records import Array

BASELINES: Final = ("class_prior", "last_class")
PREDICTORS: Final = ("model", *BASELINES)
SAMPLE: Final = 256  # as in regression.py
WINDOW: Final = (
    "target",
    "model",
    "class_prior",
    "last_class",
    "probability",
    "score",
    "lost",
    "prior_lost",
    "last_lost",
)
_SHARE: Final = 0.9  # of intervals, which a classification has none of


@dataclass(frozen=True, slots=True)
class ClassRows:
    """What can be scored of a batch."""

    places: Places
    targets: Codes
    predictions: Codes
    known: Codes
    """How many classes had been met at the row, its own included."""
    probability: Array | None
    """Of the predicted class."""
    score: Array | None
    """Of two classes: the probability of the second one in the labels' order."""
    guesses: tuple[Codes, Codes, Array] | None = None
    """Most frequent and last class as they stood when the row was predicted, and the share of the target then; None:
    the labels were there at once."""


class ClassScores:
    """Scores of the model and of two guesses over a stream of classes."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.restore(None)

    def add(self, rows: ClassRows) -> None:
        """Score them. Without a row that can be scored only the generation may change."""
        table = self._table(rows)
        wrong = (table[1:4] != table[0]).astype(np.float64)
        lost = table[6:9]
        spared = rows.places.spared

        def parts(part: slice, held: NDArray[np.intp]) -> tuple[Tally, Tally, Tally | None]:
            return *class_tallies(wrong[:, part], lost[:, part], held), None

        self._breakdown.add(rows.places, parts)
        if not len(rows.targets):
            return
        self._counts["total"].add(rows.targets, rows.predictions, rows.score)
        held = (rows.targets[spared], rows.predictions[spared], None if rows.score is None else rows.score[spared])
        self._counts["held_out"].add(*held)
        nothing = np.zeros(len(rows.targets))
        self._recent["wrong"].add(nothing, wrong[0])
        self._recent["lost"].add(nothing, lost[0])
        self._window.append(table.T)
        if len(spared):
            self._sample.append(table[[1, 0, 4]][:, spared].T)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            "breakdown": self._breakdown.state(),
            "counts": {name: counts.state() for name, counts in self._counts.items()},
            "recent": {name: recent.state() for name, recent in self._recent.items()},
            "guesses": self._guesses.state(),
            "window": self._window.rows(),
            "sample": self._sample.rows(),
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Become what `state` saw; None: nothing was scored yet."""
        self._breakdown = Breakdown(len(PREDICTORS))
        self._counts = {name: Confusion() for name in ("total", "held_out")}
        self._recent = {name: Recent() for name in ("wrong", "lost")}
        self._guesses = ClassGuesses()
        self._window = Window(self._last, len(WINDOW))
        self._sample = Window(SAMPLE, 3)
        if state is None:
            return
        self._breakdown.restore(state["breakdown"])
        for name, counts in self._counts.items():
            counts.restore(state["counts"][name])
        for name, recent in self._recent.items():
            recent.restore(state["recent"][name])
        self._guesses.restore(state["guesses"])
        self._window.restore(state["window"])
        self._sample.restore(state["sample"])

    def summary(self, labels: list[Any]) -> dict[str, Any]:
        """The figures over all rows."""
        return figures_of(self._breakdown.total(), 0, self._counts["total"], labels)

    def results(self, rows: int, labels: list[Any]) -> dict[str, Any]:
        """Plain numbers, all of them determined by the records alone; `rows` came in all, `labels` are by code."""
        total, parts, curve = self._breakdown.total(), self._breakdown.parts, self._breakdown.curve
        table, recent = self._windowed()
        last = confusion_of(table[0].astype(np.intp), table[1].astype(np.intp), table[5])
        warm_up, after = curve.warm_up(rows)
        held, learned = parts["held_out"], parts["learned"]
        return {
            "verdict": self._verdict(table),
            "judged_by": _judged_by(table),
            "constant": None if (constant := _constant(table)) is None else labels[constant],
            "scored": total.rows,
            "total": figures_of(total, 0, self._counts["total"], labels),
            "last": {**figures_of(recent, 0, last, labels), "window": self._last},
            "recent": self._recent_figures(),
            "held_out": figures_of(held, 0, self._counts["held_out"], labels),
            "learned": figures_of(learned, 0),
            "warm_up": figures_of(warm_up, 0),
            "after_warm_up": figures_of(after, 0),
            "generation": {
                **figures_of(parts["generation"], 0),
                "number": self._breakdown.generation,
                "since_row": self._breakdown.since_row,
            },
            "gap": _gap(held, learned),
            "baselines": {
                name: {
                    "total": figures_of(total, place),
                    "last": figures_of(recent, place),
                    "after_warm_up": figures_of(after, place),
                }
                for place, name in enumerate(BASELINES, 1)
            },
            "skill": _skills(table, total),
            "coverage": {"target": _SHARE, "rows": 0, "total": None, "last": None, "width": None},
            "curve": {
                "rows_per_bin": curve.rows_per_bin,
                "bins": [_bin(place * curve.rows_per_bin, tally) for place, tally in enumerate(curve.bins)],
            },
            "calibration": _calibration(table),
            "sample": [
                [labels[int(predicted)], labels[int(actual)], None if p != p else p, None]
                for predicted, actual, p in self._sample.rows().tolist()
            ],
            "classes": self._counts["total"].by_class(labels),
        }

    def _table(self, rows: ClassRows) -> Array:
        """A line for each column of WINDOW, a column for each row."""
        table = np.full((len(WINDOW), len(rows.targets)), np.nan)
        table[0], table[1] = rows.targets, rows.predictions
        if rows.guesses is None:
            table[2], table[3], shares, stayed = self._guesses.follow(rows.targets, rows.known)
        else:
            table[2], table[3], shares = rows.guesses
            stayed = self._guesses.stayed(rows.targets, rows.guesses[1], rows.known)
        if rows.probability is not None:
            table[4] = rows.probability
            table[6] = log_losses(rows.targets == rows.predictions, rows.probability, rows.known)
        if rows.score is not None:
            table[5] = rows.score
        table[7], table[8] = -np.log(shares), -np.log(stayed)
        return table

    def _windowed(self) -> tuple[Array, Tally]:
        """The window by columns, and the tally of its rows."""
        table = np.ascontiguousarray(self._window.rows().T)
        wrong = (table[1:4] != table[0]).astype(np.float64)
        return table, merged(class_tallies(wrong, table[6:9], np.zeros(0, dtype=np.intp)), len(PREDICTORS))

    @staticmethod
    def _verdict(table: Array) -> str:
        losses = _losses(table)
        skills = {name: _share(losses[0], losses[place]) for place, name in enumerate(BASELINES, 1)}
        exact = None if _constant(table) is None else bool((table[1] == table[0]).all())
        return verdict_of(skills, table.shape[1], exact=exact)

    def _recent_figures(self) -> dict[str, Any]:
        wrong, lost = (self._recent[name].values() for name in ("wrong", "lost"))
        accuracy = None if wrong["mae"] is None else 1.0 - wrong["mae"]
        return figures_of(Tally(1), 0) | {"rows": wrong["rows"], "accuracy": accuracy, "log_loss": lost["mae"]}


def _error(tally: Tally, predictor: int = 0) -> float | None:
    return tally.absolute[predictor] / tally.rows if tally.rows else None


def _constant(table: Array) -> int | None:
    """The code of the class that all rows of the window have; None: they differ, or there are none."""
    targets = table[0]
    return int(targets[0]) if len(targets) and (targets == targets[0]).all() else None


def _judged_by(table: Array) -> str:
    """Without probabilities there is no log-loss."""
    return "log_loss" if np.isfinite(table[6]).all() else "errors"


def _losses(table: Array) -> Array:
    """Of model and guesses, row by row. Right answers alone would hide a rare class: whoever never says it is right
    nearly always."""
    if _judged_by(table) == "log_loss":
        return table[6:9]
    return np.asarray(table[1:4] != table[0], dtype=np.float64)


def _share(model: Array, guess: Array) -> float | None:
    """Of a guess's loss, what the model avoids."""
    guessed = float(guess.sum())
    return 1.0 - float(model.sum()) / guessed if guessed else None


def _skills(table: Array, total: Tally) -> dict[str, Any]:
    losses, wrong = _losses(table), (table[1:4] != table[0]).astype(np.float64)
    sums = total.squared if _judged_by(table) == "log_loss" else total.absolute
    return {
        name: {
            "total": number(1.0 - sums[0] / sums[place]) if sums[place] else None,
            **compare(losses[0], losses[place]),
            "errors": _share(wrong[0], wrong[place]),
        }
        for place, name in enumerate(BASELINES, 1)
    }


def _gap(held: Tally, learned: Tally) -> dict[str, float | None]:
    one, other = _error(held), _error(learned)
    ratio = one / other if one is not None and other else None
    return {"error_held_out": one, "error_learned": other, "ratio": ratio}


def _bin(start: int, tally: Tally) -> dict[str, Any]:
    errors = {name: _error(tally, place) for place, name in enumerate(("error", *BASELINES))}
    return {"from": start, "rows": tally.rows, **errors, "covered": None}


def _calibration(table: Array) -> list[dict[str, Any]]:
    """How often the predicted class was right, by the probability that it was given."""
    there = np.isfinite(table[4])
    return bins_of(table[4][there], (table[1] == table[0])[there].astype(np.float64))
