"""What the coordinator of epochs says, and the values that it says it with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Change: TypeAlias = Mapping[str, Any]
"""A command that changes a stage's state: `kind`, `stage` and what the kind needs; JSON-able. Of every kind but REPLAY
that is `params`, which the stage knows."""
REPLAY: Final = "replay"
"""Records that were put aside come back into the stream: `letters`."""


@dataclass(frozen=True, slots=True)
class Part:
    """One stage's durable snapshot: file name, bytes, CRC-32. `position`: of a source, the records it has given since
    the stream began. Times in seconds: `aligned` on the clock of `now`, when the barrier was on every input;
    `snapshot` and `durable`, how long it took to serialise and to reach the disk."""

    stage: str
    file: str
    length: int
    checksum: int
    position: int | None = None
    aligned: float = 0.0
    snapshot: float = 0.0
    durable: float = 0.0


@dataclass(frozen=True, slots=True)
class EpochTimes:
    """Where an epoch's time went, in seconds: the slowest stage of each part."""

    align: float
    snapshot: float
    fsync: float
    manifest: float
    sink_commit: float
    total: float


@dataclass(frozen=True, slots=True)
class AskBarrier:
    stage: str
    generation: int
    epoch: int
    hold: bool


@dataclass(frozen=True, slots=True)
class AskPause:
    """Emit nothing but barriers."""

    stage: str
    generation: int


@dataclass(frozen=True, slots=True)
class AskResume:
    stage: str
    generation: int


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """`seconds` since the request; `changes` take effect directly behind this epoch's barrier."""

    generation: int
    epoch: int
    parts: tuple[Part, ...]
    finished: bool
    changes: tuple[Change, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AskCommit:
    stage: str
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class TellCommitted:
    """To every stage. `final`: the sources give nothing behind it."""

    generation: int
    epoch: int
    final: bool
    times: EpochTimes


@dataclass(frozen=True, slots=True)
class Aborted:
    epoch: int
    reason: str


EpochCommand: TypeAlias = AskBarrier | AskPause | AskResume | WriteManifest | AskCommit | TellCommitted | Aborted
