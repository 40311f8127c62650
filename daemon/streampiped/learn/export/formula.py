"""The champion as one formula of plain numbers, where it is one: for use elsewhere (docs/specs/models.md).

    placed  = clip((features - shift) * factor, -bound, bound)          bound 0: not clipped
    columns = placed                                                    basis "linear"
              placed, placed[i] * placed[j] for i <= j                  basis "squares"
    raw     = intercept + columns @ coefficients                        raw_bound 0: not clipped
    answer  = clip(clip(raw, -raw_bound, raw_bound) * out_factor + out_shift, low, high)

An answer that is not finite before it is clipped is `otherwise`; a feature that is missing or infinite counts as 0.
What looks back at labels (lags, means) does so at the newest ones that were known: for rows that come next.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from streampiped.learn.features import complete
from streampiped.learn.members.base import Inputs
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.members.ridge import Ridge
from streampiped.learn.pool import Pool
from streampiped.learn.river_models import RiverModel
from streampiped.learn.scaling import Standardiser
from streampiped.records import Array

FORMAT: Final = "streampipe-formula/1"


class NoFormulaError(ValueError):
    """The champion is no formula of this form; the message says which it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Formula:
    """See above. `shift`, `factor` `(columns,)`; `coefficients` one per column of the basis."""

    basis: str
    shift: Array
    factor: Array
    coefficients: Array
    intercept: float
    low: float
    high: float
    otherwise: float
    bound: float = 0.0
    raw_bound: float = 0.0
    out_factor: float = 1.0
    out_shift: float = 0.0

    def evaluate(self, features: Array) -> Array:
        """`(rows,)` for `(rows, columns)`."""
        raw = columns_of(self, features) @ self.coefficients + self.intercept
        if self.raw_bound:
            raw = np.clip(raw, -self.raw_bound, self.raw_bound)
        answer = raw * self.out_factor + self.out_shift
        known: Array = np.clip(np.where(np.isfinite(answer), answer, self.otherwise), self.low, self.high)
        return known

    def plain(self) -> dict[str, Any]:
        """As lists and numbers, with `format`."""
        return {"format": FORMAT, **plain_of(self)}


class Placing(Protocol):
    """What a formula does to features first."""

    @property
    def basis(self) -> str: ...

    @property
    def shift(self) -> Array: ...

    @property
    def factor(self) -> Array: ...

    @property
    def bound(self) -> float: ...


def columns_of(formula: Placing, features: Array) -> Array:
    """`columns` of these rows."""
    placed: Array = (complete(features)[0] - formula.shift) * formula.factor
    if formula.bound:
        placed = np.clip(placed, -formula.bound, formula.bound)
    if formula.basis != "squares":
        return placed
    first, second = pairs_of(formula)
    return np.hstack([placed, placed[:, first] * placed[:, second]])


def pairs_of(formula: Placing) -> tuple[Any, Any]:
    """The columns of each product of the basis "squares", in its order."""
    return np.triu_indices(len(formula.shift))


def plain_of(formula: Any) -> dict[str, Any]:
    """A formula's fields as lists and numbers."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(formula).items()}


def formula_of(pool: Pool) -> Formula:
    """Of the champion. NoFormulaError for an estimator that is not linear, or River's."""
    member, count = pool.champion.member, pool.columns
    looks = pool.looks(1)
    mean = float(looks.mean[0])
    low, high = pool.reach()
    frame = pool.frame_state() or {"shift": np.zeros(count), "factor": np.ones(count)}
    shift, factor = np.array(frame["shift"]), np.array(frame["factor"])
    placed = np.vstack([np.zeros(count), np.eye(count)])
    inputs = Inputs(placed / factor + shift, placed, pool.looks(count + 1))
    if isinstance(member, EstimatorMember) and member.model.fitted:
        return replace(_of_estimator(member), low=low, high=high, otherwise=mean)
    if not (member.trivial or isinstance(member, Ridge | EstimatorMember)):
        raise NoFormulaError(f"{member.kind} is not linear")
    answers = member.predict(inputs)
    if not looks.count[0] or not np.isfinite(answers).all():  # it has learned too little: the mean stands in
        return Formula("linear", shift, factor, np.zeros(count), mean, mean, mean, mean)
    formula = Formula("linear", shift, factor, answers[1:] - answers[0], float(answers[0]), low, high, mean)
    if isinstance(member, Ridge) and member.basis == "squares":
        return replace(formula, basis="squares", coefficients=np.array(member.parameters()["slopes"]))
    return formula


def _of_estimator(member: EstimatorMember) -> Formula:
    model, state = member.model, member.state()
    if isinstance(model.estimator, RiverModel):
        raise NoFormulaError("a model of River is given out as json and npz alone")
    learned = vars(model.estimator)
    coefficients, intercept = learned.get("coef_"), learned.get("intercept_")
    if not isinstance(coefficients, np.ndarray) or coefficients.shape != (member.columns,) or intercept is None:
        raise NoFormulaError(f"{model.recipe.path} is not linear")
    scaler = Standardiser(member.columns, model.limit)
    scaler.restore(state["scaler"])
    shift, factor = scaler.scale()
    scaled = model.scale_target
    return Formula(
        "linear",
        np.array(shift),
        np.array(factor),
        coefficients.astype(np.float64),
        float(np.ravel(intercept)[0]),
        0.0,
        0.0,
        0.0,
        bound=float(model.limit),
        raw_bound=float(model.limit) if scaled else 0.0,
        out_factor=model.spread if scaled else 1.0,
        out_shift=model.mean if scaled else 0.0,
    )
