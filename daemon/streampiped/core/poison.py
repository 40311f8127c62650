"""Which records a stage dies of, again and again. Pure.

A death *inside* `process` is held against the records that were in there. An exception, a crash or a hang counts
whole; a bare SIGKILL, which may come from a person or from the kernel's OOM killer, counts a third. Once the same
records have been in the hands of `attempts` whole deaths they are suspects: the stage's successor tries them in
throw-away forks before it processes them (`trial.py`), and names the guilty ones. A trial is the proof; the count only
decides when one is worth its time, so that no number of random kills can put a record aside.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from streampiped.core.protocol import Spans

WHOLE: Final = 3  # thirds of a death
CASES_MAX: Final = 8  # per stage: other deaths may come between two of the same records


@dataclass(slots=True)
class _Case:
    spans: Spans
    thirds: int


class Poison:
    """The cases against records, by stage."""

    def __init__(self, attempts: int) -> None:
        self._limit = WHOLE * attempts
        self._cases: dict[str, deque[_Case]] = {}

    def died(self, stage: str, inside: Spans, *, killed: bool) -> bool:
        """`stage` died with these records in `process`. True when they have just become suspects."""
        if not inside:
            return False
        cases = self._cases.setdefault(stage, deque(maxlen=CASES_MAX))
        weight = 1 if killed else WHOLE
        for case in cases:
            if common := intersection(case.spans, inside):
                case.spans = common  # batches may be cut differently in time: the guilty ones are in all of them
                before, case.thirds = case.thirds, case.thirds + weight
                return before < self._limit <= case.thirds
        cases.append(_Case(inside, weight))
        return weight >= self._limit

    def suspects(self, stage: str) -> Spans:
        """What the stage has to try before it processes it."""
        cases = self._cases.get(stage, ())
        return tuple(span for case in cases if case.thirds >= self._limit for span in case.spans)

    def judged(self, stage: str) -> None:
        """The trial is over, whatever it found: begin anew."""
        self._cases.pop(stage, None)


def intersection(some: Spans, others: Spans) -> Spans:
    """The records that are in both.

    >>> intersection((("a", 0, 10),), (("b", 0, 10), ("a", 8, 10)))
    (('a', 8, 2),)
    """
    found = []
    for source, start, count in some:
        for other, first, length in others:
            low, high = max(start, first), min(start + count, first + length)
            if source == other and low < high:
                found.append((source, low, high - low))
    return tuple(found)
