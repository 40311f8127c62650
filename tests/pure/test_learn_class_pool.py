"""learn/class_pool.py: classifiers side by side, the champion served, classes that appear, and the law of snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris

from streampiped.classes import UNKNOWN, Codes
from streampiped.errors import OptionError
from streampiped.learn.class_lineup import TRIVIAL, class_lineup
from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.class_members.classifier import Classifier
from streampiped.learn.class_members.trivial import ClassPrior
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.estimators import equal
from streampiped.learn.known_classes import CLASSES_MAX, KnownClasses
from streampiped.records import Array
from support.class_streams import SGD, STEP, logistic, pool, pool_of, worked

MLP, BAYES = "sklearn.neural_network.MLPClassifier", "sklearn.naive_bayes.GaussianNB"


def loss(served: Any) -> float:
    return float(np.nanmean(served.losses))


def guessing(labels: Any) -> float:
    """The least log-loss of the trivial members."""
    features = np.zeros((len(labels), 1))
    return min(loss(worked(pool_of({name: make()}, 1), features, labels)) for name, make in TRIVIAL.items())


def shuffled(bunch: Any) -> tuple[Array, Any]:
    order = np.random.default_rng(4).permutation(len(bunch.target))
    return np.ascontiguousarray(bunch.data[order]), bunch.target[order].astype(np.int64)


@pytest.mark.parametrize("kind", ["noise", "three", "rare", "sticky", "one class", "turns"])
@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_guessing(kind: str, seed: int) -> None:
    """On streams whose features say nothing the log-loss is at most 1.03 times that of the best guess of hindsight, and
    1.1 times where one class in fifty rows is another: there is nothing to choose by for long."""
    rng = np.random.default_rng(100 + seed)
    rows = 3000
    features, share = rng.normal(size=(rows, 5)), rng.random(rows)
    labels = {
        "noise": (share < 0.3).astype(np.int64),
        "three": rng.integers(0, 3, size=rows),
        "rare": (share < 0.02).astype(np.int64),
        "sticky": np.cumsum(share < 0.05) % 2,
        "one class": np.zeros(rows, dtype=np.int64),
        "turns": (share < np.where(np.arange(rows) < 1500, 0.2, 0.8)).astype(np.int64),
    }[kind]
    assert loss(worked(pool(5), features, labels)) <= (1.1 if kind == "rare" else 1.03) * guessing(labels)


def test_a_logistic_stream_is_learned_to_the_noise() -> None:
    """After a thousand rows the log-loss is within 5 % of that of the probabilities that the labels were drawn by."""
    features, labels, chance = logistic(6000)
    model = pool(5)
    served = worked(model, features, labels)
    best = -np.log(np.where(labels == 1, chance, 1 - chance))
    assert not model.fallback
    assert np.mean(served.losses[1000:]) < 1.05 * best[1000:].mean()


@pytest.mark.parametrize(
    ("load", "accuracy", "log_loss"),
    [(load_breast_cancer, 0.93, 0.17), (load_iris, 0.88, 0.25)],
    ids=["cancer", "iris"],
)
def test_real_classes_are_learned(load: Any, accuracy: float, log_loss: float) -> None:
    """From the first row on, test-then-train, on data sets of 569 and 150 rows."""
    features, labels = shuffled(load())
    served = worked(pool(features.shape[1]), features, labels)
    assert np.mean(served.right) > accuracy
    assert loss(served) < log_loss


def test_a_drift_is_found_and_followed() -> None:
    """Coefficients that turn round are noticed within 100 rows and learned anew within some hundred; before that, in
    ten thousand rows, there is no alarm."""
    features, labels, chance = logistic(13000)
    labels[10000:] = 1 - labels[10000:]
    model = pool(5)
    served = worked(model, features, labels, 1024)
    (drift,) = model.history.drifts()
    assert 10000 <= drift["row"] < 10100
    best = -np.log(np.where(labels == 1, chance, 1 - chance))[:10000].mean()
    assert np.mean(served.losses[10500:]) < 1.15 * best


def test_a_late_class_is_learned() -> None:
    """One that comes after 1500 rows has no probability before, a finite loss at first, and is predicted soon."""
    features, labels, _ = logistic(4000)
    labels = np.where((np.arange(4000) >= 1500) & (features[:, 3] > 0.8), 7, labels)
    model = pool(5)
    served = worked(model, features, labels)
    assert model.classes.labels == [labels[0], 1 - labels[0], 7]
    assert np.isfinite(served.losses).all()
    assert served.unmet == 0.0
    late = np.flatnonzero(labels == 7)
    late = late[late > 2500]
    assert np.mean(np.array(served.codes)[late] == 2) > 0.7
    assert np.mean(served.right[2500:]) > 0.8


def test_no_label_reaches_its_own_prediction() -> None:
    """In a block too, a row's class, a new one as well, changes no prediction up to its own; later ones it does."""
    features, labels, _ = logistic(200)
    plain = worked(pool(5), features, labels).table()
    for row in (0, 7, 190):
        for other in (1 - labels[row], 5):
            changed = labels.copy()
            changed[row] = other
            table = worked(pool(5), features, changed).table()
            assert np.array_equal(table[: row + 1, 1], plain[: row + 1, 1], equal_nan=True)
            assert not np.array_equal(table[row + 1 :, 1], plain[row + 1 :, 1])


