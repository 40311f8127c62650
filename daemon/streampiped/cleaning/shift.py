"""Whether values beyond what is believed are spikes or a shift that lasts, and the map of its level to the old one."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.scaling import FLOAT_MAX
from streampiped.records import Array

RECENT: Final = 32  # values of which more than half beyond the bounds are a shift: a burst of spikes is shorter
LEVEL_ROWS: Final = 128  # values of the new level, at most, that tell its mean and deviation
NEAR: Final = 8.0  # median absolute deviations: what is further away does not count for the deviation
WARM_LIMIT: Final = 30.0  # of these, in deviations: few values know little of their tails
WARM_MIN: Final = 8  # values; below, everything is believed
MAD: Final = 1.4826  # deviations of a Gaussian in its median absolute deviation
DECADE: Final = 0.25  # of the mean, or of a deviation, that a level in another unit may differ by


@dataclass(frozen=True, slots=True)
class Map:
    """output = value * scale + shift."""

    scale: float
    shift: float


@dataclass(frozen=True, slots=True)
class Level:
    """Where values are: mean (the median) and deviation, least and greatest, and how many told it."""

    mean: float
    deviation: float
    low: float
    high: float
    rows: int


def first_of_shift(before: NDArray[np.bool_], beyond: NDArray[np.bool_]) -> int | None:
    """The first value of a shift that lasts; None: there is none. `before` are the RECENT values that came before, the
    answer is a place in `beyond`.

    >>> first_of_shift(np.zeros(RECENT, bool), np.array([False, True, False] + [True] * 20))
    3
    """
    flags = np.concatenate((before, beyond))
    total = np.concatenate(([0], np.cumsum(flags)))
    over = np.flatnonzero(total[RECENT:] - total[:-RECENT] > RECENT // 2)
    over = over[over > 0]  # windows that end in what comes
    if not over.size:
        return None
    end = int(over[0]) + RECENT  # behind the value at which it is believed
    return max(0, end - RECENT + begin_of(flags[end - RECENT : end]) - RECENT)


def first_bounds(values: Array) -> tuple[float, float]:
    """What is believed of the first values: by their median and MAD; everything while these say nothing."""
    middle = float(np.median(values)) if len(values) >= WARM_MIN else 0.0
    spread = MAD * float(np.median(np.abs(values - middle))) if len(values) >= WARM_MIN else 0.0
    return (middle - WARM_LIMIT * spread, middle + WARM_LIMIT * spread) if spread else (-FLOAT_MAX, FLOAT_MAX)


def begin_of(flags: NDArray[np.bool_]) -> int:
    """Where those beyond began to be the rule: from there on they outnumber the others by most. A spike some values
    earlier is none of them.

    >>> begin_of(np.array([False, True, False, False, True, True, False, True]))
    4
    """
    ahead = np.cumsum(np.where(flags, 1, -1)[::-1])
    return len(flags) - 1 - int(ahead.argmax())


def level_of(values: Array) -> Level:
    """Of the first LEVEL_ROWS of them, at least one."""
    values = values[:LEVEL_ROWS]
    middle = float(np.median(values))
    apart = np.abs(values - middle)
    spread = float(np.median(apart))
    near = values[apart <= NEAR * spread]
    range_of = near if spread > 0.0 else values  # a spike among the first of a new level is no part of it
    return Level(middle, float(near.std()), float(range_of.min()), float(range_of.max()), len(values))


def remapped(before: Map, mean: float, deviation: float, level: Level) -> Map:
    """The map that lets `level` look as values of this mean and deviation did with `before`. A power of ten is undone
    exactly: that is the same thing in another unit.

    >>> remapped(Map(1.0, 0.0), 3.0, 1.0, Level(3010.0, 990.0, 0.0, 9e3, 99))
    Map(scale=0.001, shift=0.0)
    """
    factor = deviation / level.deviation if level.deviation > 0.0 and deviation > 0.0 else 1.0
    decade = round(log10(factor))
    if decade and abs(level.mean * 10.0**decade - mean) <= DECADE * max(abs(mean), deviation):
        return Map(before.scale * 10.0**decade, before.shift)
    scale = before.scale * factor
    return Map(scale, mean * before.scale + before.shift - level.mean * scale)
