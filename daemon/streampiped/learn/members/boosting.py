"""Gradient-boosted trees, fitted anew on a window while the stream goes on.

A fit takes a second of a thread. It is begun at a fixed row and takes effect at a fixed later one, where the stream
waits for it if it must: so the model of every row follows from the rows alone, however fast the machine is. A snapshot
holds no trees but the rows that they were fitted on, and a restored member fits them again: the same rows and the same
seed give the same trees.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.members.base import Inputs, Learner, Member
from streampiped.records import Array

WINDOW_ROWS: Final = 10_000  # that a fit sees at most
EVERY_ROWS: Final = 5_000  # between two fits, once the window is full; one takes 0.5 s of CPU with 10 features
FIRST_ROWS: Final = 500  # before the first fit; the next come as the rows double
LAG: Final = 0.25  # of the rows between two fits, until one takes effect
PARAMETERS: Final[Mapping[str, Any]] = {"max_iter": 150, "learning_rate": 0.1, "max_leaf_nodes": 31}


class _Fit:
    """Trees of some rows, made in a thread."""

    def __init__(self, first: int, last: int, effect: int, rows: Array, model: Any) -> None:
        """`model`: an estimator that has not been fitted, for these `rows` with their labels in the last column."""
        self.first, self.last = first, last
        """Rows of the member's count that it is fitted on: from `first` up to `last`."""
        self.effect = effect
        """The row from which on it answers."""
        self._rows = rows
        self._trees: Any = None
        self._model = model
        self._error: Exception | None = None
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._make, name="boosting", daemon=True)
        self._thread.start()

    def trees(self) -> Any:
        """Waits until they are there. In a fork of the process that began the fit, where no thread goes on, it is made
        once more."""
        if self._trees is None and self._process != os.getpid():
            self._make()
        elif self._trees is None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._trees

    def _make(self) -> None:
        try:
            self._trees = self._model.fit(self._rows[:, :-1], self._rows[:, -1])
        except Exception as error:  # noqa: BLE001  raised again where it is waited for
            self._error = error


class Boosted(Learner):
    """What boosting of numbers and of classes have in common: which rows are fitted when, and who answers."""

    kind = "boosting"

    def __init__(self, columns: int, seed: int) -> None:
        self.columns = columns
        self.seed = seed
        self._count = 0  # rows learned
        self._rows: Array = np.zeros((0, columns + 1))  # the newest of them, with their labels
        self._active: _Fit | None = None
        self._coming: _Fit | None = None
        self._begins = FIRST_ROWS

    def unfitted(self, labels: Array) -> Any:
        """An estimator for rows with these labels. It is made in the thread of the stream, imports included: another
        one would hold the import lock."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        return self._active is not None

    def trees(self) -> Any:
        """Those that answer; None before the first fit takes effect."""
        return self._active.trees() if self._active is not None else None

    def take(self, features: Array, labels: NDArray[Any]) -> None:
        """Learn these rows."""
        self._rows = np.concatenate((self._rows, np.column_stack((features, labels))))
        self._count += len(labels)
        if self._coming is not None and self._count >= self._coming.effect:
            self._coming.trees()
            self._active, self._coming = self._coming, None
        if self._coming is None and self._count >= self._begins:
            self._begin()
        self._forget()

    def fresh(self) -> Self:
        return type(self)(self.columns, self.seed)

    def copy(self) -> Self:
        """The fits are shared: they never change."""
        twin = self.fresh()
        twin._count, twin._rows, twin._begins = self._count, self._rows, self._begins
        twin._active, twin._coming = self._active, self._coming
        return twin

    def state(self) -> dict[str, Any]:
        fits = [[fit.first, fit.last, fit.effect] if fit else None for fit in (self._active, self._coming)]
        return {"count": self._count, "rows": self._rows, "begins": self._begins, "fits": fits}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._count, self._begins = int(state["count"]), int(state["begins"])
        self._rows = np.array(state["rows"], dtype=np.float64).reshape(-1, self.columns + 1)
        self._active, self._coming = (self._fit(*map(int, fit)) if fit else None for fit in state["fits"])

    def _begin(self) -> None:
        apart = min(self._count, EVERY_ROWS)
        self._coming = self._fit(max(0, self._count - WINDOW_ROWS), self._count, self._count + max(1, int(LAG * apart)))
        self._begins = self._count + apart

    def _fit(self, first: int, last: int, effect: int) -> _Fit:
        begin = self._count - len(self._rows)
        rows = self._rows[first - begin : last - begin]
        return _Fit(first, last, effect, rows, self.unfitted(rows[:, -1]))

    def _forget(self) -> None:
        """Rows that neither a fit nor the next one needs."""
        firsts = [fit.first for fit in (self._active, self._coming) if fit]
        first = min([*firsts, max(0, self._count - WINDOW_ROWS)])
        self._rows = self._rows[first - (self._count - len(self._rows)) :]


class Boosting(Boosted, Member):
    """Answers nothing before its first fit takes effect."""

    def unfitted(self, labels: Array) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(random_state=self.seed, early_stopping=False, **PARAMETERS)

    def predict(self, inputs: Inputs) -> Array:
        trees = self.trees()
        if trees is None:
            return np.full(len(inputs), np.nan)
        return np.asarray(trees.predict(inputs.features), dtype=np.float64)

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        self.take(inputs.features, labels)
        return True
