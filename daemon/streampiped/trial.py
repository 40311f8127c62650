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

from streampiped.errors import FrameError, OptionError, SchemaError, StorageError
from streampiped.records import Batch, Span
from streampiped.runtime import throwaway
from streampiped.runtime.throwaway import Ending
from streampiped.stages.base import SinkStage, Stage
from streampiped.wire import letters

Manner: TypeAlias = Literal["exception", "crash", "loop", "kill"]
Rows: TypeAlias = NDArray[np.intp]

FORKS_MAX: Final = 1 << 14  # every second of 8192 rows; what is not found then is left to the next trial
SECONDS_MAX: Final = 60.0  # of trying parts, the pipeline standing still, once a row is found; then the same
SECONDS_FIRST_MAX: Final = 600.0  # until the first is found: a dozen parts that wait for ever, and nobody else to blame
OTHERS_MAX: Final = 16  # rows tried alone for one that does not loop, before it is the row and not the stage that does
ROUNDS_MAX: Final = 8  # searches in what is left, when it still kills: rows that hide behind others are rare
SLOWER: Final = 10  # times the longest pass so far: then a part looks like looping, until the last limit says so
TOGETHER: Final = 4  # times the longest pass that two parts may take together: it is two, and a machine is not steady
SINK_METHODS: Final = ("prepare", "commit", "rollback")  # of a sink that is no subclass, as in check.py
UNTRIED: Final = "this sink cannot be tried with single rows"
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
    """`guilty` in the order of the batch; none: the batch is innocent. Not `tried`: all of it stands for a row or some
    that nobody has looked for."""

    guilty: tuple[Row, ...]
    forks: int
    seconds: float
    tried: bool = True


def judge(
    stage: Stage,
    batch: Batch,
    *,
    cpu_limit: float,
    wall_limit: float,
    hang_limit: float,
    tick: Callable[[], None],
    forget_outside: Callable[[], None],
    encode: Callable[[Batch], object] = lambda _: None,
) -> Verdict:
    """Try `batch` on `stage` as it is now. Changes neither. Main thread only, and no thread may be at work in the
    stage (a `prepare`): a fork has only the thread that forks.

    `cpu_limit` are seconds on the CPU after which a part seems to loop, `wall_limit` seconds of sleep after which it
    seems to wait for ever, as long as nothing has passed that would say how long it takes. A row is guilty of either
    only after `hang_limit`, if that is longer: what a stage may take in life it may take here. `tick` is called every
    `throwaway.TICK_S` at the latest; `forget_outside` in each child before anything else: it has to mute what would
    reach others. A result is given to `encode`, for what makes no frame no process survives either. A sink is isolated
    there, and one that cannot be is not tried: its whole batch is guilty.

    When time runs out the verdict is those that were found, and the rest wants another trial. No row is guilty of an
    OptionError that the stage raises without any row as well: it is the configuration that is wrong. StorageError when
    the disk refuses something to the stage: there is no verdict then.
    """
    began = time.monotonic()
    limits = (cpu_limit, wall_limit, max(cpu_limit, hang_limit), max(wall_limit, hang_limit))
    trials = _Trials(stage, batch, *limits, tick, forget_outside, encode)
    guilty = _search(trials, np.arange(batch.rows))
    rows = tuple(_row(batch, index, guilty[index]) for index in sorted(guilty))
    tried = all(ending.reason != UNTRIED for ending in guilty.values())
    return Verdict(rows, trials.forks, time.monotonic() - began, tried)


class _ExhaustedError(Exception):
    """No more forks, no more time, or no sense in going on."""


class _UntestableError(Exception):
    """The sink cannot be isolated."""


class _RefusedError(Exception):
    """The disk refuses something to the stage."""


