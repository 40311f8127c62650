"""Gradient-boosted trees for classes, fitted anew on a window: when and how is as in `members/boosting.py`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from streampiped.classes import Codes
from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.members.boosting import PARAMETERS, Boosted
from streampiped.records import Array

TREES: Final = 300
"""Of one fit. There is a tree for each class in every round, so that of many classes there are fewer rounds: a fit of
8,000 rows with 10 features takes 0.5 s of CPU whether there are 3 of them or 64, where 150 rounds take 0.7 s with 3 and
2.2 with 10. On overlapping classes fewer rounds have the better log-loss too: 0.12 to 0.18 with 5, 0.23 to 0.36 with
10."""
ROUNDS_MIN: Final = 5


class ClassBoosting(Boosted, ClassMember):
    """Answers nothing before its first fit takes effect, and nothing of a class that was not in its window."""

    def unfitted(self, labels: Array) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        rounds = min(PARAMETERS["max_iter"], max(ROUNDS_MIN, TREES // len(np.unique(labels))))
        return HistGradientBoostingClassifier(
            random_state=self.seed, early_stopping=False, **{**PARAMETERS, "max_iter": rounds}
        )

    def predict(self, inputs: ClassInputs) -> Array:
        trees = self.trees()
        if trees is None:
            return np.full((len(inputs), 0), np.nan)
        codes = trees.classes_.astype(np.intp)
        answer = np.zeros((len(inputs), int(codes[-1]) + 1))
        answer[:, codes] = trees.predict_proba(inputs.features)[:, : len(codes)]  # of one class it gives two columns
        return answer

    def learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        self.take(inputs.features, codes)
        return True
