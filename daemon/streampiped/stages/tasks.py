"""The evaluator's two tasks: which columns of a batch are scored, and how.

The target chooses: a float column is a regression, an int or text column a classification, unless the predictions are
floats all the same, as those of a regressor that was given whole numbers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN, Classes, Codes
from streampiped.errors import OptionError
from streampiped.marks import LABEL_REBASED, MARKS, QUARANTINED
from streampiped.measure.breakdown import Places
from streampiped.measure.classification import ClassRows, ClassScores
from streampiped.measure.metrics import scores_of
from streampiped.measure.regression import RegressionScores, Rows
from streampiped.records import Array, Batch

GUESSES: Final = ("guess_mean", "guess_last")  # the trainer's columns when labels come late
CLASS_GUESSES: Final = ("guess_prior", "guess_last")  # the same of classes
GUESS_SHARE: Final = "guess_share"  # what the first of these gave to the label
PROBABILITIES: Final = ("probability", "score")  # the trainer's columns beside a predicted class
GENERATION: Final = "model_generation"
_NOBODY: Final = np.zeros(0, dtype=np.intp)
BLIND: Final = 0.5  # share of a class by who knows no label: one of two


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out rows that were scored: their places in the batch, and both columns as numbers."""

    places: NDArray[np.intp]
    targets: Array
    predictions: Array
    labels: Array | None = None
    """The labels of the whole batch, a copy, NaN where one is not known; None where no predictor looks at them."""


class Task(Protocol):
    """What the evaluator asks of a task. `counts` are its own, kept up to date; `spared` are the held-out rows."""

    name: str
    figure: str
    """The one by which the cross-check tells a difference."""

    def take(self, batch: Batch, counts: dict[str, int], spared: NDArray[np.bool_]) -> Held: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def summary(self) -> dict[str, Any]: ...

    def results(self, rows: int) -> dict[str, Any]: ...

    def measured(self, targets: Array, predictions: Array) -> dict[str, Any]:
        """The figures of a cross-check."""
        ...

    def named(self, targets: Array) -> list[Any]:
        """Targets of a `Held` as they stood in the stream."""
        ...


class Regression:
    """Columns of numbers."""

    name = "regression"
    figure = "mse"

    def __init__(self, target: str, prediction: str, last: int) -> None:
        self._columns = target, prediction
        self._interval = f"{prediction}_low", f"{prediction}_high"
        self._scores = RegressionScores(last)

    def take(self, batch: Batch, counts: dict[str, int], spared: NDArray[np.bool_]) -> Held:
        targets, predictions = (_numbers(batch, name) for name in self._columns)
        known, scored = _scorable(batch, counts, np.isfinite(targets), np.isfinite(predictions))
        places = None if np.count_nonzero(scored) == len(scored) else np.flatnonzero(scored)

        def chosen(name: str) -> Array | None:
            return _chosen(batch[name], places) if name in batch.schema.floats else None

        low, high = map(chosen, self._interval)
        by_mean, by_last = map(chosen, GUESSES)
        late = None if by_mean is None or by_last is None else (by_mean, by_last)
        both = spared & scored
        held = np.flatnonzero(both) if np.count_nonzero(both) else _NOBODY
        where = _where(batch, counts["rows"], places, held)
        levels = _levels(batch, targets, places)
        rows = Rows(where, _chosen(targets, places), _chosen(predictions, places), low, high, late, levels)
        with np.errstate(over="ignore", invalid="ignore"):
            self._scores.add(rows)
        labels = targets.copy() if np.count_nonzero(known) == len(known) else np.where(known, targets, np.nan)
        return Held(held, targets[held], predictions[held], labels)

    def state(self) -> dict[str, Any]:
        return self._scores.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._scores.restore(state)

    def summary(self) -> dict[str, Any]:
        return self._scores.total().values()

    def results(self, rows: int) -> dict[str, Any]:
        return self._scores.results(rows)

    def measured(self, targets: Array, predictions: Array) -> dict[str, Any]:
        return scores_of(targets, predictions).values()

    def named(self, targets: Array) -> list[Any]:
        return list(targets.tolist())


