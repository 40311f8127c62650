"""learn/river_recipe.py and learn/river_models.py: models of River through snapshots, and what may go wrong."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from river.linear_model import LinearRegression

from streampiped.errors import OptionError, StateError
from streampiped.learn import river_models
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_members.trivial import ClassPrior
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.estimators import equal
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.members.ridge import Ridge
from streampiped.learn.members.trivial import RunningMean
from streampiped.learn.npz import from_npz, to_npz
from streampiped.learn.pool import Pool
from streampiped.learn.river_models import RiverModel
from streampiped.learn.river_recipe import RiverRecipe
from streampiped.wire.state import pack, unpack

LINEAR = "river.linear_model.LinearRegression"
LOGISTIC = {"class": "river.linear_model.LogisticRegression"}
SCALER = {"class": "river.preprocessing.StandardScaler"}
GROWING = {"grace_period": 20, "delta": 0.1}
REGRESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": (LINEAR, {"l2": 0.001}),
    "pipeline": ("river.compose.Pipeline", {"steps": [SCALER, {"class": LINEAR}]}),
    "adam": (LINEAR, {"optimizer": {"class": "river.optim.Adam"}}),
    "passive": ("river.linear_model.PARegressor", {}),
    "bayesian": ("river.linear_model.BayesianLinearRegression", {}),
    "tree": ("river.tree.HoeffdingTreeRegressor", GROWING),
    "adaptive tree": ("river.tree.HoeffdingAdaptiveTreeRegressor", GROWING),
    "tree, ADWIN": (
        "river.tree.HoeffdingAdaptiveTreeRegressor",
        GROWING | {"drift_detector": {"class": "river.drift.ADWIN", "delta": 0.1}},
    ),
    "tree, Page-Hinkley": (
        "river.tree.HoeffdingAdaptiveTreeRegressor",
        GROWING | {"drift_detector": {"class": "river.drift.PageHinkley"}},
    ),
    "gradient tree": ("river.tree.SGTRegressor", {}),
    "AMF": ("river.forest.AMFRegressor", {"n_estimators": 3}),
    "random forest": ("river.forest.ARFRegressor", {"n_models": 3} | GROWING),
    "extra trees": ("river.forest.OXTRegressor", {"n_models": 3}),
    "bagging": ("river.ensemble.BaggingRegressor", {"model": {"class": LINEAR}, "n_models": 3}),
    "patches": ("river.ensemble.SRPRegressor", {"n_models": 2}),
}
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("river.linear_model.LogisticRegression", {}),
    "softmax": ("river.linear_model.SoftmaxRegression", {}),
    "one against the rest": ("river.multiclass.OneVsRestClassifier", {"classifier": LOGISTIC}),
    "naive Bayes": ("river.naive_bayes.GaussianNB", {}),
    "tree": ("river.tree.HoeffdingTreeClassifier", GROWING),
    "adaptive tree": ("river.tree.HoeffdingAdaptiveTreeClassifier", GROWING),
    "AMF": ("river.forest.AMFClassifier", {"n_estimators": 3}),
    "random forest": ("river.forest.ARFClassifier", {"n_models": 3}),
    "bagging, ADWIN": ("river.ensemble.ADWINBaggingClassifier", {"model": LOGISTIC, "n_models": 3}),
}
TWO_CLASSES = ("logistic", "bagging, ADWIN")
ROWS = 600


def recipe(kind: tuple[str, dict[str, Any]]) -> RiverRecipe:
    return RiverRecipe(kind[0], kind[1], 5)


def rows(count: int = ROWS, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """A line with a bend, so that trees grow; it turns round in the middle, so that they change."""
    features = np.random.default_rng(seed).normal(size=(count, 3))
    labels = 2 * features[:, 0] + np.abs(features[:, 1])
    labels[count // 2 :] *= -1
    return features, labels


def learn(model: Any, features: np.ndarray, labels: np.ndarray, step: int = 50) -> list[bytes]:
    """Test, then train; the bytes of all answers."""
    answers = []
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        answers.append((model.predict_proba if hasattr(model, "predict_proba") else model.predict)(features[part]))
        model.partial_fit(features[part], labels[part], **({"classes": range(3)} if hasattr(model, "classes") else {}))
    return [answer.tobytes() for answer in answers]


def saved(maker: RiverRecipe, model: Any) -> RiverModel:
    """By the bytes of a snapshot, in a process that has never seen the model."""
    state = unpack(pack("test", maker.freeze(model)), "test")
    other = RiverRecipe(maker.path, maker.params, maker.seed).thaw(state)
    assert equal(from_npz(to_npz(state)), state)
    return other


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("cut", [0, 50, 450])
def test_a_regressor_goes_on_bit_for_bit(name: str, cut: int) -> None:
    """Saved after any block and loaded, a model answers and learns on with the same bits, to the same state."""
    maker, (features, labels) = recipe(REGRESSORS[name]), rows()
    whole = maker.make()
    learn(whole, features[:cut], labels[:cut])
    twin = saved(maker, whole)
    assert learn(whole, features[cut:], labels[cut:]) == learn(twin, features[cut:], labels[cut:])
    assert equal(maker.freeze(whole), maker.freeze(twin))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("cut", [50, 450])
def test_a_classifier_goes_on_bit_for_bit(name: str, cut: int) -> None:
    """The same of probabilities; with three classes where the model can."""
    maker, (features, labels) = recipe(CLASSIFIERS[name]), rows()
    codes = (labels > 0).astype(np.intp) + (0 if name in TWO_CLASSES else (labels > 2).astype(np.intp))
    whole = maker.make()
    learn(whole, features[:cut], codes[:cut])
    twin = saved(maker, whole)
    assert learn(whole, features[cut:], codes[cut:]) == learn(twin, features[cut:], codes[cut:])
    assert equal(maker.freeze(whole), maker.freeze(twin))


@pytest.mark.parametrize("name", [*REGRESSORS, *CLASSIFIERS])
def test_the_trial_accepts_what_goes_on(name: str) -> None:
    """The trial at construction accepts what the other tests prove."""
    recipe((REGRESSORS | CLASSIFIERS)[name]).try_out()


@pytest.mark.parametrize("name", ["linear", "adaptive tree", "AMF"])
@pytest.mark.parametrize("every", [64, 4096])
def test_a_block_is_taken_back_bit_for_bit(name: str, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned since a mark is undone, however long ago the model was last taken apart."""
    monkeypatch.setattr(river_models, "CHECK_ROWS", every)
    maker, (features, labels) = recipe(REGRESSORS[name]), rows()
    model = maker.make()
    learn(model, features[:450], labels[:450])
    mark = maker.mark(model)
    learn(model, features[450:], -labels[450:])
    back = maker.back(mark)
    assert back.rows == 450
    again = maker.make()
    learn(again, features[:450], labels[:450])
    assert equal(maker.freeze(back), maker.freeze(again))


