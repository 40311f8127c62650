"""Other people's online regressors at their defaults: every row predicted, then learned, in its order, one by one.

    PYTHONPATH=daemon:tests python -m bench.rivals reported --only river_linear,vw

Features are what the stream has, unscaled for Vowpal Wabbit, which scales by itself, and for AMF, whose splits do not
care; linear models get a running StandardScaler, without which they diverge on every stream that has a date in it, and
the tree, whose leaves are linear models, is run both ways. Seconds are those of the process on
the CPU, the making of dictionaries and examples from arrays included: that is how these libraries are used.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.generators import Floats
from bench.inline import names_of
from bench.score import Figures, figures
from bench.streams import Stream, load

SEED: Final = 42
LEFT_OUT: Final = {"river_amf": 20_000}
"""Rows above which a rival is not asked: at a thousand rows a second it would take minutes."""

Predictions = Floats


@dataclass(frozen=True, slots=True)
class Raced:
    """One rival on one stream."""

    figures: Figures
    rate: float
    """Rows per CPU second."""


def _river(stream: Stream, model: Any) -> Predictions:
    names = stream.features
    result = np.empty(stream.rows)
    rows = zip(stream.table().tolist(), stream.labels.tolist(), strict=True)
    for row, (values, label) in enumerate(rows):
        x = dict(zip(names, values, strict=True))
        result[row] = model.predict_one(x) or 0.0
        model.learn_one(x, label)
    return result


def river_linear(stream: Stream) -> Predictions:
    """StandardScaler and LinearRegression, that is SGD with step 0.01."""
    from river import linear_model, preprocessing

    return _river(stream, preprocessing.StandardScaler() | linear_model.LinearRegression())


def river_hat(stream: Stream) -> Predictions:
    """StandardScaler and HoeffdingAdaptiveTreeRegressor."""
    from river import preprocessing, tree

    return _river(stream, preprocessing.StandardScaler() | tree.HoeffdingAdaptiveTreeRegressor(seed=SEED))


def river_hat_raw(stream: Stream) -> Predictions:
    """HoeffdingAdaptiveTreeRegressor on the features as they are: its splits are better, its leaves can diverge."""
    from river import tree

    return _river(stream, tree.HoeffdingAdaptiveTreeRegressor(seed=SEED))


def river_amf(stream: Stream) -> Predictions:
    """Aggregated Mondrian forest of 10 trees."""
    from river import forest

    return _river(stream, forest.AMFRegressor(seed=SEED))


def sklearn_sgd(stream: Stream) -> Predictions:
    """StandardScaler and SGDRegressor, both by `partial_fit` in blocks of one row."""
    from sklearn.linear_model import SGDRegressor
    from sklearn.preprocessing import StandardScaler

    scaler, model = StandardScaler(), SGDRegressor(random_state=SEED)
    table, labels, result = stream.table(), stream.labels, np.zeros(stream.rows)
    for row in range(stream.rows):
        scaled = scaler.partial_fit(table[row : row + 1]).transform(table[row : row + 1])
        if row:
            result[row] = model.predict(scaled)[0]
        model.partial_fit(scaled, labels[row : row + 1])
    return result


def vowpal_wabbit(stream: Stream) -> Predictions:
    """The defaults of vw; the prediction of a row is the one that it makes while learning it."""
    from vowpalwabbit import Workspace

    workspace = Workspace("--quiet")
    result = np.empty(stream.rows)
    rows = zip(stream.table().tolist(), stream.labels.tolist(), strict=True)
    for row, (values, label) in enumerate(rows):
        words = " ".join(f"f{place}:{value!r}" for place, value in enumerate(values))
        example = workspace.example(f"{label!r} | {words}")
        workspace.learn(example)
        result[row] = example.get_simplelabel_prediction()
        workspace.finish_example(example)
    workspace.finish()
    return result


RIVALS: Final[dict[str, tuple[str, Callable[[Stream], Predictions]]]] = {
    # name: what it is called, how it is run
    "river_linear": ("River linear regression", river_linear),
    "river_hat": ("River Hoeffding adaptive tree", river_hat),
    "river_hat_raw": ("the same, unscaled", river_hat_raw),
    "river_amf": ("River AMF", river_amf),
    "sklearn_sgd": ("scikit-learn SGD, block 1", sklearn_sgd),
    "vw": ("Vowpal Wabbit defaults", vowpal_wabbit),
}


def race(name: str, stream: Stream) -> Raced | None:
    """The rival over the whole stream; None when the stream is too long for it."""
    if stream.rows > LEFT_OUT.get(name, stream.rows):
        return None
    with np.errstate(all="ignore"):
        RIVALS[name][1](stream.head(2))  # so that imports are not part of the race
        began = time.process_time()
        predictions = RIVALS[name][1](stream)
        seconds = time.process_time() - began
    return Raced(figures({"prediction": predictions}, stream.labels, warm_up=stream.warm_up), stream.rows / seconds)


def versions() -> dict[str, str]:
    """Of what is compared."""
    return {name: importlib.metadata.version(name) for name in ("river", "scikit-learn", "vowpalwabbit", "numpy")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="+")
    parser.add_argument("--only", default=",".join(RIVALS), help=f"of {', '.join(RIVALS)}")
    wanted = parser.parse_args()
    for name in names_of(wanted.streams):
        stream = load(name)
        for rival in wanted.only.split(","):
            done = race(rival, stream)
            if done is None:
                print(f"{name:<16}{RIVALS[rival][0]:<32}{'left out':>12}", flush=True)
                continue
            found = done.figures
            cells = "".join(
                f"{'-' if c is None else format(c, '.4g'):>12}" for c in (found.mse, found.r2, found.r2_after)
            )
            print(f"{name:<16}{RIVALS[rival][0]:<32}{cells}{done.rate:>12,.0f}", flush=True)


if __name__ == "__main__":
    main()
