"""learn/portable.py and learn/estimators.py: estimators through a snapshot without pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDRegressor

from streampiped.errors import OptionError
from streampiped.learn.estimators import Recipe, equal, is_finite
from streampiped.learn.portable import NotPortableError, decode, encode, to_plain
from streampiped.learn.sgd import SgdRecipe

RECIPES = {
    "sgd": Recipe("sklearn.linear_model.SGDRegressor", {"learning_rate": "constant", "eta0": 0.01}, 5),
    "sgd averaged": Recipe("sklearn.linear_model.SGDRegressor", {"average": 10}, 5),
    "mlp adam": Recipe("sklearn.neural_network.MLPRegressor", {"hidden_layer_sizes": [6, 4]}, 5),
    "mlp sgd": Recipe("sklearn.neural_network.MLPRegressor", {"solver": "sgd", "hidden_layer_sizes": [5]}, 5),
}


class Hiding(SGDRegressor):  # type: ignore[misc]  # scikit-learn ships no types
    """Keeps something that has no portable form."""

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803 - scikit-learn's own name
        self.secret_ = lambda: 0
        return super().partial_fit(X, y)


class Unseeded(SGDRegressor):  # type: ignore[misc]  # scikit-learn ships no types
    """Draws from a generator that no snapshot sees."""

    random = np.random.RandomState(0)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803 - scikit-learn's own name
        return super().partial_fit(X, y + self.random.normal(size=len(y)))


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(11)
    return [(rng.normal(size=(9, 4)), rng.normal(size=9)) for _ in range(count)]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_thawed_estimator_goes_on_bit_for_bit(name: str, cut: int) -> None:
    """Frozen after any batch and thawed, an estimator learns and predicts on with the same bits."""
    recipe = RECIPES[name]
    whole, stream = recipe.make(), batches(12)
    for features, targets in stream[:cut]:
        whole.partial_fit(features, targets)
    twin = recipe.thaw(recipe.freeze(whole))
    for features, targets in stream[cut:]:
        whole.partial_fit(features, targets)
        twin.partial_fit(features, targets)
        assert whole.predict(features).tobytes() == twin.predict(features).tobytes()
    assert equal(recipe.freeze(whole), recipe.freeze(twin))


@pytest.mark.parametrize("name", RECIPES)
def test_a_frozen_estimator_is_independent(name: str) -> None:
    """Learning on changes nothing in what was frozen before."""
    recipe = RECIPES[name]
    estimator, stream = recipe.make(), batches(4)
    estimator.partial_fit(*stream[0])
    frozen, again = recipe.freeze(estimator), recipe.freeze(estimator)
    for features, targets in stream[1:]:
        estimator.partial_fit(features, targets)
    assert equal(frozen, again)
    assert not equal(frozen, recipe.freeze(estimator))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        "text",
        b"bytes",
        (1, (2.0, [3])),
        {"a": [1, {"b": None}]},
        np.float64(0.1),
        np.int32(7),
        np.array(3.5),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        [np.zeros(0), np.array([True, False])],
    ],
    ids=str,
)
def test_a_portable_value_comes_back_as_it_was(value: Any) -> None:
    """Type, dtype, shape and memory order survive encoding and decoding."""
    back = decode(encode(value, "v"))
    assert type(back) is type(value)
    assert equal(encode(back, "v"), encode(value, "v"))
    if isinstance(value, np.ndarray):
        assert (back.dtype, back.shape, back.flags.f_contiguous) == (value.dtype, value.shape, value.flags.f_contiguous)


def test_a_random_state_goes_on_where_it_was() -> None:
    """A RandomState in the middle of its Gaussian pair draws the same numbers after a round trip."""
    generator = np.random.RandomState(3)
    generator.normal(size=3)
    twin = decode(encode(generator, "r"))
    assert generator.normal(size=5).tolist() == twin.normal(size=5).tolist()


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"~": 1}, np.array(["a"]), np.array([object()]), {3}], ids=lambda v: type(v).__name__
)
def test_what_is_not_portable_is_named(value: Any) -> None:
    """A value without a portable form is refused with the place where it stands."""
    with pytest.raises(NotPortableError, match=r"coef_\[0\]"):
        encode([value], "coef_")


def test_a_class_out_of_the_list_is_never_made() -> None:
    """State that names another class than the listed ones is refused."""
    with pytest.raises(NotPortableError):
        decode({"~": "object", "class": "subprocess.Popen", "state": {}})


def test_plain_form_has_no_numpy() -> None:
    """Arrays become dtype, shape and little-endian bytes."""
    plain = to_plain({"a": [np.array([1.0, 2.0])]})
    assert plain == {"a": [{"~": "array", "dtype": "<f8", "shape": [2], "data": np.array([1.0, 2.0]).tobytes()}]}


@pytest.mark.parametrize("name", RECIPES)
def test_estimators_pass_the_trial(name: str) -> None:
    """The trial at construction accepts what the other tests prove."""
    RECIPES[name].try_out()


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        ("nowhere.Regressor", {}, "cannot be imported"),
        ("SGDRegressor", {}, "cannot be imported"),
        ("sklearn.linear_model.Ridge", {}, "partial_fit"),
        ("sklearn.linear_model.SGDRegressor", {"etta": 1}, "etta"),
        ("sklearn.linear_model.SGDRegressor", {"loss": "no such"}, "loss"),
        (f"{__name__}.Hiding", {}, "secret_"),
        (f"{__name__}.Unseeded", {}, "differently"),
    ],
)
def test_an_impossible_estimator_is_refused_by_name(path: str, params: dict[str, Any], words: str) -> None:
    """What cannot be imported, made, saved or continued is an OptionError that says what and why."""
    with pytest.raises(OptionError, match=words) as caught:
        Recipe(path, params, 0).try_out()
    assert path in str(caught.value)


@pytest.mark.parametrize("built_in", [False, True])
@pytest.mark.parametrize("params", [{"alpha": -1.0}, {"learning_rate": "nope"}])
def test_params_that_the_estimator_refuses_are_refused_in_its_words(params: dict[str, Any], built_in: bool) -> None:
    """Learning leaves out scikit-learn's checks of them; the trial does not."""
    (name,) = params
    recipe = SgdRecipe(params, 0) if built_in else Recipe("sklearn.linear_model.SGDRegressor", params, 0)
    with pytest.raises(OptionError, match=f"The '{name}' parameter of SGDRegressor must be"):
        recipe.try_out()


def test_a_missing_seed_is_replaced_and_a_given_one_kept() -> None:
    """random_state left out or None becomes the stage's seed."""
    path = "sklearn.linear_model.SGDRegressor"
    seeds = [
        Recipe(path, params, 1 << 40 | 9).make().get_params()["random_state"] for params in ({}, {"random_state": 4})
    ]
    assert seeds == [9, 4]


def test_one_number_that_is_not_finite_is_found() -> None:
    """NaN or infinity in any learned array shows, a best loss of infinity does not."""
    estimator = RECIPES["mlp adam"].make()
    estimator.partial_fit(*batches(1)[0])
    assert is_finite(estimator)
    vars(estimator)["coefs_"][1][0, 0] = np.inf
    assert not is_finite(estimator)
