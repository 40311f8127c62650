"""State machines as tables: (state, input) -> state, and the diagram that the documentation shows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the letter that automata theory gives to inputs


class ImpossibleInputError(AssertionError):
    """A wrong program: this input cannot come in this state."""


class Table(Generic[S, I]):
    """A finite state machine without a state of its own: whoever has one asks for the next."""

    def __init__(self, rows: Mapping[tuple[S, I], S]) -> None:
        self.rows = dict(rows)

    def advance(self, state: S, event: I) -> S:
        """The next state; ImpossibleInputError names state and input when there is none."""
        try:
            return self.rows[state, event]
        except KeyError:
            raise ImpossibleInputError(f"{event.value!r} cannot happen in state {state.value!r}") from None

    def mermaid(self, first: S, everywhere: Mapping[I, S] | None = None) -> str:
        """A Mermaid state diagram. An input of `everywhere` may come in many states and is drawn from one alone."""
        once = everywhere or {}
        lines = ["stateDiagram-v2", f"    [*] --> {first.value}"]
        for (state, event), target in self.rows.items():
            if once.get(event, state) is state:
                lines.append(f"    {state.value} --> {target.value}: {event.value}")
        return "\n".join(lines)
