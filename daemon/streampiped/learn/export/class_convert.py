"""A model of classes as a file of other programs: the twin of `convert.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streampiped.classes import Codes
from streampiped.errors import StateError
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_members.discriminant import Discriminant
from streampiped.learn.class_pool import ClassPool, smoothed
from streampiped.learn.export.class_formula import ClassFormula, class_formula_of, looks_of
from streampiped.learn.export.convert import TOLERANCE, imported, placing_steps, scaler_of, tried_rows, written
from streampiped.learn.export.formula import NoFormulaError
from streampiped.learn.export.onnx_graph import Graph
from streampiped.learn.river_models import RiverModel
from streampiped.records import Array


def classes_to_onnx(pool: ClassPool, features: Sequence[str], target: str) -> bytes:
    """A graph with the input `features` (double, rows x columns) and the outputs `label` (string or int64, rows) and
    `probabilities` (double, rows x classes, in the order of the property `classes`). StateError as `to_onnx`."""
    onnx = imported("onnx")
    reference = imported("onnx.reference")
    model = _graph(onnx, _formula(pool), features, target)
    session = reference.ReferenceEvaluator(model)

    def answer(rows: Array) -> tuple[Any, Array]:
        label, probabilities = session.run(["label", "probabilities"], {"features": rows})
        return label.tolist(), probabilities

    _compare(pool, answer)
    data: bytes = model.SerializeToString()
    return data


def classes_to_skops(pool: ClassPool, features: Sequence[str], target: str) -> bytes:
    """A classifier of scikit-learn, without the bounds on features and without Laplace's row for each class, which
    have no form there. StateError as `to_onnx`."""
    skops = imported("skops.io")
    data, read = written(skops, _estimator(pool), features)
    labels = pool.classes.labels

    def answer(rows: Array) -> tuple[Any, Array]:
        told = read.predict_proba(rows)
        given = np.zeros((len(rows), max(map(labels.index, read.classes_.tolist())) + 1))
        given[:, [labels.index(label) for label in read.classes_.tolist()]] = told
        return read.predict(rows).tolist(), smoothed(given, looks_of(pool, len(rows)))[0]

    _compare(pool, answer)
    return data


def _formula(pool: ClassPool) -> ClassFormula:
    try:
        return class_formula_of(pool)
    except NoFormulaError as error:
        raise StateError(f"{pool.champion.name} has no formula: {error}") from error


def _compare(pool: ClassPool, answer: Callable[[Array], tuple[Any, Array]]) -> None:
    """On rows such as the model knows: the same probabilities, and the most probable class, but for ties."""
    rows, member = tried_rows(pool), pool.champion.member
    if isinstance(member, Classifier) and member.limit:
        shift, factor = member.scale()
        rows = rows[(np.abs((rows - shift) * factor) <= member.limit).all(axis=1)]
    wanted = pool.predict(rows)
    named, found = answer(rows)
    apart = float(np.max(np.abs(found - wanted.probabilities), initial=0.0))
    if not apart <= TOLERANCE:
        raise StateError(f"what was made answers differently: by up to {apart:g}")
    codes: Codes = np.array([pool.classes.code(label) for label in named], dtype=np.intp)
    given = wanted.probabilities[np.arange(len(rows)), codes]
    if not (given >= wanted.probability - TOLERANCE).all():
        raise StateError("what was made answers differently: with other classes")


def _graph(onnx: Any, formula: ClassFormula, features: Sequence[str], target: str) -> Any:
    graph, kinds = Graph(onnx), onnx.TensorProto
    known, count = formula.coefficients.shape[1], len(formula.classes)
    raw = graph.weighted(formula, formula.coefficients, formula.intercepts)
    if formula.link == "softmax":
        given = graph.node("Softmax", [raw], "given", axis=1)
    else:
        logistic = graph.node("Sigmoid", [raw], "logistic")
        total = graph.node("ReduceSum", [logistic, graph.constant("class_axis", [1], np.int64)], "total")
        given = graph.node("Div", [logistic, total], "given")
    padded = graph.node("MatMul", [given, graph.constant("places", np.eye(known, count))], "padded")
    finite = graph.known_or(padded, formula.otherwise[None, :], "finite")
    counted = graph.node("Mul", [finite, graph.constant("rows_known", formula.rows)], "counted")
    more = graph.node("Add", [counted, graph.constant("one_row", 1.0)], "more")
    every = graph.constant("every", formula.rows + max(count, 2))
    best = graph.node("ArgMax", [graph.node("Div", [more, every], "probabilities")], "best", axis=1, keepdims=0)
    text = isinstance(formula.classes[0], str)
    names = [str(label) for label in formula.classes]
    labels = graph.texts("labels", names) if text else graph.constant("labels", formula.classes, np.int64)
    graph.node("Gather", [labels, best], "label")
    outputs: list[tuple[str, Any, list[Any]]] = [
        ("label", kinds.STRING if text else kinds.INT64, ["rows"]),
        ("probabilities", kinds.DOUBLE, ["rows", count]),
    ]
    told = {"features": "\n".join(features), "target": target, "classes": "\n".join(names)}
    return graph.model(len(formula.shift), outputs, told)


def _estimator(pool: ClassPool) -> Any:
    """The champion as scikit-learn has it, over the features as they come."""
    from sklearn.pipeline import Pipeline

    member = pool.champion.member
    if isinstance(member, Classifier) and member.estimator is not None:
        if isinstance(member.estimator, RiverModel):
            raise StateError(f"{pool.champion.name} is a model of River, which is given out as json and npz alone")
        estimator = member.recipe.thaw(member.recipe.freeze(member.estimator))
        labels = np.array(pool.classes.labels[: len(member.estimator.classes_)])
        vars(estimator)["classes_"] = labels
        if "_label_binarizer" in vars(estimator):
            vars(estimator)["_label_binarizer"].classes_ = labels
        return Pipeline([("scale", scaler_of(*member.scale())), ("model", estimator)])
    formula = _formula(pool)
    linear = isinstance(member, Discriminant) and formula.coefficients.any()
    return Pipeline([*placing_steps(formula), ("model", _logistic(formula) if linear else _dummy(formula))])


def _logistic(formula: ClassFormula) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression()
    coefficients, intercepts = formula.coefficients.T, formula.intercepts
    if len(coefficients) == 2:  # there it is one vector, for the second class
        coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
    model.coef_, model.intercept_ = np.ascontiguousarray(coefficients), np.array(intercepts)
    model.classes_ = np.array(formula.classes[: formula.coefficients.shape[1]])
    model.n_features_in_ = formula.coefficients.shape[0]
    return model


def _dummy(formula: ClassFormula) -> Any:
    """Whatever the features, the same probabilities."""
    from sklearn.dummy import DummyClassifier

    given = np.exp(formula.intercepts)
    labels = np.array(formula.classes[: len(given)])
    columns = np.zeros((len(given), formula.coefficients.shape[0]))
    return DummyClassifier(strategy="prior").fit(columns, labels, sample_weight=given)
