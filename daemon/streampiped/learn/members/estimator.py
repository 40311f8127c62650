"""Any scikit-learn regressor with `partial_fit` as a member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.learn.estimators import Recipe
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.model import OnlineModel
from streampiped.learn.scaling import Standardiser
from streampiped.records import Array


class EstimatorMember(Member):
    """Learns scaled features and a scaled target: what has a learning rate needs both."""

    kind = "estimator"

    def __init__(self, recipe: Recipe, columns: int, *, scale_target: bool, limit: float) -> None:
        self.recipe = recipe
        self.columns = columns
        self.model = OnlineModel(recipe, scale_target=scale_target, limit=limit)
        self._scaler = Standardiser(columns, limit)

    @property
    def full(self) -> bool:
        return self.recipe.is_full(self.model.estimator)

    def predict(self, inputs: Inputs) -> Array:
        if not self.model.fitted:
            return np.full(len(inputs), np.nan)
        return self.model.predict(self._scaled(inputs))[0]

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        self._scaler.learn(np.ascontiguousarray(inputs.features.T))
        return self.model.learn(self._scaled(inputs), labels)

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state(), "scaler": self._scaler.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.restore(state["model"])
        self._scaler.restore(state["scaler"])

    def fresh(self) -> EstimatorMember:
        model = self.model
        return EstimatorMember(self.recipe, self.columns, scale_target=model.scale_target, limit=model.limit)

    def _scaled(self, inputs: Inputs) -> Array:
        (shift, factor), limit = self._scaler.scale(), self._scaler.limit
        scaled: Array = aligned_empty(inputs.features.size, np.float64).reshape(inputs.features.shape)
        np.subtract(inputs.features, shift, out=scaled)
        scaled *= factor
        if limit:
            np.maximum(scaled, -limit, out=scaled)  # half the time of np.clip
            np.minimum(scaled, limit, out=scaled)
        return scaled
