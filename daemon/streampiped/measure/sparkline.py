"""Numbers as a line of bars, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"
GAP: Final = " "  # where there is no number


def bars(values: Sequence[float | None], top: float | None = None) -> str:
    """A bar for each value, from 0 to `top` (default: the largest value).

    >>> bars([0.0, 1.0, None, 2.0])
    '▁▅ █'
    """
    highest = max((v for v in values if v is not None), default=0.0) if top is None else top
    return "".join(GAP if value is None else _bar(value, highest) for value in values)


def narrowed(values: Sequence[float | None], weights: Sequence[int], width: int) -> list[float | None]:
    """At most `width` values: weighted means of equally many neighbours."""
    group = -(-len(values) // width) if values else 1
    return [
        _mean(values[start : start + group], weights[start : start + group]) for start in range(0, len(values), group)
    ]


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    there = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None and w]
    total = sum(w for _, w in there)
    return sum(v * (w / total) for v, w in there) if total else None


def _bar(value: float, highest: float) -> str:
    if highest <= 0.0:
        return BLOCKS[0]
    place = int(value / highest * len(BLOCKS))
    return BLOCKS[min(max(place, 0), len(BLOCKS) - 1)]