def test_probabilities_are_such() -> None:
    """Finite, within 0 and 1, of every class that was met, and with two of them they sum up to 1; the predicted class
    is the most probable one."""
    features, labels, _ = logistic(500)
    model = pool(5)
    worked(model, features, labels)
    forecast = model.predict(features[:50] * 1e9)
    assert forecast.probabilities.min() > 0
    assert forecast.probabilities.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-12)
    assert np.array_equal(forecast.prediction, forecast.probabilities.argmax(axis=1))
    assert np.array_equal(forecast.probability, forecast.probabilities.max(axis=1))


def test_nothing_is_known_before_the_first_label() -> None:
    """Rows without any label are predicted as UNKNOWN with the probability NaN, and nothing is learned."""
    model = pool(2)
    served = worked(model, np.ones((30, 2)), np.full(30, -1))
    assert set(served.codes) == {UNKNOWN}
    assert np.isnan(served.probability).all()
    assert (model.rows, model.learned, model.blocks) == (30, 0, 0)
    assert model.predict(np.ones((2, 2))).prediction.tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("path", [SGD, BAYES, MLP], ids=["sgd", "bayes", "mlp"])
@pytest.mark.parametrize("cut", [0, 1, 2, 5, 599, 600, 601, 602, 1000, 1530])
def test_a_restored_pool_goes_on_bit_for_bit(cut: int, path: str) -> None:
    """Snapshot at any row, right after a new class, across a drift, labels missing: the same forecasts, history and
    state to the last bit; a copy too."""
    features, labels, _ = logistic(1800)
    labels[600] = 9
    labels[900::50] = 9
    labels[1500:] = np.where(labels[1500:] < 2, 1 - labels[1500:], 9)
    labels[::97] = -1
    params = {"hidden_layer_sizes": [4]} if path == MLP else {}
    whole, twin = (pool(5, path=path, **params) for _ in range(2))
    worked(whole, features[:cut], labels[:cut])
    copy = whole.copy()
    twin.restore(whole.state())
    ours, theirs, copied = (worked(each, features[cut:], labels[cut:]).table() for each in (whole, twin, copy))
    assert ours.tobytes() == theirs.tobytes() == copied.tobytes()
    assert equal(whole.state(), twin.state())
    assert equal(whole.state(), copy.state())


def test_a_copy_never_changes() -> None:
    """What is frozen answers the same however much is learned afterwards, new classes included."""
    features, labels, _ = logistic(1200)
    model = pool(5)
    worked(model, features[:600], labels[:600])
    frozen = model.copy()
    before = frozen.predict(features[:40]).probabilities
    worked(model, features[600:], labels[600:] + 3)
    assert frozen.predict(features[:40]).probabilities.tobytes() == before.tobytes()
    assert len(frozen.classes) == 2
    assert len(model.classes) == 4


class Wild(ClassMember):
    """Answers with what is no number from some row on."""

    kind = "wild"

    def __init__(self, good: int) -> None:
        self.good = good
        self.seen = 0

    def predict(self, inputs: ClassInputs) -> Array:
        value = 0.5 if self.seen < self.good else np.nan
        return np.full((len(inputs), inputs.classes), value)

    def learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        self.seen += len(codes)
        return True

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Any) -> None:
        self.seen = state["seen"]

    def fresh(self) -> Wild:
        return Wild(self.good)


