"""Ten defects of real inputs, each injected at fixed places of the same clean stream of 20,000 rows.

What was served is scored on the *clean* labels, every row of it: also those whose label was bad or missing in the
stream, for a prediction was served with them. The exceptions follow from the defect:

* `dead` and `late`: where the column says nothing, nobody can know what it would have said. There the reference is
  the same pipeline on the stream without that column, elsewhere the clean run.
* `offset`: the label has another level for good, so the labels are those of the stream, and rows whose label the gate
  did not believe do not count (`label` is then not what is being predicted); at most 5 % of all rows may be so. R2 over
  such a stream is flattering, since the step is part of its variance: R2 *within* the level, which divides by the
  variance of the clean labels, stands beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench import generators, pipeline
from bench.generators import Floats
from bench.pipeline import Ran
from bench.score import mse_r2, quarantined
from bench.streams import Stream, cached

ROWS: Final = 20_000
SEED: Final = 7
COLUMN: Final = "x3"
"""The one that explains most: a third of the variance."""
FIRST: Final = 5_000
HALF: Final = 10_000
OFTEN, SELDOM = 97, 997
"""Every so many rows from FIRST on, in the column or the label: 155 and 16 of them."""
OFFSET: Final = 1_000.0
UNIT: Final = 1_000.0
KEPT: Final = 0.95
"""Of the clean R2."""
UNSCORED_MAX: Final = 0.05

Columns = dict[str, Floats]


def clean() -> Stream:
    """Friedman's law without drift; R2 0.96 is the most that can be had."""
    made = cached("defects", functools.partial(generators.friedman_drift, "gra", (), SEED, ROWS))
    return Stream("clean", "y", made)


def _at(name: str, every: int, value: Callable[[Floats], Floats]) -> Callable[[Columns], Floats]:
    def damage(columns: Columns) -> Floats:
        values = columns[name].copy()
        places = np.arange(FIRST, ROWS, every)
        values[places] = value(values[places])
        return values

    return damage


def _from(name: str, value: Callable[[Floats], Floats]) -> Callable[[Columns], Floats]:
    def damage(columns: Columns) -> Floats:
        values = columns[name].copy()
        values[HALF:] = value(values[HALF:])
        return values

    return damage


def _late(columns: Columns) -> Floats:
    values = columns[COLUMN].copy()
    values[:FIRST] = 0.0
    return values


def _signed(size: float) -> Callable[[Floats], Floats]:
    """That value, up and down in turn."""
    return lambda values: np.where(np.arange(len(values)) % 2, -size, size)


@dataclass(frozen=True, slots=True)
class Defect:
    name: str
    what: str
    column: str
    damage: Callable[[Columns], Floats]
    silent: slice | None = None
    """Rows in which the column tells nothing."""

    def stream(self) -> Stream:
        columns = dict(clean().columns)
        columns[self.column] = self.damage(columns)
        return Stream(self.name, "y", columns)


EVERY = f"every {OFTEN}th row from {FIRST:,} on"
RARELY = f"every {SELDOM}th row from {FIRST:,} on"
DEFECTS: Final = (
    Defect("nan", f"NaN in {COLUMN}, {EVERY}", COLUMN, _at(COLUMN, OFTEN, lambda v: np.full_like(v, np.nan))),
    Defect("inf", f"+inf and -inf in {COLUMN}, {EVERY}", COLUMN, _at(COLUMN, OFTEN, _signed(np.inf))),
    Defect("spike_1e6", f"+1e6 and -1e6 in {COLUMN}, {RARELY}", COLUMN, _at(COLUMN, SELDOM, _signed(1e6))),
    Defect("spike_1e12", f"+1e12 and -1e12 in {COLUMN}, {RARELY}", COLUMN, _at(COLUMN, SELDOM, _signed(1e12))),
    Defect("label_nan", f"label NaN, {EVERY}", "y", _at("y", OFTEN, lambda v: np.full_like(v, np.nan))),
    Defect("label_spike", f"label +1e6 and -1e6, {RARELY}", "y", _at("y", SELDOM, _signed(1e6))),
    Defect("unit", f"{COLUMN} x {UNIT:g} from {HALF:,} on", COLUMN, _from(COLUMN, lambda v: v * UNIT)),
    Defect("dead", f"{COLUMN} stuck at 0 from {HALF:,} on", COLUMN, _from(COLUMN, np.zeros_like), slice(HALF, None)),
    Defect("late", f"{COLUMN} stuck at 0 before {FIRST:,}", COLUMN, _late, slice(0, FIRST)),
    Defect("offset", f"label + {OFFSET:g} from {HALF:,} on", "y", _from("y", lambda v: v + OFFSET)),
)


@dataclass(frozen=True, slots=True)
class Damage:
    """What a defect did."""

    defect: Defect
    reference: float
    """R2 that the same pipeline has where there is no defect."""
    r2: float
    within: float | None
    """R2 against the variance of the clean labels; only where it differs from `r2`."""
    within_all: float | None
    """The same over every row, those included that are left out."""
    unscored: int
    """Rows left out."""
    not_finite: int
    """Predictions that are NaN or infinite."""
    deaths: int

    @property
    def kept(self) -> float:
        return self.r2 / self.reference

    @property
    def passed(self) -> bool:
        sound = not self.not_finite and not self.deaths and self.unscored <= UNSCORED_MAX * ROWS
        return sound and self.kept >= KEPT


Runner = Callable[[Stream], Ran]


def measure(run: Runner = pipeline.run) -> tuple[Ran, list[Damage]]:
    """The clean run, and each defect beside it."""
    calm = run(clean())
    columns = {name: values for name, values in clean().columns.items() if name != COLUMN}
    without = run(Stream("without", "y", columns))
    return calm, [_judged(defect, run(defect.stream()), calm, without) for defect in DEFECTS]


def row_by_row(calm: Ran, run: Runner) -> Damage:
    """`offset` by a runner whose batches are of one row: what is decided there was decided without later labels."""
    offset = next(defect for defect in DEFECTS if defect.name == "offset")
    return _judged(offset, run(offset.stream()), calm, calm)


def _judged(defect: Defect, ran: Ran, calm: Ran, without: Ran) -> Damage:
    labels, predictions = clean().labels, ran.served["prediction"]
    finite = np.isfinite(predictions)
    reference = calm.served["prediction"].copy()
    if defect.silent is not None:
        reference[defect.silent] = without.served["prediction"][defect.silent]
    rows: NDArray[np.bool_] = finite.copy()
    within, within_all, wanted = None, None, labels
    if defect.name == "offset":
        rows &= ~quarantined(ran.served, len(labels))
        wanted = ran.stream.labels
        spread = float(np.mean((labels - labels.mean()) ** 2))
        within, within_all = (
            1 - float(np.mean((wanted[some] - predictions[some]) ** 2)) / spread for some in (rows, finite)
        )
    r2 = mse_r2(wanted[rows], predictions[rows])[1]
    return Damage(
        defect,
        mse_r2(labels, reference)[1] or 0.0,
        -np.inf if r2 is None else r2,
        within,
        within_all,
        int(len(rows) - rows.sum()),
        int(len(finite) - finite.sum()),
        ran.deaths,
    )
