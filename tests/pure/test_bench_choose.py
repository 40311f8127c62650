"""bench/real.py and bench/choose.py: by what rule a table becomes a stream, and what a ratio costs."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from bench import choose, real


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.tile(np.arange(10.0), 30), True),
        (np.tile(np.arange(9.0), 30), False),  # too few different ones
        (np.arange(300.0), False),  # merely counts
        (np.where(np.arange(300) % 5 == 0, np.nan, np.tile(np.arange(10.0), 30)), False),  # a fifth is missing
    ],
)
def test_a_target_varies_and_is_there(values: np.ndarray, expected: bool) -> None:
    """A target has ten different values, goes up and down, and is present in nine rows of ten."""
    assert real.is_target(values) is expected


def test_parts_depend_on_the_name_alone() -> None:
    """Of many names one half is for development and a quarter unseen, and a name is always in the same part."""
    names = [f"package/{n}" for n in range(2000)]
    parts = [real.part_of(name) for name in names]
    assert parts == [real.part_of(name) for name in names]
    assert 900 < parts.count("development") < 1100
    assert 400 < parts.count("unseen") < 600


def test_worse_than_a_guess_costs_most() -> None:
    """Up to the promised margin a ratio costs its logarithm, beyond it WORSE times more, and ABOVE on top."""

    def cost(ratio: float) -> float:
        return choose.Found("s", ratio, "mean", "ridge", 0).cost

    assert cost(0.5) == pytest.approx(log(0.5))
    assert cost(0.001) == pytest.approx(log(choose.RATIO_MIN))
    assert cost(2.04) == pytest.approx(log(2.04) + choose.WORSE * log(2.0) + choose.ABOVE)


def test_a_setting_reaches_whoever_uses_the_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """`impose` changes a constant where it is said, and a ridge's own numbers."""
    from streampiped.learn import champion, lineup

    monkeypatch.setattr(champion, "SIGMAS", champion.SIGMAS)
    monkeypatch.setattr(lineup, "RIDGES", dict(lineup.RIDGES))
    choose.impose({"learn.champion:SIGMAS": 7.0, "ridge:linear:penalty": 9.0})
    assert champion.SIGMAS == 7.0
    assert lineup.RIDGES["ridge"][2] == 9.0
    assert choose.today("ridge:linear:penalty") == 9.0


def test_every_candidate_is_a_constant_of_the_code() -> None:
    """Each constant that is varied exists."""
    for constant in choose.CANDIDATES:
        assert choose.today(constant) is not None
