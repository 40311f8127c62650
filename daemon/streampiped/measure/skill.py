"""How much better than a guess, how sure that is, and whether it may be chance.

Errors along a stream hang together, so that n rows say less than n independent ones would. Both the interval and the
test therefore stand on batch means: the window is cut into 20 consecutive batches, whose means are nearly independent
when a batch is longer than the errors remember, and their spread is that of the whole (Schmeiser, Batch size effects
in the analysis of simulation output, Operations Research 30, 1982, who finds nothing gained beyond 10 to 30 batches).
The test is of the difference of losses row by row (Diebold and Mariano, Comparing predictive accuracy, 1995).
"""

from __future__ import annotations

from math import atan, cos, isfinite, pi, sin, sqrt
from typing import Any, Final

import numpy as np

from streampiped.records import Array

BATCHES: Final = 20
FREEDOM: Final = BATCHES - 1  # degrees; odd, which `student` needs
T_95: Final = 2.093024054408263  # two-sided 95 % of Student's t with 19 degrees of freedom
ROWS_MIN: Final = 2 * BATCHES  # below, a batch is a row


def compare(model: Array, guess: Array) -> dict[str, Any]:
    """`last`: the share of the guess's loss that the model avoids, over these losses row by row in the stream's order
    (1 is perfect, 0 no better, below 0 worse). `low`, `high`: its 95 % interval. `p`: how probable such a difference
    is if the model is no better. None: cannot be said.

    >>> compare(np.full(200, 1.0), np.tile([2.0, 4.0], 100))
    {'last': 0.6666666666666667, 'low': 0.6666666666666667, 'high': 0.6666666666666667, 'p': 0.0}
    """
    nothing: dict[str, Any] = {"last": None, "low": None, "high": None, "p": None}
    with np.errstate(over="ignore", invalid="ignore"):
        lost, guessed = float(model.sum()), float(guess.sum())
        if not len(model) or guessed == 0.0 or not isfinite(guessed) or not isfinite(lost / guessed):
            return nothing
        skill = 1.0 - lost / guessed
        if len(model) < ROWS_MIN:
            return nothing | {"last": skill}
        better = guess - model
        # the ratio of two means, linearised about itself: its error is the mean of `apart` over that of `guess`
        apart = _spread(better - skill * guess) / (guessed / len(guess))
        return {"last": skill, **_interval(skill, apart), "p": _chance(float(better.mean()), _spread(better))}


def student(t: float) -> float:
    """P(T > t) of Student's distribution with FREEDOM degrees (Abramowitz and Stegun, 26.7.3, for odd ones)."""
    angle = atan(t / sqrt(FREEDOM))
    term = total = cos(angle)
    for k in range(3, FREEDOM - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return max(0.0, 0.5 - (angle + sin(angle) * total) / pi)


def _spread(values: Array) -> float:
    """The standard error of their mean, from the means of batches; the oldest rows that fill no batch are left out."""
    size = len(values) // BATCHES
    means = values[-size * BATCHES :].reshape(BATCHES, size).mean(axis=1)
    return float(means.std(ddof=1)) / sqrt(BATCHES)


def _interval(skill: float, error: float) -> dict[str, float | None]:
    if not isfinite(error):
        return {"low": None, "high": None}
    return {"low": skill - T_95 * error, "high": skill + T_95 * error}


def _chance(better: float, error: float) -> float | None:
    if not isfinite(better) or not isfinite(error):
        return None
    if error == 0.0:
        return 0.0 if better > 0 else 1.0
    return student(better / error)
