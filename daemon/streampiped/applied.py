"""What the restored epoch's manifest asks of a stage, in its order: changes of its own, and records that come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from streampiped.core.epoch_commands import REPLAY
from streampiped.records import Batch


class Letters(Protocol):
    """Knows the records that come back (`gate.Gate`)."""

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]: ...


class Changeable(Protocol):
    """Takes the other changes (`stages.base.Stage`)."""

    def change(self, kind: str, params: Mapping[str, Any]) -> None: ...


class Changes:
    """Of one stage and one generation at a time. A change takes effect when everything before it has been processed,
    and at the latest before the stream goes on."""

    def __init__(self, stage: Changeable, gate: Letters) -> None:
        self._stage = stage
        self._gate = gate
        self._due: deque[Mapping[str, Any]] = deque()
        self._letters: deque[tuple[int, Batch]] = deque()

    def clear(self) -> None:
        """The generation is over."""
        self._due.clear()
        self._letters.clear()

    def begin(self, changes: Sequence[Mapping[str, Any]]) -> bool:
        """These are to be applied. Those in front of the first record are, when this returns: whether there is one."""
        self.clear()
        self._due.extend(changes)
        self._advance()
        return bool(self._letters)

    def next(self) -> tuple[int, Batch] | None:
        """The next records to be processed, with their attempt, when those before have been; None: all is applied."""
        self._advance()
        return self._letters.popleft() if self._letters else None

    def _advance(self) -> None:
        while self._due and not self._letters:
            change = self._due.popleft()
            if change["kind"] == REPLAY:
                self._letters.extend(self._gate.letters(change))
            else:
                self._stage.change(change["kind"], change["params"])
