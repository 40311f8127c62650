"""The model of a classification: members that predict probabilities side by side, the champion among them served.

The twin of `pool.py`: a loss is a log-loss, what is served is smoothed instead of bounded, and the probability of the
predicted class stands where a number has an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN, Codes, Label
from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.class_past import ClassLooks, ClassPast
from streampiped.learn.known_classes import Kind, KnownClasses
from streampiped.learn.rivals import READY_ROWS, Rivals, chosen, until
from streampiped.learn.slot import Slot
from streampiped.records import Array

ERROR_LEAST: Final = 0.15
"""Added to 1 - probability of the class for the test of drift. A model that is nearly always right has errors of 0.01
and, rarely, 1: a hundred times its mean, of which three would be an alarm; with this they are a few times."""


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """`prediction` `(rows,)`: codes, UNKNOWN before the first label; `probability` of it, NaN then; `probabilities`
    `(rows, classes)`, which sum up to a little less than 1 while there is one class only; `met` `(rows,)`: classes
    before each row; `fallback`, `fallbacks`: as of a `pool.Forecast`, with the shares for the mean."""

    prediction: Codes
    probability: Array
    probabilities: Array
    met: Codes
    fallback: bool
    fallbacks: int

    def score(self, labels: Sequence[Label], positive: Label | None) -> Array:
        """The probability of the class `positive`, or of the second one in sorted order of those met before the row;
        NaN while there is none."""
        result = np.full(len(self.prediction), np.nan)
        for met in np.unique(self.met).tolist():
            there = sorted(labels[:met])
            wanted = positive if positive is not None else (there[1] if met > 1 else None)
            if wanted in there:
                rows = self.met == met
                result[rows] = self.probabilities[rows, labels.index(wanted)]
        return result


class ClassPool(Rivals[ClassMember]):
    """`kind` of the labels."""

    watched: ClassVar[tuple[str, ...]] = ("classes", "_past", "_drift")

    def __init__(self, members: Mapping[str, ClassMember], columns: int, kind: Kind) -> None:
        super().__init__(members, columns)
        self.classes = KnownClasses(kind)
        self._past = ClassPast()

    def predict(self, features: Array) -> ClassForecast:
        """Of rows that come next, with nothing of them known. Changes nothing."""
        inputs = self._inputs(features, self._past.now(len(features)))
        answer, fallbacks = smoothed(self.champion.member.predict(inputs), inputs.looks)
        return self._forecast(answer, inputs.looks, fallbacks)

    def losses(self, forecast: ClassForecast, rows: Sequence[int], codes: Codes) -> Array:
        """The log-loss of these rows of a forecast by `predict`, whose classes these are."""
        looks = self._past.now(len(rows))
        return losses_of(forecast.probabilities[rows], codes, looks)

    def work(
        self, features: Array, labels: Codes, known: NDArray[np.bool_], learnable: NDArray[np.bool_]
    ) -> ClassForecast:
        """See `Rivals.work`; `labels` are codes of `classes`, none of them UNKNOWN where it is known."""
        rows = min(len(features), self._block_rows())
        features, codes, learnable = features[:rows], np.where(known, labels, UNKNOWN)[:rows], learnable[:rows]
        self._reframe(features)
        past = self._past.copy()
        inputs = self._inputs(features, past.follow(codes))
        answers = [slot.member.predict(inputs) for slot in self.slots]
        answer, fallbacks = smoothed(answers[self._contest.champion], inputs.looks)
        place = self._drift.find(residuals_of(losses_of(answer, codes, inputs.looks)[learnable]))
        if place is not None:  # what comes behind the alarm is predicted by those who have been told of it
            rows = until(place, learnable)
            part = slice(rows)
            features, codes, learnable = features[part], codes[part], learnable[part]
            past = self._past.copy()
            inputs = self._inputs(features, past.follow(codes))
            answers = [each[part] for each in answers]
            answer, fallbacks = smoothed(answers[self._contest.champion], inputs.looks)
        forecast = self._forecast(answer, inputs.looks, fallbacks)
        self._past = past
        self.rows += rows
        if learnable.any():
            self._learn(inputs, codes, learnable, answers, answer, learnable)
        self._moments.update(features.T)
        if place is not None:
            self._drifted(self.rows - 1)
        return forecast

    def label_shifted(self, labels: NDArray[Any]) -> None:
        """Nothing: classes have no level."""

    def _learn(
        self,
        inputs: ClassInputs,
        codes: Codes,
        learnable: NDArray[np.bool_],
        answers: Sequence[Array],
        answer: Array,
        compared: NDArray[np.bool_],
    ) -> None:
        """As `Pool._learn`."""
        taken, told = chosen(learnable, inputs, codes)
        given = [smoothed(raw, inputs.looks)[0] for raw in answers]
        losses = np.column_stack([losses_of(each, codes, inputs.looks) for each in given])

        def learn(place: int, slot: Slot[ClassMember]) -> bool:
            held = slot.rows >= READY_ROWS and slot.member.ready
            silent = held and np.count_nonzero(_answered(answers[place])) * 2 < len(inputs)
            return slot.member.learn(taken, told) and not (silent and inputs.looks.met[0] > 1)

        self._settle(chosen(compared, losses)[0], len(told), learn)
        self._drift.learn(residuals_of(losses_of(answer, codes, inputs.looks)[compared]))

    def _forecast(self, answer: Array, looks: ClassLooks, fallbacks: int) -> ClassForecast:
        rows = len(answer)
        if not answer.shape[1]:
            none = np.full(rows, UNKNOWN, dtype=np.intp)
            return ClassForecast(none, np.full(rows, np.nan), answer, looks.met, self.fallback, 0)
        best = answer.argmax(axis=1)
        begun = looks.met > 0
        probability = np.where(begun, answer[np.arange(rows), best], np.nan)
        prediction = np.where(begun, best, UNKNOWN)
        return ClassForecast(prediction, probability, answer, looks.met, self.fallback, fallbacks)

    def _inputs(self, features: Array, looks: ClassLooks) -> ClassInputs:
        return ClassInputs(features, self._framing(features), looks)

    def _blank(self) -> Self:
        return type(self)({}, self.columns, self.classes.kind)


def _answered(raw: Array) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(raw).all(axis=1)) if raw.shape[1] else np.zeros(len(raw), dtype=np.bool_)


def smoothed(raw: Array, looks: ClassLooks) -> tuple[Array, int]:
    """Probabilities of all classes that were met before each row, 0 for others; the shares where there is no finite
    answer, and how many of these rows there were.

    Each class gets one row's worth, as in Laplace's rule of succession: the shares become (n + 1) / (all + classes),
    and nothing is ever certain. A class that comes for the first time has had that probability as well.
    """
    classes = looks.shares.shape[1]
    met, count = looks.met[:, None], looks.count[:, None]
    there = np.arange(classes) < met
    given = np.zeros_like(looks.shares)
    given[:, : raw.shape[1]] = raw[:, :classes]
    given = np.where(there, np.maximum(given, 0.0), 0.0)
    total = given.sum(axis=1, keepdims=True)
    answered = _answered(raw)[:, None] & (total > 0.0) & np.isfinite(total)
    given = np.where(answered, given / np.where(answered, total, 1.0), looks.shares)
    result = np.where(there, (given * count + 1.0) / (count + np.maximum(met, 2)), 0.0)
    return result, int(np.count_nonzero(~answered & (met > 0)))


def losses_of(answer: Array, codes: Codes, looks: ClassLooks) -> Array:
    """-log of `given_to` each row's class."""
    return np.asarray(-np.log(given_to(answer, codes, looks)))


def given_to(answer: Array, codes: Codes, looks: ClassLooks) -> Array:
    """The probability of each row's class; what is UNKNOWN, or new, has that of a class not met so far."""
    given = np.zeros(len(codes))
    if answer.shape[1]:
        given = np.where(codes == UNKNOWN, 0.0, answer[np.arange(len(codes)), np.maximum(codes, 0)])
    return np.where(given > 0.0, given, 1.0 / (looks.count + np.maximum(looks.met, 2)))


def residuals_of(losses: Array) -> Array:
    """For the test of drift."""
    return np.asarray(ERROR_LEAST + 1.0 - np.exp(-losses))
