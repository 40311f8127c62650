"""learn/export/class_formula.py and class_convert.py: every member of classes as numbers, as ONNX, for scikit-learn."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from math import exp
from typing import Any

import numpy as np
import pytest

from streampiped.errors import StateError
from streampiped.learn.class_lineup import TRIVIAL, class_lineup
from streampiped.learn.class_members.boosting import ClassBoosting
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.export import class_convert, convert
from streampiped.learn.export.class_formula import class_formula_of
from streampiped.learn.export.formula import NoFormulaError
from streampiped.learn.features import complete
from streampiped.learn.late.class_delayed import DelayedClassPool
from support.class_streams import SGD, STEP

COLUMNS = 3
UNITS, LEVELS = np.array([1.0, 50.0, 0.1]), np.array([0.0, 300.0, -2.0])
NAMES = (*TRIVIAL, "sgd", "ridge", "ridge_1000", "ridge_100", "squares", "squares_2000", "squares_500")
EACH = pytest.mark.parametrize("name", NAMES)
MLP, BAYES = "sklearn.neural_network.MLPClassifier", "sklearn.naive_bayes.GaussianNB"
KINDS = {"two": ("zebra", "ant"), "three": ("zebra", "ant", "mole"), "ints": (7, -1, 30)}


def needs(name: str) -> pytest.MarkDecorator:
    """The extra `export`; where continuous integration runs it has to be there."""
    missing = importlib.util.find_spec(name) is None and "CI" not in os.environ
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: pip install -e '.[export]'")


def pool(kind: str = "three", path: str = SGD, **params: Any) -> ClassPool:
    def estimator() -> Classifier:
        return Classifier(ClassRecipe(path, params or (STEP if path == SGD else {}), 1), COLUMNS, 10.0)

    return DelayedClassPool(class_lineup(None, COLUMNS, estimator), COLUMNS, "int" if kind == "ints" else "text")


def rows(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(count, COLUMNS)) * UNITS + LEVELS


def taught(made: ClassPool, kind: str = "three", count: int = 600) -> ClassPool:
    table = rows(count)
    places = (table[:, 0] + 0.3 * np.random.default_rng(2).normal(size=count) > 0).astype(int)
    if len(KINDS[kind]) == 3:
        places[table[:, 1] > 330.0] = 2
    labels: Any = [KINDS[kind][place] for place in places]
    every, done = np.ones(count, dtype=bool), 0
    codes = made.classes.codes(np.array(labels) if kind == "ints" else labels, every)
    while done < count:
        done += len(made.work(table[done:], codes[done:], every[done:], every[done:]).prediction)
    return made


@pytest.fixture(scope="module", params=KINDS)
def learned(request: pytest.FixtureRequest) -> ClassPool:
    return taught(pool(request.param), request.param)


def serving(made: ClassPool, name: str) -> ClassPool:
    result = made.copy()
    result.pin(name)
    return result


WILD = np.vstack([rows(50, 7), rows(20, 8) * 1e3, [[np.nan, 300.0, -2.0], [0.0, np.inf, -np.inf], [1e300, -1e300, 0]]])


@EACH
def test_formula_answers_as_the_member(learned: ClassPool, name: str) -> None:
    """However far off or missing the features are."""
    made = serving(learned, name)
    with np.errstate(all="ignore"):
        wanted = made.predict(complete(WILD)[0]).probabilities
        found = class_formula_of(made).evaluate(WILD)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@EACH
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_formula_of_one_that_has_learned_little(name: str, count: int) -> None:
    """With one class or a few rows, where the shares stand in for most."""
    made = serving(taught(pool(), count=count), name)
    found = class_formula_of(made).evaluate(rows(30, 4))
    assert found == pytest.approx(made.predict(rows(30, 4)).probabilities, rel=1e-9)


@EACH
def test_a_class_that_was_never_learned_has_its_place(name: str) -> None:
    """One that was held out each time is known, and given what Laplace's rule leaves to it."""
    made = serving(taught(pool()), name)
    code = made.classes.codes(["newt"], np.ones(1, dtype=bool))
    made.work(rows(1), code, np.ones(1, dtype=bool), np.zeros(1, dtype=bool))
    wanted = made.predict(rows(30, 4)).probabilities
    assert wanted.shape == (30, 4)
    assert class_formula_of(made).evaluate(rows(30, 4)) == pytest.approx(wanted, rel=1e-9)
    if importlib.util.find_spec("onnx"):
        class_convert.classes_to_onnx(made, ["a", "b", "c"], "y")
    if importlib.util.find_spec("skops"):
        class_convert.classes_to_skops(made, ["a", "b", "c"], "y")


