"""What a least-squares member is linear in: the features, alone, with squares and products, or with labels before."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.aligned import aligned_empty
from streampiped.learn.members.base import Inputs
from streampiped.learn.past import LAGS
from streampiped.records import Array

Basis: TypeAlias = Literal["linear", "squares", "lagged"]
SQUARES_COLUMNS_MAX: Final = 16
"""Features of which squares and products are taken: 152 columns then, and the cost grows with their square."""


def width_of(basis: Basis, features: int) -> int:
    """Columns of `columns_of`."""
    match basis:
        case "linear":
            return features
        case "squares":
            return features + features * (features + 1) // 2
        case "lagged":
            return features + LAGS + 1


def columns_of(basis: Basis, inputs: Inputs) -> Array:
    """`(rows, width_of(...))`, aligned; made once for all members. What is made here has its columns one behind the
    other: a product of two is then one long loop, and not one of sixteen for each row."""
    match basis:
        case "linear":
            return inputs.framed
        case "squares":
            return inputs.shared("squares", lambda: with_squares(inputs.framed))
        case "lagged":
            return inputs.shared("lagged", lambda: _with_lags(inputs))


def anchor_of(basis: Basis, inputs: Inputs) -> Array | float:
    """What a member on this basis predicts the difference to: the newest label where labels are among its columns, so
    that what it shrinks to is the last value and not the mean."""
    return inputs.looks.lags[:, 0] if basis == "lagged" else 0.0


def usable_of(basis: Basis, inputs: Inputs) -> NDArray[np.bool_]:
    """Rows that can be learned: with labels among the columns, those that have them. The first label of a stream at
    1e6 would be an outlier of that size for ever."""
    if basis == "lagged":
        return np.asarray(inputs.looks.count >= LAGS)
    return np.ones(len(inputs), dtype=np.bool_)


def moved(basis: Basis, scale: Array, shift: Array) -> tuple[Array, Array]:
    """(matrix, shift) with `new columns = matrix @ old columns + shift` when every feature x becomes
    `x * scale + shift`."""
    count = len(scale)
    width = width_of(basis, count)
    matrix, constant = np.eye(width), np.zeros(width)
    matrix[range(count), range(count)] = scale
    constant[:count] = shift
    if basis == "squares":
        first, second = (places.copy() for places in np.triu_indices(count))
        rows = np.arange(count, width)
        matrix[rows, rows] = scale[first] * scale[second]
        np.add.at(matrix, (rows, first), scale[first] * shift[second])
        np.add.at(matrix, (rows, second), scale[second] * shift[first])
        constant[rows] = shift[first] * shift[second]
    return matrix, constant


def with_squares(features: Array) -> Array:
    rows, count = features.shape
    table = _empty(width_of("squares", count), rows)
    table[:count] = features.T
    place = count
    for column in range(count):
        stop = place + count - column
        np.multiply(table[column:count], table[column], out=table[place:stop])
        place = stop
    return table.T


def _with_lags(inputs: Inputs) -> Array:
    """Steps between the newest labels, and where the last stands to the mean: all differences, so that a level that
    wanders is nothing new."""
    rows, count = inputs.framed.shape
    table = _empty(width_of("lagged", count), rows)
    table[:count] = inputs.framed.T
    lags = inputs.looks.lags.T
    table[count : count + LAGS - 1] = lags[:-1] - lags[1:]
    table[count + LAGS - 1] = lags[0] - inputs.looks.discounted[:, 0]
    table[count + LAGS] = lags[0] - inputs.looks.mean
    return table.T


def _empty(columns: int, rows: int) -> Array:
    result: Array = aligned_empty(rows * columns, np.float64).reshape(columns, rows)
    return result
