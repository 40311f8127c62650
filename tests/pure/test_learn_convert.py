"""learn/export/formula.py and convert.py: every member as numbers, as ONNX, as an estimator of scikit-learn."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
import pytest

from streampiped.errors import StateError
from streampiped.learn.estimators import Recipe
from streampiped.learn.export import convert
from streampiped.learn.export.formula import NoFormulaError, formula_of
from streampiped.learn.features import complete
from streampiped.learn.lineup import RIDGES, SGD, TRIVIAL, lineup
from streampiped.learn.members.boosting import Boosting
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.members.trivial import RunningMean
from streampiped.learn.pool import Pool

COLUMNS = 3
UNITS, LEVELS = np.array([1.0, 50.0, 0.1]), np.array([0.0, 300.0, -2.0])
EACH = pytest.mark.parametrize("name", [*TRIVIAL, SGD, *RIDGES])
MLP = "sklearn.neural_network.MLPRegressor"


def needs(name: str) -> pytest.MarkDecorator:
    """The extra `export`; where continuous integration runs it has to be there."""
    missing = importlib.util.find_spec(name) is None and "CI" not in os.environ
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: pip install -e '.[export]'")


def pool(path: str = "sklearn.linear_model.SGDRegressor", *, scale_target: bool = True, **params: Any) -> Pool:
    def estimator() -> EstimatorMember:
        return EstimatorMember(Recipe(path, params, 1), COLUMNS, scale_target=scale_target, limit=10.0)

    return Pool(lineup(None, COLUMNS, estimator), COLUMNS)


def rows(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(count, COLUMNS)) * UNITS + LEVELS


def taught(made: Pool, count: int = 600) -> Pool:
    table = rows(count)
    labels = 3 * table[:, 0] + table[:, 1] / 10 + table[:, 0] ** 2 + np.random.default_rng(2).normal(size=count)
    done, every = 0, np.ones(count, dtype=bool)
    while done < count:
        done += len(made.work(table[done:], labels[done:], every[done:], every[done:]).prediction)
    return made


@pytest.fixture(scope="module")
def learned() -> Pool:
    return taught(pool(learning_rate="constant", eta0=0.01))


def serving(made: Pool, name: str) -> Pool:
    result = made.copy()
    result.pin(name)
    return result


WILD = np.vstack([rows(50, 7), rows(20, 8) * 1e3, [[np.nan, 300.0, -2.0], [0.0, np.inf, -np.inf], [1e300, -1e300, 0]]])


@EACH
@pytest.mark.parametrize("count", [0, 1, 2, 5, 600])
def test_formula_answers_as_the_member(name: str, count: int) -> None:
    """Whatever was learned, and however far off or missing the features are."""
    made = serving(taught(pool(learning_rate="constant", eta0=0.01), count) if count else pool(), name)
    with np.errstate(all="ignore"):
        wanted = made.predict(complete(WILD)[0]).prediction
        found = formula_of(made).evaluate(WILD)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("scale_target", [True, False])
def test_formula_of_an_unscaled_target(scale_target: bool) -> None:
    """The estimator's own units, where it learns in these."""
    made = serving(taught(pool(scale_target=scale_target, learning_rate="constant", eta0=0.001)), "sgd")
    assert formula_of(made).evaluate(rows(50)) == pytest.approx(made.predict(rows(50)).prediction, rel=1e-9)


def test_plain_formula_can_be_computed_by_hand(learned: Pool) -> None:
    """Its numbers and the words of docs/specs/models.md are enough."""
    plain = formula_of(serving(learned, "squares")).plain()
    x = rows(1, 9)[0].tolist()
    placed = [(v - s) * f for v, s, f in zip(x, plain["shift"], plain["factor"], strict=True)]
    columns = placed + [placed[i] * placed[j] for i in range(COLUMNS) for j in range(i, COLUMNS)]
    raw = plain["intercept"] + sum(c * v for c, v in zip(plain["coefficients"], columns, strict=True))
    answer = min(max(raw * plain["out_factor"] + plain["out_shift"], plain["low"]), plain["high"])
    assert answer == pytest.approx(float(serving(learned, "squares").predict(np.array([x])).prediction[0]), rel=1e-12)
    assert (plain["format"], plain["basis"]) == ("streampipe-formula/1", "squares")


