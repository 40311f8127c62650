"""The model: members that learn side by side, the champion among them that is served, and what watches over it.

A block of rows is predicted by every member and then learned by every member, test-then-train. The champion's
prediction is served, within bounds and with an interval; after a drift the champion stays until a fresh challenger
beats it. Everything is a function of the rows in their order and of how they are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.champion import Contest
from streampiped.learn.drift import PageHinkley
from streampiped.learn.frame import Frame
from streampiped.learn.history import History
from streampiped.learn.intervals import Intervals
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.moments import Moments, moments_of
from streampiped.learn.past import Looks, Past
from streampiped.learn.scaling import deviation_of
from streampiped.learn.slot import Slot
from streampiped.records import Array

MARGIN: Final = 0.25  # of the range of the labels so far, to which a prediction may be outside of it
READY_ROWS: Final = 16  # that a member has learned before its answers are held against it
WILD: Final = 100.0  # ranges: a prediction that is further off is the work of a member gone astray
BLOCK_ROWS_MAX: Final = 1024  # a block costs 2 ms however short it is; within one, predictions do not learn
BLOCK_ROWS_MIN: Final = 8  # after a drift
GROWTH: Final = 8  # a block has at most this part of the rows before it: 8000 rows of warm-up are 71 blocks
COUNTS: Final = ("rows", "learned", "blocks", "_frame_rows", "_since", "_level", "_former")


@dataclass(frozen=True, slots=True)
class Forecast:
    """`prediction`, `low` and `high` `(rows,)`; `fallback`: a trivial member is served; `fallbacks`: rows for which the
    champion had no finite answer and the mean was given."""

    prediction: Array
    low: Array
    high: Array
    fallback: bool
    fallbacks: int


class Pool:
    """`members`: name -> a member that has learned nothing, of at least one trivial kind."""

    def __init__(self, members: Mapping[str, Member], columns: int) -> None:
        self.columns = columns
        self.slots = [Slot(name, member.fresh()) for name, member in members.items()]
        self._contest = Contest([slot.member.trivial for slot in self.slots])
        self._past = Past()
        self._moments = Moments(columns)
        self._frame: Frame | None = None
        self._frame_rows = 0  # rows that the frame knows
        self._drift = PageHinkley()
        self._intervals = Intervals()
        self._since = 0  # row of the last drift
        self._level = 0  # row of the last shift of the label
        self._former: int | None = None  # the champion at the last drift, as long as it is served
        self.history = History()
        self.rows = 0
        """Rows predicted in band."""
        self.learned = 0
        """Rows learned."""
        self.blocks = 0
        """Blocks learned: the version of the model that a row is predicted with."""

    # --- serving ---------------------------------------------------------------------------------------------------

    @property
    def champion(self) -> Slot:
        return self.slots[self._contest.champion]

    @property
    def generation(self) -> int:
        """Drifts so far."""
        return self.history.drift_count

    @property
    def pinned(self) -> bool:
        return self._contest.pinned

    @property
    def fallback(self) -> bool:
        """Nothing beats guessing: a trivial member is served."""
        return self.champion.member.trivial

    def predict(self, features: Array, looks: Looks | None = None) -> Forecast:
        """Of rows that come next, with nothing of them known; `looks`: with these labels before them. Changes nothing.
        `features` `(rows, columns)`, C order, finite."""
        rows = len(features)
        inputs = self._inputs(features, self._past.now(rows) if looks is None else looks)
        answer, fallbacks = self._served(self.champion.member.predict(inputs), inputs)
        width = self._intervals.width
        return Forecast(answer, answer - width, answer + width, self.fallback, fallbacks)

    def work(self, features: Array, labels: Array, known: NDArray[np.bool_], learnable: NDArray[np.bool_]) -> Forecast:
        """Predict the first of these rows, then learn them; the forecast says by its length how many they were. At
        least one: the rest is predicted by what was learned. `known`: labels that later rows may look back at;
        `learnable` is a part of that: those that are learned and compared."""
        rows = min(len(features), self._block_rows())
        features, labels = features[:rows], labels[:rows]
        known, learnable = known[:rows], learnable[:rows]
        self._reframe(features)
        past = self._past.copy()
        inputs = self._inputs(features, past.follow(labels, known))
        answers = [slot.member.predict(inputs) for slot in self.slots]
        fallback = self.fallback
        answer, fallbacks = self._served(answers[self._contest.champion], inputs)
        place = self._drift.find((labels - answer)[learnable])
        if place is not None:  # what comes behind the alarm is predicted by those who have been told of it
            rows = int(np.flatnonzero(learnable)[place]) + 1
            part = slice(rows)
            features, labels, known, learnable = features[part], labels[part], known[part], learnable[part]
            answer, inputs, answers = answer[part], inputs[part], [each[part] for each in answers]
            past = self._past.copy()
            past.follow(labels, known)
        self._past = past
        widths = self._intervals.follow(labels - answer, learnable)
        self.rows += rows
        if learnable.any():
            self._learn(inputs, labels, learnable, answers, answer, learnable)
        self._moments.update(features.T)
        if place is not None:
            self._drifted(self.rows - 1)
        return Forecast(answer, answer - widths, answer + widths, fallback, fallbacks)

    # --- what others say of it -------------------------------------------------------------------------------------

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

    def feature_shifted(self) -> None:
        """A feature is scaled anew from the next row on, to look as before: worth a mark, and nothing else."""
        self.history.shift(self.rows, self.champion.name)

    def promote(self, name: str) -> None:
        """Serve this member from the next row on, until another is better. Raises KeyError."""
        self._contest.seat(self._place(name))
        self._drift.restart()  # who is served errs otherwise, and that is no drift
        self.history.crown(self.rows, name, "promoted")

    def pin(self, name: str) -> None:
        """Serve this member whatever the test says, until `unpin`. Raises KeyError."""
        if self._place(name) != self._contest.champion:
            self._drift.restart()
        self._contest.seat(self._place(name))
        self._contest.pinned = True
        self.history.crown(self.rows, name, "pinned")

    def unpin(self) -> None:
        """Let the test choose again."""
        self._contest.pinned = False

    def go_back(self, state: Mapping[str, Any]) -> None:
        """Become what `state` saw, where we are in the stream: history and counts go on, and who is pinned stays it."""
        pinned, history = self.champion.name if self.pinned else None, self.history
        rows, learned, blocks = self.rows, self.learned, self.blocks
        self.history = History()
        self.restore(state)
        self.rows, self.learned, self.blocks, self.history = rows, learned, blocks, history
        self._since = min(self._since, rows)
        for slot in self.slots:
            slot.begun = rows  # what still waits for its label was answered by others
        self._contest.pinned = pinned is not None
        if pinned is not None:
            self._contest.seat(self._place(pinned))
        self.history.crown(rows, self.champion.name, "rolled back")

    # --- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        members = {slot.name: slot.state() for slot in self.slots}
        return {"members": members, "contest": self._contest.state(), **self._watch_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become exactly what `state` saw. Of other members than ours the common ones are taken over, and who is served
        is found out anew, beginning with the champion of then if it is there."""
        there = state["members"]
        for slot in self.slots:
            if slot.name in there:
                slot.restore(there[slot.name])
            else:
                slot.begin_anew(int(state["counts"]["rows"]))
        names = [slot.name for slot in self.slots]
        if names == list(there):
            self._contest.restore(state["contest"])
        elif (champion := list(there)[int(state["contest"]["champion"])]) in names:
            self._contest.seat(names.index(champion))
        self._restore_watch(state)

    def copy(self) -> Pool:
        """An independent one in the same state; cheap, as what members have learned is shared and never changed."""
        twin = Pool({}, self.columns)
        twin.slots = [slot.copy() for slot in self.slots]
        twin._contest = Contest([slot.member.trivial for slot in twin.slots])
        twin._contest.restore(self._contest.state())
        twin._restore_watch(self._watch_state())
        return twin

    def frame_state(self) -> dict[str, Any] | None:
        """The coordinates of the members' columns: `(x - shift) * factor`; None before the first row."""
        return self._frame.state() if self._frame else None

    def info(self) -> list[dict[str, Any]]:
        """What is to be told of each member; `loss` is its discounted mean squared error (None: not scored yet)."""
        losses, scored = self._contest.losses(), self._contest.rows > 0
        return [
            {
                "name": slot.name,
                "kind": slot.member.kind,
                "trivial": slot.member.trivial,
                "loss": float(loss) if scored else None,
                "rows": slot.rows,
                "rollbacks": slot.rollbacks,
                "resets": slot.resets,
            }
            for slot, loss in zip(self.slots, losses, strict=True)
        ]

    def _watch_state(self) -> dict[str, Any]:
        return {
            "past": self._past.state(),
            "moments": self._moments.state(),
            "frame": self.frame_state(),
            "drift": self._drift.state(),
            "intervals": self._intervals.state(),
            "history": self.history.state(),
            "counts": {name: getattr(self, name) for name in COUNTS},
        }

    def _restore_watch(self, state: Mapping[str, Any]) -> None:
        for name in ("past", "drift", "intervals"):
            getattr(self, f"_{name}").restore(state[name])
        self.history.restore(state["history"])
        self._moments = Moments.from_state(state["moments"])
        self._frame = Frame.from_state(state["frame"]) if state["frame"] is not None else None
        for name in COUNTS:
            setattr(self, name, state["counts"][name])

    # --- learning --------------------------------------------------------------------------------------------------

    def _block_rows(self) -> int:
        """An eighth of what was seen since the beginning or since the last drift: a first block of 64 rows would be
        predicted as a whole by a model that knows nothing."""
        since = self.rows - self._since
        return min(BLOCK_ROWS_MAX, max(BLOCK_ROWS_MIN if self._since else 1, since // GROWTH))

    def _reframe(self, features: Array) -> None:
        """Of the first rows, and again when rows have doubled. The frame knows features only, and no label."""
        if self._frame is not None and self.rows < 2 * self._frame_rows:
            return
        moments = moments_of(features.T) if self._frame is None else self._moments
        new = Frame.of(moments.mean, deviation_of(moments))
        if self._frame is not None:
            for slot in self.slots:
                slot.member.move(*self._frame.map_to(new))
        self._frame, self._frame_rows = new, max(1, self.rows)

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
        whole, every = bool(learnable.all()), bool(compared.all())
        taken, told = (inputs, labels) if whole else (inputs[learnable], labels[learnable])
        residuals = labels - answer if every else (labels - answer)[compared]
        before = self._contest.champion
        given = [self._served(raw, inputs)[0] for raw in answers]
        losses = np.square(labels[:, None] - np.column_stack(given))
        self._contest.score(losses if every else losses[compared])
        for slot, raw, bounded in zip(self.slots, answers, given, strict=True):
            astray = self._is_astray(slot, raw, bounded, inputs)
            if slot.member.learn(taken, told) and not astray:
                slot.learned(len(told))
            else:
                slot.strike(self.rows)
        self.blocks += 1
        self.learned += len(told)
        self._drift.learn(residuals)
        if self._contest.champion != before:
            self._crowned(before)

    @staticmethod
    def _is_astray(slot: Slot, raw: Array, bounded: Array, inputs: Inputs) -> bool:
        """Whether most of its answers in this block were none, or beyond all bounds."""
        if bounded is raw or slot.rows < READY_ROWS:
            return False
        spread = inputs.looks.high - inputs.looks.low
        with np.errstate(invalid="ignore", over="ignore"):
            sane = np.abs(raw - bounded) <= WILD * spread
        return bool(np.count_nonzero(sane) * 2 < len(raw))

    def _crowned(self, before: int) -> None:
        """Another champion. One that a drift has left behind begins anew, now that it is not served any more."""
        if self._former == before:
            self.slots[before].begin_anew(self.rows)
            self._former = None
        lead = "better" if not self.fallback else "nothing beats guessing"
        self.history.crown(self.rows, self.champion.name, lead)

    def _drifted(self, row: int) -> None:
        """The old champion stays and goes on learning; every other learner begins anew."""
        champion = self._contest.champion
        self.history.drift(row, "drift", self.champion.name)
        fresh = [n for n, slot in enumerate(self.slots) if n != champion and not slot.member.trivial]
        for place in fresh:
            self.slots[place].begin_anew(self.rows)
        self._former = None if self.fallback else champion
        self._contest.seat(champion)
        self._contest.renew(fresh)
        self._drift.restart()
        self._since = self.rows

    def _place(self, name: str) -> int:
        for place, slot in enumerate(self.slots):
            if slot.name == name:
                return place
        raise KeyError(name)

    # --- helpers ---------------------------------------------------------------------------------------------------

    def _inputs(self, features: Array, looks: Looks) -> Inputs:
        framed = features if self._frame is None else self._frame.place(features)
        return Inputs(features, framed, looks)

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