@pytest.mark.parametrize("name", ["squares", "sgd"])
def test_plain_formula_can_be_computed_by_hand(name: str) -> None:
    """Its numbers and the words of docs/specs/models.md are enough."""
    made = serving(taught(pool()), name)
    plain = class_formula_of(made).plain()
    x = rows(1, 9)[0].tolist()
    columns = [(v - s) * f for v, s, f in zip(x, plain["shift"], plain["factor"], strict=True)]
    if plain["basis"] == "squares":
        columns += [columns[i] * columns[j] for i in range(COLUMNS) for j in range(i, COLUMNS)]
    raw = [
        intercept + sum(column * line[place] for column, line in zip(columns, plain["coefficients"], strict=True))
        for place, intercept in enumerate(plain["intercepts"])
    ]
    given = [exp(value) if plain["link"] == "softmax" else 1 / (1 + exp(-value)) for value in raw]
    answer = [(value / sum(given) * plain["rows"] + 1) / (plain["rows"] + 3) for value in given]
    forecast = made.predict(np.array([x]))
    assert answer == pytest.approx(forecast.probabilities[0].tolist(), rel=1e-12)
    assert plain["classes"][int(np.argmax(answer))] == made.classes.labels[int(forecast.prediction[0])]
    assert plain["format"] == "streampipe-class-formula/1"


def test_what_is_no_formula_is_refused() -> None:
    """Naive Bayes, trees, another loss, and a model that knows no class: each by its name."""
    with pytest.raises(NoFormulaError, match="GaussianNB is not linear"):
        class_formula_of(serving(taught(pool(path=BAYES)), "sgd"))
    with pytest.raises(NoFormulaError, match="SGDClassifier is not linear"):
        class_formula_of(serving(taught(pool(loss="modified_huber")), "sgd"))
    with pytest.raises(NoFormulaError, match="no class has been met yet"):
        class_formula_of(pool())
    members = {**class_lineup(["ridge"], COLUMNS, lambda: ClassBoosting(COLUMNS, 1)), "boosting": ClassBoosting(3, 1)}
    with pytest.raises(NoFormulaError, match="boosting is not linear"):
        class_formula_of(serving(taught(ClassPool(members, COLUMNS, "text")), "boosting"))


@needs("onnx")
@EACH
def test_onnx_answers_as_the_member(learned: ClassPool, name: str) -> None:
    """The graph by its reference runtime: labels of their own type and probabilities, bounds and missing values
    included; its properties name the classes in their order."""
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    made = serving(learned, name)
    model = load_from_string(class_convert.classes_to_onnx(made, ["a", "b", "c"], "y"))
    with np.errstate(all="ignore"):
        label, found = ReferenceEvaluator(model).run(["label", "probabilities"], {"features": WILD})
        wanted = made.predict(complete(WILD)[0])
    assert found == pytest.approx(wanted.probabilities, rel=1e-9, abs=1e-12)
    labels = made.classes.labels
    assert label.tolist() == [labels[code] for code in found.argmax(axis=1)]
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert told == {"features": "a\nb\nc", "target": "y", "classes": "\n".join(map(str, labels))}


@needs("skops")
@pytest.mark.parametrize(("name", "path"), [*((name, SGD) for name in NAMES), ("sgd", MLP), ("sgd", BAYES)])
@pytest.mark.parametrize("kind", KINDS)
def test_skops_answers_as_the_member(kind: str, name: str, path: str) -> None:
    """A classifier that scikit-learn can use, of types on a fixed list: it names labels as they were in the stream, and
    its probabilities are the model's but for Laplace's rows."""
    import skops.io

    made = serving(taught(pool(kind, path, **({"hidden_layer_sizes": [3]} if path == MLP else {})), kind), name)
    data = class_convert.classes_to_skops(made, ["a", "b", "c"], "y")
    types = skops.io.get_untrusted_types(data=data)
    assert set(types) <= convert.SKOPS_TYPES
    estimator = skops.io.loads(data, trusted=types)
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="feature names"):
        named, told = estimator.predict(rows(50, 3)), estimator.predict_proba(rows(50, 3))
    wanted, labels = made.predict(rows(50, 3)), made.classes.labels
    assert named.tolist() == [labels[code] for code in wanted.prediction]
    order = [estimator.classes_.tolist().index(label) for label in labels]
    smooth = (told[:, order] * 600 + 1) / (600 + len(labels))
    assert smooth == pytest.approx(wanted.probabilities, rel=1e-9, abs=1e-12)


@needs("onnx")
@needs("skops")
@pytest.mark.parametrize("make", [class_convert.classes_to_onnx, class_convert.classes_to_skops])
def test_what_answers_differently_is_not_given_away(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """A converter that is wrong makes no file: neither with other probabilities nor with labels changed about."""
    made = serving(taught(pool()), "ridge")
    right = class_formula_of(made)
    wrong = replace(right, intercepts=right.intercepts + np.array([0.0, 0.01, 0.0]))
    monkeypatch.setattr(class_convert, "class_formula_of", lambda _: wrong)
    with pytest.raises(StateError, match=r"answers differently: by up to 0\.00"):
        make(made, ["a", "b", "c"], "y")
    turned = replace(right, classes=[right.classes[place] for place in (1, 0, 2)])
    monkeypatch.setattr(class_convert, "class_formula_of", lambda _: turned)
    with pytest.raises(StateError, match="answers differently"):
        make(made, ["a", "b", "c"], "y")
