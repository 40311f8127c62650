"""Raw values of a text file as columns: float64 (missing is NaN), int64 (has no missing), text (missing is None)."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["float", "int", "text"]

WRONG_SHARE: Final = 0.1  # of the first values; text that looks like a number is rarer in a text column
INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1


@dataclass(slots=True)
class Table:
    """Raw values by column of those lines that could be split, and which lines of the piece they are."""

    columns: Mapping[str, Sequence[Any]]
    lines: NDArray[np.intp]
    rejected: int = 0
    """Lines that could not be split; blank lines are none."""
    reason: str = ""
    """Of the first one."""
    further: Mapping[str, int] = field(default_factory=dict)
    """What lines have beside the columns, as far as that was asked for: its name, and the first line that has it."""


def infer(values: Sequence[Any], missing: Collection[str]) -> Kind:
    """text when more than a tenth of the values that are there are no numbers, else float: one bad value among the
    first lines must not turn a column into text. Never int: a later line may lack the value, and integers have no
    missing."""
    column, bad = to_floats(values, missing)
    there = len(bad) + int(np.count_nonzero(~np.isnan(column)))
    return "text" if len(bad) > WRONG_SHARE * there else "float"


def convert(kind: Kind, values: Sequence[Any], missing: Collection[str]) -> tuple[Any, list[int]]:
    """The column, and the numbers of the values that are none of this kind (what stands there is meaningless)."""
    if kind == "text":
        return to_texts(values, missing), []
    return to_floats(values, missing) if kind == "float" else to_ints(values)


def to_floats(values: Sequence[Any], missing: Collection[str]) -> tuple[NDArray[np.float64], list[int]]:
    """Numbers, booleans, and text as float() reads it (also nan and inf), unless that text means 'missing'."""
    if isinstance(values, np.ndarray):
        return values, []
    try:
        if not numbers_among(missing):
            return np.fromiter(map(float, values), np.float64, len(values)), []
    except (TypeError, ValueError, OverflowError):
        pass  # one of them is missing or wrong
    try:
        gone = _gone(frozenset(missing))
        return np.array([math.nan if value in gone else float(value) for value in values], np.float64), []
    except (TypeError, ValueError, OverflowError):
        return _to_floats_each(values, missing)


def numbers_among(texts: Collection[str]) -> bool:
    """float() reads one of the texts, as -999, so that it does not tell which values are missing."""
    return _numbers_among(frozenset(texts))


@lru_cache(maxsize=16)
def _numbers_among(texts: frozenset[str]) -> bool:
    return not all(map(_is_word, texts))


@lru_cache(maxsize=16)
def _gone(missing: frozenset[str]) -> frozenset[str | None]:
    return missing | {None}


def _is_word(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return True


def _to_floats_each(values: Sequence[Any], missing: Collection[str]) -> tuple[NDArray[np.float64], list[int]]:
    column = np.full(len(values), np.nan)
    bad: list[int] = []
    for number, value in enumerate(values):
        if value is None or (isinstance(value, str) and value in missing):
            continue
        try:
            column[number] = float(value)
        except (TypeError, ValueError, OverflowError):
            bad.append(number)
    return column, bad


def to_ints(values: Sequence[Any]) -> tuple[NDArray[np.int64], list[int]]:
    """Whole numbers of 64 bits, also from text; 3.0 is one."""
    column = np.zeros(len(values), dtype=np.int64)
    bad: list[int] = []
    for number, value in enumerate(values):
        try:
            whole = int(value)
            if not INT64_MIN <= whole <= INT64_MAX or (isinstance(value, float) and value != whole):
                raise ValueError
            column[number] = whole
        except (TypeError, ValueError, OverflowError):
            bad.append(number)
    return column, bad


def to_texts(values: Sequence[Any], missing: Collection[str]) -> list[str | None]:
    """Text as it is; what else a JSON file has (numbers, lists, objects) as JSON."""
    return [_text(value, missing) if value is not None else None for value in values]


def _text(value: Any, missing: Collection[str]) -> str | None:
    if isinstance(value, str):
        return None if value in missing else value
    return json.dumps(value, ensure_ascii=False)
