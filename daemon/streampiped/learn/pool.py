"""The model: members that learn side by side, the champion among them that is served, and what watches over it.

A block of rows is predicted by every member and then learned by every member, test-then-train. The champion's
prediction is served, within bounds and with an interval; after a drift the champion stays until a fresh challenger
beats it. Everything is a function of the rows in their order and of how they are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite, sqrt
from typing import Any, ClassVar, Final

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
        answer, fallbacks = self._served(self.champion.member.predict(inputs), inputs, self._within(inputs))
        if looks is None and (doubted := self._doubts.now(rows)) is not None:
            answer = self._believing(answer, [(0, self._contest.champion)], doubted, inputs.looks)
        width = self._intervals.width
        return Forecast(answer, answer - width, answer + width, self.fallback, fallbacks)

    def work(self, features: Array, labels: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]) -> Forecast:
        """See `Rivals.work`; `labels` are finite where they are known."""
        rows = min(len(features), self._block_rows())
        features, labels = features[:rows], labels[:rows]
        known, learnable = known[:rows], learnable[:rows]
        way = self._work_one if rows == 1 else self._work_block
        return way(features, labels, known, learnable)

    def _work_block(
        self, features: Array, labels: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]
    ) -> Forecast:
        self._reframe(features)
        past, doubts = self._past.copy(), self._doubts.copy()
        looks, doubted = past.follow(labels, known), doubts.follow(labels, known)
        inputs = self._inputs(features, looks)
        judged = judged_of(looks, learnable)
        answers = [slot.member.predict(inputs) for slot in self.slots]
        given = self._given(answers, inputs)
        losses = np.square(np.where(judged, labels, 0.0)[:, None] - np.column_stack(given))
        contest, terms = self._turns(losses, judged)
        answer = self._believing(by_turns(given, terms), terms, doubted, looks)
        place = self._drift.find((labels - answer)[judged])
        if place is not None:  # what comes behind the alarm is predicted by those who have been told of it
            part = slice(until(place, judged))
            features, labels, known, learnable = features[part], labels[part], known[part], learnable[part]
            judged, inputs, answer = judged[part], inputs[part], answer[part]
            answers, given = [each[part] for each in answers], [each[part] for each in given]
            contest, terms = self._turns(losses[part], judged)
            past, doubts = self._past.copy(), self._doubts.copy()
            past.follow(labels, known)
            doubts.follow(labels, known)
        fallback, fallbacks = self.fallback, int(np.count_nonzero(~np.isfinite(by_turns(answers, terms))))
        self._past, self._doubts = past, doubts
        widths = self._intervals.follow(labels - answer, judged)
        begun, self.rows = self.rows, self.rows + len(labels)
        if learnable.any():
            self._learn(inputs, labels, learnable, answers, given)
            self._drift.learn((labels - answer)[judged])
        self._follow(contest, terms, begun)
        self._moments.update(features.T)
        if place is not None:
            self._drifted(self.rows - 1)
        return Forecast(answer, answer - widths, answer + widths, fallback, fallbacks)

    def _work_one(
        self, features: Array, labels: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]
    ) -> Forecast:
        """`_work_block` of one row, to the same bits in plain numbers. Nothing is tried on copies: an alarm at the only
        row changes nothing of what that row was answered."""
        self._reframe(features)
        told = self._past.rows > 0
        looks, doubted = self._past.follow(labels, known), self._doubts.follow(labels, known)
        inputs = self._inputs(features, looks)
        label, judged = labels.item(), told and learnable.item()
        answers = [slot.member.predict(inputs).item() for slot in self.slots]
        given = self._given_one(answers, looks) if told else [looks.mean.item()] * len(answers)
        contest, first = self._contest.copy(), self._contest.champion
        changes = contest.follow(np.array([[(label - each) * (label - each) for each in given]])) if judged else []
        answer = self._believing(np.array([given[first]]), [(0, first)], doubted, looks)
        residuals = labels - answer
        place = self._drift.find(residuals) if judged else None
        fallback, fallbacks = self.fallback, int(not isfinite(answers[first]))
        width = self._intervals.widths([abs(residuals.item())], [judged])[0]
        begun, self.rows = self.rows, self.rows + 1
        if learnable.item():
            spread = looks.high.item() - looks.low.item()

            def learn(place: int, slot: Slot[Member]) -> bool:
                raw, bounded = answers[place], given[place]
                vague = raw == bounded or slot.rows < READY_ROWS or not slot.member.ready
                return slot.member.learn(inputs, labels) and (vague or abs(raw - bounded) <= WILD * spread)

            self._settle(None, 1, learn)
            self._drift.learn(residuals if judged else residuals[:0])
        self._follow(contest, [(0, first), *changes], begun)
        self._moments.update(features.T)
        if place is not None:
            self._drifted(self.rows - 1)
        return Forecast(answer, answer - width, answer + width, fallback, fallbacks)

    def _given_one(self, answers: list[float], looks: Looks) -> list[float]:
        """`_given` of one row."""
        low, high = looks.low.item(), looks.high.item()
        margin = MARGIN * (high - low)
        bounds = [(low - margin, high + margin)] * 2
        if self._contest.rows >= READY_ROWS:
            low, high = bounds[0]
            losses, trivial = self._contest.losses().tolist(), [slot.member.trivial for slot in self.slots]
            loss, best = min((losses[n], n) for n, guesses in enumerate(trivial) if guesses)
            reach, middle = REACH * sqrt(loss), min(max(answers[best], low), high)
            bounds[0] = max(low, middle - reach), min(high, middle + reach)
        given = []
        for slot, raw in zip(self.slots, answers, strict=True):
            low, high = bounds[slot.member.trivial]
            given.append(
                raw if low <= raw <= high else min(max(raw if isfinite(raw) else looks.mean.item(), low), high)
            )
        return given

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

    def _restore_watch(self, state: Mapping[str, Any]) -> None:
        super()._restore_watch(
            {"doubts": Doubts().state(), **state}
        )  # what was saved before there were doubts has none

    def _turns(self, losses: Array, compared: NDArray[np.bool_]) -> tuple[Contest, list[tuple[int, int]]]:
        """The contest behind these rows, and who is served in them: from which row on, which place. Changes nothing."""
        contest, first = self._contest.copy(), self._contest.champion
        changes = contest.follow(chosen(compared, losses)[0])
        if changes and not compared.all():
            places = np.flatnonzero(compared) + 1
            changes = [(int(places[row - 1]), champion) for row, champion in changes]
        return contest, [(0, first), *changes]

    def _believing(self, answer: Array, terms: Sequence[tuple[int, int]], doubted: Array | None, looks: Looks) -> Array:
        """Behind a label that is not believed: that label, where who is served goes by the labels before and the newest
        has been a better guess than their mean. A label that stays where it was has jumped rather than been a spike."""
        if doubted is None or not self._is_sticky():
            return answer
        answer = answer.copy()
        for part, champion in _parts(terms, len(answer)):
            if self.slots[champion].member.looks_back:
                ranges = looks.high[part] - looks.low[part]
                reach = np.where(ranges > 0.0, LEAP * ranges, inf)  # of a single level there is no range to go by
                near = np.abs(doubted[part] - looks.lags[part, 0]) <= reach
                answer[part] = np.where(near, doubted[part], answer[part])
        return answer

    def _given(self, answers: Sequence[Array], inputs: Inputs) -> list[Array]:
        """What would be served of each member's answers."""
        within = {trivial: self._within(inputs, trivial=trivial) for trivial in (True, False)}
        return [
            self._served(raw, inputs, within[slot.member.trivial])[0]
            for slot, raw in zip(self.slots, answers, strict=True)
        ]

    def _within(self, inputs: Inputs, *, trivial: bool | None = None) -> tuple[Array, Array]:
        """Between what the answers of a guess, or of a learner, are served (None: of the champion). A learner's no
        further from the best guess than REACH times that guess's own error, as beyond that it is extrapolation."""
        low, high = inputs.looks.low, inputs.looks.high
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin
        trivial = self.fallback if trivial is None else trivial
        if trivial or self._contest.rows < READY_ROWS:
            return low, high
        losses = self._contest.losses()
        loss, place = min((float(losses[n]), n) for n, slot in enumerate(self.slots) if slot.member.trivial)
        reach, middle = REACH * sqrt(loss), np.clip(self.slots[place].member.predict(inputs), low, high)
        return np.maximum(low, middle - reach), np.minimum(high, middle + reach)

    def looks(self, rows: int) -> Looks:
        """What rows that come next, all at once, may know of the labels that were believed."""
        return self._past.now(rows)

    def reach(self) -> tuple[float, float]:
        """Between what the champion's answer to the next row is served."""
        low, high = self._within(self._inputs(np.zeros((1, self.columns)), self._past.now(1)))
        return float(low[0]), float(high[0])

    def _is_sticky(self) -> bool:
        losses = {slot.member.kind: float(loss) for slot, loss in zip(self.slots, self._contest.losses(), strict=True)}
        return losses.get("last_label", inf) <= losses.get("mean", inf)

    def _follow(self, contest: Contest, terms: Sequence[tuple[int, int]], begun: int) -> None:
        """The contest is this one behind a block that began at row `begun`; tell of those who were made champion in it.
        One that a drift has left behind begins anew, now that it is not served any more."""
        self._contest = contest
        for start, champion in terms[1:]:
            lead = "nothing beats guessing" if self.slots[champion].member.trivial else "better"
            self.history.crown(begun + start, self.slots[champion].name, lead)
        if self._former is not None and self._former != contest.champion:
            self.slots[self._former].begin_anew(self.rows)
            self._former = None

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
        return Inputs(features, self._framing(features), looks)

    def _served(self, raw: Array, inputs: Inputs, within: tuple[Array, Array]) -> tuple[Array, int]:
        """Within bounds, and the mean where there is no finite answer; how many of these there were. `raw` itself when
        there is nothing to mend."""
        if not self._past.rows:
            return inputs.looks.mean, 0
        low, high = within
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


def _parts(terms: Sequence[tuple[int, int]], rows: int) -> Iterator[tuple[slice, int]]:
    """Which of the rows of a block whose are."""
    for (start, champion), (stop, _) in pairwise([*terms, (rows, 0)]):
        yield slice(start, stop), champion


def by_turns(tables: Sequence[Array], terms: Sequence[tuple[int, int]]) -> Array:
    """Of each row what is the champion's: `tables` has `(rows,)` of each member."""
    parts = [tables[champion][part] for part, champion in _parts(terms, len(tables[0]))]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
