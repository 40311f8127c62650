"""Which records a stage dies of, again and again. Pure.

A death *inside* `process` is held against the records that were in there. An exception, a crash or a hang counts
whole; a bare SIGKILL, which may come from a person or from the kernel's OOM killer, counts a third. Once the same
records have been in the hands of `attempts` whole deaths they are suspects: the stage's successor tries them in
throw-away forks before it processes them (`trial.py`), and names the guilty ones. A trial is the proof; the count only
decides when one is worth its time, so that no number of random kills can put a record aside.

Deaths of one record over several branches are added up: where it is bad over all of them and each of them had to be
counted alone, the restarts could be used up before any is tried. Suspected are only those ways over which it was there
at a death: who is tried first and survives ends the suspicion.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from streampiped.core.protocol import Spans

Records: TypeAlias = tuple[tuple[str, int, int], ...]
"""(source, first position, count), by whatever way."""

WHOLE: Final = 3  # thirds of a death
CASES_MAX: Final = 8  # per stage: other deaths may come between two of the same records


@dataclass(slots=True)
class _Case:
    records: Records
    ways: set[str]
    thirds: int


class Poison:
    """The cases against records, by stage."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        """Whole deaths that make suspects."""
        self._cases: dict[str, deque[_Case]] = {}

    @property
    def _limit(self) -> int:
        return WHOLE * self.attempts

    def died(self, stage: str, inside: Spans, *, killed: bool) -> bool:
        """`stage` died with these records in `process`. True when they have just become suspects."""
        if not inside:
            return False
        cases = self._cases.setdefault(stage, deque(maxlen=CASES_MAX))
        weight = 1 if killed else WHOLE
        records = tuple(dict.fromkeys(span[1:] for span in inside))
        ways = {way for way, *_ in inside}
        for case in cases:
            if common := intersection(case.records, records):
                case.ways |= ways
                case.records = common  # batches may be cut differently in time: the guilty ones are in all of them
                before, case.thirds = case.thirds, case.thirds + weight
                return before < self._limit <= case.thirds
        cases.append(_Case(records, ways, weight))
        return weight >= self._limit

    def suspects(self, stage: str) -> Spans:
        """What the stage has to try before it processes it."""
        cases = self._cases.get(stage, ())
        found = (case for case in cases if case.thirds >= self._limit)
        return tuple((way, *record) for case in found for way in sorted(case.ways) for record in case.records)

    def judged(self, stage: str) -> None:
        """The trial is over, whatever it found: begin anew."""
        self._cases.pop(stage, None)


def intersection(some: Records, others: Records) -> Records:
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
