"""A member's place in the pool: the member, and how it has fared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from streampiped.learn.members.base import Learner

STRIKES: Final = 3  # blocks in a row that a member fails before it is begun anew
COUNTS: Final = ("rows", "rollbacks", "resets", "strikes", "begun")

M = TypeVar("M", bound=Learner)


@dataclass(slots=True)
class Slot(Generic[M]):
    """One member. What it does wrong is its own: nobody else is rolled back for it."""

    name: str
    member: M
    rows: int = 0
    """Learned since it was begun."""
    rollbacks: int = 0
    """Blocks that it failed: what it learned of them was taken back, or its answers were beyond all bounds."""
    resets: int = 0
    """Times it was begun anew for that."""
    strikes: int = 0
    """Failed blocks in a row."""
    begun: int = 0
    """Row of the stream at which it was begun anew: answers to earlier ones were another's."""

    def learned(self, rows: int) -> None:
        self.rows += rows
        self.strikes = 0

    def strike(self, row: int) -> None:
        """It failed a block that ends before `row`; after STRIKES in a row what it has learned is given up."""
        self.rollbacks += 1
        self.strikes += 1
        if self.strikes >= STRIKES:
            self.begin_anew(row)
            self.resets += 1

    def begin_anew(self, row: int) -> None:
        """A fresh member from `row` on; the counts of its failures stay."""
        self.member = self.member.fresh()
        self.rows = self.strikes = 0
        self.begun = row

    def copy(self) -> Slot[M]:
        """Independent, in the same state."""
        return Slot(self.name, self.member.copy(), self.rows, self.rollbacks, self.resets, self.strikes, self.begun)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"member": self.member.state(), **{name: getattr(self, name) for name in COUNTS}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.member = self.member.fresh()
        self.member.restore(state["member"])
        for name in COUNTS:
            setattr(self, name, int(state.get(name, 0)))
