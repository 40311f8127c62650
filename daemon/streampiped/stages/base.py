"""The contract of a stage: what the pipeline asks of a class, built in or yours.

A stage is plain Python: no event loop, socket, clock or global in it. The shell (`stage_process.py`) creates it,
restores it, hands it batches one at a time and asks it for snapshots; another host could do the same. Everything a
stage does is a function of its options, its restored state and the batches, in their order.

Order of calls: `__init__`, then any number of times (`restore`, then any sequence of `process`/`read` and
`snapshot`), at the end possibly `close`. `close` is not guaranteed to be called: a process can be killed.
The compliance test in tests/stages/test_contract.py runs this contract on every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from streampiped.records import Batch

State: TypeAlias = Mapping[str, Any]
"""Portable state: None, bool, int, float, str, bytes, numpy arrays, and lists and str-keyed dicts of these."""


class Emit(Protocol):
    """Log an event of the catalogue (`streampiped.events`) with fields; the stage's name is bound already."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


class StageOptions(BaseModel):
    """Base of every stage's options: unknown keys are errors, values do not change after start. What can be a secret
    had better be a `SecretStr`, which shows itself nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _silent(event: str, /, **fields: Any) -> None:
    """The default of `StageContext.emit`: for a stage that runs without a pipeline."""


def _no_clock() -> float:
    """The default of `StageContext.now`."""
    return 0.0


def _no_tick() -> None:
    """The default of `StageContext.tick`."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage may know of its surroundings."""

    name: str
    seed: int = 0
    """The stage's own seed, derived from the pipeline's seed and the stage's name."""
    pipeline_seed: int = 0
    """The same for every stage; `holdout.held_out` wants this one."""
    directory: Path = field(default_factory=Path)
    """A directory of the stage's own under the state directory; it exists."""
    emit: Emit = _silent
    now: Callable[[], float] = _no_clock
    """CLOCK_MONOTONIC in seconds, for what is told of the process itself (how old an answer is). Nothing of it may
    enter a result or a snapshot."""
    tick: Callable[[], None] = _no_tick
    """Say 'not hung' from inside a `process` call that takes long on purpose."""
    retain_epochs: int = 3
    """So many committed epochs the pipeline may have to go back to, the newest included."""
    processes: tuple[str, ...] = ()
    """All of the plan by name, stages and services; empty where there is none (`check`)."""
    resuming: bool = False
    """The pipeline has committed epochs, so `restore` will bring a state: what a new pipeline begins with (a file, read
    to its end and removed since) may be missing."""


class Stage:
    """A transforming stage. Subclass it, or offer the same methods."""

    Options: ClassVar[type[StageOptions]] = StageOptions

    def __init__(self, options: Any, context: StageContext) -> None:
        """`options` is an instance of `Options`. Raise `OptionError` when they are impossible."""

    def process(self, batch: Batch) -> Batch | None:
        """Handle one batch and return what goes to the next stages (None: nothing). Return promptly; do not keep
        views of the batch. The result may be the batch itself. Give the result the batch's spans (as
        `Batch.with_columns` and `select` do)."""
        return batch

    def snapshot(self) -> State:
        """Everything that `restore` needs to go on bit-identically. The shell encodes it before it goes on, so
        arrays may be handed out uncopied."""
        return {}

    def restore(self, state: State | None) -> None:
        """Become exactly what `snapshot` saw; None means the state of a new pipeline. May be called on a used
        stage: whatever happened since must be forgotten."""

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        """Answer a read-only question from the control tool between two batches (msgpack-able, no numpy types).
        Raise KeyError(method) for a method that is not known."""
        raise KeyError(method)

    def change(self, kind: str, params: Mapping[str, Any]) -> None:
        """Do what an operator wants, as `query("plan", {"kind", "params"})` had completed it. Called right behind the
        epoch that records it and again by every restore of that epoch, in both cases before any input (docs/specs/
        stage.md). What has become impossible since is left, told and no error: whatever is raised ends the process, but
        for StorageError, when the disk refuses and another try may help."""
        raise KeyError(kind)

    def api(self) -> Mapping[str, Callable[..., Any]]:
        """Methods served by MessagePack-RPC on `NAME.sock` in the runtime directory, called between two batches
        with keyword parameters. Read-only. Empty: no socket."""
        return {}

    def committed(self, epoch: int) -> ApiCall | None:
        """`epoch` is durable everywhere. May return one question for another stage's API; its answer comes to
        `api_answer`, at any time or never, and must not enter `snapshot`."""
        return None

    def api_answer(self, result: Any, error: str | None) -> None:
        """The answer to the last `ApiCall`: `result`, or `error` when there is none."""

    def close(self) -> None:
        """Let go of files. Not guaranteed to be called."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A question to another stage's API."""

    stage: str
    method: str
    params: Mapping[str, Any]


