"""The coordinator of epochs: when barriers are asked for, when an epoch is committed. Pure.

One epoch is in flight from the request to the last sink's answer (docs/specs/epochs.md):

    idle -> aligning (every stage makes its snapshot durable) -> writing (the manifest; its rename is the commit)
         -> committing (every sink makes it visible) -> idle

Numbers are never used twice: an aborted epoch's number is burned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

ABORT_BACKOFF_FIRST_S: Final = 0.5  # a full disk is rarely freed sooner
ABORT_BACKOFF_MAX_S: Final = 10.0  # an operator who freed it should not wait longer


@dataclass(frozen=True, slots=True)
class Part:
    """One stage's durable snapshot: file name, bytes, CRC-32."""

    stage: str
    file: str
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class AskBarrier:
    stage: str
    generation: int
    epoch: int
    hold: bool


@dataclass(frozen=True, slots=True)
class WriteManifest:
    generation: int
    epoch: int
    parts: tuple[Part, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class AskCommit:
    stage: str
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class TellCommitted:
    """To every stage. `seconds` from the request to the last answer."""

    generation: int
    epoch: int
    final: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Aborted:
    epoch: int
    reason: str


EpochCommand: TypeAlias = AskBarrier | WriteManifest | AskCommit | TellCommitted | Aborted


class Step(Enum):
    DOWN = "down"  # no generation runs
    IDLE = "idle"
    ALIGNING = "aligning"
    WRITING = "writing"
    COMMITTING = "committing"


@dataclass(slots=True)
class _Flight:
    """The epoch that is in flight."""

    epoch: int
    began: float
    hold: bool
    finished: bool
    parts: dict[str, Part] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)


