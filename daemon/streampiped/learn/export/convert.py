"""A model as a file of other programs: ONNX, and scikit-learn's estimators by skops. Both need the extra `export`.

What was made is tried on random rows before it is given away: it answers as the model does, or there is no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from streampiped.errors import StateError
from streampiped.learn.export.formula import Formula, NoFormulaError, Placing, formula_of
from streampiped.learn.export.onnx_graph import Graph
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.pool import Pool
from streampiped.learn.rivals import Rivals
from streampiped.learn.river_models import RiverModel
from streampiped.learn.scaling import Standardiser
from streampiped.records import Array

PARITY_ROWS: Final = 256
REACH: Final = 4.0  # deviations: farther off bounds are in force
TOLERANCE: Final = 1e-9  # of the labels' range
SKOPS_TYPES: Final = frozenset(
    {
        "sklearn.compose._target.TransformedTargetRegressor",
        "sklearn.dummy.DummyClassifier",
        "sklearn.linear_model._base.LinearRegression",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._polynomial.PolynomialFeatures",
    }
)
"""What may be in a skops file of ours beyond what skops trusts by itself; never read from the file."""


def to_onnx(pool: Pool, features: Sequence[str], target: str) -> bytes:
    """A graph with the input `features` (double, rows x columns) and the output `prediction` (double, rows). StateError
    when the champion has no formula, or the graph does not answer as it does."""
    onnx = imported("onnx")
    reference = imported("onnx.reference")
    model = _graph(onnx, _formula(pool), features, target)
    session = reference.ReferenceEvaluator(model)
    _compare(pool, lambda rows: session.run(None, {"features": rows})[0], bounded=True)
    data: bytes = model.SerializeToString()
    return data


def to_skops(pool: Pool, features: Sequence[str], target: str) -> bytes:
    """An estimator of scikit-learn, without the bounds on features and answers, which have no form there. StateError as
    `to_onnx`."""
    skops = imported("skops.io")
    data, read = written(skops, _estimator(pool), features)
    _compare(pool, read.predict, bounded=False)
    return data


def written(skops: Any, pipeline: Any, features: Sequence[str]) -> tuple[bytes, Any]:
    """A pipeline as a file, and as it is read from there, without the features' names. StateError when it holds what is
    not on the list."""
    pipeline.steps[0][1].feature_names_in_ = np.array(features, dtype=object)
    data: bytes = skops.dumps(pipeline)
    unknown = set(skops.get_untrusted_types(data=data)) - SKOPS_TYPES
    if unknown:
        raise StateError(f"skops: {', '.join(sorted(unknown))} is not on the list of what may be in such a file")
    read = skops.loads(data, trusted=sorted(SKOPS_TYPES & set(skops.get_untrusted_types(data=data))))
    del read.steps[0][1].feature_names_in_  # rows without names, as the model takes them
    return data, read


def imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise StateError(f"{error}; pip install 'streampipe-daemon[export]' brings it") from error


def _formula(pool: Pool) -> Formula:
    try:
        return formula_of(pool)
    except NoFormulaError as error:
        raise StateError(f"{pool.champion.name} has no formula: {error}") from error


def _compare(pool: Pool, answer: Callable[[Array], Any], *, bounded: bool) -> None:
    """On rows such as the model knows. Without `bounded` only where no bound is in force."""
    rows = tried_rows(pool)
    wanted = pool.predict(rows, pool.looks(len(rows))).prediction
    found = np.asarray(answer(rows), dtype=np.float64).reshape(-1)
    low, high = pool.reach()
    told = np.ones(len(rows), dtype=bool) if bounded else (wanted > low) & (wanted < high)
    apart = float(np.max(np.abs(found - wanted)[told], initial=0.0))
    if not apart <= TOLERANCE * max(high - low, float(np.abs(wanted).max()), 1.0):
        raise StateError(f"what was made answers differently: by up to {apart:g}")


def tried_rows(pool: Rivals[Any]) -> Array:
    """Random rows such as the model knows."""
    frame = pool.frame_state() or {"shift": np.zeros(pool.columns), "factor": np.ones(pool.columns)}
    placed = np.random.default_rng(0).normal(size=(PARITY_ROWS, pool.columns))
    return np.ascontiguousarray(np.clip(placed, -REACH, REACH) / frame["factor"] + frame["shift"])


def _graph(onnx: Any, formula: Formula, features: Sequence[str], target: str) -> Any:
    graph = Graph(onnx)
    raw = graph.weighted(formula, formula.coefficients, formula.intercept)
    if formula.raw_bound:
        raw = graph.clipped(raw, -formula.raw_bound, formula.raw_bound, "raw_bounded")
    spread = graph.node("Mul", [raw, graph.constant("out_factor", formula.out_factor)], "spread")
    answer = graph.node("Add", [spread, graph.constant("out_shift", formula.out_shift)], "answer")
    graph.clipped(graph.known_or(answer, formula.otherwise, "finite"), formula.low, formula.high, "prediction")
    outputs = [("prediction", onnx.TensorProto.DOUBLE, ["rows"])]
    return graph.model(len(formula.shift), outputs, {"features": "\n".join(features), "target": target})


def _estimator(pool: Pool) -> Any:
    """The champion as scikit-learn has it, over the features as they come."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    member = pool.champion.member
    if not isinstance(member, EstimatorMember):
        return _linear(_formula(pool))
    if not member.model.fitted:
        raise StateError(f"{pool.champion.name} has learned nothing yet")
    if isinstance(member.model.estimator, RiverModel):
        raise StateError(f"{pool.champion.name} is a model of River, which is given out as json and npz alone")
    scaler = Standardiser(member.columns, member.model.limit)
    scaler.restore(member.state()["scaler"])
    steps: list[tuple[str, Any]] = [("scale", scaler_of(*scaler.scale()))]
    if member.model.scale_target:
        inner = TransformedTargetRegressor(regressor=member.model.estimator)
        inner.regressor_ = member.model.estimator
        inner.transformer_ = scaler_of(np.array([member.model.mean]), np.array([1.0 / (member.model.spread or 1.0)]))
        inner._training_dim = 1
        steps.append(("model", inner))
    else:
        steps.append(("model", member.model.estimator))
    return Pipeline(steps)


def _linear(formula: Formula) -> Any:
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline

    regressor = LinearRegression()
    regressor.coef_, regressor.intercept_ = formula.coefficients, formula.intercept
    regressor.n_features_in_ = len(formula.coefficients)
    return Pipeline([*placing_steps(formula), ("model", regressor)])


def placing_steps(formula: Placing) -> list[tuple[str, Any]]:
    """What a formula does to features first, without bounds, as steps of a pipeline."""
    from sklearn.preprocessing import PolynomialFeatures

    steps: list[tuple[str, Any]] = [("scale", scaler_of(formula.shift, formula.factor))]
    if formula.basis == "squares":
        steps.append(("squares", PolynomialFeatures(degree=2, include_bias=False).fit(formula.shift[None])))
    return steps


def scaler_of(shift: Array, factor: Array) -> Any:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = shift.astype(np.float64), 1.0 / factor
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(shift), 1
    return scaler
