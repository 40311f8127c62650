"""The members that compete by default, and those that one may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from streampiped.learn.members.base import Member
from streampiped.learn.members.bases import SQUARES_COLUMNS_MAX, Basis
from streampiped.learn.members.ridge import Ridge
from streampiped.learn.members.trivial import DiscountedMean, LastLabel, RunningMean

TRIVIAL: Final[Mapping[str, Callable[[], Member]]] = {
    "mean": RunningMean,
    "recent_mean": lambda: DiscountedMean(1),
    "fast_mean": lambda: DiscountedMean(0),
    "last_label": LastLabel,
}
"""Always there: what a model has to beat."""
RIDGES: Final[Mapping[str, tuple[Basis, float, float]]] = {
    # name: basis, memory in rows, penalty in rows
    "ridge": ("linear", inf, 3.0),
    "ridge_1000": ("linear", 1000.0, 3.0),
    "ridge_100": ("linear", 100.0, 3.0),
    "squares": ("squares", inf, 10.0),
    "squares_2000": ("squares", 2000.0, 10.0),
    "squares_500": ("squares", 500.0, 10.0),
    "lagged": ("lagged", inf, 10.0),
    "lagged_300": ("lagged", 300.0, 10.0),
}
ESTIMATOR: Final = "estimator"
NAMES: Final = (ESTIMATOR, *RIDGES)
"""What may be named beside the trivial ones."""


def lineup(names: Sequence[str] | None, columns: int, estimator: Callable[[], Member]) -> dict[str, Member]:
    """Name -> a member that has learned nothing: the trivial ones, then `names`, all when it is None. Squares and
    products of many columns are left out then: their number grows with the square."""
    chosen = NAMES if names is None else tuple(name for name in NAMES if name in names)
    members = {name: make() for name, make in TRIVIAL.items()}
    for name in chosen:
        if name == ESTIMATOR:
            members[name] = estimator()
            continue
        basis, memory, penalty = RIDGES[name]
        if names is not None or basis != "squares" or columns <= SQUARES_COLUMNS_MAX:
            members[name] = Ridge(basis, memory, penalty)
    return members
