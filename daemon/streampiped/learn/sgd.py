"""The built-in linear model: scikit-learn's SGDRegressor, whose steps are taken here when they are few.

One `partial_fit` costs scikit-learn 0.25 ms before the first row, a row then some 50 ns. Here nothing comes before
the first row and a row costs 1.5 us: up to ROWS_MAX rows the same steps are taken here, in numpy, on the attributes of
the same estimator. Both go on from one another, and agree to 1e-12 (tests/pure/test_learn_sgd.py); who takes a block's
steps follows from its number of rows alone, so that a block that is repeated has the same bits.

What it repeats is scikit-learn's `_plain_sgd` with its weight vector: L. Bottou, "Stochastic Gradient Descent Tricks"
(2012); the truncated L1 penalty of Tsuruoka, Tsujii and Ananiadou (2009).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt
from typing import Any, Final

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.learn.estimators import Estimator, Recipe
from streampiped.records import Array

SGD_REGRESSOR: Final = "sklearn.linear_model.SGDRegressor"
ROWS_MAX: Final = 128  # rows of a block whose steps are taken here; both cost the same at 160, be it 4 columns or 64
GRADIENT_MAX: Final = 1e12  # of a loss, in scikit-learn
WSCALE_MIN: Final = 1e-9  # below, the weights are scaled for good
INT_MAX: Final = np.iinfo(np.int32).max

Gradient = Callable[[float, float], float]
"""(label, prediction) -> derivative of the loss by the prediction."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the steps are taken: the parameters of SGDRegressor that matter for one."""

    gradient: Gradient
    alpha: float
    l1_ratio: float
    """0 is L2 alone, 1 is L1 alone."""
    penalty: str | None
    learning_rate: str
    eta0: float
    power_t: float
    fit_intercept: bool
    shuffle: bool
    seed: int

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Steps | None:
        """Of an estimator's parameters; None: with these its own steps are not taken here."""
        gradient = _gradient(params["loss"], params["epsilon"])
        known = params["learning_rate"] in ("constant", "optimal", "invscaling", "adaptive")
        plain = not (params["early_stopping"] or params["average"] or params["verbose"])
        if gradient is None or not known or not plain or not isinstance(params["random_state"], int):
            return None
        penalty = params["penalty"]
        return cls(
            gradient=gradient,
            alpha=float(params["alpha"]),
            l1_ratio={"l2": 0.0, "l1": 1.0}.get(penalty, params["l1_ratio"] or 0.0),
            penalty=penalty,
            learning_rate=params["learning_rate"],
            eta0=float(params["eta0"]),
            power_t=float(params["power_t"]),
            fit_intercept=bool(params["fit_intercept"]),
            shuffle=bool(params["shuffle"]),
            seed=_drawn(params["random_state"]),
        )

    def order(self, rows: int) -> tuple[int, ...]:
        """In which the rows are learned: scikit-learn shuffles every block anew, from one seed."""
        return _shuffled(self.seed, rows) if self.shuffle and rows > 1 else tuple(range(rows))

    def take(
        self, weights: Array, intercept: float, done: float, features: Array, labels: Array
    ) -> tuple[Array, float]:
        """New weights and intercept behind one step for each row; `done` is `t_` of the estimator. ValueError when they
        are not finite, as scikit-learn has it."""
        w: Array = aligned_empty(len(weights), np.float64)  # aligned, as the rows: BLAS gives the same bits anywhere
        w[:] = weights
        eta, alpha, scale = self.eta0, self.alpha, 1.0
        ridge, lasso = 1.0 - self.l1_ratio, self.l1_ratio
        truncated = _Truncated(len(w)) if self.penalty in ("l1", "elasticnet") else None
        first, rate, shrinks = self._first_step(), self.learning_rate, self.penalty is not None
        targets, dot, step = labels.tolist(), w.dot, np.empty(len(w))
        for row in self.order(len(targets)):
            x, label = features[row], targets[row]
            answer = float(dot(x)) * scale + intercept
            if rate == "invscaling":
                eta = self.eta0 / done**self.power_t
            elif rate == "optimal":
                eta = 1.0 / (alpha * (first + done - 1.0))
            update = -eta * min(max(self.gradient(label, answer), -GRADIENT_MAX), GRADIENT_MAX)
            if shrinks:
                scale *= max(0.0, 1.0 - ridge * eta * alpha)
                if scale < WSCALE_MIN:
                    w *= scale
                    scale = 1.0
            if update != 0.0:
                w += np.multiply(x, update / scale, out=step)
                if self.fit_intercept:
                    intercept += update
            if truncated is not None:
                truncated.apply(w, scale, lasso * eta * alpha)
            done += 1.0
        if scale != 1.0:
            w *= scale
        if not (isfinite(intercept) and (isfinite(float(dot(w))) or np.isfinite(w).all())):
            raise ValueError("a parameter is not finite any more")
        return w, intercept

    def _first_step(self) -> float:
        """Where the "optimal" rate begins to count."""
        if self.learning_rate != "optimal":
            return 0.0
        typical = sqrt(1.0 / sqrt(self.alpha))
        return 1.0 / (typical / max(1.0, self.gradient(1.0, -typical)) * self.alpha)


