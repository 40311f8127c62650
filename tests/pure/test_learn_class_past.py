"""learn/class_past.py: against a plain loop, however it is cut, and restored anywhere."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import pytest

from streampiped.classes import UNKNOWN
from streampiped.learn.class_past import MEMORIES, STAY_MEMORY, ClassLooks, ClassPast

ROWS = 400


def stream() -> Any:
    """Codes in the order of their appearance: the third comes at row 150; one in ten is not known."""
    rng = np.random.default_rng(6)
    codes = np.where(np.arange(ROWS) < 150, np.cumsum(rng.random(ROWS) < 0.2) % 2, rng.integers(0, 3, size=ROWS))
    codes[150] = 2
    codes[rng.random(ROWS) < 0.1] = UNKNOWN
    codes[:2] = UNKNOWN
    codes[2] = 0
    return codes


def looked(sizes: list[int], *, restored: bool) -> ClassLooks:
    codes, past, parts, row = stream(), ClassPast(), [], 0
    for size in sizes:
        looks = past.follow(codes[row : row + size])
        wide = [np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, 3 - each.shape[-1])]) for each in _tables(looks)]
        parts.append(ClassLooks(looks.count, looks.met, *wide, looks.last, looks.stay))
        row += size
        if restored:
            twin = ClassPast()
            twin.restore(past.state())
            past = twin
    return ClassLooks(*(np.concatenate([getattr(part, name) for part in parts]) for name in ClassLooks.__slots__))


def _tables(looks: ClassLooks) -> list[Any]:
    return [looks.shares, looks.discounted]


@pytest.mark.parametrize("sizes", [[ROWS], [1] * ROWS, [3, 0, 147, 1, 130, 119], [64] * 6 + [16]])
def test_it_is_a_plain_loop(sizes: list[int]) -> None:
    """Counts, last class, classes met and share of repeats exactly, discounted shares to 1e-12."""
    looks = looked(sizes, restored=False)
    counts, discounted, last, stay = np.zeros(3), np.zeros((len(MEMORIES), 3)), UNKNOWN, 0.5
    for row, code in enumerate(stream().tolist()):
        assert looks.count[row] == counts.sum()
        assert looks.met[row] == np.count_nonzero(counts)
        assert looks.shares[row].tolist() == (counts / max(counts.sum(), 1.0)).tolist()
        assert looks.discounted[row] == pytest.approx(discounted, abs=1e-12)
        assert (looks.last[row], looks.stay[row]) == (last, pytest.approx(stay, abs=1e-12))
        if code == UNKNOWN:
            continue
        one = np.eye(3)[code]
        keep = np.exp(-1.0 / np.array(MEMORIES))[:, None]
        discounted = keep * discounted + (1 - keep) * one if counts.any() else np.tile(one, (len(MEMORIES), 1))
        if last != UNKNOWN:
            stay = exp(-1 / STAY_MEMORY) * stay + (1 - exp(-1 / STAY_MEMORY)) * (code == last)
        counts, last = counts + one, code


def test_restored_anywhere_it_is_the_same() -> None:
    """State and restore after every row change no bit."""
    sizes = [7, 1, 0, 142, 1, 1, 248]
    whole, torn = looked(sizes, restored=False), looked(sizes, restored=True)
    for name in ClassLooks.__slots__:
        assert getattr(whole, name).tobytes() == getattr(torn, name).tobytes()


def test_what_comes_next_is_known_without_following() -> None:
    """`now` is what the next row is told, and changes nothing."""
    past = ClassPast()
    past.follow(stream())
    before = past.state()
    now, after = past.now(2), past.follow(np.array([0, 1]))
    for name in ClassLooks.__slots__:
        assert getattr(now, name)[0].tobytes() == getattr(after, name)[0].tobytes()
        assert getattr(now, name)[1].tobytes() == getattr(now, name)[0].tobytes()
    assert before["counts"].sum() == past.rows - 2
