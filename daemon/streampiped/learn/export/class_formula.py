"""The champion of a classification as one formula of plain numbers, where it is one: the twin of `formula.py`.

    columns     as of a formula of numbers
    raw         = intercepts + columns @ coefficients                   one for each of the first classes
    given       = exp(raw) / sum(exp(raw))                              link "softmax"
                  logistic(raw) / sum(logistic(raw))                    link "logistic": 1 / (1 + exp(-raw))
    probability = (given * rows + 1) / (rows + max(number of classes, 2))

Classes behind the last column of the coefficients are given 0; where a number is not finite all are given `otherwise`.
The answer is the most probable class, of equals the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streampiped.classes import Label
from streampiped.learn.class_members.base import ClassInputs
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_members.discriminant import Discriminant
from streampiped.learn.class_past import ClassLooks, ClassPast
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.export.formula import NoFormulaError, columns_of, plain_of
from streampiped.records import Array

FORMAT: Final = "streampipe-class-formula/1"
LEAST: Final = 1e-300  # of a probability whose logarithm is wanted
LOGISTIC: Final = "SGDClassifier"  # with the log-loss, the one linear classifier whose probabilities are logistic


@dataclass(frozen=True, slots=True, eq=False)
class ClassFormula:
    """See above. `classes`: in the order of the columns; `coefficients` `(columns of the basis, classes at most)`."""

    classes: list[Label]
    basis: str
    link: str
    shift: Array
    factor: Array
    coefficients: Array
    intercepts: Array
    rows: float
    otherwise: Array
    bound: float = 0.0

    def evaluate(self, features: Array) -> Array:
        """Probabilities `(rows, classes)` for `(rows, columns)`."""
        with np.errstate(all="ignore"):
            raw = columns_of(self, features) @ self.coefficients + self.intercepts
            soft = self.link == "softmax"
            given = np.exp(raw - raw.max(axis=1, keepdims=True)) if soft else 1.0 / (1.0 + np.exp(-raw))
            given = given / given.sum(axis=1, keepdims=True)
        known = np.isfinite(given).all(axis=1, keepdims=True)
        padded = np.pad(given, ((0, 0), (0, len(self.classes) - given.shape[1])))
        return (np.where(known, padded, self.otherwise) * self.rows + 1.0) / (self.rows + max(len(self.classes), 2))

    def plain(self) -> dict[str, Any]:
        """As lists and numbers, with `format`."""
        return {"format": FORMAT, **plain_of(self)}


def class_formula_of(pool: ClassPool) -> ClassFormula:
    """Of the champion. NoFormulaError for an estimator that is not linear, and before the first label."""
    member, looks = pool.champion.member, looks_of(pool)
    if member.trivial:
        nothing = np.zeros((1, pool.columns))
        return _constant(pool, looks, member.predict(ClassInputs(nothing, nothing, looks))[0])
    if isinstance(member, Discriminant):
        found = member.parameters()
        if not found:
            return _constant(pool, looks, looks.shares[0])
        frame = pool.frame_state() or {"shift": np.zeros(pool.columns), "factor": np.ones(pool.columns)}
        return ClassFormula(
            pool.classes.labels[: looks.shares.shape[1]],
            member.basis,
            "softmax",
            np.array(frame["shift"]),
            np.array(frame["factor"]),
            np.array(found["slopes"]).T,
            np.array(found["intercepts"]),
            float(looks.count[0]),
            looks.shares[0],
        )
    if isinstance(member, Classifier):
        return _of_classifier(pool, looks, member)
    raise NoFormulaError(f"{member.kind} is not linear")


def looks_of(pool: ClassPool, rows: int = 1) -> ClassLooks:
    """What `rows` rows that come next may know. NoFormulaError before the first label."""
    past = ClassPast()
    past.restore(pool.state()["past"])
    if not past.rows:
        raise NoFormulaError("no class has been met yet")
    return past.now(rows)


def _constant(pool: ClassPool, looks: ClassLooks, given: Array) -> ClassFormula:
    count = pool.columns
    return ClassFormula(
        pool.classes.labels[: len(given)],
        "linear",
        "softmax",
        np.zeros(count),
        np.ones(count),
        np.zeros((count, len(given))),
        np.log(np.maximum(given, LEAST)),
        float(looks.count[0]),
        looks.shares[0],
    )


def _of_classifier(pool: ClassPool, looks: ClassLooks, member: Classifier) -> ClassFormula:
    estimator = member.estimator
    if estimator is None:
        return _constant(pool, looks, looks.shares[0])
    if type(estimator).__name__ != LOGISTIC or estimator.loss != "log_loss":
        raise NoFormulaError(f"{member.recipe.path} is not linear")
    coefficients, intercepts = estimator.coef_.T, estimator.intercept_
    if coefficients.shape[1] == 1:  # of two classes it has but one vector, for the second
        coefficients, intercepts = np.hstack((-coefficients, coefficients)), np.append(-intercepts, intercepts)
    shift, factor = member.scale()
    return ClassFormula(
        pool.classes.labels[: looks.shares.shape[1]],
        "linear",
        "logistic",
        np.array(shift),
        np.array(factor),
        np.array(coefficients, dtype=np.float64),
        np.array(intercepts, dtype=np.float64),
        float(looks.count[0]),
        looks.shares[0],
        bound=float(member.limit),
    )
