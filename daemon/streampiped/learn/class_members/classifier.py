"""Any scikit-learn classifier with `partial_fit` and `predict_proba` as a member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import config_context

from streampiped.classes import Codes
from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.estimators import UNCHECKED, is_finite
from streampiped.learn.scaling import Standardiser
from streampiped.records import Array


class Classifier(ClassMember):
    """Learns scaled features, from the second class on. A class that comes later makes another estimator that knows
    all of them, with what was learned of the old ones (`ClassRecipe.widen`)."""

    kind = "estimator"

    def __init__(self, recipe: ClassRecipe, columns: int, limit: float) -> None:
        self.recipe = recipe
        self.columns = columns
        self.limit = limit
        self._scaler = Standardiser(columns, limit)
        self._estimator: Any = None
        self._classes = 0  # that the estimator knows

    @property
    def estimator(self) -> Any:
        """As it is now, not to be changed; None before the second class. Its classes are codes."""
        return self._estimator

    @property
    def full(self) -> bool:
        return self.recipe.is_full(self._estimator)

    def scale(self) -> tuple[Array, Array]:
        """It learns `(features - shift) * factor`, within `limit`."""
        return self._scaler.scale()

    def predict(self, inputs: ClassInputs) -> Array:
        if self._estimator is None:
            return np.full((len(inputs), self._classes), np.nan)
        with config_context(**UNCHECKED), np.errstate(all="ignore"):
            return np.asarray(self._estimator.predict_proba(self._scaled(inputs)), dtype=np.float64)

    def learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        scaler = self._scaler.copy()
        self._scaler.learn(np.ascontiguousarray(inputs.features.T))
        if inputs.classes < 2:
            return True
        before = self.recipe.mark(self._estimator) if self._estimator is not None else None
        known = self._classes
        if self._try(self._scaled(inputs), codes, inputs.classes):
            return True
        self._scaler, self._classes = scaler, known
        self._estimator = self.recipe.back(before) if before is not None else None
        return False

    def state(self) -> dict[str, Any]:
        learned = self.recipe.freeze(self._estimator) if self._estimator is not None else None
        return {"estimator": learned, "classes": self._classes, "scaler": self._scaler.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._estimator = self.recipe.thaw(state["estimator"]) if state["estimator"] is not None else None
        self._classes = int(state["classes"])
        self._scaler.restore(state["scaler"])

    def fresh(self) -> Classifier:
        return Classifier(self.recipe, self.columns, self.limit)

    def _try(self, scaled: Array, codes: Codes, classes: int) -> bool:
        """False: it led to what is not finite."""
        with config_context(**UNCHECKED), np.errstate(all="ignore"):
            try:
                if self._estimator is None:
                    self._estimator = self.recipe.make()
                    self._estimator.partial_fit(scaled, codes, classes=np.arange(classes))
                else:
                    if classes > self._classes:
                        self._estimator = self.recipe.widen(self._estimator, scaled, classes)
                    self._estimator.partial_fit(scaled, codes)
            except (ValueError, FloatingPointError):  # how scikit-learn reports an overflow
                return False
        self._classes = classes
        return is_finite(self._estimator)

    def _scaled(self, inputs: ClassInputs) -> Array:
        shift, factor = self.scale()
        scaled: Array = (inputs.features - shift) * factor
        if self.limit:
            np.clip(scaled, -self.limit, self.limit, out=scaled)
        return scaled
