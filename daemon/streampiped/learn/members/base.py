"""The contract of a member: what the pool asks of every predictor, trivial or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.past import Looks
from streampiped.records import Array

Made = TypeVar("Made")


class Looking(Protocol):
    """What is known of the labels before each of some rows."""

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Self: ...


L = TypeVar("L", bound=Looking)


class Seen(Generic[L]):
    """Rows as members see them: `features` `(rows, columns)`, C order, finite, in their own units; the same `framed`,
    in coordinates that stand still (`frame.py`), made when it is first asked for; `looks` at the labels before each
    row.

    What several members make of the same rows is made once: `shared`.
    """

    __slots__ = ("_framed", "_made", "features", "looks")

    def __init__(self, features: Array, framed: Array | Callable[[Array], Array], looks: L) -> None:
        """`framed`: an array, or what makes it of the features, each row by itself."""
        self.features = features
        self._framed = framed
        self.looks = looks
        self._made: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Self:
        framed = self._framed if callable(self._framed) else self._framed[rows]
        return type(self)(self.features[rows], framed, self.looks[rows])

    @property
    def framed(self) -> Array:
        if callable(self._framed):
            self._framed = self._framed(self.features)
        return self._framed

    def shared(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` gives, made at the first call under this name."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made


class Inputs(Seen[Looks]):
    """With labels that are numbers: `looks` is in their unit."""

    __slots__ = ()


class Learner:
    """What a slot needs of a member, whatever it predicts. `predict` never changes it, `learn` alone does.

    What it holds is replaced and never changed in place, so that a copy is cheap and a snapshot may share arrays.
    """

    kind: ClassVar[str]
    trivial: ClassVar[bool] = False
    """A guess that needs no features: what a model has to beat, and what is served when none does."""
    stands_for_guesses: ClassVar[bool] = False
    """Of the guesses it alone is served: it is made of all of them."""

    @property
    def ready(self) -> bool:
        """It has learned enough to answer: until then it is not held against it that it does not."""
        return True

    @property
    def full(self) -> bool:
        """It has grown to its limit: it answers on, and learns no more until it is begun anew."""
        return False

    def move(self, scale: Array, shift: Array) -> None:
        """From here on every framed feature is `x * scale + shift` of what it was."""

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become exactly what `state` saw."""

    def fresh(self) -> Self:
        """A new one of the same kind and options that has learned nothing."""
        raise NotImplementedError

    def copy(self) -> Self:
        """An independent one in the same state."""
        twin = self.fresh()
        twin.restore(self.state())
        return twin

    def parameters(self) -> dict[str, Any]:
        """What it has learned as plain numbers for people; may be empty."""
        return {}


class Member(Learner):
    """A predictor of numbers."""

    looks_back: bool = False
    """It goes by the newest labels."""

    def predict(self, inputs: Inputs) -> Array:
        """`(len(inputs),)` in the label's unit. What is not finite counts as no answer."""
        raise NotImplementedError

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        """Learn at least one row; labels finite. False: what was learned is not finite, and must be taken back."""
        return True