class Coordinator:
    """Feed it events with `now` in seconds; perform the commands it returns; wake it at `deadline()`."""

    def __init__(
        self,
        stages: tuple[str, ...],
        sources: tuple[str, ...],
        sinks: tuple[str, ...],
        interval: float,
        committed: int | None,
        highest: int,
        finished: bool,
    ) -> None:
        """`committed` is the restored epoch, `highest` the largest number ever seen on disk, `finished` whether the
        restored epoch was the final one of an ended stream."""
        self.committed = committed
        self._final = finished
        self.step = Step.DOWN
        self.failure: str | None = None
        """Why the last epoch was aborted; None once one has been committed."""
        self.held = False
        """The sources hold, and everything that they gave is committed."""
        self._stages = stages
        self._sources = sources
        self._sinks = sinks
        self._interval = interval
        self._highest = highest
        self._generation = 0
        self._flight: _Flight | None = None
        self._ended: set[str] = set()
        self._due: float | None = None
        self._emitted = 0
        self._failures = 0
        self._hold_wanted = False
        self._orphan: _Flight | None = None

    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        return self._due if self.step is Step.IDLE else None

    def go(self, generation: int, now: float) -> list[EpochCommand]:
        """A generation starts to run from the committed epoch; nothing has been given in it yet."""
        self._generation = generation
        self._flight = None
        self._ended.clear()
        self._emitted = 0
        self.held = False
        self.step = Step.IDLE
        self._due = now + self._interval
        return []

    def down(self) -> None:
        """The generation is over: what is in flight is forgotten, its number burned.

        A manifest that is being written may still become the commit: `writing` stays true until its answer, and
        nobody may choose the epoch to restore before that."""
        if self.step is Step.WRITING:
            self._orphan = self._flight
        self._flight = None
        self._hold_wanted = False
        self.step = Step.DOWN
        self._due = None

    @property
    def writing(self) -> bool:
        """A manifest of a generation that is over is on its way to the disk."""
        return self._orphan is not None

    def tick(self, now: float, emitted: int) -> list[EpochCommand]:
        """A deadline has come; `emitted` is the number of records the sources have given in this generation."""
        if self.step is not Step.IDLE or self._due is None or now < self._due:
            return []
        if emitted == self._emitted and not self._failures:
            self._due = now + self._interval
            return []
        self._emitted = emitted
        return self._request(now)

    def hold(self, now: float) -> list[EpochCommand]:
        """Ask for one more epoch after which the sources emit nothing; a running one comes first."""
        self._hold_wanted = True
        return self._request(now) if self.step is Step.IDLE else []

    @property
    def origin(self) -> str:
        """What a generation starts from, for people."""
        return "the beginning" if self.committed is None else f"epoch {self.committed}"

    @property
    def finished(self) -> bool:
        """Every source has ended, and everything that they gave is committed."""
        return self._final and self._all_ended()

    def source_ended(self, stage: str, generation: int, records: int, now: float) -> list[EpochCommand]:
        """A source is at its end, after `records` in this generation. A stream that had been finished and was
        continued (its file or its configured length has grown) needs another final epoch."""
        if generation != self._generation or self.step is Step.DOWN:
            return []
        self._ended.add(stage)
        self._final = self._final and not records
        if self._all_ended() and self.step is Step.IDLE and not self.finished:
            return self._request(now)
        return []

    def snapshot_done(self, part: Part, generation: int, epoch: int) -> list[EpochCommand]:
        flight = self._current(generation, epoch, Step.ALIGNING)
        if flight is None:
            return []
        flight.parts[part.stage] = part
        if len(flight.parts) < len(self._stages):
            return []
        self.step = Step.WRITING
        parts = tuple(flight.parts[name] for name in self._stages)
        return [WriteManifest(generation, epoch, parts, flight.finished)]

    def snapshot_failed(self, generation: int, epoch: int, reason: str, now: float) -> list[EpochCommand]:
        """A snapshot could not be written and nobody died. Once all are there, nobody can take his back."""
        flight = self._current(generation, epoch, Step.ALIGNING)
        return self._abort(flight, reason, now) if flight is not None else []

    def manifest_failed(self, generation: int, epoch: int, reason: str, now: float) -> list[EpochCommand]:
        """The manifest could not be written; this epoch will never be the commit."""
        if self._orphan is not None and self._orphan.epoch == epoch:
            self._orphan = None
        flight = self._current(generation, epoch, Step.WRITING)
        return self._abort(flight, reason, now) if flight is not None else []

    def _abort(self, flight: _Flight, reason: str, now: float) -> list[EpochCommand]:
        """The next attempt comes with back-off, on new files."""
        self._flight = None
        self.failure = reason
        delay = min(ABORT_BACKOFF_MAX_S, ABORT_BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.step = Step.IDLE
        self._due = now + delay
        return [Aborted(flight.epoch, reason)]

    def manifest_written(self, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        """The rename is done: the epoch is committed, whatever happens from here on."""
        flight = self._orphan or self._flight
        assert flight is not None, epoch
        assert flight.epoch == epoch, (flight, epoch)
        self.committed = epoch
        self._final = flight.finished
        if self._orphan is not None:  # the generation is over, the commit stands; sinks learn of it by `restore`
            self._orphan = None
            return []
        self.failure = None
        self._failures = 0
        self.step = Step.COMMITTING
        if not self._sinks:
            return self._complete(flight, now)
        return [AskCommit(sink, generation, epoch) for sink in self._sinks]

    def commit_done(self, stage: str, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        flight = self._current(generation, epoch, Step.COMMITTING)
        if flight is None:
            return []
        flight.confirmed.add(stage)
        return self._complete(flight, now) if flight.confirmed >= set(self._sinks) else []

    def _complete(self, flight: _Flight, now: float) -> list[EpochCommand]:
        self._flight = None
        self.step = Step.IDLE
        self._due = max(now, flight.began + self._interval)
        final = flight.hold or flight.finished
        self.held = final
        commands: list[EpochCommand] = [TellCommitted(self._generation, flight.epoch, final, now - flight.began)]
        if not final and (self._hold_wanted or (self._all_ended() and not self.finished)):
            commands += self._request(now)
        return commands

    def _request(self, now: float) -> list[EpochCommand]:
        self._highest += 1
        flight = _Flight(self._highest, now, self._hold_wanted, self._all_ended())
        self._flight = flight
        self.step = Step.ALIGNING
        return [AskBarrier(s, self._generation, flight.epoch, flight.hold) for s in self._sources]

    def _all_ended(self) -> bool:
        return self._ended >= set(self._sources)

    def _current(self, generation: int, epoch: int, step: Step) -> _Flight | None:
        """The epoch in flight if the message is about it; what is not current is dropped."""
        flight = self._flight
        stale = flight is None or generation != self._generation or epoch != flight.epoch or self.step is not step
        return None if stale else flight