@dataclass(slots=True)
class _Trials:
    """Forks of one stage with rows of one batch, and what they may still cost."""

    stage: Stage
    batch: Batch
    cpu_limit: float
    wall_limit: float
    cpu_last: float
    wall_last: float
    tick: Callable[[], None]
    forget_outside: Callable[[], None]
    encode: Callable[[Batch], object]
    began: float = 0.0
    """When the search for parts began."""
    forks: int = 0
    pace: float | None = None
    """Seconds on the CPU of the longest trial that passed; None: none has yet."""
    lasted: float = 0.0
    """Seconds by the clock of the longest."""
    found: dict[int, Ending] = field(default_factory=dict)
    """Guilty row -> how it ends."""

    def full(self, rows: Rows) -> Ending:
        """With the last limits, and whatever has been spent: what decides about a row is never cut short. A process
        that was killed from outside is tried once more: the kernel kills whoever has the most memory."""
        ending = self._fork(rows, self.cpu_last, self.wall_last)
        return self._fork(rows, self.cpu_last, self.wall_last) if ending.manner == "kill" else ending

    def be_patient(self) -> None:
        """Two parts that pass are no loop together only because their sum is over the limit."""
        self.cpu_last = max(self.cpu_last, TOGETHER * (self.pace or 0.0))
        self.wall_last = max(self.wall_last, TOGETHER * self.lasted)

    def quick(self, rows: Rows) -> Ending:
        """With limits that follow from what has passed already. Raises _ExhaustedError."""
        spent = time.monotonic() - self.began
        if self.forks >= FORKS_MAX or spent >= (SECONDS_MAX if self.found else SECONDS_FIRST_MAX):
            raise _ExhaustedError
        cpu = self.cpu_limit if self.pace is None else max(QUICK_MIN_S, self.pace * SLOWER)
        wall = max(self.wall_limit / SLOWER, self.lasted * SLOWER, cpu)
        ending = self._fork(rows, min(self.cpu_last, cpu), min(self.wall_last, wall))
        return self.full(rows) if ending.manner == "kill" else ending

    def _fork(self, rows: Rows, cpu_limit: float, sleep_limit: float) -> Ending:
        part = self.batch if len(rows) == self.batch.rows else self.batch.select(_mask(rows, self.batch.rows))
        self.forks += 1
        ending = throwaway.run(lambda: self._work(part), cpu_limit=cpu_limit, sleep_limit=sleep_limit, tick=self.tick)
        if ending.reason.startswith(_UntestableError.__name__):  # of an exception only the words come back
            raise _UntestableError
        if ending.reason.startswith(f"{_RefusedError.__name__}: "):
            raise StorageError(ending.reason.partition(": ")[2])
        if ending.manner == "passed" and len(rows):
            self.pace = max(self.pace or 0.0, ending.seconds)
            self.lasted = max(self.lasted, ending.lasted)
        return ending

    def _work(self, part: Batch) -> None:
        self.forget_outside()
        if isinstance(self.stage, SinkStage) or all(hasattr(self.stage, name) for name in SINK_METHODS):
            isolate = getattr(self.stage, "isolate", None)
            try:
                if isolate is None:
                    raise NotImplementedError
                isolate()
            except NotImplementedError as error:
                raise _UntestableError from error
        try:
            result = self.stage.process(part)
            if result is not None:
                self.encode(result)
        except StorageError as error:  # no death in life either: everybody waits until there is room
            raise _RefusedError(str(error)) from error


# --- the search ---------------------------------------------------------------------------------------------------


def _search(trials: _Trials, rows: Rows) -> dict[int, Ending]:
    """Guilty row -> how it ends: those that were found, alone or with the others that they need, and nobody else.
    Without them the batch is survived, or another trial has to look further."""
    if not rows.size:  # all of it was put aside before: there is nobody left to blame
        return {}
    try:
        ending = trials.full(rows)
    except _UntestableError:
        return dict.fromkeys(rows.tolist(), Ending("crash", UNTRIED))
    if _impossible(trials, ending):
        return {}
    trials.began = time.monotonic()
    try:
        for _ in range(ROUNDS_MAX):
            if ending.manner == "passed":
                break
            _look_for(trials, rows, ending)
            rows = np.setdiff1d(rows, np.fromiter(trials.found, np.intp))
            if not rows.size:
                break
            ending = trials.full(rows)
    except _ExhaustedError:
        pass
    return trials.found


def _impossible(trials: _Trials, ending: Ending) -> bool:
    """Whether the stage's options do not go with the stream (a target that it has not), or its columns into a frame,
    whatever the rows are: then every row dies alone, and all would be put aside one by one for a misspelt name."""
    if not ending.reason.startswith(tuple(f"{kind.__name__}: " for kind in (OptionError, SchemaError))):
        return False
    return trials.full(np.zeros(0, dtype=np.intp)).reason == ending.reason


def _look_for(trials: _Trials, rows: Rows, ending: Ending) -> None:
    """Find the guilty among `rows`, which together end as `ending` says. Raises _ExhaustedError."""
    if len(rows) == 1:
        _confirm(trials, rows, ending)
        return
    halves = np.array_split(rows, 2)
    passed = 0
    for half in halves:  # the first down to the row before the second is tried: what is found is found
        end = trials.quick(half)
        if end.manner == "passed":
            passed += 1
        else:
            _look_for(trials, half, end)
    if passed == len(halves):
        _look_for_accomplices(trials, rows, halves, ending)


def _look_for_accomplices(trials: _Trials, rows: Rows, halves: Sequence[Rows], ending: Ending) -> None:
    """Each half passes alone. Raises _ExhaustedError."""
    if ending.reason.startswith(f"{FrameError.__name__}: "):  # the results together are too long: none of them is
        return
    if ending.manner in ("loop", "sleep"):  # perhaps both together only take long
        trials.be_patient()
        ending = trials.full(rows)
        if ending.manner == "passed":
            return
    first, second = halves
    needed = np.union1d(_needed(trials, first, second), _needed(trials, second, first))
    _confirm(trials, needed, ending)


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


def _confirm(trials: _Trials, rows: Rows, ending: Ending) -> None:
    """What a short limit said of these rows, with the last one. Raises _ExhaustedError where everybody loops."""
    if ending.manner in ("loop", "sleep") or len(rows) > 1:
        ending = trials.full(rows)
    if ending.manner == "passed":
        return
    if ending.manner in ("loop", "sleep") and not _others_pass(trials):
        raise _ExhaustedError
    trials.found |= dict.fromkeys(rows.tolist(), ending)


def _others_pass(trials: _Trials) -> bool:
    """Whether anything has passed, or some other row ends soon. If nothing does the stage takes so long with whatever
    it is given, and no row is to blame for it; of a batch of one row nobody can tell."""
    count = trials.batch.rows
    if trials.pace is None and count > 1:
        others = np.unique(np.linspace(0, count - 1, min(count, OTHERS_MAX)).astype(np.intp))
        return any(trials.quick(row).manner not in ("loop", "sleep") for row in np.split(others, len(others)))
    return True


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