class _Truncated:
    """The cumulative L1 penalty of a block: weights go to 0 and not beyond."""

    def __init__(self, columns: int) -> None:
        self._had: Array = np.zeros(columns)
        self._due = 0.0

    def apply(self, w: Array, scale: float, more: float) -> None:
        """Take from each weight what is due and was not taken yet, in place."""
        self._due += more
        before = w.copy()
        real = before * scale
        lower = np.maximum(0.0, before - (self._due + self._had) / scale)
        upper = np.minimum(0.0, before + (self._due - self._had) / scale)
        np.copyto(w, lower, where=real > 0.0)
        np.copyto(w, upper, where=real < 0.0)
        self._had += scale * (w - before)


class SgdRecipe(Recipe):
    """Of SGDRegressor. The estimator is scikit-learn's own at any time: whoever exports it or reads its coefficients
    need not know who took the last step."""

    __slots__ = ("_steps",)

    def __init__(self, params: Mapping[str, Any], seed: int, *, takes_steps: bool = True) -> None:
        """`takes_steps`: those of few rows are taken here. All are scikit-learn's otherwise."""
        super().__init__(SGD_REGRESSOR, params, seed)
        self._steps = Steps.of(self.make().get_params(deep=False)) if takes_steps else None

    def learn(self, estimator: Any, features: Array, targets: Array) -> None:
        if self._steps is None or len(targets) > ROWS_MAX or not hasattr(estimator, "coef_"):
            for name, value in self._learned(estimator).items():
                if isinstance(value, np.ndarray):  # a mark has it, and scikit-learn changes it in place
                    setattr(estimator, name, value.copy())
            super().learn(estimator, features, targets)
            return
        given = float(estimator.intercept_[0])
        weights, intercept = self._steps.take(estimator.coef_, given, estimator.t_, features, targets)
        estimator.coef_, estimator.intercept_ = weights, np.array([intercept])
        estimator.t_ += float(len(targets))
        estimator.n_iter_ = 1

    def predict(self, estimator: Any, features: Array) -> Array:
        """What SGDRegressor.predict does behind its checks."""
        answer: Array = features @ estimator.coef_
        answer += estimator.intercept_
        return answer

    def is_finite(self, estimator: Any) -> bool:
        learned = estimator.coef_, estimator.intercept_
        if learned[1].size == 1 and isfinite(learned[1].item() + float(learned[0].dot(learned[0]))):
            return True
        return all(np.count_nonzero(np.isfinite(each)) == len(each) for each in learned)

    def mark(self, estimator: Estimator) -> Any:
        """Uncopied: `learn` puts other arrays in their place."""
        return self._learned(estimator)

    def back(self, mark: Any) -> Estimator:
        estimator = self.make()
        vars(estimator).update(mark)
        return estimator

    def _learned(self, estimator: Estimator) -> dict[str, Any]:
        """Attributes that the constructor has not set."""
        given = self.given
        return {name: value for name, value in vars(estimator).items() if name not in given}


def _gradient(loss: str, epsilon: float) -> Gradient | None:
    def huber(label: float, answer: float) -> float:
        return min(max(answer - label, -epsilon), epsilon)

    def insensitive(label: float, answer: float) -> float:
        return -1.0 if label - answer > epsilon else 1.0 if answer - label > epsilon else 0.0

    def squared_insensitive(label: float, answer: float) -> float:
        short = label - answer
        return -2.0 * (short - epsilon) if short > epsilon else 2.0 * (-short - epsilon) if short < -epsilon else 0.0

    return {
        "squared_error": lambda label, answer: answer - label,
        "huber": huber,
        "epsilon_insensitive": insensitive,
        "squared_epsilon_insensitive": squared_insensitive,
    }.get(loss)


def _drawn(seed: int) -> int:
    """The seed that scikit-learn draws from a `random_state` for the shuffling of one block."""
    return int(np.random.RandomState(seed).randint(0, INT_MAX))


@lru_cache(maxsize=2 * ROWS_MAX)
def _shuffled(seed: int, rows: int) -> tuple[int, ...]:
    """Fisher and Yates by a xorshift of 32 bits (Marsaglia 2003), as scikit-learn's data sets are shuffled."""
    order, state = list(range(rows)), seed or 1
    for place in range(rows - 1):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        other = place + state % (INT_MAX + 1) % (rows - place)
        order[place], order[other] = order[other], order[place]
    return tuple(order)
