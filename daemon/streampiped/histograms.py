"""Times in logarithmic buckets: cheap to count, exact to add up, percentiles within an eighth.

A batch is counted by one addition to a word of its process's black box. Every octave of nanoseconds has PER_OCTAVE
buckets of equal width, the widest an eighth of what lies in it: a percentile is off by no more, wherever inside of one
it is put.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

OCTAVE_BITS: Final = 3
PER_OCTAVE: Final = 1 << OCTAVE_BITS
FIRST_OCTAVE: Final = 10  # 2**10 ns: below a microsecond there is only noise
OCTAVES: Final = 28  # up to 2**38 ns, 275 s: what takes longer than that is hung
BUCKETS: Final = OCTAVES * PER_OCTAVE + 2  # one below, one above
BELOW: Final = 1 << FIRST_OCTAVE
ABOVE: Final = 1 << (FIRST_OCTAVE + OCTAVES)

EDGES: Final[tuple[int, ...]] = tuple(
    (PER_OCTAVE + n % PER_OCTAVE) << (FIRST_OCTAVE - OCTAVE_BITS + n // PER_OCTAVE)
    for n in range(OCTAVES * PER_OCTAVE + 1)
)
"""Nanoseconds: bucket 0 ends at the first, bucket `i` is from `EDGES[i - 1]` up to, not including, `EDGES[i]`."""

Counts = Sequence[int]
"""Of every bucket."""


def bucket(ns: int) -> int:
    """Where a time belongs; negative ones, of a clock read twice, into the lowest.

    >>> bucket(0), bucket(1024), bucket(1151), bucket(1152), bucket(1 << 60) == BUCKETS - 1
    (0, 1, 1, 2, True)
    """
    if ns < BELOW:
        return 0
    if ns >= ABOVE:
        return BUCKETS - 1
    bits = ns.bit_length()
    return (bits - FIRST_OCTAVE - 1) * PER_OCTAVE + ((ns >> (bits - 1 - OCTAVE_BITS)) & (PER_OCTAVE - 1)) + 1


def quantile(counts: Counts, share: float) -> float | None:
    """Seconds below which `share` (0 to 1) of what was counted lies; None when nothing was.

    >>> quantile([0] * BUCKETS, 0.5) is None
    True
    """
    total = sum(counts)
    if not total:
        return None
    wanted, seen = share * total, 0
    for place, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = EDGES[place - 1] if place else 0
            high = EDGES[place] if place < len(EDGES) else ABOVE
            return (low + (high - low) * (wanted - seen) / count) / 1e9
        seen += count
    return ABOVE / 1e9


def cumulated(counts: Counts, every: int) -> list[tuple[float, int]]:
    """(seconds, how many took less) at every `every`-th octave: the `le` of Prometheus, and its count."""
    step, seen, found = every * PER_OCTAVE, 0, []
    for place, count in enumerate(counts[: len(EDGES)]):
        seen += count
        if place % step == 0:
            found.append((EDGES[place] / 1e9, seen))
    return found
