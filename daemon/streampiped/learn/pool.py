"""The model: members that learn side by side, the champion among them that is served, and what watches over it.

A block of rows is predicted by every member and then learned by every member, test-then-train. The champion's
prediction is served, within bounds and with an interval; after a drift the champion stays until a fresh challenger
beats it. Everything is a function of the rows in their order and of how they are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.champion import Contest
from streampiped.learn.doubts import Doubts
from streampiped.learn.drift import PageHinkley
from streampiped.learn.intervals import Intervals
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.past import Looks, Past
from streampiped.learn.rivals import READY_ROWS, Rivals, chosen, until
from streampiped.learn.slot import Slot
from streampiped.records import Array

MARGIN: Final = 0.25  # of the range of the labels so far, to which a prediction may be outside of it
REACH: Final = 6.0  # of the best guess's error: a learner is served no further from that guess
LEAP: Final = 1000.0  # ranges of the labels that a jump of their level may have
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

    watched: ClassVar[tuple[str, ...]] = ("_past", "_drift", "_intervals", "_doubts")

    def __init__(self, members: Mapping[str, Member], columns: int) -> None:
        super().__init__(members, columns)
        self._past = Past()
        self._intervals = Intervals()
        self._doubts = Doubts()

    def predict(self, features: Array, looks: Looks | None = None) -> Forecast:
        """Of rows that come next, with nothing of them known; `looks`: with these labels before them. Changes nothing.
        `features` `(rows, columns)`, C order, finite."""
        rows = len(features)
        inputs = self._inputs(features, self._past.now(rows) if looks is None else looks)
        raw = self.champion.member.predict(inputs)
        answer, fallbacks = self._served(raw, inputs)
        if not self.fallback and (guess := self._guess()) is not None:
            place, reach = guess
            answer = _near(answer, self._served(self.slots[place].member.predict(inputs), inputs)[0], reach)
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
        given = self._given(answers, inputs)
        losses = np.square(np.where(judged, labels, 0.0)[:, None] - np.column_stack(given))
        fallback, before = self.fallback, self._contest
        self._contest, terms = self._turns(losses, judged)
        answer, fallbacks = self._by_turns(given, answers, terms)
        doubts = self._doubts.copy()
        answer = self._believing(answer, terms, doubts.follow(labels, known), inputs.looks)
        place = self._drift.find((labels - answer)[judged])
        if place is not None:  # what comes behind the alarm is predicted by those who have been told of it
            rows = until(place, judged)
            part = slice(rows)
            features, labels, known = features[part], labels[part], known[part]
            learnable, judged = learnable[part], judged[part]
            answer, inputs, answers, given = (
                answer[part],
                inputs[part],
                *([e[part] for e in t] for t in (answers, given)),
            )
            self._contest = before
            self._contest, terms = self._turns(losses[part], judged)
            past, doubts = self._past.copy(), self._doubts.copy()
            past.follow(labels, known)
            doubts.follow(labels, known)
        self._past, self._doubts = past, doubts
        widths = self._intervals.follow(labels - answer, judged)
        begun, self.rows = self.rows, self.rows + rows
        if learnable.any():
            self._learn(inputs, labels, learnable, answers, given)
            self._drift.learn((labels - answer)[judged])
        self._crown_all(terms, begun)
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
        self._doubts.confirm()
        self._since = self._level = self.rows
        self._former = None

    def _turns(self, losses: Array, compared: NDArray[np.bool_]) -> tuple[Contest, list[tuple[int, int]]]:
        """The contest behind these rows, and who is served in them: from which row on, which place. Changes nothing."""
        contest, first = self._contest.copy(), self._contest.champion
        changes = contest.follow(chosen(compared, losses)[0])
        if changes and not compared.all():
            places = np.flatnonzero(compared) + 1
            changes = [(int(places[row - 1]), champion) for row, champion in changes]
        return contest, [(0, first), *changes]

    @staticmethod
    def _by_turns(
        given: Sequence[Array], answers: Sequence[Array], terms: Sequence[tuple[int, int]]
    ) -> tuple[Array, int]:
        """What is served in a block, and for how many rows the champion had no finite answer."""
        rows = len(given[0])
        parts, fallbacks = [], 0
        for (start, champion), (stop, _) in pairwise([*terms, (rows, 0)]):
            parts.append(given[champion][start:stop])
            fallbacks += int(np.count_nonzero(~np.isfinite(answers[champion][start:stop])))
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)), fallbacks

    def _believing(self, answer: Array, terms: Sequence[tuple[int, int]], doubted: Array | None, looks: Looks) -> Array:
        """Behind a label that is not believed: that label, where who is served goes by the labels before and the newest
        has been a better guess than their mean. A label that stays where it was has jumped rather than been a spike."""
        if doubted is None:
            return answer
        answer = answer.copy()
        for (start, champion), (stop, _) in pairwise([*terms, (len(answer), 0)]):
            if self.slots[champion].member.looks_back and self._is_sticky():
                part = slice(start, stop)
                reach = LEAP * (looks.high[part] - looks.low[part])
                near = np.abs(doubted[part] - looks.lags[part, 0]) <= reach
                answer[part] = np.where(near, doubted[part], answer[part])
        return answer

    def _given(self, answers: Sequence[Array], inputs: Inputs) -> list[Array]:
        """What would be served of each member's answers: a learner's no further from the best guess than REACH times
        that guess's own error, as beyond that it is extrapolation."""
        given = [self._served(raw, inputs)[0] for raw in answers]
        if (guess := self._guess()) is not None:
            place, reach = guess
            for n, slot in enumerate(self.slots):
                if not slot.member.trivial:
                    given[n] = _near(given[n], given[place], reach)
        return given

    def _guess(self) -> tuple[int, float] | None:
        """The place of the best guess, and how far from it a learner may be; None before there is much to go by."""
        if self._contest.rows < READY_ROWS:
            return None
        losses = self._contest.losses()
        loss, place = min((float(losses[n]), n) for n, slot in enumerate(self.slots) if slot.member.trivial)
        return place, REACH * sqrt(loss)

    def reach(self) -> tuple[float, float]:
        """Within what a learner's answer to the next row is served."""
        inputs = self._inputs(np.zeros((1, self.columns)), self._past.now(1))
        low, high = float(inputs.looks.low[0]), float(inputs.looks.high[0])
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin
        if not self.fallback and (guess := self._guess()) is not None:
            place, reach = guess
            middle = float(self._served(self.slots[place].member.predict(inputs), inputs)[0][0])
            low, high = max(low, middle - reach), min(high, middle + reach)
        return low, high

    def _is_sticky(self) -> bool:
        losses = {slot.member.kind: float(loss) for slot, loss in zip(self.slots, self._contest.losses(), strict=True)}
        return losses["last_label"] < losses["mean"]

    def _crown_all(self, terms: Sequence[tuple[int, int]], begun: int) -> None:
        """Tell of those who were made champion in a block that began at row `begun`."""
        for (_, before), (start, champion) in pairwise(terms):
            if self._former == before:
                self.slots[before].begin_anew(self.rows)
                self._former = None
            lead = "nothing beats guessing" if self.slots[champion].member.trivial else "better"
            self.history.crown(begun + start, self.slots[champion].name, lead)

    def _learn(
        self,
        inputs: Inputs,
        labels: Array,
        learnable: NDArray[np.bool_],
        answers: Sequence[Array],
        given: Sequence[Array],
    ) -> None:
        """At least one row is `learnable`."""
        taken, told = chosen(learnable, inputs, labels)

        def learn(place: int, slot: Slot[Member]) -> bool:
            astray = self._is_astray(slot, answers[place], given[place], inputs)
            return slot.member.learn(taken, told) and not astray

        self._settle(None, len(told), learn)

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


def _near(answer: Array, middle: Array, reach: float) -> Array:
    return np.minimum(np.maximum(answer, middle - reach), middle + reach)
