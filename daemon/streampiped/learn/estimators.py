"""scikit-learn regressors by import path: making, freezing and thawing them, and trying out whether that works."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, Protocol, cast

import numpy as np
from sklearn import config_context

from streampiped.errors import OptionError
from streampiped.learn.portable import NotPortableError, decode, encode
from streampiped.records import Array

TRIAL_ROWS: Final = 8  # enough for every regressor's first step; a trial of SGDRegressor takes 2 ms
TRIAL_COLUMNS: Final = 3
SEED_BITS: Final = 0xFFFF_FFFF  # scikit-learn takes seeds of 32 bits
UNCHECKED: Final = {"assume_finite": True, "skip_parameter_validation": True}
"""Inputs are finite already; of 1.1 ms for 1024 rows scikit-learn's own checks are 0.3."""


class Estimator(Protocol):
    """What is used of a scikit-learn regressor."""

    def partial_fit(self, X: Array, y: Array) -> Any: ...  # noqa: N803 - scikit-learn's own name

    def predict(self, X: Array) -> Array: ...  # noqa: N803 - scikit-learn's own name

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...


class Recipe:
    """How to make one estimator: import path, constructor parameters and the seed that stands in for a missing one.

    A `random_state` that is left out or None becomes `seed`: an unseeded estimator would become another model after
    every restart. Raises OptionError with what is wrong.
    """

    __slots__ = ("given", "params", "path", "seed")

    def __init__(self, path: str, params: Mapping[str, Any], seed: int) -> None:
        self.path = path
        self.params = dict(params)
        self.seed = seed & SEED_BITS
        # Asked once: get_params inspects the constructor's signature, 0.1 ms for every batch otherwise.
        self.given = frozenset(self.make().get_params(deep=False))
        """Attributes that the constructor sets."""

    def make(self) -> Estimator:
        """A fresh estimator."""
        cls = _class_at(self.path)
        try:
            estimator = cls(**self.params)
            if self.params.get("random_state") is None and "random_state" in estimator.get_params(deep=False):
                estimator.set_params(random_state=self.seed)
        except (TypeError, ValueError) as error:
            raise OptionError(f"estimator {self.path} does not take params {self.params}: {error}") from error
        return cast(Estimator, estimator)

    def freeze(self, estimator: Estimator) -> dict[str, Any]:
        """Everything that learning has put into the estimator, in portable form and independent of it.

        What the constructor set is not part of it: that comes from the options. Raises NotPortableError.
        """
        return {name: encode(value, name) for name, value in vars(estimator).items() if name not in self.given}

    def thaw(self, state: Mapping[str, Any]) -> Estimator:
        """A new estimator that goes on bit-identically from `freeze`."""
        estimator = self.make()
        vars(estimator).update({name: decode(value) for name, value in state.items()})
        return estimator

    def learn(self, estimator: Estimator, features: Array, targets: Array) -> None:
        """One `partial_fit`; ValueError or FloatingPointError for an overflow."""
        with config_context(**UNCHECKED):
            estimator.partial_fit(features, targets)

    def predict(self, estimator: Estimator, features: Array) -> Array:
        """Of an estimator that has learned; `(rows,)`."""
        with config_context(**UNCHECKED):
            return np.asarray(estimator.predict(features), dtype=np.float64).reshape(len(features))

    def is_finite(self, estimator: Estimator) -> bool:
        """Whether all that it has learned is."""
        return is_finite(estimator)

    def is_full(self, estimator: Any) -> bool:
        """Whether it has grown to its limit and learns no more; None, which is not begun, has not."""
        return False

    def mark(self, estimator: Estimator) -> Any:
        """What `back` needs to undo all that is learned from here on; for this process alone."""
        return self.freeze(estimator)

    def back(self, mark: Any) -> Estimator:
        """An estimator that goes on bit-identically from `mark`."""
        return self.thaw(mark)

    def try_out(self) -> None:
        """Fit, freeze, thaw and go on twice with made-up rows; raises OptionError when that fails or differs."""
        try:
            same = self._goes_on_equally()
        except NotPortableError as error:
            raise OptionError(f"estimator {self.path} cannot be put into a snapshot: attribute {error}") from error
        except Exception as error:  # a user's class may raise anything
            raise OptionError(f"estimator {self.path} with {self.params} does not learn: {error}") from error
        if not same:
            raise OptionError(f"estimator {self.path} goes on differently after a snapshot: it hides state")

    def _goes_on_equally(self) -> bool:
        rows = np.linspace(-1.0, 1.0, TRIAL_ROWS * TRIAL_COLUMNS).reshape(TRIAL_ROWS, TRIAL_COLUMNS) ** 3
        targets = np.linspace(0.5, 1.0, TRIAL_ROWS)
        self.make().partial_fit(rows, targets)  # with the checks of the parameters that `learn` leaves out
        estimator = self.make()
        self.learn(estimator, rows, targets)
        twin = self.thaw(self.freeze(estimator))
        for each in (estimator, twin):
            self.learn(each, rows[::-1].copy(), targets)
        same = equal(self.freeze(estimator), self.freeze(twin))
        return same and np.array_equal(self.predict(estimator, rows), self.predict(twin, rows))


def is_finite(estimator: Estimator) -> bool:
    """Whether every array that was learned is finite; one number that is not makes all later ones so. Single
    numbers are not asked: scikit-learn starts a best loss at infinity."""
    return all(_finite(value) for value in vars(estimator).values())


def equal(one: Any, other: Any) -> bool:
    """Whether two portable values are the same bit for bit (NaN equals the same NaN)."""
    if isinstance(one, np.ndarray):
        same_form = isinstance(other, np.ndarray) and one.dtype == other.dtype and one.shape == other.shape
        return same_form and one.tobytes() == other.tobytes()
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"estimator {path!r} cannot be imported: {error}") from error
    missing = [need for need in ("partial_fit", "predict", "get_params", "set_params") if not hasattr(cls, need)]
    if not isinstance(cls, type) or missing:
        raise OptionError(f"estimator {path!r} is no regressor that learns in steps: it has no {', '.join(missing)}")
    return cls


def _finite(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, list | tuple) or all(_finite(item) for item in value)
