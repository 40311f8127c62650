"""What the trainer learns: numbers or classes. The target's column chooses, unless the option `task` does.

A task makes the pool, reads a batch's labels as the pool wants them, and names what the batch gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from streampiped.classes import UNKNOWN
from streampiped.errors import OptionError
from streampiped.learn.class_lineup import class_lineup
from streampiped.learn.class_members.boosting import ClassBoosting
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_pool import ClassForecast
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.estimators import Recipe
from streampiped.learn.known_classes import Kind
from streampiped.learn.late.class_delayed import DelayedClassPool
from streampiped.learn.late.delayed import DelayedPool
from streampiped.learn.lineup import ESTIMATOR, SGD, lineup, renamed
from streampiped.learn.members.boosting import Boosting
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.pool import Forecast
from streampiped.learn.river_recipe import RiverRecipe, is_river
from streampiped.learn.scaling import LARGEST
from streampiped.learn.sgd import SGD_REGRESSOR, SgdRecipe
from streampiped.records import Batch

SGD_CLASSES: Final = "sklearn.linear_model.SGDClassifier"
AUTO: Final = "auto"
CLASS_COLUMNS: Final = ("probability", "score")
"""Of the predicted class, and of the positive one."""
STEP: Final = 0.01  # SGD's constant step on scaled features; 0.05 gains on trump_approval, loses on chick_weights
STEP_CLASSES: Final = 0.03  # a log-loss has smaller gradients; 0.1 gains on iris, loses on a noisy logistic one
STEP_COLUMNS: Final = 0.5  # step times columns: beyond 2 the squared length of a row makes SGD diverge

Name: TypeAlias = Literal["regression", "classification"]
Flags: TypeAlias = NDArray[np.bool_]
AnyPool: TypeAlias = DelayedPool | DelayedClassPool


class Options(Protocol):
    """What of the trainer's options a task needs."""

    members: Any
    boosting: bool
    estimator: str
    params: dict[str, Any] | None
    target: str
    scale_target: bool
    limit: float
    prediction: str
    positive: int | str | None


class Regression:
    """A column of numbers."""

    name: Name = "regression"
    kind = "numbers"

    def __init__(self, options: Options, seed: int) -> None:
        self._options = options
        self._seed = seed
        self.estimator = SGD_REGRESSOR if options.estimator == AUTO else options.estimator

    def params(self, columns: int) -> dict[str, Any]:
        """Parameters of the estimator's constructor."""
        if self._options.params is not None:
            return dict(self._options.params)
        if self.estimator != SGD_REGRESSOR:
            return {}
        return {"learning_rate": "constant", "eta0": min(STEP, STEP_COLUMNS / max(columns, 1))}

    def recipe(self, columns: int) -> Recipe:
        if self.estimator == SGD_REGRESSOR:
            return SgdRecipe(self.params(columns), self._seed, takes_steps=self._options.estimator == AUTO)
        recipe = _recipe(self.estimator, self.params(columns), self._seed)
        if _is_classifier(recipe):
            raise OptionError(f"estimator {self.estimator} learns classes, and the target is a number")
        return recipe

    def pool(self, columns: int) -> DelayedPool:
        """One that has learned nothing."""
        options = self._options

        def estimator() -> EstimatorMember:
            recipe = self.recipe(columns)
            return EstimatorMember(recipe, columns, scale_target=options.scale_target, limit=options.limit)

        members = lineup(None if options.members == AUTO else options.members, columns, estimator, called(options))
        if options.boosting:
            members["boosting"] = Boosting(columns, self._seed)
        return DelayedPool(members, columns)

    def labels(self, batch: Batch, pool: Any, good: Flags) -> tuple[NDArray[Any], Flags]:
        """The labels as the pool wants them, and which of the `good` ones can be used."""
        return np.asarray(batch[self._options.target], dtype=np.float64), good

    def columns(self, forecasts: Sequence[Forecast], pool: Any) -> dict[str, Any]:
        """What the batch gets of these forecasts, one behind the other."""
        name = self._options.prediction
        return {
            name: _joined([each.prediction for each in forecasts]),
            f"{name}_low": _joined([each.low for each in forecasts]),
            f"{name}_high": _joined([each.high for each in forecasts]),
        }


