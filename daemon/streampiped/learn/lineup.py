"""The members that compete by default, and those that one may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

from streampiped.learn.members.base import Member
from streampiped.learn.members.bases import SQUARES_COLUMNS_MAX, Basis
from streampiped.learn.members.blend import Blend
from streampiped.learn.members.ridge import Ridge
from streampiped.learn.members.trivial import DiscountedMean, LastLabel, RunningMean

TRIVIAL: Final[Mapping[str, Callable[[], Member]]] = {
    "blend": Blend,
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
SGD: Final = "sgd"
"""The built-in linear model."""
ESTIMATOR: Final = "estimator"
"""What is there in its place when the option `estimator` names another."""
NAMES: Final = (SGD, ESTIMATOR, *RIDGES)
"""What may be named beside the trivial ones; of the first two there is one."""


def lineup(
    names: Sequence[str] | None, columns: int, estimator: Callable[[], Member], called: str = SGD
) -> dict[str, Member]:
    """Name -> a member that has learned nothing: the trivial ones, then `names`, all when it is None; `called`: what
    `estimator` makes. Squares and products of many columns are left out then: their number grows with the square."""
    members = {name: make() for name, make in TRIVIAL.items()}
    if is_chosen(names, called):
        members[called] = estimator()
    for name in RIDGES if names is None else (name for name in RIDGES if name in names):
        basis, memory, penalty = RIDGES[name]
        if names is not None or basis != "squares" or columns <= SQUARES_COLUMNS_MAX:
            members[name] = Ridge(basis, memory, penalty)
    return members


def is_chosen(names: Sequence[str] | None, called: str) -> bool:
    """Whether the member `called` SGD or ESTIMATOR competes: the latter name means whichever of both is there."""
    return names is None or called in names or ESTIMATOR in names


def renamed(state: Mapping[str, Any], called: str) -> Mapping[str, Any]:
    """The state of a pool, or of what waits for its labels, of which one member is `called` so: the built-in linear
    model was ESTIMATOR once as well."""
    members = state["members"]
    if called != SGD or ESTIMATOR not in members:
        return state
    names = [SGD if name == ESTIMATOR else name for name in members]
    return {**state, "members": names if isinstance(members, list) else dict(zip(names, members.values(), strict=True))}
