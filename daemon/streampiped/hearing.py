"""What a process says, in the words of the decisions. Pure."""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import Part
from streampiped.wire import messages as m


def event_of(name: str, incarnation: int, message: m.Message) -> p.Event | None:
    """The event that `message` of this process is; None: it is none for the decisions."""
    match message:
        case m.Loaded():
            return p.Loaded(name, incarnation)
        case m.Ready(generation):
            return p.Ready(name, incarnation, generation)
        case m.Failed(phase, reason):
            return p.Failed(name, incarnation, phase, reason)
        case m.SnapshotDone(generation, epoch):
            return p.SnapshotDone(generation, epoch, part_of(name, message))
        case m.SnapshotFailed(generation, epoch, reason):
            return p.SnapshotFailed(name, generation, epoch, reason)
        case m.Impaired(generation, reason):
            return p.Impaired(name, incarnation, generation, reason)
        case m.CommitDone(generation, epoch):
            return p.CommitDone(name, generation, epoch)
        case m.SourceEnded(generation, records):
            return p.SourceEnded(name, generation, records)
    return None


def part_of(stage: str, done: m.SnapshotDone) -> Part:
    """A stage's part of an epoch."""
    return Part(
        stage,
        done.file,
        done.length,
        done.checksum,
        done.position,
        done.aligned_ns / 1e9,
        done.snapshot_ns / 1e9,
        done.durable_ns / 1e9,
    )
