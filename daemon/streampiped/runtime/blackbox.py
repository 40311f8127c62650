"""The black box: a page of shared memory that a process writes before it does something.

The supervisor reads it when a deadline asks or a death does: no heartbeat traffic, and after a SIGKILL one still
knows which batch was being processed. Every field is one aligned 8-byte word, written and read whole. Two histograms of
times follow, one on a page of its own: what batches took, and how old they were when they were done.
"""

from __future__ import annotations

import mmap
import os
import random
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
"""About so often a batch is put into the buckets, and stands for those since the last: that costs 1 us, too much for
the 15 us of a small batch in a stage that does nothing. Which one it will be is drawn before any of them begins, for a
slow batch must not be chosen because it is slow. Up to 500 batches a second all are chosen."""
STRIDE_MAX: Final = 64  # batches for which one stands on the average, at most: a stage may become slow at any time
SILENCE_NS: Final = 1_000_000_000  # without a choice for so long the next batch is chosen


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
        try:
            self._map = mmap.mmap(fd, BOX_BYTES)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")
        """The fields, by the names of this module; the hot path writes them directly."""
        self._random = random.Random(0)
        self._left = self._stride = 1  # batches until the chosen one; for how many it stands
        self._chosen_at = 0

    @staticmethod
    def make(name: str) -> int:
        """A descriptor (close-on-exec) of zeroed pages."""
        fd = os.memfd_create(f"blackbox-{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, BOX_BYTES)
        except OSError:
            os.close(fd)
            raise
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
        work_ns = now_ns - began_ns if now_ns > began_ns else 0
        words[WORK] += work_ns
        words[AGE] += age_ns
        self._left -= 1
        if self._left <= 0:
            self._choose(work_ns, age_ns, now_ns)
        elif now_ns - self._chosen_at > SILENCE_NS:
            self._stride, self._left = self._stride - self._left + 1, 1
        return batches

    def _choose(self, work_ns: int, age_ns: int, now_ns: int) -> None:
        """Put a batch into the buckets, and draw the next one."""
        words, weight = self.words, self._stride
        words[WORK + 1 + bucket(work_ns)] += weight
        words[AGE + 1 + bucket(age_ns)] += weight
        passed, self._chosen_at = max(1, now_ns - self._chosen_at), now_ns
        rate = min(STRIDE_MAX, weight * TIMED_EVERY_NS // passed)
        self._stride = self._left = self._random.randint(1, 2 * rate - 1) if rate > 1 else 1

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
