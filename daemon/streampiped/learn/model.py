"""A regressor that learns batch by batch: the estimator, the scaling of its target, and the guard against divergence.

The target is standardised with the moments seen so far, which is the decisive default for a linear model with a
constant step (R2 -2.8 without, 0.92 with it, on the approval stream). A prediction is made with the moments before the
batch, so that nothing of a target reaches its own prediction; the learning afterwards uses those including it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import numpy as np

from streampiped.learn.estimators import Estimator, Recipe
from streampiped.learn.scaling import Standardiser
from streampiped.records import Array

STRIKES: Final = 3  # failed batches in a row; the last good state is then as bad as the failed one, and is given up


class OnlineModel:
    """State: estimator, target moments and counts. `predict` never changes it, `learn` alone does.

    Features are C-ordered `(rows, columns)` and finite, targets finite. `limit` bounds targets and predictions to that
    many standard deviations around the target's mean (0: no bound): a wild prediction would otherwise own the
    score of the whole stream.
    """

    def __init__(self, recipe: Recipe, *, scale_target: bool, limit: float) -> None:
        self.recipe = recipe
        self.scale_target = scale_target
        self.limit = limit
        self.target = Standardiser(1, limit)
        self.estimator: Estimator = recipe.make()
        self.fitted = False
        self.version = 0
        """Batches (calls of `learn`) that were learned."""
        self.rows = 0
        """Rows learned."""
        self.rollbacks = 0
        """Batches whose learning was undone, as it made parameters that are not finite."""
        self.resets = 0
        """Times the estimator was begun anew after STRIKES rollbacks in a row."""
        self.last_fault = ""
        """Why the last rollback was; for people, and not part of the state."""
        self._strikes = 0

    @property
    def mean(self) -> float:
        """Mean of the targets learned; 0 before the first."""
        return float(self.target.moments.mean[0])

    @property
    def spread(self) -> float:
        """Standard deviation of the targets learned; 0 while they are constant."""
        return float(self.target.deviation()[0])

    def predict(self, features: Array) -> tuple[Array, int]:
        """Predictions in the target's unit, and how many of them fell back to the target's mean because the
        estimator's own was not finite. Before anything was learned all are that mean."""
        rows = features.shape[0]
        mean, spread = self.mean, self.spread
        if not self.fitted or rows == 0:
            return np.full(rows, mean), 0
        with np.errstate(all="ignore"):
            raw = self.recipe.predict(self.estimator, features)
            if rows == 1 and self.scale_target and isfinite(answer := self._unscaled(raw.item(), mean, spread)):
                return np.array([answer]), 0
            if not self.scale_target:
                bound = self.limit * spread
                result = np.clip(raw, mean - bound, mean + bound) if self.limit else raw
            else:
                bounded = np.minimum(np.maximum(raw, -self.limit), self.limit) if self.limit else raw
                result = bounded * spread + mean
        good = np.isfinite(raw) & np.isfinite(result)
        if np.count_nonzero(good) == rows:
            return result, 0
        return np.where(good, result, mean), int(rows - np.count_nonzero(good))

    def _unscaled(self, raw: float, mean: float, spread: float) -> float:
        """In the target's unit; not finite where `raw` is not."""
        if not isfinite(raw):
            return raw
        return (min(max(raw, -self.limit), self.limit) if self.limit else raw) * spread + mean

    def learn(self, features: Array, targets: Array) -> bool:
        """Learn one batch of at least one row. False: it led to what is not finite, and the state is as before."""
        before = self.recipe.mark(self.estimator), self.target.copy()
        if self._try_learn(features, targets):
            self.fitted = True
            self.version += 1
            self.rows += len(targets)
            self._strikes = 0
            return True
        self.rollbacks += 1
        self._strikes += 1
        self.target = before[1]
        if self._strikes < STRIKES:
            self.estimator = self.recipe.back(before[0])
        else:
            self.estimator = self.recipe.make()
            self.fitted = False
            self.resets += 1
            self._strikes = 0
        return False

    def copy(self) -> OnlineModel:
        """An independent model in the same state."""
        result = OnlineModel(self.recipe, scale_target=self.scale_target, limit=self.limit)
        result.restore(self.state())
        return result

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            "estimator": self.recipe.freeze(self.estimator),
            "target": self.target.state(),
            "fitted": self.fitted,
            "version": self.version,
            "rows": self.rows,
            "rollbacks": self.rollbacks,
            "resets": self.resets,
            "strikes": self._strikes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.estimator = self.recipe.thaw(state["estimator"])
        self.target.restore(state["target"])
        self.fitted = bool(state["fitted"])
        self.version, self.rows = int(state["version"]), int(state["rows"])
        self.rollbacks, self.resets = int(state["rollbacks"]), int(state["resets"])
        self._strikes = int(state["strikes"])

    def _try_learn(self, features: Array, targets: Array) -> bool:
        with np.errstate(all="ignore"):
            bounded = self.target.learn(targets[None, :])[0]
            if self.scale_target:
                shift, factor = self.target.scale()
                bounded = (bounded - shift[0]) * factor[0]
            try:
                self.recipe.learn(self.estimator, features, bounded)
            except (ValueError, FloatingPointError) as error:  # how scikit-learn reports an overflow
                self.last_fault = str(error)
                return False
        if self.recipe.is_finite(self.estimator) and isfinite(self.target.moments.m2[0]):
            return True
        self.last_fault = "a learned parameter is not finite"
        return False