class Classification:
    """A column of labels, int or text."""

    name: Name = "classification"

    def __init__(self, options: Options, seed: int, kind: Kind) -> None:
        self._options = options
        self._seed = seed
        self.kind: Kind = kind
        self.estimator = SGD_CLASSES if options.estimator == AUTO else options.estimator
        positive = options.positive
        if positive is not None and isinstance(positive, str) != (kind == "text"):
            raise OptionError(f"trainer: the target {options.target!r} is {kind}, and positive = {positive!r} is not")

    def params(self, columns: int) -> dict[str, Any]:
        """Parameters of the estimator's constructor."""
        if self._options.params is not None:
            return dict(self._options.params)
        if self.estimator != SGD_CLASSES:
            return {}
        step = min(STEP_CLASSES, STEP_COLUMNS / max(columns, 1))
        return {"loss": "log_loss", "learning_rate": "constant", "eta0": step}

    def recipe(self, columns: int) -> ClassRecipe:
        if not is_river(self.estimator):
            return ClassRecipe(self.estimator, self.params(columns), self._seed)
        recipe = RiverRecipe(self.estimator, self.params(columns), self._seed)
        if not recipe.classes:
            raise OptionError(f"estimator {self.estimator} learns numbers, and the target is a class")
        return recipe

    def pool(self, columns: int) -> DelayedClassPool:
        """One that has learned nothing."""
        options = self._options

        def estimator() -> Classifier:
            return Classifier(self.recipe(columns), columns, options.limit)

        members = class_lineup(
            None if options.members == AUTO else options.members, columns, estimator, called(options)
        )
        if options.boosting:
            members["boosting"] = ClassBoosting(columns, self._seed)
        return DelayedClassPool(members, columns, self.kind, options.positive)

    def labels(self, batch: Batch, pool: Any, good: Flags) -> tuple[NDArray[Any], Flags]:
        """Codes, and which of the `good` ones are known: all but those of a class too many."""
        codes = pool.classes.codes(batch[self._options.target], good)
        return codes, codes != UNKNOWN

    def columns(self, forecasts: Sequence[ClassForecast], pool: Any) -> dict[str, Any]:
        """What the batch gets of these forecasts. A row before the first label has the prediction None, or 0 in an int
        column, which has no missing; its probability is NaN."""
        labels = pool.classes.labels
        codes = _joined([each.prediction for each in forecasts]).astype(np.intp)
        if self.kind == "text":
            named: Any = [None if code == UNKNOWN else labels[code] for code in codes.tolist()]
        else:
            named = np.array([*labels, 0], dtype=np.int64)[codes]  # UNKNOWN is the last place
        probability = _joined([each.probability for each in forecasts])
        score = _joined([each.score(labels, self._options.positive) for each in forecasts])
        return {
            self._options.prediction: named,
            **dict(zip(CLASS_COLUMNS, (probability, score), strict=True)),
        }


Task: TypeAlias = Regression | Classification


def try_out(options: Options, seed: int, wanted: str) -> None:
    """Before the target's type is known: OptionError when the estimator is not one that can be used for what the
    options leave open."""
    tasks: list[Task] = []
    given = options.estimator != AUTO and wanted == AUTO
    classes = given and _is_classifier(_recipe(options.estimator, options.params or {}, seed))
    if wanted == "regression" or (wanted == AUTO and not classes):
        tasks.append(Regression(options, seed))
    if wanted == "classification" or (wanted == AUTO and (classes or not given)):
        tasks.append(Classification(options, seed, "text" if isinstance(options.positive, str) else "int"))
    faults = []
    for task in tasks:
        try:
            task.recipe(1).try_out()
        except OptionError as error:
            faults.append(error)
    if len(faults) == len(tasks):  # parameters may be for one of both alone, and nobody knows yet for which
        raise faults[0]


def task_of(batch: Batch, options: Options, seed: int, wanted: str) -> Task:
    """The task of a stream that begins with this batch. OptionError when there is none."""
    schema, target = batch.schema, options.target
    if target not in schema.names:
        raise OptionError(f"trainer: no column {target!r} (target); there are {list(schema.names)}")
    if target in schema.floats:
        if wanted == "classification":
            raise OptionError(f"trainer: {target!r} is a float column; classes are int or text")
        return _regression(batch, options, seed)
    if target in schema.texts and wanted == "regression":
        raise OptionError(f"trainer: {target!r} is a text column, and no regression can learn it")
    if wanted == "regression":
        return _regression(batch, options, seed)
    taken = [name for name in CLASS_COLUMNS if name in schema.names]
    if taken:
        raise OptionError(f"trainer: the stream has {taken[0]!r} already, a column of a classification")
    return Classification(options, seed, "text" if target in schema.texts else "int")


def _regression(batch: Batch, options: Options, seed: int) -> Regression:
    """OptionError when its columns are there already: they would be replaced without a word."""
    name = options.prediction
    taken = [each for each in (name, f"{name}_low", f"{name}_high") if each in batch.schema.names]
    if taken:
        raise OptionError(f"trainer: the stream has {taken[0]!r} already; `prediction` can give ours another name")
    return Regression(options, seed)


def task_saved(pool: Mapping[str, Any], options: Options, seed: int) -> Task:
    """The task that a pool's state is of."""
    return Classification(options, seed, pool["classes"]["kind"]) if "classes" in pool else Regression(options, seed)


def called(options: Options) -> str:
    """The name of the member that the options `estimator` and `params` are of."""
    return SGD if options.estimator == AUTO else ESTIMATOR


def restored(task: Task, options: Options, columns: int, state: Mapping[str, Any]) -> AnyPool:
    """The task's pool, as it was when its `state` was taken."""
    pool = task.pool(columns)
    pool.restore(renamed(state, called(options)))
    return pool


def present(batch: Batch, target: str) -> Flags:
    """Where the target's column has a label: a number that can be learned, or a text that is not None."""
    column = batch[target]
    if isinstance(column, np.ndarray):
        return np.abs(column) <= LARGEST if column.dtype.kind == "f" else np.ones(batch.rows, dtype=np.bool_)
    return np.array([label is not None for label in column], dtype=np.bool_)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0)


def _recipe(path: str, params: Mapping[str, Any], seed: int) -> Recipe:
    return (RiverRecipe if is_river(path) else Recipe)(path, params, seed)


def _is_classifier(recipe: Recipe) -> bool:
    made = recipe.make()
    return isinstance(made, ClassifierMixin) or hasattr(made, "predict_proba")
