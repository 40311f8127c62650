"""A pool of classifiers whose labels come later than the questions, by id: the twin of `delayed.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN, Codes, Label
from streampiped.learn.class_members.base import ClassMember
from streampiped.learn.class_past import ClassLooks, ClassPast
from streampiped.learn.class_pool import ClassPool, given_to, losses_of, residuals_of, smoothed
from streampiped.learn.known_classes import Kind
from streampiped.learn.late.class_asked import ClassAsked, ClassForm
from streampiped.learn.late.delayed import LateRows, chosen_rows
from streampiped.learn.late.pending import NO_LINE, Pending
from streampiped.records import Array, IntArray


@dataclass(frozen=True, slots=True)
class ClassLateForecast:
    """Per row: what is served, or was when the question was asked; UNKNOWN and NaN for a late label. `guess_prior` and
    `guess_last` are the most frequent and the newest of the classes known then, UNKNOWN when there was none;
    `guess_share` is the probability that the shares of then gave to the label that is here, NaN when there is none.
    Codes are places in `labels`; `generation` is that of the row itself."""

    prediction: Codes
    probability: Array
    score: Array
    guess_prior: Codes
    guess_last: Codes
    guess_share: Array
    version: IntArray
    generation: IntArray
    fallbacks: int
    labels: Sequence[Label]

    def __len__(self) -> int:
        return len(self.prediction)

    @classmethod
    def joined(cls, parts: Sequence[ClassLateForecast]) -> ClassLateForecast:
        """One after the other."""

        def all_of(name: str, kind: Any = np.float64) -> NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype=kind), *(getattr(part, name) for part in parts)])

        return cls(
            prediction=all_of("prediction", np.intp),
            probability=all_of("probability"),
            score=all_of("score"),
            guess_prior=all_of("guess_prior", np.intp),
            guess_last=all_of("guess_last", np.intp),
            guess_share=all_of("guess_share"),
            version=all_of("version", np.int64),
            generation=all_of("generation", np.int64),
            fallbacks=sum(part.fallbacks for part in parts),
            labels=parts[-1].labels if parts else (),
        )


class DelayedClassPool(ClassPool):
    """`follow` instead of `work`; where every label comes in its question's row, it is `work` to the last bit.
    `positive`: the class of the `score`, as `ClassForecast.score` has it."""

    def __init__(
        self, members: Mapping[str, ClassMember], columns: int, kind: Kind, positive: Label | None = None
    ) -> None:
        super().__init__(members, columns, kind)
        self.positive = positive

    def waiting(self, wait_rows_max: int) -> Pending[ClassAsked]:
        """Where its questions wait."""
        return Pending(wait_rows_max, ClassForm(self.columns, [slot.name for slot in self.slots]))

    def recalled(self, question: Array) -> tuple[Array, None]:
        """Features of `ClassAsked.question`."""
        return np.array(question, order="C"), None

    def follow(self, rows: LateRows, pending: Pending[ClassAsked]) -> ClassLateForecast:
        """Answer the first of these rows, then learn the labels among them; the forecast says by its length how many
        they were. `rows.labels` are codes."""
        rows = rows[: self._block_rows()]
        past, looks = self._looked(rows, pending)
        fallbacks = self._ask(rows, looks, pending)
        told = pending.read(rows.lines[rows.learnable])
        losses = losses_of(told.probabilities(), rows.labels[rows.learnable], told.looks)
        compared = told.served("row") >= self._since  # older ones were answered by those who begin anew since
        place = self._drift.find(residuals_of(losses[compared]))
        if place is not None:
            rows = rows[: int(np.flatnonzero(rows.learnable)[np.flatnonzero(compared)[place]]) + 1]
            past, looks = self._looked(rows, pending)
        result = self._outcome(rows, looks, pending, fallbacks)
        if rows.asks.any():
            self._moments.update(chosen_rows(rows.features, rows.asks).T)
        self._past = past
        self.rows += len(rows)
        if rows.learnable.any():
            self._learn_late(pending.read(rows.lines[rows.learnable]), rows.labels[rows.learnable])
        if place is not None:
            self._drifted(self.rows - 1)
        return result

    def _looked(self, rows: LateRows, pending: Pending[ClassAsked]) -> tuple[ClassPast, ClassLooks]:
        """The past behind these rows, and what each of them may know. What waits has room for the classes that came."""
        past = self._past.copy()
        looks = past.follow(np.where(rows.known, rows.labels, UNKNOWN))
        form = _form(pending)
        form.meet(self.classes.labels[: past.classes])
        pending.fit()
        return past, looks

    def _ask(self, rows: LateRows, looks: ClassLooks, pending: Pending[ClassAsked]) -> int:
        """Put what every member answers, and what is served of it, on the lines of those who ask; how often the shares
        stood in."""
        if not rows.asks.any():
            return 0
        features = chosen_rows(rows.features, rows.asks)
        self._reframe(features)
        inputs = self._inputs(features, looks[rows.asks])
        answers = [slot.member.predict(inputs) for slot in self.slots]
        answer, fallbacks = smoothed(answers[self._contest.champion], inputs.looks)
        forecast = self._forecast(answer, inputs.looks, fallbacks)
        form = _form(pending)
        served = {
            "prediction": form.own(forecast.prediction),
            "probability": forecast.probability,
            "score": forecast.score(self.classes.labels, self.positive),
            "version": self.blocks,
            "row": self.rows + np.flatnonzero(rows.asks),
        }
        asked = ClassAsked.of(form, features, inputs.looks, answers, answer, served)
        pending.write(rows.lines[rows.asks], asked)
        return forecast.fallbacks

    def _learn_late(self, asked: ClassAsked, codes: Codes) -> None:
        """As `DelayedPool._learn_late`."""
        inputs = self._inputs(asked.features(), asked.looks)
        row = asked.served("row")
        answers = asked.answers()
        champion = answers[self._contest.champion]
        begun = [row < slot.begun for slot in self.slots]
        answers = [np.where(before[:, None], champion, raw) for before, raw in zip(begun, answers, strict=True)]
        every = np.ones(len(codes), dtype=np.bool_)
        self._learn(inputs, codes, every, answers, asked.probabilities(), row >= self._since)

    def _outcome(
        self, rows: LateRows, looks: ClassLooks, pending: Pending[ClassAsked], fallbacks: int
    ) -> ClassLateForecast:
        late = rows.lines == NO_LINE
        form, asked = _form(pending), pending.read(rows.lines)
        then = asked.looks
        prior, last = (
            np.where(late, now, old) for now, old in ((_prior(looks), _prior(then)), (looks.last, then.last))
        )
        share = given_to(smoothed(then.shares, then)[0], np.where(rows.known, rows.labels, UNKNOWN), then)
        own = asked.served("prediction")
        return ClassLateForecast(
            prediction=np.where(np.isnan(own), UNKNOWN, own).astype(np.intp),
            probability=asked.served("probability"),
            score=asked.served("score"),
            guess_prior=form.own(prior),
            guess_last=form.own(last),
            guess_share=np.where(rows.known & (then.count > 0.0), share, np.nan),
            version=np.where(late, self.blocks, asked.served("version")).astype(np.int64),
            generation=np.full(len(rows), self.generation),
            fallbacks=fallbacks,
            labels=form.labels,
        )

    def _blank(self) -> Self:
        return type(self)({}, self.columns, self.classes.kind, self.positive)


def _form(pending: Pending[ClassAsked]) -> ClassForm:
    form = pending.form
    assert isinstance(form, ClassForm)
    return form


def _prior(looks: ClassLooks) -> Codes:
    """The most frequent class, of equals the one that came first; UNKNOWN while there is none."""
    if not looks.shares.shape[1]:
        return np.full(len(looks.count), UNKNOWN, dtype=np.intp)
    return np.where(np.nan_to_num(looks.count) > 0.0, np.nan_to_num(looks.shares).argmax(axis=1), UNKNOWN)
