"""The vocabulary of decisions: every event that the shell reports and every command that it performs.

`incarnation` tells the processes that have borne one name apart; what comes from an old one is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from streampiped.core.epoch_commands import (
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    Change,
    Part,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.health import Sample
from streampiped.topology import Plan

Verb: TypeAlias = Literal["start", "stop", "restart"]
Spans: TypeAlias = tuple[tuple[str, str, int, int], ...]
"""Where records came from: (way, source, first position, count). A record that comes over two branches is two of them:
each has its own way (`Span.via` in records.py)."""

# events


@dataclass(frozen=True, slots=True)
class LauncherReady:
    """The fork server has preloaded everything."""


@dataclass(frozen=True, slots=True)
class LauncherDied:
    reason: str


@dataclass(frozen=True, slots=True)
class Forked:
    name: str
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    name: str
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Ready:
    name: str
    incarnation: int
    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A process says why it is about to die."""

    name: str
    incarnation: int
    phase: str
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """Confirmed by waitid, its process group gone. `inside`: the records that were in `process`, when it died there.
    `killed`: by a bare SIGKILL, which may come from a person or from the kernel, and says little about the records."""

    name: str
    incarnation: int
    reason: str
    inside: Spans = ()
    killed: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    generation: int
    epoch: int
    part: Part


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    name: str
    generation: int
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Impaired:
    """The outer world does not let a stage go on in this generation; it lives and waits for the next reset."""

    name: str
    incarnation: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class LinksFailed:
    """The pipes and the memory of a generation could not be made, or not be given to a stage: this process is short of
    something. No stage's fault; who was to be reset waits for the next generation."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Judging:
    """A stage has tried the batch that it is suspected of dying of, and its verdict is on its way to the disk: `Judged`
    follows. No generation may be opened before, for its stages read the list."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Judged:
    """`guilty` rows will be skipped from the next reset on; that is durable. None: the disk had not taken the verdict
    when the stage died, and never will."""

    name: str
    incarnation: int
    generation: int
    guilty: int | None


@dataclass(frozen=True, slots=True)
class ManifestWritten:
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ManifestFailed:
    generation: int
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class CommitDone:
    name: str
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """`records`: given in this generation."""

    name: str
    generation: int
    records: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """The answer to `Look`."""

    name: str
    incarnation: int
    sample: Sample


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has come. `emitted`: records given by all sources in this generation."""

    emitted: int


@dataclass(frozen=True, slots=True)
class Operate:
    """An operator wants something; the work goes on even after an `Answer` that it takes longer.
    `names` empty: all. `force`: a restart that does not wait for a barrier."""

    ticket: int
    verb: Verb
    names: tuple[str, ...]
    timeout: float
    force: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An operator wants an epoch that is asked for after now; `Answer.text` is its number."""

    ticket: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Propose:
    """An operator wants a stage's state changed; answered when a manifest has recorded it."""

    ticket: int
    change: Change
    timeout: float


@dataclass(frozen=True, slots=True)
class Reload:
    """An operator wants `plan` instead of the present one; `names` are the processes that must be others for it. It
    takes effect as a whole, with `Adopt`, or not at all."""

    ticket: int
    plan: Plan
    names: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class StopsKept:
    """The answer to `RememberStopped`, as often as the disk gives one: these are remembered, or `refused` says why they
    are not yet."""

    names: tuple[str, ...]
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Drain and leave; a second one skips the drain."""

    reason: str


@dataclass(frozen=True, slots=True)
class FarewellSaid:
    """The answer to `Farewell`."""


Event: TypeAlias = (
    LauncherReady | LauncherDied | Forked | ForkFailed | Loaded | Ready | Failed | Died
    | SnapshotDone | SnapshotFailed | Impaired | LinksFailed | Judging | Judged | ManifestWritten | ManifestFailed
    | CommitDone | SourceEnded | Sampled | Tick | Operate | Checkpoint | Propose | Reload | StopsKept | Shutdown
    | FarewellSaid
)  # fmt: skip

# commands


@dataclass(frozen=True, slots=True)
class StartLauncher:
    pass


@dataclass(frozen=True, slots=True)
class Fork:
    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class MakeLinks:
    """Fresh pipes for every edge; the ones before stay open until `CloseOldLinks`."""

    generation: int


@dataclass(frozen=True, slots=True)
class CloseOldLinks:
    generation: int


@dataclass(frozen=True, slots=True)
class SendReset:
    """`suspects`: records that this stage has died of, to be tried first. `changes`: to be applied before any input."""

    name: str
    incarnation: int
    generation: int
    epoch: int | None
    suspects: Spans = ()
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class SendGo:
    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class AskLeave:
    """SIGTERM and SIGCONT."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL, to the process group."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class KillLauncher:
    """The launcher owes us this process and does not deliver: end it, or say that there is none with `Died`."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class DumpStack:
    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Look:
    """Take a `Sample` and report it as `Sampled`; of the launcher, as long as it has not forked the process."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To the operator behind `ticket`: an exit code and a line. The last one, unless it says TIMED_OUT: then the work
    goes on, and another answer follows."""

    ticket: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """From here on `plan` is the plan: whoever is forked gets it. Successors that are `renewed` have it already."""

    ticket: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class RememberStopped:
    """These are stopped on purpose, and stay so when the daemon is started again; `StopsKept` when that is durable.
    Tried again until it is, unless other names have come meanwhile."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    event: str
    stage: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """Every source has ended and the final epoch is committed."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Farewell:
    """The stages are about to be asked to leave: the last chance to ask them something. Answer `FarewellSaid`."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Every process is gone."""


Command: TypeAlias = (
    StartLauncher | Fork | MakeLinks | CloseOldLinks | SendReset | SendGo | AskLeave | Kill | KillLauncher
    | DumpStack | Look | Answer | Adopt | RememberStopped | Log | Finished | Farewell | Quit
    | AskBarrier | AskPause | AskResume | WriteManifest | AskCommit | TellCommitted
)  # fmt: skip
