"""The contract of a member that predicts classes: what differs from `members/base.py`."""

from __future__ import annotations

from streampiped.classes import Codes
from streampiped.learn.class_past import ClassLooks
from streampiped.learn.members.base import Learner, Seen
from streampiped.records import Array


class ClassInputs(Seen[ClassLooks]):
    """With labels that are classes."""

    __slots__ = ()

    @property
    def classes(self) -> int:
        """Those that were met up to the last of these rows, and including it when they are to be learned."""
        return int(self.looks.shares.shape[1])


class ClassMember(Learner):
    """A predictor of classes."""

    def predict(self, inputs: ClassInputs) -> Array:
        """Probabilities `(len(inputs), up to inputs.classes)`, by code; of classes behind the last column it knows
        nothing. A row with what is not finite counts as no answer."""
        raise NotImplementedError

    def learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        """Learn at least one row; every code is one of `inputs.classes`. False: what was learned is not finite, and
        must be taken back."""
        return True
