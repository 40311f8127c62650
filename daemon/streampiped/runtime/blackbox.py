"""The black box: a page of shared memory that a process writes before it does something.

The supervisor reads it when a deadline asks or a death does: no heartbeat traffic, and after a SIGKILL one still
knows which batch was being processed. Every field is one aligned 8-byte word, written and read whole. Two histograms of
times follow, one on a page of its own: what batches took, and how old they were when they were done.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from streampiped.histograms import BUCKETS, bucket
from streampiped.phases import Phase

PAGE_BYTES: Final = 4096
BOX_BYTES: Final = 2 * PAGE_BYTES
WORDS: Final = 13
(
    GENERATION, PHASE, PULSE, RECORDS_IN, RECORDS_OUT, BATCHES, SEQUENCE, POSITION, ROWS, LAG_NS, TOTAL, SINCE_NS,
    INSIDE,
) = range(WORDS)  # fmt: skip
SPAN_WORDS: Final = 4
SPANS_MAX: Final = 64  # of the batch in `process`; one that has more is told by its first ones
WORK: Final = PAGE_BYTES // 8  # a sum in ns, then a count for each bucket: what `process` or `read` took
AGE: Final = WORK + 1 + BUCKETS  # as before: from a batch's ingest until it was done here
END: Final = AGE + 1 + BUCKETS
TIMED_EVERY_NS: Final = 1_000_000
"""A batch is timed at most so often, and stands for those since the last one. Timing costs 1 us: too much for the 15 us
of a small batch in a stage that does nothing, and a thousandth of this. Up to 1,000 batches a second all are timed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look into a black box. Records are counted within the generation; `position` and `rows` are the source
    position of the first row and the rows of the batch that is (or was last) in `process`; `lag_ns` is the age of
    that batch when it was done; `total` the length of a bounded source, 0 when unknown."""

    inside: tuple[tuple[int, int, int, int], ...]
    """Spans of the batch that is in `process`: (way, source, first position, count), the way by its place in
    `Plan.ways()`, the source by its place among the plan's stages. Empty outside of `process`; stays after an exception
    there, until the process is gone."""
    generation: int
    phase: Phase
    pulse: int
    records_in: int
    records_out: int
    batches: int
    sequence: int
    position: int
    rows: int
    lag_ns: int
    total: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Times:
    """The histograms of a process's whole life: seconds in all, and the counts of `histograms.py`."""

    work_s: float
    work: tuple[int, ...]
    age_s: float
    age: tuple[int, ...]


class BlackBox:
    """Two pages. The supervisor makes it, the process maps it by its descriptor."""

    def __init__(self, fd: int) -> None:
        """Map `fd` (a memfd of BOX_BYTES) and close it."""
        self._map = mmap.mmap(fd, BOX_BYTES)
        os.close(fd)
        self.words = memoryview(self._map).cast("Q")
        """The fields, by the names of this module; the hot path writes them directly."""
        self._time_at = 0
        self._untimed = 0  # batches since the last that was timed

    @staticmethod
    def make(name: str) -> int:
        """A descriptor (close-on-exec) of zeroed pages."""
        fd = os.memfd_create(f"blackbox-{name}", os.MFD_CLOEXEC)
        os.ftruncate(fd, BOX_BYTES)
        return fd

    def begin(self, generation: int, total: int) -> None:
        """Start the counts of a generation."""
        words = self.words
        for field in (RECORDS_IN, RECORDS_OUT, BATCHES, LAG_NS, INSIDE):
            words[field] = 0
        words[TOTAL] = total
        words[GENERATION] = generation
        words[PULSE] += 1

    def enter(self, phase: Phase) -> None:
        self.words[PHASE] = phase
        self.words[PULSE] += 1

    def hold(self, spans: Iterable[tuple[int, int, int, int]]) -> None:
        """A batch of these (way, source, first position, count) is about to be processed; `words[INSIDE] = 0` ends
        it."""
        words, at = self.words, WORDS
        for span in spans:
            words[at], words[at + 1], words[at + 2], words[at + 3] = span
            at += SPAN_WORDS
            if at >= WORDS + SPAN_WORDS * SPANS_MAX:
                break
        words[INSIDE] = (at - WORDS) // SPAN_WORDS

    def count(self, rows: int, began_ns: int, now_ns: int, ingest_ns: int) -> int:
        """A batch is done now (CLOCK_MONOTONIC) that came into the stage at `began_ns`; how many there were in this
        generation."""
        words = self.words
        words[RECORDS_IN] += rows
        words[LAG_NS] = age_ns = now_ns - ingest_ns if now_ns > ingest_ns else 0
        words[BATCHES] = batches = words[BATCHES] + 1
        self._untimed += 1
        if now_ns >= self._time_at:
            self._time_at = now_ns + TIMED_EVERY_NS
            self._time(max(0, now_ns - began_ns), age_ns)
        return batches

    def _time(self, work_ns: int, age_ns: int) -> None:
        words, weight = self.words, self._untimed
        self._untimed = 0
        words[WORK] += work_ns * weight
        words[WORK + 1 + bucket(work_ns)] += weight
        words[AGE] += age_ns * weight
        words[AGE + 1 + bucket(age_ns)] += weight

    def times(self) -> Times:
        work, *counts = self.words[WORK:END].tolist()
        return Times(work / 1e9, tuple(counts[:BUCKETS]), counts[BUCKETS] / 1e9, tuple(counts[BUCKETS + 1 :]))

    def read(self) -> Reading:
        generation, phase, *counts, spans = self.words[:WORDS].tolist()
        flat = iter(self.words[WORDS : WORDS + SPAN_WORDS * min(spans, SPANS_MAX)].tolist())
        return Reading(tuple(zip(flat, flat, flat, flat, strict=True)), generation, Phase(phase), *counts)

    def close(self) -> None:
        self.words.release()
        self._map.close()