def test_a_member_without_an_answer_is_begun_anew_alone() -> None:
    """While it is silent the shares are served, and after three blocks it is a fresh one."""
    model = pool_of({"prior": ClassPrior(), "wild": Wild(500)}, 5)
    model.pin("wild")
    features, labels, _ = logistic(3000)
    served = worked(model, features, labels)
    assert np.isfinite(served.probability[1:]).all()
    assert model.slots[1].resets > 0
    assert model.slots[0].rollbacks == 0


def test_a_spike_rolls_back_nobody() -> None:
    """Features of 1e150 that come without a gate leave every answer a number."""
    features, labels, _ = logistic(800)
    features[300, 0] = 1e150
    served = worked(pool(5), features, labels)
    assert np.isfinite(served.losses).all()


def test_what_an_estimator_knows_outlives_a_new_class() -> None:
    """A third class makes another SGDClassifier, that still tells the first two apart as it did."""
    features, labels, _ = logistic(1500)
    model = pool(5, ["sgd"])
    worked(model, features, labels)
    member = model.slots[-1].member
    assert isinstance(member, Classifier)
    inputs = ClassInputs(features[:200], features[:200], model.copy()._past.now(200))
    before = member.predict(inputs)
    worked(model, features[:1], np.array([2]))
    after = model.slots[-1].member.predict(inputs)
    assert after.shape[1] == 3
    assert np.mean(before.argmax(axis=1) == after[:, :2].argmax(axis=1)) > 0.95


def test_a_class_too_many_is_none() -> None:
    """After CLASSES_MAX the next one is UNKNOWN; the others keep their codes, in the order of their appearance."""
    known = KnownClasses("int")
    labels = np.arange(CLASSES_MAX + 3)[::-1].copy()
    codes = known.codes(labels, np.ones(len(labels), dtype=np.bool_))
    assert codes.tolist() == [*range(CLASSES_MAX), UNKNOWN, UNKNOWN, UNKNOWN]
    twin = KnownClasses("int")
    twin.restore(known.state())
    assert twin.codes(labels, np.zeros(len(labels), dtype=np.bool_)).tolist() == [UNKNOWN] * len(labels)
    assert twin.codes(labels, np.ones(len(labels), dtype=np.bool_)).tolist() == codes.tolist()
    assert (known.code(True), known.code("3"), known.code(3)) == (UNKNOWN, UNKNOWN, CLASSES_MAX - 1)


def test_many_classes_are_learned() -> None:
    """Sixty-four of them, each about a centre of its own."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 64, size=3000)
    features = rng.normal(size=(64, 6))[labels] * 6 + rng.normal(size=(3000, 6))
    served = worked(pool(6, ["ridge", "sgd"]), features, labels)
    assert np.mean(served.right[1500:]) > 0.8


def test_the_lineup_has_the_names_of_the_other() -> None:
    """Those that look back at labels are left out, and squares of many columns unless they are named."""
    names = ["sgd", "ridge", "ridge_1000", "ridge_100"]
    assert list(class_lineup(None, 17, ClassPrior)) == [*TRIVIAL, *names]
    assert list(class_lineup(["squares", "lagged"], 17, ClassPrior)) == [*TRIVIAL, "squares"]


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        (SGD, {"loss": "hinge"}, "predict_proba"),
        ("sklearn.linear_model.SGDRegressor", {}, "predict_proba"),
        ("sklearn.linear_model.LogisticRegression", {}, "partial_fit"),
        (SGD, {"no_such": 1}, "no_such"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(path: str, params: dict[str, Any], words: str) -> None:
    """An estimator without probabilities, or that does not learn in steps."""
    with pytest.raises(OptionError, match=words):
        ClassRecipe(path, params, 1).try_out()


@pytest.mark.parametrize("path", [SGD, BAYES, MLP, "sklearn.naive_bayes.BernoulliNB"])
def test_classifiers_go_into_snapshots(path: str) -> None:
    """Fit, freeze, thaw, and on: the same."""
    ClassRecipe(path, STEP if path == SGD else {}, 1).try_out()