class Classification:
    """Columns of labels. A row of a class beyond `classes.CLASSES_MAX` counts as unpredicted."""

    name = "classification"
    figure = "accuracy"

    def __init__(self, target: str, prediction: str, last: int) -> None:
        self._columns = target, prediction
        self._classes = Classes()
        self._scores = ClassScores(last)

    def take(self, batch: Batch, counts: dict[str, int], spared: NDArray[np.bool_]) -> Held:
        targets, predictions = (batch[name] for name in self._columns)
        _, scored = _scorable(batch, counts, _present(targets), _present(predictions) & _certain(batch))
        places = np.flatnonzero(scored)
        before = len(self._classes.labels)
        codes = self._classes.codes(_chosen(targets, places), _chosen(predictions, places))
        both = np.minimum(*codes) != UNKNOWN
        counts["unpredicted"] += int(len(places) - np.count_nonzero(both))
        wanted, given, places = codes[0][both], codes[1][both], places[both]
        known = np.maximum(np.maximum.accumulate(np.maximum(wanted, given)) + 1, before)
        held = np.flatnonzero(spared[places])
        where = _where(batch, counts["rows"], places, places[held])
        probability, score = (_chosen(batch[n], places) if n in batch.schema.floats else None for n in PROBABILITIES)
        self._scores.add(ClassRows(where, wanted, given, known, probability, score, self._late(batch, places)))
        return Held(places[held], wanted[held].astype(np.float64), given[held].astype(np.float64))

    def _late(self, batch: Batch, places: NDArray[np.intp]) -> tuple[Codes, Codes, Array] | None:
        """The guesses as they stood when these rows were predicted; None: the labels were there at once."""
        if not comes_late(batch):
            return None
        prior, last = (self._classes.met(_chosen(batch[name], places)) for name in CLASS_GUESSES)
        share = batch[GUESS_SHARE][places]
        return prior, last, np.where(np.isfinite(share), share, BLIND)

    def state(self) -> dict[str, Any]:
        return {"classes": self._classes.labels, "scores": self._scores.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._classes = Classes(state["classes"])
        self._scores.restore(state["scores"])

    def summary(self) -> dict[str, Any]:
        return self._scores.summary(self._classes.labels)

    def results(self, rows: int) -> dict[str, Any]:
        return self._scores.results(rows, self._classes.labels)

    def measured(self, targets: Array, predictions: Array) -> dict[str, Any]:
        return {"rows": len(targets), "accuracy": float((targets == predictions).mean())}

    def named(self, targets: Array) -> list[Any]:
        labels = self._classes.labels
        return [labels[int(code)] for code in targets]


def task_of(batch: Batch, target: str, prediction: str, last: int) -> Task:
    """The task that these columns are of. OptionError when there are none such."""
    schema = batch.schema
    for name in (target, prediction):
        if name not in schema.names:
            raise OptionError(f"evaluator: no column {name!r}; there are {list(schema.names)}")
    if prediction in schema.floats and target not in schema.texts:
        return Regression(target, prediction, last)
    if target in schema.floats or (target in schema.texts) != (prediction in schema.texts):
        raise OptionError(f"evaluator: {prediction!r} is of another type than {target!r}")
    return Classification(target, prediction, last)


def _numbers(batch: Batch, name: str) -> Array:
    if name not in batch.schema.floats and name not in batch.schema.ints:
        raise OptionError(f"evaluator: no numeric column {name!r}; there are {list(batch.schema.names)}")
    return np.asarray(batch[name], dtype=np.float64)


def _present(labels: Any) -> NDArray[np.bool_]:
    if isinstance(labels, np.ndarray):
        return np.ones(len(labels), dtype=np.bool_)
    return np.array([label is not None for label in labels], dtype=np.bool_)


def _certain(batch: Batch) -> NDArray[np.bool_]:
    """Where the probability of the predicted class is a number, or nobody gives one."""
    name = PROBABILITIES[0]
    return np.isfinite(batch[name]) if name in batch.schema.floats else np.ones(batch.rows, dtype=np.bool_)


def _scorable(
    batch: Batch, counts: dict[str, int], known: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows have a label that is believed, and which of them are scored; each of the others under one count. With
    late labels a row without one is a question."""
    counts["unlabelled" if comes_late(batch) else "missing_target"] += int(batch.rows - np.count_nonzero(known))
    if MARKS in batch.schema.ints:
        marked = batch[MARKS] & QUARANTINED
        if np.count_nonzero(marked):
            bad = marked != 0
            counts["quarantined"] += int(np.count_nonzero(bad & known))
            known = known & ~bad
    scored = known & predicted
    counts["unpredicted"] += int(np.count_nonzero(known) - np.count_nonzero(scored))
    return known, scored


def comes_late(batch: Batch) -> bool:
    """Labels stand in rows of their own."""
    return GUESSES[0] in batch.schema.floats or CLASS_GUESSES[0] in batch.schema.texts


def _levels(batch: Batch, targets: Array, places: NDArray[np.intp] | None) -> tuple[tuple[int, float], ...]:
    """Behind how many of the scored rows the gate believes another level of the label, and the label there."""
    if MARKS not in batch.schema.ints:
        return ()
    marked = batch[MARKS] & LABEL_REBASED
    if not np.count_nonzero(marked):
        return ()
    rows = np.flatnonzero(marked)
    scored = rows + 1 if places is None else np.searchsorted(places, rows, side="right")
    return tuple((int(count), float(targets[row])) for count, row in zip(scored, rows, strict=True))


def _where(batch: Batch, first: int, scored: NDArray[np.intp] | None, held: NDArray[np.intp]) -> Places:
    """`held` are places in the batch, of rows that are scored."""
    generations = batch[GENERATION] if GENERATION in batch.schema.ints else None
    spared = held if scored is None else np.searchsorted(scored, held)
    return Places(first, batch.rows, scored, spared, generations)


def _chosen(column: Any, places: NDArray[np.intp] | None) -> Any:
    if places is None:
        return column
    return column[places] if isinstance(column, np.ndarray) else [column[place] for place in places]
