"""scikit-learn classifiers by import path: the twin of a regressor's recipe, for what learns classes in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streampiped.errors import OptionError
from streampiped.learn.estimators import TRIAL_COLUMNS, TRIAL_ROWS, Estimator, Recipe, equal

MADE_ANEW: Final = frozenset({"_loss_function_"})
"""Attributes that `partial_fit` makes from the parameters at each call, and nothing else reads."""


class ClassRecipe(Recipe):
    """Classes are codes: `partial_fit(X, codes, classes=...)`. Raises OptionError as `Recipe`, also for what gives no
    probabilities."""

    def __init__(self, path: str, params: Mapping[str, Any], seed: int) -> None:
        super().__init__(path, params, seed)
        if not hasattr(self.make(), "predict_proba"):
            raise OptionError(f"estimator {path} with {self.params} gives no probabilities: it has no predict_proba")

    def freeze(self, estimator: Estimator) -> dict[str, Any]:
        kept = self.make()
        vars(kept).update({name: value for name, value in vars(estimator).items() if name not in MADE_ANEW})
        return super().freeze(kept)

    def widen(self, old: Any, features: Any, classes: int) -> Any:
        """An estimator of more classes: see `widened`."""
        return widened(self, old, features, classes)

    def begun(self, features: Any, classes: int) -> Any:
        """One that knows so many classes, and that has seen the first of these rows as class 0: it has no parameters
        before it has seen one."""
        estimator: Any = self.make()
        return estimator.partial_fit(features[:1], np.zeros(1, dtype=np.intp), classes=np.arange(classes))

    def _goes_on_equally(self) -> bool:
        rows = np.linspace(-1.0, 1.0, TRIAL_ROWS * TRIAL_COLUMNS).reshape(TRIAL_ROWS, TRIAL_COLUMNS) ** 3
        codes = np.arange(TRIAL_ROWS) % 2
        estimator = self.begun(rows, 2)
        twin: Any = self.thaw(self.freeze(estimator))
        for each in (estimator, twin):
            each.partial_fit(rows[::-1].copy(), codes)
        same = equal(self.freeze(estimator), self.freeze(twin))
        return same and np.array_equal(estimator.predict_proba(rows), twin.predict_proba(rows))


def widened(recipe: ClassRecipe, old: Any, features: Any, classes: int) -> Any:
    """An estimator of more classes that knows of the old ones what `old` does, where that can be carried over: linear
    models and naive Bayes. Any other begins anew."""
    new = recipe.begun(features, classes)
    before = len(old.classes_)
    if hasattr(old, "coef_") and hasattr(old, "intercept_"):
        _carry_linear(old, new, before)
    elif hasattr(old, "class_count_"):
        for name, value in vars(old).items():
            mine = getattr(new, name)
            if isinstance(value, np.ndarray) and value.shape[:1] == (before,) and name != "classes_":
                mine[:before] = value
                mine[before:] = 0.0 if name == "class_count_" else mine[before:]
    return new


def _carry_linear(old: Any, new: Any, before: int) -> None:
    """One vector against the rest per class; of two classes there is but one, for the second."""
    coefficients, intercepts = old.coef_, old.intercept_
    if before == 2:
        coefficients = np.concatenate((-coefficients, coefficients))
        intercepts = np.concatenate((-intercepts, intercepts))
    new.coef_[:before], new.intercept_[:before] = coefficients, intercepts
    new.coef_[before:] = 0.0
    new.intercept_[before:] = intercepts.min()
    if hasattr(old, "t_"):
        new.t_ = old.t_
