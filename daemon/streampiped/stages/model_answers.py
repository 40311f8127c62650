"""What a model answers over the API, of numbers and of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streampiped.classes import UNKNOWN
from streampiped.learn.class_pool import ClassForecast, ClassPool
from streampiped.learn.features import numbers_of
from streampiped.learn.late.held import HeldOut
from streampiped.learn.past import Looks
from streampiped.measure.metrics import scores_of
from streampiped.records import Array
from streampiped.stages.learning_tasks import AnyPool


def predicted(pool: AnyPool, table: Array) -> dict[str, Any]:
    """Predictions for these rows, with the bounds of their interval, or with the probability of each class."""
    forecast = pool.predict(table)
    if isinstance(forecast, ClassForecast):
        labels = _class_pool(pool).classes.labels
        return {
            "predictions": [labels[code] if code != UNKNOWN else None for code in forecast.prediction.tolist()],
            "probability": _known(forecast.probability),
            "classes": labels,
            "probabilities": forecast.probabilities.tolist(),
            "fallback": forecast.fallback,
        }
    return {
        "predictions": forecast.prediction.tolist(),
        "low": _known(forecast.low),
        "high": _known(forecast.high),
        "fallback": forecast.fallback,
    }


def _known(values: Array) -> list[float | None]:
    """None for NaN."""
    return [None if value != value else value for value in values.tolist()]


def scored(pool: AnyPool, table: Array, targets: Sequence[Any], looks: Looks | None) -> dict[str, Any]:
    """The figures over the rows whose target is known: finite, or not None. ValueError with a text for the caller."""
    if isinstance(pool, ClassPool):
        return _scored_classes(pool, table, targets)
    wanted = numbers_of(targets, "targets")
    if wanted.shape != (len(table),):
        raise ValueError(f"targets must be one list of {len(table)} numbers, one per row")
    finite = np.isfinite(wanted)
    predictions = pool.predict(table, looks).prediction
    return scores_of(wanted[finite], predictions[finite]).values()


def metrics_of(pool: AnyPool) -> dict[str, float | None]:
    """What a version's entry says of the champion, and of the best guess."""
    rows = pool.info()
    loss = next(row["loss"] for row in rows if row["name"] == pool.champion.name)
    guess = min((row["loss"] for row in rows if row["trivial"] and row["loss"] is not None), default=None)
    if isinstance(pool, ClassPool):
        return {"log_loss": loss, "guess_log_loss": guess}
    return {"rmse": _root(loss), "guess_rmse": _root(guess)}


def _scored_classes(pool: ClassPool, table: Array, targets: Any) -> dict[str, Any]:
    """A class that the model does not know counts as one that it thinks improbable."""
    if not isinstance(targets, Sequence) or isinstance(targets, str) or len(targets) != len(table):
        raise ValueError(f"targets must be one list of {len(table)} labels, one per row")
    there = [row for row, label in enumerate(targets) if label is not None]
    forecast = pool.predict(table)
    wanted = np.array([pool.classes.code(targets[row]) for row in there], dtype=np.intp)
    given = forecast.prediction[there]
    result: dict[str, Any] = {"rows": len(there), "accuracy": None, "log_loss": None, "f1": None}
    if there:
        result["accuracy"] = float(np.mean((wanted == given) & (wanted != UNKNOWN)))
        result["log_loss"] = float(pool.losses(forecast, there, wanted).mean())
        result["f1"] = _f1(wanted, given)
    return result


def _f1(wanted: Any, given: Any) -> float:
    """The mean over the classes that were met, as `learn.class_metrics` has it."""
    met = np.union1d(wanted, given).tolist()
    right = [2 * np.count_nonzero((wanted == code) & (given == code)) * (code != UNKNOWN) for code in met]
    both = [np.count_nonzero(wanted == code) + np.count_nonzero(given == code) for code in met]
    return float(np.mean(np.array(right) / np.array(both)))


def _class_pool(pool: AnyPool) -> ClassPool:
    assert isinstance(pool, ClassPool)
    return pool


def _root(loss: float | None) -> float | None:
    return None if loss is None else float(max(loss, 0.0) ** 0.5)


def recalled(pool: AnyPool, held: HeldOut | None, asked: Mapping[str, Sequence[int]]) -> tuple[Array, Looks | None]:
    """The questions whose held-out labels came at these positions of these sources, with what was known then.
    ValueError with a text for the caller."""
    if held is None:
        raise ValueError("what was asked is kept of late labels alone, and for the last epochs")
    try:
        keys = [(str(source), int(position)) for source, positions in asked.items() for position in positions]
        lines = held.lines(keys)
    except KeyError as error:
        raise ValueError(f"no held-out question of {error} is kept") from None
    except (AttributeError, TypeError) as error:
        raise ValueError(f"asked must be source -> positions: {error}") from None
    return pool.recalled(held.table[lines])


def looks_of(past: Mapping[str, Sequence[Any]] | None, rows: int) -> Looks | None:
    """What an asker says was known before each row. ValueError with a text for the caller."""
    if past is None:
        return None
    try:
        looks = Looks(*(numbers_of(past[name], f"past.{name}") for name in Looks.__slots__))
    except KeyError as error:
        raise ValueError(f"past lacks {error}; wanted are {list(Looks.__slots__)}") from None
    if any(len(getattr(looks, name)) != rows for name in Looks.__slots__):
        raise ValueError(f"each list of past must have {rows} entries, one per row")
    return looks
