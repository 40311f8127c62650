"""Pools of classifiers and streams of classes, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN
from streampiped.learn.class_lineup import class_lineup
from streampiped.learn.class_members.base import ClassMember
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.scaling import LIMIT
from streampiped.records import Array

SGD = "sklearn.linear_model.SGDClassifier"
STEP = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.03}


def pool(columns: int, names: list[str] | None = None, path: str = SGD, **params: object) -> ClassPool:
    """As the trainer makes it."""

    def estimator() -> ClassMember:
        return Classifier(ClassRecipe(path, params or (STEP if path == SGD else {}), 1), columns, LIMIT)

    return pool_of(class_lineup(names, columns, estimator), columns)


def pool_of(members: Mapping[str, ClassMember], columns: int) -> ClassPool:
    return ClassPool(members, columns, "int")


@dataclass
class Worked:
    """What was served, row by row: code, probability of it, and the log-loss (NaN without label)."""

    codes: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    unmet: float = 0.0
    """The greatest probability of a class that no row had had."""

    def table(self) -> Array:
        return np.column_stack((self.codes, self.probability, self.losses))


def worked(model: ClassPool, features: Array, labels: NDArray[np.int64], batch: int = 64) -> Worked:
    """Labels below 0 are missing. A class that comes for the first time costs log(labels + classes, at least 2)."""
    result, known = Worked(), labels >= 0
    for start in range(0, len(labels), batch):
        row, stop = start, min(len(labels), start + batch)
        codes = np.full(len(labels), UNKNOWN)
        codes[start:stop] = model.classes.codes(labels[start:stop], known[start:stop])
        while row < stop:
            part = slice(row, stop)
            before = int(np.count_nonzero(known[:row]))
            forecast = model.work(np.ascontiguousarray(features[part]), codes[part], known[part], known[part])
            rows = len(forecast.prediction)
            told = known[row : row + rows].cumsum() + before
            unmet = np.arange(forecast.probabilities.shape[1]) >= forecast.met[:, None]
            result.unmet = max(result.unmet, float(np.max(forecast.probabilities[unmet], initial=0.0)))
            for n in range(rows):
                code, met = int(codes[row + n]), max(2, int(forecast.met[n]))
                seen = told[n] - 1
                given = forecast.probabilities[n, code] if 0 <= code < forecast.met[n] else 1.0 / (seen + met)
                result.losses.append(-np.log(given) if code != UNKNOWN else np.nan)
                result.right.append(bool(code == forecast.prediction[n]))
            result.codes += forecast.prediction.tolist()
            result.probability += forecast.probability.tolist()
            row += rows
    return result


def logistic(rows: int, seed: int = 1) -> tuple[Array, NDArray[np.int64], Array]:
    """Features, labels, and the probability of a 1 that they were drawn by."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 5))
    chance = 1 / (1 + np.exp(-2 * (features @ np.array([2.0, -1.0, 0.5, 0.0, 0.0]))))
    return features, (rng.random(rows) < chance).astype(np.int64), chance
