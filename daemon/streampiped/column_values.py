"""Columns as a stage gives them: of which type a batch holds them, and what that type has no place for."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.aligned import ITEM_BYTES

Kind: TypeAlias = Literal["f", "i", "t"]
INT_MAX: Final = np.iinfo(np.int64).max


def held_as(name: str, values: Any) -> tuple[Kind, Any]:
    """float64, int64 or text, and the values as that; ValueError for those that would become others on the way.

    >>> held_as("n", np.array([1, 2], np.uint64))[0], held_as("who", [None, "a"])[0], held_as("x", [1, None])[0]
    ('i', 't', 'f')
    """
    if not isinstance(values, np.ndarray):
        return ("t", list(values)) if _is_text(values) else ("f", _real(name, values))
    kind = values.dtype.kind
    if kind in "cO":
        return "f", _real(name, values)
    if isinstance(values, np.ma.MaskedArray):
        values = _unmasked(name, values)
    if kind in "mM":
        return "f", np.where(np.isnat(values), np.nan, values.astype(np.int64))
    if kind not in "iu":
        return "f", values
    if kind == "u" and values.dtype.itemsize == ITEM_BYTES and len(values) and values.max() > INT_MAX:
        raise ValueError(f"column {name!r} has {values.max()}, an int column at most {INT_MAX}")
    return "i", values


def _real(name: str, values: Any) -> Any:
    if any(isinstance(value, complex) for value in values):
        raise ValueError(f"column {name!r} has complex numbers; give their parts as two columns")
    return values


def _unmasked(name: str, values: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    """What is masked is missing."""
    if not np.ma.is_masked(values):
        return np.asarray(values.data)
    if values.dtype.kind in "iu":
        raise ValueError(f"column {name!r} is int, which has no missing, and masked; as float a missing value is NaN")
    return np.where(np.ma.getmaskarray(values), np.nan, values.data.astype(np.float64))


def _is_text(values: Any) -> bool:
    return isinstance(values, list) and isinstance(next((v for v in values if v is not None), ""), str)
