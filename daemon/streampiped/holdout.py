"""Which rows are predicted but never learned, the same for every stage and every replay."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Batch

_WORD = 2**64 - 1
_SPLITMIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def held_out(seed: int, batch: Batch, share: float) -> NDArray[np.bool_]:
    """Which rows are predicted but never learned: a hash of (seed, source, position), so that every stage and every
    replay chooses the same. `share` is the expected part of all rows, 0..1."""
    parts: list[NDArray[np.bool_]] = []
    limit = min(int(share * 2.0**64), _WORD)
    for span in batch.spans:
        salt = _salt(seed, span.source)
        if span.count == 1:  # the same in plain integers, in a sixth of the time
            parts.append(np.array([_mixed(span.start + salt & _WORD) < limit]))
            continue
        z = np.arange(span.start, span.start + span.count, dtype=np.uint64)
        z += np.uint64(salt)
        # splitmix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit
        for shift, factor in _SPLITMIX:
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        z ^= z >> np.uint64(31)
        parts.append(z < np.uint64(limit))
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(batch.rows, dtype=np.bool_)


def _mixed(z: int) -> int:
    for shift, factor in _SPLITMIX:
        z = (z ^ z >> shift) * factor & _WORD
    return z ^ z >> 31


@lru_cache(maxsize=64)
def _salt(seed: int, source: str) -> int:
    """FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in f"{seed}:{source}".encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
