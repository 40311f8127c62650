"""The members that compete by default when classes are learned, under the names of those that learn numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streampiped.learn.class_members.base import ClassMember
from streampiped.learn.class_members.discriminant import Discriminant
from streampiped.learn.class_members.trivial import ClassPrior, LastClass, RecentPrior
from streampiped.learn.lineup import RIDGES, SGD, is_chosen
from streampiped.learn.members.bases import SQUARES_COLUMNS_MAX

TRIVIAL: Final[Mapping[str, Callable[[], ClassMember]]] = {
    "prior": ClassPrior,
    "recent_prior": lambda: RecentPrior(1),
    "fast_prior": lambda: RecentPrior(0),
    "last_class": LastClass,
}
"""Always there: what a model has to beat."""


def class_lineup(
    names: Sequence[str] | None, columns: int, estimator: Callable[[], ClassMember], called: str = SGD
) -> dict[str, ClassMember]:
    """As `lineup`; each ridge is read as a discriminant, and of those that look back at labels there is none."""
    members = {name: make() for name, make in TRIVIAL.items()}
    if is_chosen(names, called):
        members[called] = estimator()
    for name in RIDGES if names is None else (name for name in RIDGES if name in names):
        basis, memory, _ = RIDGES[name]
        if basis == "lagged" or (names is None and basis == "squares" and columns > SQUARES_COLUMNS_MAX):
            continue
        members[name] = Discriminant(columns, basis, memory)
    return members
