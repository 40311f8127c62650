"""The coordinates that squares and products are taken in: every feature about its mean, by its deviation.

A running mean would move the coordinates under everything that was summed in them. So a frame stands still while rows
double, and what was summed in the old one is mapped to the new one exactly: it is linear in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.records import Array


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """`(x - shift) * factor` per column; the factor of a column that has not varied is 1."""

    shift: Array
    factor: Array

    @classmethod
    def of(cls, mean: Array, deviation: Array) -> Frame:
        flat = deviation <= 0.0
        return cls(mean, np.where(flat, 1.0, 1.0 / np.where(flat, 1.0, deviation)))

    def place(self, features: Array) -> Array:
        """`(rows, columns)` in these coordinates: aligned, C order."""
        result: Array = aligned_empty(features.size, np.float64).reshape(features.shape)
        np.subtract(features, self.shift, out=result)
        result *= self.factor
        return result

    def map_to(self, new: Frame) -> tuple[Array, Array]:
        """(scale, shift) with `new = old * scale + shift`, per column."""
        return new.factor / self.factor, (self.shift - new.shift) * new.factor

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `from_state`."""
        return {"shift": self.shift, "factor": self.factor}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Frame:
        return cls(np.array(state["shift"], dtype=np.float64), np.array(state["factor"], dtype=np.float64))
