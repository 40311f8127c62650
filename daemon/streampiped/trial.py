"""Which rows of a suspect batch no process survives: tried in forks of the stage, right before it would process them.

A batch that has killed its stage again and again is first processed by a throw-away fork. If the fork survives, the
batch is innocent (somebody killed the stage, or the machine was short of memory) and the stage goes on. If not, halves
of it are tried, and halves of those, until the guilty rows stand alone. The stage itself never sees a row that was not
survived, and nothing that the forks do is kept: what a trial costs is time.

Rows that are guilty only together (one sets a state that another one trips over) are found by delta debugging:
Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input" (2002).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Batch, Span
from streampiped.runtime import throwaway
from streampiped.runtime.throwaway import Ending
from streampiped.stages.base import SinkStage, Stage
from streampiped.wire import letters

Manner: TypeAlias = Literal["exception", "crash", "loop", "kill"]
Rows: TypeAlias = NDArray[np.intp]

FORKS_MAX: Final = 1 << 14  # every second of 8192 rows; what is not found then is left to the next trial
SECONDS_MAX: Final = 60.0  # of trying, the pipeline standing still; then the same
ROUNDS_MAX: Final = 8  # searches in what is left, when it still kills: rows that hide behind others are rare
SLOWER: Final = 10  # times the longest pass so far: then a part looks like looping, until the whole limit says so
TOGETHER: Final = 4  # times the longest pass that two parts may take together: it is two, and a machine is not steady
QUICK_MIN_S: Final = 0.05  # no shorter limit than this: a fork copies pages before it does anything


@dataclass(frozen=True, slots=True)
class Row:
    """A guilty row. `record` is a msgpack map, name -> value, of the whole row: what is replayed must be what came.
    `traceback` has at most 16 KiB."""

    index: int
    via: str
    source: str
    position: int
    manner: Manner
    reason: str
    traceback: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """`guilty` in the order of the batch; none: the batch is innocent."""

    guilty: tuple[Row, ...]
    forks: int
    seconds: float


def judge(
    stage: Stage,
    batch: Batch,
    *,
    cpu_limit: float,
    wall_limit: float,
    tick: Callable[[], None],
    forget_outside: Callable[[], None],
) -> Verdict:
    """Try `batch` on `stage` as it is now. Changes neither. Main thread only, and no thread may be at work in the
    stage (a `prepare`): a fork has only the thread that forks.

    `cpu_limit` are seconds on the CPU after which a trial loops, `wall_limit` seconds of sleep after which it waits
    for ever. `tick` is called at least every second; `forget_outside` in each child before anything else: it has to
    mute what would reach others. A sink is isolated there, and one that cannot be is not tried: its whole batch is
    guilty. Takes SECONDS_MAX and a few trials at most.
    """
    began = time.monotonic()
    trials = _Trials(stage, batch, cpu_limit, wall_limit, tick, forget_outside, began + SECONDS_MAX)
    guilty = _search(trials, np.arange(batch.rows))
    rows = tuple(_row(batch, index, guilty[index]) for index in sorted(guilty))
    return Verdict(rows, trials.forks, time.monotonic() - began)


class _ExhaustedError(Exception):
    """No more forks, or no more time."""


class _UntestableError(Exception):
    """The sink cannot be isolated."""


@dataclass(slots=True)
class _Trials:
    """Forks of one stage with rows of one batch, and what they may still cost."""

    stage: Stage
    batch: Batch
    cpu_limit: float
    wall_limit: float
    tick: Callable[[], None]
    forget_outside: Callable[[], None]
    until: float
    forks: int = 0
    pace: float | None = field(default=None)
    """Seconds on the CPU of the longest trial that passed; None: none has yet."""
    found: dict[int, Ending] = field(default_factory=dict)
    """Guilty row -> how it ends."""
    exhausted: bool = False

    def full(self, rows: Rows) -> Ending:
        """With the whole limits, and whatever has been spent: what decides about a row is never cut short. A process
        that was killed from outside is tried once more: the kernel kills whoever has the most memory."""
        ending = self._fork(rows, self.cpu_limit, self.wall_limit)
        return self._fork(rows, self.cpu_limit, self.wall_limit) if ending.manner == "kill" else ending

    def be_patient(self) -> None:
        """Two parts that pass are no loop together only because their sum is over the limit."""
        self.cpu_limit = max(self.cpu_limit, TOGETHER * (self.pace or 0.0))

    def quick(self, rows: Rows) -> Ending:
        """With limits that follow from what has passed already. Raises _ExhaustedError."""
        if self.forks >= FORKS_MAX or time.monotonic() >= self.until:
            raise _ExhaustedError
        if self.pace is None:
            return self.full(rows)
        cpu = min(self.cpu_limit, max(QUICK_MIN_S, self.pace * SLOWER))
        ending = self._fork(rows, cpu, min(self.wall_limit, max(self.wall_limit / SLOWER, cpu)))
        return self.full(rows) if ending.manner == "kill" else ending

    def _fork(self, rows: Rows, cpu_limit: float, sleep_limit: float) -> Ending:
        part = self.batch if len(rows) == self.batch.rows else self.batch.select(_mask(rows, self.batch.rows))
        self.forks += 1
        ending = throwaway.run(lambda: self._work(part), cpu_limit=cpu_limit, sleep_limit=sleep_limit, tick=self.tick)
        if ending.reason.startswith(_UntestableError.__name__):  # of an exception only the words come back
            raise _UntestableError
        if ending.manner == "passed":
            self.pace = max(self.pace or 0.0, ending.seconds)
        return ending

    def _work(self, part: Batch) -> None:
        self.forget_outside()
        if isinstance(self.stage, SinkStage):
            try:
                self.stage.isolate()
            except NotImplementedError as error:
                raise _UntestableError from error
        self.stage.process(part)


# --- the search ---------------------------------------------------------------------------------------------------


def _search(trials: _Trials, rows: Rows) -> dict[int, Ending]:
    """Guilty row -> how it ends. Without them the batch is survived, or all of its rows are guilty."""
    try:
        whole = ending = trials.full(rows)
    except _UntestableError:
        return dict.fromkeys(rows.tolist(), Ending("crash", "this sink cannot be tried with single rows"))
    guilty: dict[int, Ending] = {}
    for _ in range(ROUNDS_MAX):
        if ending.manner == "passed":
            return guilty
        guilty |= _guilty_of(trials, rows, ending)
        rows = np.setdiff1d(rows, np.fromiter(guilty, np.intp))
        if not rows.size or trials.exhausted:
            return guilty
        ending = trials.full(rows)
    if ending.manner == "passed" or guilty:  # whoever is still among the others is found by the next trial
        return guilty
    return dict.fromkeys(range(trials.batch.rows), whole)


def _guilty_of(trials: _Trials, rows: Rows, ending: Ending) -> dict[int, Ending]:
    """The guilty among `rows`, which together end as `ending` says. When there is no time to look none of them, for the
    next trial looks further; all of them only when this one would have found nothing."""
    if len(rows) == 1:
        return _confirmed(trials, rows, ending)
    halves = np.array_split(rows, 2)
    try:
        ends = [trials.quick(half) for half in halves]
        if all(end.manner == "passed" for end in ends):
            return _guilty_together(trials, rows, halves, ending)
    except _ExhaustedError:
        trials.exhausted = True
        if not trials.found:
            trials.found = dict.fromkeys(rows.tolist(), ending)
            return trials.found
        return {}
    guilty: dict[int, Ending] = {}
    for half, end in zip(halves, ends, strict=True):
        if end.manner != "passed":
            guilty |= _guilty_of(trials, half, end)
    return guilty


def _guilty_together(trials: _Trials, rows: Rows, halves: Sequence[Rows], ending: Ending) -> dict[int, Ending]:
    """Each half passes alone. Raises _ExhaustedError."""
    if ending.manner in ("loop", "sleep"):  # perhaps both together only take long
        trials.be_patient()
        ending = trials.full(rows)
        if ending.manner == "passed":
            return {}
    first, second = halves
    needed = np.union1d(_needed(trials, first, second), _needed(trials, second, first))
    return _confirmed(trials, needed, ending)


def _needed(trials: _Trials, rows: Rows, others: Rows) -> Rows:
    """The rows of `rows` that the failure of `rows` and `others` together needs; `others` alone pass."""
    if len(rows) == 1:
        return rows
    first, second = np.array_split(rows, 2)
    for half in (first, second):
        if trials.quick(np.union1d(half, others)).manner != "passed":
            return _needed(trials, half, others)
    return np.union1d(
        _needed(trials, first, np.union1d(second, others)), _needed(trials, second, np.union1d(first, others))
    )


def _confirmed(trials: _Trials, rows: Rows, ending: Ending) -> dict[int, Ending]:
    """What a short limit said of these rows, with the whole one."""
    if ending.manner in ("loop", "sleep") or len(rows) > 1:
        ending = trials.full(rows)
    if ending.manner == "passed":
        return {}
    confirmed = dict.fromkeys(rows.tolist(), ending)
    trials.found |= confirmed
    return confirmed


# --- rows ---------------------------------------------------------------------------------------------------------


def _mask(rows: Rows, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return mask


def _row(batch: Batch, index: int, ending: Ending) -> Row:
    via, source, position = _place(batch.spans, index)
    manner: Manner = "loop" if ending.manner in ("loop", "sleep") else ending.manner  # type: ignore[assignment]  # not passed
    return Row(index, via, source, position, manner, ending.reason, ending.traceback, record_of(batch, index))


def _place(spans: Iterable[Span], index: int) -> tuple[str, str, int]:
    """Way, source and position of a row; a batch without spans has none of them."""
    first = 0
    for span in spans:
        if index < first + span.count:
            return span.via, span.source, span.start + index - first
        first += span.count
    return "", "", index


def record_of(batch: Batch, index: int) -> bytes:
    """One row as msgpack, name -> value."""
    return letters.pack({name: _plain(values[index]) for name, values in batch.columns().items()})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
