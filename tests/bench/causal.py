"""Does a prediction know a label that it must not? Two streams whose labels agree before a row have to be served the
same up to and including it: a difference is a label that reached its own, or an earlier, prediction, and every figure
is then too good.

In one process (bench/inline.py), which serves what the daemon serves. Labels differ from a row in the middle of a batch
on: by a step, by a spike of one row, and by a step against a spike, which agree in one label more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bench import inline
from bench.defects import OFFSET, clean
from bench.generators import Floats
from bench.streams import Stream

ROWS: Final = 6_000
PLACES: Final = (2_500, 4_000, 5_500)
ROUNDING: Final = 1e-12
"""A matrix product has other last bits in a block of other length, and a later label may end a block: 4e-15 of 21.6 was
seen for that. What a label itself does to a prediction is of the size of the noise."""
COMPARED: Final = ("prediction", "prediction_low", "prediction_high")


@dataclass(frozen=True, slots=True)
class Ahead:
    """One pair of streams."""

    what: str
    first: int
    """Row from which on the labels differ."""
    rows: tuple[int, ...]
    """Rows up to it that were served differently; none, if no label is known too early."""


def measure(batch: int, settings: inline.Settings | None = None) -> list[Ahead]:
    base = clean().head(ROWS)
    found = []
    for place in PLACES:
        step, spike = base.labels.copy(), base.labels.copy()
        step[place:] += OFFSET
        spike[place] += OFFSET
        calm, stepped, spiked = (_served(base, labels, batch, settings) for labels in (base.labels, step, spike))
        found.append(Ahead("step", place, _differing(calm, stepped, place)))
        found.append(Ahead("spike", place, _differing(calm, spiked, place)))
        found.append(Ahead("step or spike", place + 1, _differing(stepped, spiked, place + 1)))
    return found


def _served(base: Stream, labels: Floats, batch: int, settings: inline.Settings | None) -> dict[str, Floats]:
    stream = Stream(base.name, base.target, {**base.columns, base.target: labels})
    return inline.run(stream, batch=batch, settings=settings).served


def _differing(one: dict[str, Floats], other: dict[str, Floats], first: int) -> tuple[int, ...]:
    """Rows up to and including `first` where anything that was served differs by more than ROUNDING."""
    differs = np.zeros(first + 1, dtype=np.bool_)
    for name in COMPARED:
        if name in one:
            ours, theirs = one[name][: first + 1], other[name][: first + 1]
            differs |= np.abs(ours - theirs) > ROUNDING * np.maximum(1.0, np.abs(ours))
    return tuple(np.flatnonzero(differs).tolist())
