"""The model: members that learn side by side, the champion among them that is served, and what watches over it.

A block of rows is predicted by every member and then learned by every member, test-then-train. The champion's
prediction is served, within bounds and with an interval; after a drift the champion stays until a fresh challenger
beats it. Everything is a function of the rows in their order and of how they are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.drift import PageHinkley
from streampiped.learn.intervals import Intervals
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.past import Looks, Past
from streampiped.learn.rivals import READY_ROWS, Rivals, chosen, until
from streampiped.learn.slot import Slot
from streampiped.records import Array

MARGIN: Final = 0.25  # of the range of the labels so far, to which a prediction may be outside of it
WILD: Final = 100.0  # ranges: a prediction that is further off is the work of a member gone astray


@dataclass(frozen=True, slots=True)
class Forecast:
    """`prediction`, `low` and `high` `(rows,)`; `fallback`: a trivial member is served; `fallbacks`: rows for which the
    champion had no finite answer and the mean was given."""

    prediction: Array
    low: Array
    high: Array
    fallback: bool
    fallbacks: int


class Pool(Rivals[Member]):
    """Of regressors; a loss is a squared error."""

    watched: ClassVar[tuple[str, ...]] = ("_past", "_drift", "_intervals")

    def __init__(self, members: Mapping[str, Member], columns: int) -> None:
        super().__init__(members, columns)
        self._past = Past()
        self._intervals = Intervals()

    def predict(self, features: Array, looks: Looks | None = None) -> Forecast:
        """Of rows that come next, with nothing of them known; `looks`: with these labels before them. Changes nothing.
        `features` `(rows, columns)`, C order, finite."""
        rows = len(features)
        inputs = self._inputs(features, self._past.now(rows) if looks is None else looks)
        answer, fallbacks = self._served(self.champion.member.predict(inputs), inputs)
        width = self._intervals.width
        return Forecast(answer, answer - width, answer + width, self.fallback, fallbacks)

    def work(self, features: Array, labels: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]) -> Forecast:
        """See `Rivals.work`; `labels` are finite where they are known."""
        rows = min(len(features), self._block_rows())
        features, labels = features[:rows], labels[:rows]
        known, learnable = known[:rows], learnable[:rows]
        self._reframe(features)
        past = self._past.copy()
        looks = past.follow(labels, known)
        inputs = self._inputs(features, looks)
        judged = judged_of(looks, learnable)
        answers = [slot.member.predict(inputs) for slot in self.slots]
        fallback = self.fallback
        answer, fallbacks = self._served(answers[self._contest.champion], inputs)
        place = self._drift.find((labels - answer)[judged])
        if place is not None:  # what comes behind the alarm is predicted by those who have been told of it
            rows = until(place, judged)
            part = slice(rows)
            features, labels, known = features[part], labels[part], known[part]
            learnable, judged = learnable[part], judged[part]
            answer, inputs, answers = answer[part], inputs[part], [each[part] for each in answers]
            past = self._past.copy()
            past.follow(labels, known)
        self._past = past
        widths = self._intervals.follow(labels - answer, judged)
        self.rows += rows
        if learnable.any():
            self._learn(inputs, labels, learnable, answers, answer, judged)
        self._moments.update(features.T)
        if place is not None:
            self._drifted(self.rows - 1)
        return Forecast(answer, answer - widths, answer + widths, fallback, fallbacks)

    def label_shifted(self, labels: Array) -> None:
        """The labels have another level from the next row on, of which these are the first: everything that was learned
        of them is of no use, and whoever leads is served at once."""
        self.history.drift(self.rows, "label_shift", self.champion.name)
        for slot in self.slots:
            slot.begin_anew(self.rows)
        self._contest.restart()
        self._contest.seated = self._contest.pinned
        self._past, self._drift, self._intervals = Past(), PageHinkley(), Intervals()
        self._past.follow(labels, np.ones(len(labels), dtype=np.bool_))
        self._since = self._level = self.rows
        self._former = None

    def _learn(
        self,
        inputs: Inputs,
        labels: Array,
        learnable: NDArray[np.bool_],
        answers: Sequence[Array],
        answer: Array,
        compared: NDArray[np.bool_],
    ) -> None:
        """At least one row is `learnable`; `compared`: those by which members are judged and a drift is found."""
        taken, told = chosen(learnable, inputs, labels)
        given = [self._served(raw, inputs)[0] for raw in answers]
        losses = np.square(labels[:, None] - np.column_stack(given))

        def learn(place: int, slot: Slot[Member]) -> bool:
            astray = self._is_astray(slot, answers[place], given[place], inputs)
            return slot.member.learn(taken, told) and not astray

        self._settle(chosen(compared, losses)[0], len(told), learn)
        self._drift.learn(chosen(compared, labels - answer)[0])

    @staticmethod
    def _is_astray(slot: Slot[Member], raw: Array, bounded: Array, inputs: Inputs) -> bool:
        """Whether most of its answers in this block were none, or beyond all bounds."""
        if bounded is raw or slot.rows < READY_ROWS or not slot.member.ready:
            return False
        spread = inputs.looks.high - inputs.looks.low
        with np.errstate(invalid="ignore", over="ignore"):
            sane = np.abs(raw - bounded) <= WILD * spread
        return bool(np.count_nonzero(sane) * 2 < len(raw))

    def _inputs(self, features: Array, looks: Looks) -> Inputs:
        return Inputs(features, self._framed(features), looks)

    def _served(self, raw: Array, inputs: Inputs) -> tuple[Array, int]:
        """Within bounds, and the mean where there is no finite answer; how many of these there were. `raw` itself when
        there is nothing to mend."""
        if not self._past.rows:
            return inputs.looks.mean, 0
        low, high = inputs.looks.low, inputs.looks.high
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin
        if ((raw >= low) & (raw <= high)).all():
            return raw, 0
        finite = np.isfinite(raw)
        answer = np.clip(np.where(finite, raw, inputs.looks.mean), low, high)
        return answer, int(len(raw) - np.count_nonzero(finite))


def judged_of(looks: Looks, learnable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By which of the `learnable` rows members are compared and a drift and the interval are found: those that had a
    label before them. Before the first every member answers 0, and the error of that tells where the labels are and
    nothing of a member: at a level of 1e9 it would hide all later ones by rounding."""
    return learnable & (looks.count > 0)
