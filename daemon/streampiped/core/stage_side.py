"""A stage's side of the protocol: what it may do at which time, and what follows from what it is told. Pure.

The shell (`data_path.py`) hands in what comes from the supervisor, from the links and from the thread that saves, and
performs the commands in order. Nothing is asked for each batch: the shell looks at `flows` and at an inlet's `waits`,
and sets `moved`.

Whatever is of another generation is dropped. A new reset may come in any state, also while the one before is still
being done; it takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from streampiped.core.tables import ImpossibleInputError, Table

# commands


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the links, and forget what was read and not processed."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Become what the stage was at `epoch` (None: new), take the new links, and say `restored`. `keep`: it is that
    already, and only a sink has something to roll back."""

    generation: int
    epoch: int | None
    snapshot: str | None
    keep: bool


@dataclass(frozen=True, slots=True)
class SayReady:
    generation: int


@dataclass(frozen=True, slots=True)
class Hear:
    """`epoch` is durable and visible everywhere: the stage may let the outside know."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Do what the restored epoch's manifest asks for, before any input, and say `applied`."""

    changes: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Serialise the state at this point of the stream."""

    epoch: int


@dataclass(frozen=True, slots=True)
class EmitBarrier:
    """Into every output."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Save:
    """Make what was serialised durable beside the data path, and say `saved` or `unprepared`."""

    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the supervisor how the save went."""


@dataclass(frozen=True, slots=True)
class EmitEnd:
    """Into every output."""


@dataclass(frozen=True, slots=True)
class SayEnded:
    generation: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Make everything up to `epoch` visible."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SayCommitDone:
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class SayImpaired:
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class SayJudged:
    generation: int
    guilty: int


Command: TypeAlias = (
    Drop | Restore | SayReady | Hear | Apply | Snapshot | EmitBarrier | Save | Report | EmitEnd | SayEnded | Commit
    | SayCommitDone | SayImpaired | SayJudged
)  # fmt: skip


class State(Enum):
    """What a stage does."""

    LOADED = "loaded"  # belongs to no generation yet
    SETTLING = "settling"  # reset; a save of the generation before is still under way
    RESTORING = "restoring"
    READY = "ready"
    APPLYING = "applying"  # gone; what the restored epoch asks for comes before any input
    FLOWING = "flowing"
    ALIGNING = "aligning"  # a barrier is there on one input and not yet on all
    PREPARING = "preparing"  # a sink whose records before the barrier must be durable before it takes others
    HOLDING = "holding"  # a source that gives nothing but barriers
    ENDED = "ended"  # a source that has nothing more to give but barriers
    STILL = "still"  # does nothing until the next reset


class Input(Enum):
    RESET = "reset"
    SETTLED = "nothing is being saved"
    RESTORED = "restored"
    GO = "go"
    APPLIED = "changes applied"
    EARLY = "barrier on one input"
    BARRIER = "barrier on all inputs, or asked of a source"
    PREPARE = "a sink prepares"
    SAVED = "durable, or refused"
    HOLD = "pause, or a barrier with hold"
    RESUME = "resume"
    END = "a source is at its end"
    COMMIT = "commit"
    REFUSED = "the disk refuses"
    GUILTY = "rows are to be skipped"


TABLE: Final = Table[State, Input](
    {
        (State.SETTLING, Input.SETTLED): State.RESTORING,
        (State.RESTORING, Input.RESTORED): State.READY,
        (State.READY, Input.GO): State.APPLYING,
        (State.APPLYING, Input.APPLIED): State.FLOWING,
        (State.FLOWING, Input.EARLY): State.ALIGNING,
        (State.ALIGNING, Input.EARLY): State.ALIGNING,
        (State.FLOWING, Input.BARRIER): State.FLOWING,
        (State.ALIGNING, Input.BARRIER): State.FLOWING,
        (State.FLOWING, Input.PREPARE): State.PREPARING,
        (State.PREPARING, Input.SAVED): State.FLOWING,
        (State.FLOWING, Input.COMMIT): State.FLOWING,
        (State.FLOWING, Input.HOLD): State.HOLDING,
        (State.HOLDING, Input.HOLD): State.HOLDING,
        (State.HOLDING, Input.BARRIER): State.HOLDING,
        (State.HOLDING, Input.RESUME): State.FLOWING,
        (State.FLOWING, Input.END): State.ENDED,
        (State.ENDED, Input.BARRIER): State.ENDED,
        (State.ENDED, Input.HOLD): State.ENDED,
        (State.ENDED, Input.RESUME): State.ENDED,
        (State.RESTORING, Input.REFUSED): State.STILL,
        (State.APPLYING, Input.REFUSED): State.STILL,
        (State.FLOWING, Input.REFUSED): State.STILL,
        (State.ALIGNING, Input.REFUSED): State.STILL,
        (State.PREPARING, Input.REFUSED): State.STILL,
        (State.APPLYING, Input.GUILTY): State.STILL,
        (State.FLOWING, Input.GUILTY): State.STILL,
        (State.ALIGNING, Input.GUILTY): State.STILL,
        **{(state, Input.RESET): State.SETTLING for state in State},
    }
)
"""Everything that changes what a stage does; docs/specs/epochs.md shows the diagram that is drawn from it."""

_FLOWS: Final = (State.APPLYING, State.FLOWING, State.ALIGNING)


def mermaid() -> str:
    return TABLE.mermaid(State.LOADED, {Input.RESET: State.FLOWING})


class Inlet:
    """One input of one generation."""

    __slots__ = ("ended", "name", "waits")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waits = False
        """It has the barrier that others have not: nothing more is taken from it. For the shell to read."""
        self.ended = False


class StageSide:
    """The state machine of one stage. `holds_back`: a sink that takes no record while the ones before a barrier are
    being made durable."""

    def __init__(self, *, holds_back: bool) -> None:
        self.state = State.LOADED
        self.generation = 0
        self.epoch: int | None = None
        """What this generation began from."""
        self.inlets: list[Inlet] = []
        self.flows = False
        """Records may be taken, from a source, an inlet that does not wait, or the changes to apply."""
        self.moved = True
        """Since the state was that of `_at` something has changed it. For the shell to set before every `read`,
        `process` and change."""
        self._holds_back = holds_back
        self._at: int | None = None
        self._snapshot: str | None = None
        self._changes: tuple[Mapping[str, Any], ...] = ()
        self._saving = 0
        self._aligning: int | None = None

    # generations

    def reset(
        self,
        generation: int,
        epoch: int | None,
        snapshot: str | None,
        inputs: Sequence[str],
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> list[Command]:
        """Another generation begins, from `epoch` (None: new)."""
        self._move(Input.RESET)
        self.generation, self.epoch, self._snapshot = generation, epoch, snapshot
        self.inlets = [Inlet(name) for name in inputs]
        self._changes = tuple(changes)
        self._aligning = None
        return [Drop(), *self._settle()]

    def _settle(self) -> list[Command]:
        """A prepare that is under way must not race with the rollback."""
        if self._saving:
            return []
        self._move(Input.SETTLED)
        keep = not self.moved and self._at == self.epoch
        self.moved = True  # until `restored`: whatever interrupts this leaves nothing to rely on
        return [Restore(self.generation, self.epoch, self._snapshot, keep)]

    def restored(self) -> list[Command]:
        """The stage is what it was at `epoch`, and has its links."""
        self._move(Input.RESTORED)
        self._at, self.moved = self.epoch, False
        return [SayReady(self.generation)]

    def go(self, generation: int) -> list[Command]:
        """Every stage is ready. What was restored is durable and visible: a model of that epoch can be served again."""
        if generation != self.generation:
            return []
        self._move(Input.GO)
        heard: list[Command] = [Hear(self.epoch)] if self.epoch is not None else []
        return [*heard, Apply(self._changes)] if self._changes else heard + self.applied()

    def applied(self) -> list[Command]:
        self._move(Input.APPLIED)
        return []

    # epochs

    def asked(self, generation: int, epoch: int, hold: bool) -> list[Command]:
        """A source is to put barrier `epoch` into its output, and with `hold` nothing behind it."""
        if self._is_deaf(generation):
            return []
        if hold:
            self._move(Input.HOLD)
        return self._cut(epoch)

    def pause(self, generation: int) -> list[Command]:
        """A source is to give nothing but barriers."""
        if not self._is_deaf(generation):
            self._move(Input.HOLD)
        return []

    def resume(self, generation: int) -> list[Command]:
        if not self._is_deaf(generation):
            self._move(Input.RESUME)
        return []

    def barrier(self, inlet: Inlet, epoch: int) -> list[Command]:
        """Barrier `epoch` has come on one input; that input is not read further until all have it."""
        if self._aligning not in (None, epoch):
            raise ImpossibleInputError(f"barrier {epoch} on {inlet.name} while others have {self._aligning}")
        inlet.waits = True
        if not all(other.waits for other in self.inlets):
            self._aligning = epoch
            self._move(Input.EARLY)
            return []
        for other in self.inlets:
            other.waits = False
        self._aligning = None
        return self._cut(epoch)

    def _cut(self, epoch: int) -> list[Command]:
        """The epoch's cut goes through here. The barrier is forwarded at once: others need not wait for our disk."""
        self._move(Input.BARRIER)
        if self._holds_back:
            self._move(Input.PREPARE)
        self._at, self.moved = epoch, False
        self._saving += 1
        return [Snapshot(epoch), EmitBarrier(epoch), Save(self.generation, epoch)]

    def saved(self, generation: int) -> list[Command]:
        """A save that began in `generation` is over, by success or because the disk took no snapshot; both are
        answers."""
        self._saving -= 1
        if self.state is State.SETTLING:
            return self._settle()
        if self.state is State.PREPARING:
            self._move(Input.SAVED)
        return [Report()] if generation == self.generation else []

    def unprepared(self, reason: str) -> list[Command]:
        """A save is over because the disk refuses what a sink wanted to make durable with it."""
        self._saving -= 1
        if self.state is State.SETTLING:
            return self._settle()
        return [] if self.state is State.STILL else self.refused(reason)

    def commit(self, generation: int, epoch: int) -> list[Command]:
        """The manifest of `epoch` is durable."""
        if self._is_deaf(generation):
            return []
        self._move(Input.COMMIT)
        return [Commit(epoch), SayCommitDone(generation, epoch)]

    def committed(self, generation: int, epoch: int) -> list[Command]:
        """Every sink has made `epoch` visible."""
        return [] if self._is_deaf(generation) else [Hear(epoch)]

    # the end of the stream

    def ended(self) -> list[Command]:
        """The source has nothing more to give. It goes on to answer barriers."""
        self._move(Input.END)
        return [EmitEnd(), SayEnded(self.generation)]

    def end(self, inlet: Inlet) -> list[Command]:
        """No batch will come on this input any more; barriers will."""
        inlet.ended = True
        return [EmitEnd()] if all(other.ended for other in self.inlets) else []

    # what the world does to a stage

    def refused(self, reason: str) -> list[Command]:
        """The disk refuses what the stage must do to go on. Nobody dies of that; the next reset is the next try."""
        self._move(Input.REFUSED)
        self.moved = True
        return [SayImpaired(self.generation, reason)]

    def judged(self, guilty: int) -> list[Command]:
        """A suspect batch has been tried, and so many of its rows no process survives: the next reset skips them."""
        if guilty:
            self._move(Input.GUILTY)
        return [SayJudged(self.generation, guilty)]

    def _is_deaf(self, generation: int) -> bool:
        return generation != self.generation or self.state is State.STILL

    def _move(self, event: Input) -> None:
        self.state = TABLE.advance(self.state, event)
        self.flows = self.state in _FLOWS
