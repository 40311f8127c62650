"""The guesses that need no features: running mean, discounted means, last known label."""

from __future__ import annotations

from streampiped.learn.members.base import Inputs, Member
from streampiped.records import Array


class RunningMean(Member):
    """The mean of all labels so far."""

    kind = "mean"
    trivial = True

    def predict(self, inputs: Inputs) -> Array:
        return inputs.looks.mean

    def fresh(self) -> RunningMean:
        return RunningMean()


class DiscountedMean(Member):
    """The discounted mean at `past.MEMORIES[place]`."""

    kind = "discounted_mean"
    trivial = True

    def __init__(self, place: int) -> None:
        self.place = place

    def predict(self, inputs: Inputs) -> Array:
        return inputs.looks.discounted[:, self.place]

    def fresh(self) -> DiscountedMean:
        return DiscountedMean(self.place)


class LastLabel(Member):
    """The newest label that is known."""

    kind = "last_label"
    trivial = True
    looks_back = True

    def predict(self, inputs: Inputs) -> Array:
        return inputs.looks.lags[:, 0]

    def fresh(self) -> LastLabel:
        return LastLabel()