def test_the_state_is_of_one_version() -> None:
    """A state of another version of River, or of another library, is refused and says what to install."""
    maker = recipe(REGRESSORS["linear"])
    state = maker.freeze(maker.make())
    with pytest.raises(StateError, match=rf"River 0\.1\.0, and here is River {maker.river}.*river==0\.1\.0"):
        maker.thaw(state | {"river": "0.1.0"})
    with pytest.raises(StateError, match="another library"):
        maker.thaw({"coef_": np.zeros(2)})
    with pytest.raises(StateError, match="cannot be read"):
        maker.thaw(state | {"graph": {"shapes": [], "entries": []}})


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        ("river.tree.HoeffdingTre", {}, "did you mean river.tree.HoeffdingTreeRegressor"),
        ("river.nowhere.Model", {}, "cannot be imported"),
        ("river.", {}, "River has no"),
        ("river.tree", {}, "River has no"),
        ("river.preprocessing.StandardScaler", {}, "neither a regressor nor a classifier"),
        ("river.datasets.TrumpApproval", {}, "not on the list"),
        ("river.compat.SKL2RiverRegressor", {}, "not on the list"),
        ("river.rules.AMRules", {}, "not on the list"),
        ("river.neighbors.KNNRegressor", {}, "cannot be put into a snapshot: engine.dist_func"),
        (LINEAR, {"l3": 1}, "does not take params.*l3"),
        (LINEAR, {"l1": 0.1, "l2": 0.1}, "does not take params.*joint use"),
        (LINEAR, {"optimizer": "adam"}, "does not learn"),
        (LINEAR, {"optimizer": {"class": "os.system"}}, "no class of River"),
        (LINEAR, {"optimizer": {"class": "river.optim.SGD", "lr": -1e300}}, "does not learn: its answers"),
    ],
)
def test_an_impossible_model_is_refused_by_name(path: str, params: dict[str, Any], words: str) -> None:
    """What cannot be imported, made, saved or continued is an OptionError that says what and why."""
    with pytest.raises(OptionError, match=words):
        RiverRecipe(path, params, 0).try_out()