class SinkStage(Stage):
    """A stage whose output the outside sees: it takes part in the commit (design.md section 4).

    At a barrier `snapshot()` comes first, then `seal`, both on the data path; then `prepare`, which may run in a helper
    thread. With `overlaps` the next `process` may be called while it runs, without it `process` is held back. All
    other calls wait for it. `commit` and `rollback` are cumulative and idempotent.

    `prepare`, `commit` and `rollback` raise StorageError when the disk refuses and another try may help: nothing is
    taken until the next `rollback`. Anything else that is raised is the stage's failure.
    """

    retractable: ClassVar[bool] = True
    overlaps: ClassVar[bool] = False
    """`process` may go on while `prepare` runs: the stage tells the rows before `seal` from those behind it."""

    def seal(self, epoch: int) -> None:
        """Everything processed so far belongs to `epoch`, what comes belongs to a later one. At once; `prepare(epoch)`
        follows, and nothing is lost when it does not but `rollback` does."""

    def prepare(self, epoch: int) -> None:
        """Make everything processed before `seal(epoch)` durable but invisible, as part of `epoch`."""

    def commit(self, epoch: int) -> None:
        """Make every prepared epoch <= `epoch` visible. Quick."""

    def rollback(self, epoch: int | None) -> None:
        """Make the visible output exactly that of epochs <= `epoch` (None: nothing), or raise StateError and change
        nothing when that cannot be done any more. Called right before `restore`, also on a new process."""

    def isolate(self) -> None:
        """Called in a fork that is about to be thrown away: let go of everything outside without touching it, so that
        `process` does all its work and reaches nobody. A sink that cannot is not tried with single rows."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Idle:
    """A source has nothing now. `wake_at` is the CLOCK_MONOTONIC second to ask again at the latest (None: only
    when the descriptor of `SourceStage.wake_fd` becomes readable)."""

    wake_at: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A bounded source is at its end; it will never give another record."""


class SourceStage(Stage):
    """A stage without inputs. Its state is its position: `snapshot` gives it and `restore` goes there. One that cannot
    go back further than the newest epoch says `retractable = False`."""

    retractable: ClassVar[bool] = True

    def read(self, now: float) -> Batch | Idle | Ended:
        """The next batch, or why there is none. `now` is CLOCK_MONOTONIC in seconds; only *when* to emit and how
        to cut batches in time (rate, linger) may depend on it, never what the records are. The shell sets
        `ingest_ns`."""
        raise NotImplementedError

    def wake_fd(self) -> int | None:
        """A descriptor that becomes readable when there may be more (inotify, a socket), asked for after `Idle`."""
        return None

    def total(self) -> int | None:
        """Records of the whole stream when it is bounded and known; for progress only."""
        return None

    def position(self) -> int | None:
        """Records given since the stream began, when that is known; for people only."""
        return None


class Service:
    """A process beside the data path (log extractor, service monitor): never in an epoch, its death never changes
    the generation."""

    Options: ClassVar[type[StageOptions]] = StageOptions

    def __init__(self, options: Any, context: StageContext) -> None:
        """As for a stage."""

    def wake(self, now: float) -> float | None:
        """Do what is due at `now` (CLOCK_MONOTONIC seconds) and say when to be woken next (None: only by
        `wake_fd` or a roster)."""
        raise NotImplementedError

    def wake_fd(self) -> int | None:
        """A descriptor to be woken by."""
        return None

    def roster(self, processes: Mapping[str, int]) -> None:
        """The pids by process name, told at the start and at every change."""

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        """As for a stage."""
        raise KeyError(method)

    def close(self) -> None:
        """As for a stage."""
