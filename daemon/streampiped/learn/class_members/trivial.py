"""The guesses that need no features: the shares of the classes, ever and lately, and the last class."""

from __future__ import annotations

import numpy as np

from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.class_past import MEMORIES
from streampiped.records import Array


class ClassPrior(ClassMember):
    """The shares of all classes so far."""

    kind = "class_prior"
    trivial = True

    def predict(self, inputs: ClassInputs) -> Array:
        return inputs.looks.shares

    def fresh(self) -> ClassPrior:
        return ClassPrior()


class RecentPrior(ClassMember):
    """The discounted shares at `class_past.MEMORIES[place]`, with a row more for each class: of so few rows a class may
    well be absent."""

    kind = "discounted_prior"
    trivial = True

    def __init__(self, place: int) -> None:
        self.place = place

    def predict(self, inputs: ClassInputs) -> Array:
        rows = np.minimum(inputs.looks.count, MEMORIES[self.place])[:, None]
        met = inputs.looks.met[:, None]
        answer = (inputs.looks.discounted[:, self.place] * rows + 1.0) / np.maximum(rows + met, 1.0)
        return np.where(np.arange(inputs.classes) < met, answer, 0.0)

    def fresh(self) -> RecentPrior:
        return RecentPrior(self.place)


class LastClass(ClassMember):
    """The newest class, as probably as classes have been those of the row before; the others by their shares."""

    kind = "last_class"
    trivial = True

    def predict(self, inputs: ClassInputs) -> Array:
        looks, rows = inputs.looks, np.arange(len(inputs))
        if not inputs.classes:
            return looks.shares
        last = np.maximum(looks.last, 0)
        others = looks.shares.copy()
        others[rows, last] = 0.0
        rest = others.sum(axis=1)
        stay = np.where(rest > 0.0, looks.stay, 1.0)
        answer = np.where(rest > 0.0, (1.0 - stay) / np.where(rest > 0.0, rest, 1.0), 0.0)[:, None] * others
        answer[rows, last] = stay
        return answer

    def fresh(self) -> LastClass:
        return LastClass()
