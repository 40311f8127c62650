"""The coordinator of epochs: when barriers are asked for, when an epoch is committed. Pure.

One epoch is in flight from the request to the last sink's answer (docs/specs/epochs.md):

    idle -> aligning (every stage makes its snapshot durable) -> writing (the manifest; its rename is the commit)
         -> committing (every sink makes it visible) -> idle, or held when the sources were asked to hold behind it

Numbers are never used twice: an aborted epoch's number is burned, and the sources are paused until another one has
been committed, so that what a crash would repeat stays bounded while the disk refuses.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from streampiped.core.epoch_commands import (
    Aborted,
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    Change,
    EpochCommand,
    Part,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.flight import Flight
from streampiped.core.tables import Table

ABORT_BACKOFF_FIRST_S: Final = 0.5  # a full disk is rarely freed sooner
ABORT_BACKOFF_MAX_S: Final = 10.0  # an operator who freed it should not wait longer
HASTE_MAX: Final = 10  # halvings of the interval; a thousandth of it is shorter than any recovery
FRESH_S: Final = 0.2  # since an epoch began: another one finds little to do, and none need go ahead of a hold


class Step(Enum):
    DOWN = "down"  # no generation runs
    IDLE = "idle"
    ALIGNING = "aligning"
    WRITING = "writing"
    COMMITTING = "committing"
    PAUSED = "paused"  # the last epoch was aborted; the sources give nothing until the next attempt has succeeded
    HELD = "held"  # everything that the sources gave is committed, and they give nothing


class Input(Enum):
    GO = "go"
    REQUEST = "ask for barriers"
    DURABLE = "every snapshot is durable"
    REFUSED = "a write failed"
    WRITTEN = "the manifest is there"
    CONFIRMED = "every sink has committed"
    HOLD = "every sink has committed, and the sources hold"
    RESUME = "go on"
    OVER = "a stage died"


TABLE: Final = Table[Step, Input](
    {
        (Step.DOWN, Input.GO): Step.IDLE,
        (Step.IDLE, Input.REQUEST): Step.ALIGNING,
        (Step.PAUSED, Input.REQUEST): Step.ALIGNING,
        (Step.HELD, Input.REQUEST): Step.ALIGNING,
        (Step.ALIGNING, Input.DURABLE): Step.WRITING,
        (Step.ALIGNING, Input.REFUSED): Step.PAUSED,
        (Step.WRITING, Input.WRITTEN): Step.COMMITTING,
        (Step.WRITING, Input.REFUSED): Step.PAUSED,
        (Step.COMMITTING, Input.CONFIRMED): Step.IDLE,
        (Step.COMMITTING, Input.HOLD): Step.HELD,
        (Step.HELD, Input.RESUME): Step.IDLE,
        **{(step, Input.OVER): Step.DOWN for step in Step},
    }
)
"""Everything that changes the coordinator's step; docs/specs/epochs.md shows the diagram that is drawn from it."""


