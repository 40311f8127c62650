"""A pool whose labels come later than the questions, by id (`pending.py`).

What was served is what counts: members are compared, a drift is found and the interval's width follows by the answers
that were given when the row was asked. What is learned is what the question had: its features, and what was known of
the labels before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampiped.aligned import aligned_empty
from streampiped.learn.late.asked import Asked, AskedForm
from streampiped.learn.late.pending import NO_LINE, Pending
from streampiped.learn.members.base import Inputs
from streampiped.learn.past import Looks, Past
from streampiped.learn.pool import Pool, by_turns, judged_of
from streampiped.learn.rivals import chosen
from streampiped.records import Array, IntArray


@dataclass(frozen=True, slots=True)
class LateRows:
    """`features` `(rows, columns)`, C order, finite; the rest `(rows,)`, with `asks`, `tells` and `lines` of `Joined`.
    `known`: its label comes with this row, and later rows may look back at it; `learnable` is a part of `tells`."""

    features: Array
    labels: NDArray[Any]
    known: NDArray[np.bool_]
    learnable: NDArray[np.bool_]
    asks: NDArray[np.bool_]
    tells: NDArray[np.bool_]
    lines: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> LateRows:
        return LateRows(*(getattr(self, name)[rows] for name in LateRows.__slots__))


@dataclass(frozen=True, slots=True)
class LateForecast:
    """Per row: what is served, or was when the question was asked; NaN for a late label. `guess_mean` and `guess_last`
    are the mean and the newest of the labels known then, NaN before the first; `generation` is of the row itself."""

    prediction: Array
    low: Array
    high: Array
    guess_mean: Array
    guess_last: Array
    version: IntArray
    generation: IntArray
    fallbacks: int

    def __len__(self) -> int:
        return len(self.prediction)

    @classmethod
    def joined(cls, parts: Sequence[LateForecast]) -> LateForecast:
        """One after the other."""

        def all_of(name: str, kind: Any = np.float64) -> NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype=kind), *(getattr(part, name) for part in parts)])

        return cls(
            prediction=all_of("prediction"),
            low=all_of("low"),
            high=all_of("high"),
            guess_mean=all_of("guess_mean"),
            guess_last=all_of("guess_last"),
            version=all_of("version", np.int64),
            generation=all_of("generation", np.int64),
            fallbacks=sum(part.fallbacks for part in parts),
        )


class DelayedPool(Pool):
    """`follow` instead of `work`; where every label comes in its question's row, it is `work` to the last bit. But for
    what is served behind a label that is not believed: one that comes late is not gone by."""

    def waiting(self, wait_rows_max: int) -> Pending[Asked]:
        """Where its questions wait."""
        return Pending(wait_rows_max, AskedForm(self.columns, [slot.name for slot in self.slots]))

    def recalled(self, question: Array) -> tuple[Array, Looks | None]:
        """Features and looks of `Asked.question`."""
        asked = Asked(question, self.columns)
        return asked.features(), asked.looks

    def follow(self, rows: LateRows, pending: Pending[Asked]) -> LateForecast:
        """Answer the first of these rows, then learn the labels among them; the forecast says by its length how many
        they were, as that of `work` does."""
        rows = rows[: self._block_rows()]
        past = self._past.copy()
        looks = past.follow(rows.labels, rows.known)
        answering = self._ask(rows, looks, pending)
        asked = np.full(len(rows), -1.0)
        told = pending.read(rows.lines[rows.tells])
        asked[rows.tells] = np.where(
            judged_of(told.looks, np.ones(len(told.looks.count), bool)), told.served("row"), -1.0
        )
        compared = rows.learnable & (asked >= self._since)  # older ones were answered by those who begin anew since
        losses = self._losses(rows, compared, pending)
        contest, terms = self._turns(losses, compared)
        fell_back = self._serve(rows, pending, answering, terms)
        residuals = np.full(len(rows), np.nan)
        residuals[rows.tells] = rows.labels[rows.tells] - pending.read(rows.lines[rows.tells]).served("prediction")
        place = self._drift.find(residuals[compared])
        if place is not None:
            stop = int(np.flatnonzero(compared)[place]) + 1
            rows, looks, residuals, asked = rows[:stop], looks[:stop], residuals[:stop], asked[:stop]
            contest, terms = self._turns(losses[:stop], compared[:stop])
            past = self._past.copy()
            past.follow(rows.labels, rows.known)
        begun, fallbacks = self.rows, int(np.count_nonzero(fell_back[: np.count_nonzero(rows.asks)]))
        result = self._close(rows, looks, past, pending, residuals, asked, fallbacks)
        self._follow(contest, terms, begun)
        if place is not None:
            self._drifted(self.rows - 1)
        return result

    def _ask(self, rows: LateRows, looks: Looks, pending: Pending[Asked]) -> tuple[Inputs, list[Array]] | None:
        """Put what every member answers on the lines of those who ask; what is served of it comes later, as it follows
        the labels in between. None: nobody asks."""
        if not rows.asks.any():
            return None
        features = chosen_rows(rows.features, rows.asks)
        self._reframe(features)
        inputs = self._inputs(features, looks[rows.asks])
        answers = [slot.member.predict(inputs) for slot in self.slots]
        served = {
            "prediction": np.nan,
            "low": np.nan,
            "high": np.nan,
            "version": self.blocks,
            "row": self.rows + np.flatnonzero(rows.asks),
        }
        pending.write(rows.lines[rows.asks], Asked.of(features, inputs.looks, answers, served))
        return inputs, answers

    def _losses(self, rows: LateRows, compared: NDArray[np.bool_], pending: Pending[Asked]) -> Array:
        """`(rows, members)`, of what was answered; 0 where nothing is `compared`."""
        result = np.zeros((len(rows), len(self.slots)))
        if compared.any():
            asked = pending.read(rows.lines[compared])
            given = self._given(self._answers(asked), self._inputs(asked.features(), asked.looks))
            result[compared] = np.square(rows.labels[compared][:, None] - np.column_stack(given))
        return result

    def _answers(self, asked: Asked) -> list[Array]:
        """A member that has begun anew since a question was asked gave no answer to it; it counts as having given the
        champion's."""
        row, answers = asked.served("row"), asked.answers()
        champion = answers[self._contest.champion]
        return [np.where(row < slot.begun, champion, raw) for slot, raw in zip(self.slots, answers, strict=True)]

    def _serve(
        self,
        rows: LateRows,
        pending: Pending[Asked],
        answering: tuple[Inputs, list[Array]] | None,
        terms: Sequence[tuple[int, int]],
    ) -> NDArray[np.bool_]:
        """Put what is served on the lines of those who ask; for which of them the mean stood in."""
        if answering is None:
            return np.zeros(0, dtype=np.bool_)
        inputs, answers = answering
        before = np.concatenate(([0], np.cumsum(rows.asks)))
        turns = [(int(before[start]), champion) for start, champion in terms]
        answer = by_turns(self._given(answers, inputs), turns)
        lines = rows.lines[rows.asks]
        fresh = pending.read(lines)
        for name in ("prediction", "low", "high"):
            fresh.served(name)[...] = answer
        pending.write(lines, fresh)
        return ~np.isfinite(by_turns(answers, turns))

    def _close(
        self,
        rows: LateRows,
        looks: Looks,
        past: Past,
        pending: Pending[Asked],
        residuals: Array,
        asked: Array,
        fallbacks: int,
    ) -> LateForecast:
        """The intervals of those who ask, the labels learned, and what goes out."""
        widths = self._intervals.follow(residuals, rows.learnable & (asked >= self._level))
        if rows.asks.any():
            lines = rows.lines[rows.asks]
            fresh = pending.read(lines)
            fresh.served("low")[...] -= widths[rows.asks]
            fresh.served("high")[...] += widths[rows.asks]
            pending.write(lines, fresh)
            self._moments.update(fresh.features().T)
        result = self._outcome(rows, looks, pending, fallbacks)
        self._past = past
        self.rows += len(rows)
        if rows.learnable.any():
            self._learn_late(pending.read(rows.lines[rows.learnable]), rows.labels[rows.learnable])
        return result

    def _learn_late(self, asked: Asked, labels: Array) -> None:
        """Labels of these questions."""
        inputs = self._inputs(asked.features(), asked.looks)
        compared = judged_of(asked.looks, asked.served("row") >= self._since)
        answers, every = self._answers(asked), np.ones(len(labels), dtype=np.bool_)
        self._learn(inputs, labels, every, answers, self._given(answers, inputs))
        self._drift.learn(chosen(compared, labels - asked.served("prediction"))[0])

    def _outcome(self, rows: LateRows, looks: Looks, pending: Pending[Asked], fallbacks: int) -> LateForecast:
        late = rows.lines == NO_LINE
        asked = pending.read(rows.lines)
        blind = np.where(late, looks.count, asked.looks.count) == 0
        guesses = ((looks.mean, asked.looks.mean), (looks.lags[:, 0], asked.looks.lags[:, 0]))
        mean, last = (np.where(blind, np.nan, np.where(late, own, then)) for own, then in guesses)
        return LateForecast(
            prediction=asked.served("prediction"),
            low=asked.served("low"),
            high=asked.served("high"),
            guess_mean=mean,
            guess_last=last,
            version=np.where(late, self.blocks, asked.served("version")).astype(np.int64),
            generation=np.full(len(rows), self.generation),
            fallbacks=fallbacks,
        )


def chosen_rows(features: Array, rows: NDArray[np.bool_]) -> Array:
    """A copy of these rows, aligned and in C order."""
    count = int(np.count_nonzero(rows))
    result: Array = aligned_empty(count * features.shape[1], np.float64).reshape(count, features.shape[1])
    return np.compress(rows, features, axis=0, out=result)
