"""The contract of a member that predicts classes: the twin of `members/base.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import Codes
from streampiped.learn.class_past import ClassLooks
from streampiped.learn.members.base import Learner
from streampiped.records import Array

Made = TypeVar("Made")


class ClassInputs:
    """Rows as members see them: `features` and `framed` as in `members.base.Inputs`; `looks` at the classes before each
    row. What several members make of the same rows is made once: `shared`."""

    __slots__ = ("_made", "features", "framed", "looks")

    def __init__(self, features: Array, framed: Array, looks: ClassLooks) -> None:
        self.features = features
        self.framed = framed
        self.looks = looks
        self._made: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> ClassInputs:
        return ClassInputs(self.features[rows], self.framed[rows], self.looks[rows])

    @property
    def classes(self) -> int:
        """Those that were met up to the last of these rows, and including it when they are to be learned."""
        return int(self.looks.shares.shape[1])

    def shared(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` gives, made at the first call under this name."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made


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