def test_what_is_no_formula_is_refused() -> None:
    """A neural network has none, and says so by its name."""
    with pytest.raises(NoFormulaError, match="MLPRegressor is not linear"):
        formula_of(serving(taught(pool(MLP, hidden_layer_sizes=[3])), "sgd"))


def test_trees_are_no_formula() -> None:
    """A member of a kind that is not known to be one is refused, and not taken for linear."""
    members = lineup(["ridge"], COLUMNS, RunningMean)
    made = taught(Pool({**members, "boosting": Boosting(COLUMNS, 1)}, COLUMNS), 2000)
    with pytest.raises(NoFormulaError, match="boosting is not linear"):
        formula_of(serving(made, "boosting"))


@needs("onnx")
@EACH
def test_onnx_answers_as_the_member(learned: Pool, name: str) -> None:
    """The graph by its reference runtime, bounds and missing values included."""
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    made = serving(learned, name)
    model = load_from_string(convert.to_onnx(made, ["a", "b", "c"], "y"))
    with np.errstate(all="ignore"):
        (found,) = ReferenceEvaluator(model).run(None, {"features": WILD})
        wanted = made.predict(complete(WILD)[0]).prediction
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert told == {"features": "a\nb\nc", "target": "y"}


@needs("skops")
@pytest.mark.parametrize(("name", "path"), [*((name, None) for name in (*TRIVIAL, SGD, *RIDGES)), ("sgd", MLP)])
def test_skops_answers_as_the_member(learned: Pool, name: str, path: str | None) -> None:
    """An estimator that scikit-learn can use, of types on a fixed list, with the features by their names."""
    import skops.io

    made = serving(taught(pool(path, hidden_layer_sizes=[3])) if path else learned, name)
    data = convert.to_skops(made, ["a", "b", "c"], "y")
    types = skops.io.get_untrusted_types(data=data)
    assert set(types) <= convert.SKOPS_TYPES
    estimator = skops.io.loads(data, trusted=types)
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    near = rows(50, 3)
    with pytest.warns(UserWarning, match="feature names"):
        found = estimator.predict(near)
    assert found == pytest.approx(made.predict(near).prediction, rel=1e-9, abs=1e-9)


@needs("onnx")
@needs("skops")
@pytest.mark.parametrize("make", [convert.to_onnx, convert.to_skops])
def test_what_answers_differently_is_not_given_away(learned: Pool, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """A converter that is wrong makes no file."""
    right = formula_of(learned)

    def wrong(_: Pool) -> Any:
        from dataclasses import replace

        return replace(right, intercept=right.intercept + 0.01)

    monkeypatch.setattr(convert, "formula_of", wrong)
    with pytest.raises(StateError, match=r"answers differently: by up to 0\.01"):
        make(learned, ["a", "b", "c"], "y")


@needs("skops")
def test_types_off_the_list_are_refused(learned: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What skops would not trust and we do not list is not written."""
    import skops.io

    monkeypatch.setattr(skops.io, "get_untrusted_types", lambda data: ["os.system"])
    with pytest.raises(StateError, match=r"os\.system is not on the list"):
        convert.to_skops(serving(learned, "ridge"), ["a", "b", "c"], "y")


def test_missing_extra_is_named(learned: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the words say what would bring it."""

    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(StateError, match=r"No module named 'onnx'; pip install 'streampipe-daemon\[export\]'"):
        convert.to_onnx(learned, ["a", "b", "c"], "y")


def test_network_has_no_graph() -> None:
    """ONNX is made of a formula; skops takes what has none."""
    made = serving(taught(pool(MLP, hidden_layer_sizes=[3])), "sgd")
    with pytest.raises(StateError, match=r"sgd has no formula: .*MLPRegressor is not linear|No module"):
        convert.to_onnx(made, ["a", "b", "c"], "y")