def test_without_river_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where River is not installed the error says what brings it."""
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(OptionError, match=r"pip install 'streampipe-daemon\[river\]'"):
        RiverRecipe(LINEAR, {}, 0)


def test_every_seed_left_out_is_the_stages() -> None:
    """Also of what is in a parameter; one that is given stays."""
    tree = {"class": "river.tree.HoeffdingAdaptiveTreeRegressor"}
    seeds = []
    for params in ({"model": tree}, {"model": tree | {"seed": 4}, "seed": 6}):
        model = RiverRecipe("river.ensemble.BaggingRegressor", params, 1 << 40 | 9)._model()
        seeds.append((model.seed, model.models[0].seed if hasattr(model, "models") else model.model.seed))
    assert seeds == [(9, 9), (6, 4)]


def test_a_model_that_is_full_learns_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model beyond the limit of its objects stays as it is, and a twin from its state does too."""
    monkeypatch.setattr(river_models, "ENTRIES_MAX", 2000)
    monkeypatch.setattr(river_models, "CHECK_ROWS", 64)
    maker, (features, labels) = recipe(REGRESSORS["AMF"]), rows()
    model = maker.make()
    learn(model, features[:300], labels[:300])
    assert model.full
    before = maker.freeze(model)
    twin = saved(maker, model)
    for each in (model, twin):
        learn(each, features[300:], labels[300:])
        assert equal(maker.freeze(each), before)
    assert len(before["graph"]["entries"]) < 3 * 2000


class FailingError(Exception):
    """What the model below raises."""


def failing(monkeypatch: pytest.MonkeyPatch, times: range) -> None:
    """River's linear regression raises at these calls of `learn_one` after the rows of the trial."""
    calls, learn_one = [0], LinearRegression.learn_one

    def learn_or_raise(self: Any, x: Any, y: Any) -> None:
        calls[0] += 1
        if calls[0] in times:
            raise FailingError("no more")
        learn_one(self, x, y)

    monkeypatch.setattr(LinearRegression, "learn_one", learn_or_raise)


def pool_of(path: str) -> Pool:
    member = EstimatorMember(RiverRecipe(path, {}, 5), 3, scale_target=True, limit=10.0)
    return Pool({"mean": RunningMean(), "estimator": member, "ridge": Ridge("linear", np.inf, 3.0)}, 3)


def run(pool: Any, features: np.ndarray, labels: np.ndarray) -> None:
    place, all_rows = 0, np.ones(len(labels), dtype=np.bool_)
    while place < len(labels):
        some = slice(place, None)
        place += len(pool.work(features[some], labels[some], all_rows[some], all_rows[some]).prediction)


@pytest.mark.parametrize("place", ["once", "always"])
def test_a_model_that_raises_falls_out_alone(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that raises in the middle of a block has that block taken back and goes on; one that always raises is
    begun anew. Nobody else loses a block."""
    features, labels = rows(400)
    pool = pool_of(LINEAR)
    run(pool, features[:200], labels[:200])
    failing(monkeypatch, range(5, 6) if place == "once" else range(5, 1 << 30))
    run(pool, features[200:], labels[200:])
    told = {entry["name"]: entry for entry in pool.info()}
    assert [told[name]["rollbacks"] for name in ("mean", "ridge")] == [0, 0]
    assert told["estimator"]["rollbacks"] > 0
    assert (told["estimator"]["resets"] > 0) == (place == "always")
    assert (told["estimator"]["rows"] > 0) == (place == "once")
    assert pool.learned == 400


def test_a_third_class_is_too_much_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of two classes fails when a third comes, alone; one of several goes on."""
    features, labels = rows(400)
    codes = (labels > 0).astype(np.intp) + np.where(np.arange(400) >= 200, labels > 2, False)
    told = {}
    for name in ("logistic", "one against the rest"):
        member = Classifier(recipe(CLASSIFIERS[name]), 3, 10.0)
        pool = ClassPool({"prior": ClassPrior(), "estimator": member}, 3, "int")
        run(pool, features, pool.classes.codes(codes, np.ones(400, dtype=np.bool_)))
        told[name] = {entry["name"]: entry for entry in pool.info()}
    assert told["logistic"]["estimator"]["rollbacks"] > 0
    assert told["logistic"]["prior"]["rollbacks"] == 0
    assert told["one against the rest"]["estimator"]["rollbacks"] == 0


def test_a_served_copy_is_made_when_it_is_asked() -> None:
    """A copy shares what was taken apart, and answers as the original did."""
    features, labels = rows(200)
    pool = pool_of(LINEAR)
    run(pool, features[:150], labels[:150])
    copy = pool.copy()
    member = copy.slots[1].member
    assert isinstance(member, EstimatorMember)
    assert member.model.estimator._model is None  # type: ignore[attr-defined]  # a model of River
    wanted = pool.predict(features[150:]).prediction.tobytes()
    run(pool, features[150:], labels[150:])
    assert copy.predict(features[150:]).prediction.tobytes() == wanted