def mermaid() -> str:
    return TABLE.mermaid(Step.DOWN, {Input.OVER: Step.ALIGNING})


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
        changes: tuple[Change, ...] = (),
    ) -> None:
        """`committed` is the restored epoch, `highest` the largest number ever seen on disk, `finished` whether the
        restored epoch was the final one of an ended stream, `changes` what its manifest says is to be applied."""
        self.committed = committed
        self.told = committed
        """The newest epoch that every sink has confirmed."""
        self.changes = changes
        """What every restore of the committed epoch has to apply."""
        self.unapplied = bool(changes)
        """`changes` are committed, and no generation has begun with them yet."""
        self.step = Step.DOWN
        self.failure: str | None = None
        """Why the last epoch was aborted; None once one has been committed."""
        self._final = finished and not changes
        self._stages = stages
        self._sources = sources
        self._sinks = sinks
        self._interval = interval
        self._highest = highest
        self._generation = 0
        self._flight: Flight | None = None
        self._orphan: Flight | None = None
        self._ended: set[str] = set()
        self._due: float | None = None
        self._haste = 0
        """Generations in a row that were over before they had committed anything."""
        self._barren = False
        self._emitted = 0
        self._failures = 0
        self._demanded = False
        self._wanted = 0
        """The newest epoch that was demanded."""
        self._hold_wanted = False
        self._ahead = False
        self._cut_at = float("-inf")
        self._holding = False
        self._proposed: list[Change] = []

    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        return self._due if self.step in (Step.IDLE, Step.PAUSED) else None

    # generations

    def go(self, generation: int, now: float) -> list[EpochCommand]:
        """A generation starts to run from the committed epoch; nothing has been given in it yet. Where there is none
        it makes one: where a source begins (the file at a path, soon to be rotated) must outlive the first death."""
        self._move(Input.GO)
        self._generation = generation
        self._flight = None
        self._ended.clear()
        self._emitted = 0
        self._holding = False
        missing = self._wanted > (self.told or 0)  # it went with the generation before
        self._demanded = self._demanded or missing or bool(self.changes)  # worth an epoch, records or not
        self.unapplied = False
        self._barren = True
        self._due = now + self._first_interval
        return self._request(now) if self.committed is None else []

    def down(self) -> None:
        """The generation is over: what is in flight is forgotten, its number burned.

        A manifest that is being written may still become the commit: `writing` stays true until its answer, and
        nobody may choose the epoch to restore before that."""
        if self.step is Step.WRITING:
            self._orphan = self._flight
        if self.step is not Step.DOWN:
            self._haste += self._barren
        self._flight = None
        self._hold_wanted = self._ahead = False
        self._move(Input.OVER)
        self._due = None

    @property
    def _first_interval(self) -> float:
        """Deaths that come more often than epochs would leave none to be made: each generation that is over without
        one halves the time that the next one takes to ask for it."""
        return float(self._interval / 2.0 ** min(self._haste, HASTE_MAX))

    @property
    def writing(self) -> bool:
        """A manifest of a generation that is over is on its way to the disk."""
        return self._orphan is not None

    @property
    def origin(self) -> str:
        """What a generation starts from, for people."""
        return "the beginning" if self.committed is None else f"epoch {self.committed}"

    # when to make an epoch

    def tick(self, now: float, emitted: int) -> list[EpochCommand]:
        """A deadline has come; `emitted` is the number of records the sources have given in this generation."""
        if self.step not in (Step.IDLE, Step.PAUSED) or self._due is None or now < self._due:
            return []
        if (emitted == self._emitted or self.finished) and self.step is Step.IDLE and not self._demanded:
            # where nothing comes, nothing is lost, and nobody need be woken often
            self._haste = max(0, self._haste - 1)
            self._due = now + self._first_interval
            return []
        self._emitted = emitted
        return self._request(now)

    def demand(self, now: float) -> tuple[int, list[EpochCommand]]:
        """An epoch at once, or right behind the one in flight; its number comes first. While the sources hold there
        is nothing that the last one has not."""
        if self.held:
            return self.told or 0, []
        wanted = self._wanted = self._highest + 1
        if self.step is Step.IDLE:
            return wanted, self._request(now)
        self._demanded = True
        return wanted, []

    def pace(self, interval: float, now: float) -> None:
        """Epochs come every `interval` seconds from now on."""
        self._interval = interval
        if self.step is Step.IDLE and self._due is not None:
            self._due = min(self._due, now + self._first_interval)

    def hold(self, now: float, *, ahead: bool = False) -> list[EpochCommand]:
        """Make an epoch after which the sources give nothing. `ahead`: an ordinary one first, so that the one with
        which they stand still finds little to do; one that is in flight, or was made just now, serves as that."""
        if self._hold_wanted or self.step is Step.DOWN or (self.held and not self._proposed):
            return []
        self._hold_wanted = True
        stale = now - self._cut_at > FRESH_S
        self._ahead = ahead and stale and self.step is Step.IDLE and not self._all_ended()
        return self._request(now) if self.step in (Step.IDLE, Step.HELD) else []

    def release(self, now: float) -> list[EpochCommand]:
        """Nobody needs the sources to hold any more."""
        self._hold_wanted = self._ahead = False
        if self.step is not Step.HELD:
            return []
        self._move(Input.RESUME)
        self._due = now + self._interval
        return self._resume()

    @property
    def held(self) -> bool:
        """The sources give nothing, and everything that they gave is committed and visible."""
        return self.step is Step.HELD or (self.step is Step.IDLE and self.finished)

    def propose(self, change: Change) -> None:
        """Record `change` with the next epoch behind which the sources hold."""
        self._proposed.append(change)

    def withdraw(self, change: Change) -> bool:
        """It is not wanted any more. False when it is on its way: the epoch in flight records it if it is committed."""
        self._proposed = [other for other in self._proposed if other is not change]
        flights = [flight for flight in (self._flight, self._orphan) if flight is not None]
        return not any(change in flight.changes for flight in flights)

    @property
    def proposed(self) -> tuple[Change, ...]:
        """Changes that are in no manifest yet."""
        return tuple(self._proposed)

    @property
    def finished(self) -> bool:
        """Every source has ended, and everything that they gave is committed and visible."""
        return self._final and self._all_ended() and self.told == self.committed

    # what happens to an epoch

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

    def snapshot_done(self, part: Part, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        flight = self._current(generation, epoch, Step.ALIGNING)
        if flight is None:
            return []
        flight.parts[part.stage] = part
        if len(flight.parts) < len(self._stages):
            return []
        self._move(Input.DURABLE)
        flight.durable_at = now
        parts = tuple(flight.parts[name] for name in self._stages)
        return [WriteManifest(generation, epoch, parts, flight.finished, flight.changes, now - flight.began)]

    def snapshot_failed(self, generation: int, epoch: int, reason: str, now: float) -> list[EpochCommand]:
        """A snapshot could not be written and nobody died. Once all are there, nobody can take his back."""
        flight = self._current(generation, epoch, Step.ALIGNING)
        return self._abort(flight, reason, now) if flight is not None else []

    def manifest_failed(self, generation: int, epoch: int, reason: str, now: float) -> list[EpochCommand]:
        """The manifest could not be written, and no start will ever find it."""
        if self._orphan is not None and self._orphan.epoch == epoch:
            self._orphan = None
        flight = self._current(generation, epoch, Step.WRITING)
        return self._abort(flight, reason, now) if flight is not None else []

    def manifest_written(self, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        """The rename is done: the epoch is committed, whatever happens from here on."""
        flight = self._orphan or self._flight
        assert flight is not None, epoch
        assert flight.epoch == epoch, (flight, epoch)
        self.committed = epoch
        self._haste, self._barren = 0, False
        self._final = flight.finished and not flight.changes
        self.changes, self.unapplied = flight.changes, bool(flight.changes)
        self._proposed = [change for change in self._proposed if change not in flight.changes]
        if self._orphan is not None:  # the generation is over, the commit stands; sinks learn of it by `restore`
            self._orphan = None
            self.told = epoch
            return []
        flight.written_at = now
        self.failure = None
        self._failures = 0
        self._move(Input.WRITTEN)
        if not self._sinks:
            return self._complete(flight, now)
        return [AskCommit(sink, generation, epoch) for sink in self._sinks]

    def commit_done(self, stage: str, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        flight = self._current(generation, epoch, Step.COMMITTING)
        if flight is None:
            return []
        flight.confirmed.add(stage)
        return self._complete(flight, now) if flight.confirmed >= set(self._sinks) else []

    def _complete(self, flight: Flight, now: float) -> list[EpochCommand]:
        self._flight = None
        self._cut_at = flight.began
        self.told = flight.epoch
        self._due = max(now, flight.began + self._interval)
        stays = flight.hold and self._hold_wanted
        self._move(Input.HOLD if stays else Input.CONFIRMED)
        final = stays or flight.finished
        commands: list[EpochCommand] = [
            TellCommitted(self._generation, flight.epoch, final, flight.times(now)),
        ]
        if stays:
            self._hold_wanted = False
            return commands
        ends = self._all_ended() and not self.finished
        if self._hold_wanted or self._demanded or ends:
            return commands + self._request(now)
        return commands + self._resume()

    def _abort(self, flight: Flight, reason: str, now: float) -> list[EpochCommand]:
        """The next attempt comes with back-off, on new files."""
        self._flight = None
        self.failure = reason
        delay = min(ABORT_BACKOFF_MAX_S, ABORT_BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._move(Input.REFUSED)
        self._due = now + delay
        pauses = [] if self._holding else [AskPause(source, self._generation) for source in self._sources]
        self._holding = True
        return [Aborted(flight.epoch, reason), *pauses]

    def _request(self, now: float) -> list[EpochCommand]:
        self._highest += 1
        self._demanded = False
        hold, self._ahead = self._hold_wanted and not self._ahead, False
        waiting = self.changes if self.unapplied else ()  # a restore of this epoch has to apply them as well
        changes = (*waiting, *self._proposed) if hold else waiting
        flight = Flight(self._highest, now, hold, self._all_ended(), changes)
        self._flight = flight
        self._holding = self._holding or hold
        self._move(Input.REQUEST)
        return [AskBarrier(s, self._generation, flight.epoch, hold) for s in self._sources]

    def _resume(self) -> list[EpochCommand]:
        if not self._holding:
            return []
        self._holding = False
        return [AskResume(source, self._generation) for source in self._sources]

    def _move(self, event: Input) -> None:
        self.step = TABLE.advance(self.step, event)

    def _all_ended(self) -> bool:
        return self._ended >= set(self._sources)

    def _current(self, generation: int, epoch: int, step: Step) -> Flight | None:
        """The epoch in flight if the message is about it; what is not current is dropped."""
        flight = self._flight
        stale = flight is None or generation != self._generation or epoch != flight.epoch or self.step is not step
        return None if stale else flight
