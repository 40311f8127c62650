"""Models of River behind scikit-learn's `partial_fit` and `predict`, row by row.

`learn_many` is not used where River has it: it makes one step of a whole block. On 20,000 rows of a linear stream in
blocks of at most 1024 it had R2 0.916 where `learn_one` had 0.977, for 0.6 of the time, and it needs pandas. Features
are named 0, 1, ...: whatever River keeps in a set has then the same order in every process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.object_graph import take_apart
from streampiped.learn.portable import NotPortableError
from streampiped.learn.river_parts import RiverParts, is_panic
from streampiped.records import Array

CHECK_ROWS: Final = 4096  # between two looks at what a model has become; what is taken back is learned again from there
ENTRIES_MAX: Final = 250_000
"""Objects of a model that learns on, looked at every CHECK_ROWS rows: to take so many apart takes a second. An
aggregated Mondrian forest of 10 trees has 90 more with every row, and would never end."""
PROBE_ROWS: Final = 8  # of a block, asked after it was learned
PARTS: Final = RiverParts()


class ModelFaultError(ValueError):
    """A model of River raised, or answers what is not finite: what it has learned of the block is taken back."""


def learner_of(model: Any) -> Any:
    """What learns the target: the end of a pipeline."""
    while hasattr(model, "steps"):
        model = list(model.steps.values())[-1]
    return model


def is_a(model: Any, kind: str) -> bool:
    """Whether it is a "Classifier" or "Regressor" of River, or a pipeline that ends in one."""
    return isinstance(learner_of(model), getattr(import_module("river.base"), kind))


class RiverModel:
    """A regressor. `make` gives a fresh model of River, `thaw` one from its graph.

    Before a block nothing is copied: what has to be taken back is learned again from the last time that the model was
    taken apart, on (`Undo`). A model that is only kept, as the snapshots that are served are, stays a graph until
    somebody asks it.
    """

    def __init__(self, make: Callable[[], Any], thaw: Callable[[Any], Any]) -> None:
        self._make, self._thaw = make, thaw
        self._model: Any = None
        self._graph: dict[str, Any] | None = None  # of the model as it is now
        self._base: dict[str, Any] | None = None  # of the model as it was before `_log`; None: nothing was learned
        self._base_rows = 0
        self._log: deque[tuple[Array, NDArray[Any]]] = deque()
        self.rows = 0
        """Learned since it was made."""
        self.full = False
        """It has ENTRIES_MAX objects, and learns no more."""

    def partial_fit(self, X: Array, y: NDArray[Any], classes: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Raises ModelFaultError; what it has become then is of no use."""
        if self.full:
            return self
        self._learn(X, y)
        self._log.append((X.copy(), y.copy()))
        looks = self.rows // CHECK_ROWS
        self.rows += len(X)
        if self.rows // CHECK_ROWS > looks:
            try:
                self.full = self._look() > ENTRIES_MAX
            except NotPortableError as error:
                raise ModelFaultError(f"it has come to hold what cannot be in a snapshot: {error}") from error
        if not np.isfinite(self._asked(X[:: max(1, len(X) // PROBE_ROWS)])).all():
            raise ModelFaultError("its answers are not finite")
        return self

    def predict(self, X: Array) -> Array:  # noqa: N803 - scikit-learn's own name
        """NaN where the model raises."""
        return self._asked(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def graph(self) -> dict[str, Any]:
        """All that was learned, portable. A model that has come to hold what is not is begun anew."""
        try:
            self._look()
        except NotPortableError:
            self._model, self.rows, self.full = self._make(), 0, False
            self._log.clear()
            self._look()
        assert self._graph is not None
        return self._graph

    def begin(self, graph: dict[str, Any], rows: int, full: bool, *, trusted: bool) -> None:
        """Go on from there. Unless it is `trusted` the graph is put together now: NotPortableError."""
        self._model = None if trusted else self._thaw(graph)
        self._graph = self._base = graph
        self._log.clear()
        self.rows = self._base_rows = rows
        self.full = full

    def undo(self) -> Callable[[RiverModel], None]:
        """What makes a fresh model what this one is now."""
        base, base_rows, log, full = self._base, self._base_rows, tuple(self._log), self.full

        def again(fresh: RiverModel) -> None:
            if base is not None:
                fresh.begin(base, base_rows, full, trusted=True)
            for features, labels in log:
                fresh._learn(features, labels)
                fresh._log.append((features, labels))
                fresh.rows += len(features)
            fresh.full = full

        return again

    @property
    def model(self) -> Any:
        """River's own."""
        if self._model is None:
            self._model = self._make() if self._graph is None else self._thaw(self._graph)
        return self._model

    def _look(self) -> int:
        """Take the model apart; how many objects it has. NotPortableError."""
        if self._graph is None:
            self._graph = take_apart(self.model, PARTS)
            self._base, self._base_rows = self._graph, self.rows
            self._log.clear()
        return len(self._graph["entries"])

    def _learn(self, features: Array, labels: NDArray[Any]) -> None:
        learn, told = self.model.learn_one, self._told(labels)
        self._graph = None
        try:
            for row, label in zip(features.tolist(), told, strict=True):
                learn(dict(enumerate(row)), label)
        except BaseException as error:
            if isinstance(error, Exception) or is_panic(error):
                raise ModelFaultError(f"{type(error).__name__}: {error}") from error
            raise

    def _told(self, labels: NDArray[Any]) -> list[Any]:
        told: list[Any] = labels.tolist()
        return told

    def _asked(self, features: Array) -> Array:
        answers = np.full(len(features), np.nan)
        for place, given in enumerate(self._answers(self.model.predict_one, features)):
            answers[place] = np.nan if given is None else given
        return answers

    def _answers(self, ask: Callable[[dict[int, float]], Any], features: Array) -> list[Any]:
        """None where the model raises."""
        answers = []
        for row in features.tolist():
            try:
                answers.append(ask(dict(enumerate(row))))
            except BaseException as error:
                if not (isinstance(error, Exception) or is_panic(error)):
                    raise
                answers.append(None)
        return answers


class RiverClassModel(RiverModel):
    """A classifier of codes; one that knows two classes only fails at the first row of a third."""

    classes = 0
    """That it is asked for."""

    def partial_fit(self, X: Array, y: NDArray[Any], classes: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        self.classes = self.classes if classes is None else len(classes)
        return super().partial_fit(X, y)

    def predict_proba(self, X: Array) -> Array:  # noqa: N803 - scikit-learn's own name
        """`(rows, classes)`; NaN where the model raises or knows no class."""
        return self._asked(X)

    def predict(self, X: Array) -> Array:  # noqa: N803 - scikit-learn's own name
        """The likeliest codes."""
        return np.asarray(self._asked(X).argmax(axis=1), dtype=np.float64)

    def _told(self, labels: NDArray[Any]) -> list[Any]:
        if learner_of(self.model)._multiclass:
            return super()._told(labels)
        if len(labels) and labels.max() > 1:
            raise ModelFaultError("it knows two classes only; river.multiclass.OneVsRestClassifier makes more of it")
        return super()._told(labels.astype(np.bool_))

    def _asked(self, features: Array) -> Array:
        answers = np.full((len(features), self.classes), np.nan)
        for place, given in enumerate(self._answers(self.model.predict_proba_one, features)):
            if given:
                answers[place] = [given.get(code, 0.0) for code in range(self.classes)]
        return answers
