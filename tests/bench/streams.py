"""The streams of the benchmark, by name.

Three groups. *reported*: those of the table, on which no default may be chosen. *development*: where defaults are
chosen. *unseen*: on which nothing is chosen, to see whether what was chosen holds elsewhere; the benchmark's page has
shown their figures ever since there are any. Where that was not kept the page says so. Real data sets by the hundred,
in parts of a like meaning, are in bench/real.py.

Streams that take long to make, or that come with River, are kept as .npz in the cache directory ($BENCH_CACHE, by
default bench-cache in the directory for temporary files): River is needed once, and not by who has the cache.
"""

from __future__ import annotations

import csv
import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench import generators
from bench.generators import Floats

DATA: Final = Path(__file__).parents[1] / "data"
WARM_UP_ROWS: Final = 100
WARM_UP_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Stream:
    """Columns in the order of the source, the target among them; all of one length, float64."""

    name: str
    target: str
    columns: Mapping[str, Floats]

    @property
    def rows(self) -> int:
        return len(self.columns[self.target])

    @property
    def labels(self) -> Floats:
        return self.columns[self.target]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name != self.target)

    @property
    def warm_up(self) -> int:
        """Rows that `after warm-up` leaves out."""
        return max(WARM_UP_ROWS, int(WARM_UP_SHARE * self.rows))

    def table(self) -> Floats:
        """The features, `(rows, columns)`, C order."""
        return np.column_stack([self.columns[name] for name in self.features])

    def head(self, rows: int) -> Stream:
        """Its first rows."""
        return Stream(self.name, self.target, {name: values[:rows] for name, values in self.columns.items()})


Columns = dict[str, Floats]


def _file(name: str) -> Columns:
    with (DATA / name).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return {column: np.array([float(row[i]) for row in rows]) for i, column in enumerate(header)}


def _bundled(name: str, target: str | None = None) -> Columns:
    """A data set that scikit-learn ships, in its given order; `target` names a feature to predict in its place."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    names = [str(n).replace(" ", "_").replace("(", "").replace(")", "") for n in found.feature_names]
    columns = {n: np.array(found.data[:, i], dtype=np.float64) for i, n in enumerate(names)}
    if target is None:
        return columns | {"y": np.array(found.target, dtype=np.float64)}
    return {n: v for n, v in columns.items() if n != target} | {target: columns[target]}


def _river(module: str, kind: str, rows: int | None = None, seed: int | None = None) -> Columns:
    """A data set of River as numbers: texts become one column of 0 and 1 for each value but the last, a time its
    hours, hour of the day, weekday and month."""
    import importlib

    made = getattr(importlib.import_module(f"river.datasets{module}"), kind)
    dataset = made() if seed is None else made(seed=seed)
    pairs = list(dataset) if rows is None else list(dataset.take(rows))
    columns: Columns = {}
    for name in pairs[0][0]:
        values = [x[name] for x, _ in pairs]
        label = f"x{name}" if isinstance(name, int) else str(name)
        if hasattr(values[0], "toordinal"):
            columns["hours"] = np.array([(v - values[0]).total_seconds() / 3600 for v in values])
            for part in ("hour", "month"):
                columns[part] = np.array([float(getattr(v, part)) for v in values])
            columns["weekday"] = np.array([float(v.weekday()) for v in values])
        elif isinstance(values[0], str):
            columns |= {f"{label}_{k}": np.array([float(v == k) for v in values]) for k in sorted(set(values))[:-1]}
        else:
            columns[label] = np.array(values, dtype=np.float64)
    return columns | {"y": np.array([float(y) for _, y in pairs])}


_f = functools.partial
GRA_100K: Final = (35_000, 75_000)

REPORTED: Final[dict[str, tuple[str, Callable[[], Columns]]]] = {
    # name: target, how it is made
    "trump": ("five_thirty_eight", _f(_file, "trump_approval.csv")),
    "chick": ("weight", _f(_file, "chick_weights.csv")),
    "diabetes": ("y", _f(_bundled, "diabetes")),
    "friedman_gra": ("y", _f(generators.friedman_drift, "gra", GRA_100K, 42, 100_000)),
}
DEVELOPMENT: Final[dict[str, tuple[str, Callable[[], Columns]]]] = {
    "airline": ("y", _f(_river, "", "AirlinePassengers")),
    "water": ("y", _f(_river, "", "WaterFlow")),
    "planes": ("y", _f(_river, ".synth", "Planes2D", 20_000, 1)),
    "mv": ("y", _f(_river, ".synth", "Mv", 20_000, 1)),
    "friedman": ("y", _f(generators.friedman_drift, "gra", (), 1, 20_000)),
    "friedman_gra_1": ("y", _f(generators.friedman_drift, "gra", (20_000, 45_000), 1, 60_000)),
    "friedman_gsg": ("y", _f(generators.friedman_drift, "gsg", (20_000, 45_000), 2, 60_000)),
    "friedman_lea": ("y", _f(generators.friedman_drift, "lea", (15_000, 30_000, 45_000), 3, 60_000)),
    "walk": ("y", _f(generators.walk, 1, 5_000)),
    "walk_short": ("y", _f(generators.walk, 2, 400, 10)),
    "drifting": ("y", _f(generators.drifting, 1, 10_000)),
    "linear": ("y", _f(generators.linear, 1, 20_000, 8, 10_000)),
    "wine": ("alcohol", _f(_bundled, "wine", "alcohol")),
    "steps": ("y", _f(generators.steps, 12, 7_000)),
}
UNSEEN: Final[dict[str, tuple[str, Callable[[], Columns]]]] = {
    "iris": ("petal_width_cm", _f(_bundled, "iris", "petal_width_cm")),
    "cancer": ("mean_area", _f(_bundled, "breast_cancer", "mean_area")),
    "digits": ("y", _f(_bundled, "digits")),
    "sp500": ("y", _f(_river, "", "SP500Stocks")),
    "noise": ("y", _f(generators.noise, 11, 5_000)),
    "heavy": ("y", _f(generators.heavy, 13, 10_000)),
    "season": ("y", _f(generators.season, 14, 4_000)),
    "walk_unseen": ("y", _f(generators.walk, 15, 3_000, 3)),
}
GROUPS: Final = {"reported": REPORTED, "development": DEVELOPMENT, "unseen": UNSEEN}
ALL: Final = REPORTED | DEVELOPMENT | UNSEEN


def load(name: str) -> Stream:
    """The stream of this name; ImportError when it is River's, River is absent and the cache does not have it."""
    target, make = ALL[name]
    return Stream(name, target, make() if make in _CHEAP else cached(name, make))


_CHEAP = {make for _, make in ALL.values() if make.func is _file or make.func is _bundled}  # type: ignore[attr-defined]  # partials


def cache_directory() -> Path:
    directory = Path(os.environ.get("BENCH_CACHE") or Path(tempfile.gettempdir(), "bench-cache"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def cached(name: str, make: Callable[[], Columns]) -> Columns:
    """The columns from the cache; made, and put there, when they are not. A changed maker has another name."""
    said = "-".join(str(part).strip("()") for part in make.args)  # type: ignore[attr-defined]  # partials
    path = cache_directory() / f"{name}-{said.replace(' ', '').replace(',', '_')}.npz"
    if not path.exists():
        columns = make()
        unfinished = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(unfinished, allow_pickle=False, order=np.array(list(columns)), **columns)
        unfinished.replace(path)
    with np.load(path) as kept:
        return {str(column): kept[str(column)] for column in kept["order"]}
