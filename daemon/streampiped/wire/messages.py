"""What supervisor and processes say to each other: one SOCK_SEQPACKET datagram per message, msgpack inside.

A message is `[tag, field, ...]` in the order of the dataclass's fields; descriptors travel beside it by SCM_RIGHTS.
Whatever belongs to a generation carries it, and what is not current is dropped by the receiver.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any, Final, TypeAlias

import msgpack

from streampiped.errors import FrameError

MESSAGE_BYTES_MAX: Final = 128 << 10  # below the default socket buffer (208 KiB), so that one message always fits
CHUNK_BYTES: Final = 96 << 10  # of a reply that is longer; leaves room for the envelope


# supervisor -> launcher and back


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork a process and hand it the descriptors that come along: its control socket, black box and output pipe."""

    request: int
    title: str


@dataclass(frozen=True, slots=True)
class ForkApart:
    """Fork a process that is thrown away, to understand a command line: a socket, stdout and stderr come along."""

    request: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The launcher has reaped the intermediate: `pid` is the supervisor's own child now. 0: `error` says why not."""

    request: int
    pid: int
    error: str


@dataclass(frozen=True, slots=True)
class LauncherReady:
    """Everything is preloaded and there is exactly one thread."""

    threads: int


# supervisor -> a process that is thrown away


@dataclass(frozen=True, slots=True)
class Examine:
    """Instead of `Begin`: read and check the configuration `file`, answer with `Reply`, and leave. The directories are
    those of the command line, None where it said nothing."""

    supervisor: int
    file: str
    state_dir: str | None
    runtime_dir: str | None


# supervisor -> stage


@dataclass(frozen=True, slots=True)
class Begin:
    """The supervisor watches the process now; it may become the stage. `plan` is `Plan.to_dict()`. `rehearse`: a
    snapshot that a successor restores before it says `Loaded`, for its predecessor leaves only then."""

    name: str
    incarnation: int
    supervisor: int
    plan: dict[str, Any]
    rehearse: str | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the old links, restore `snapshot` (None: a new pipeline), take the new ends that come along: per input
    where to read and where to give credits, then per output where to write and where credits come back. `epoch` is
    what is restored, None for a new pipeline.

    `suspects` are spans `[via, source, start, count]`: a batch that overlaps one of them has killed this stage before
    and is tried in a throw-away fork first. `changes` are those that the manifest of `epoch` records for this stage;
    they are applied before any input."""

    generation: int
    epoch: int | None
    snapshot: str | None
    inputs: list[str]
    outputs: list[str]
    suspects: list[list[Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Go:
    generation: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """To sources: put barrier `epoch` into the output; `hold` means emit nothing after it."""

    generation: int
    epoch: int
    hold: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """To sources: emit nothing but barriers until `Resume`."""

    generation: int


@dataclass(frozen=True, slots=True)
class Resume:
    """To sources: go on after a `Pause` or a barrier with hold."""

    generation: int


@dataclass(frozen=True, slots=True)
class Commit:
    """To sinks: the manifest of `epoch` is durable, make it visible."""

    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Committed:
    """To all: `epoch` is durable and visible everywhere."""

    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Query:
    """A read-only question to the stage or service; answered by one or more `Reply`."""

    request: int
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Roster:
    """To services: pids by process name."""

    processes: dict[str, int]


# stage -> supervisor


@dataclass(frozen=True, slots=True)
class Loaded:
    """Imported and constructed."""


@dataclass(frozen=True, slots=True)
class Ready:
    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The process is about to leave because of an exception in `phase`."""

    phase: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """The snapshot (and a sink's prepare) of `epoch` is durable in `file`. `position`: of a source, the records it has
    given since the stream began. `aligned_ns`: CLOCK_MONOTONIC when the barrier was there on every input;
    `snapshot_ns` and `durable_ns`: how long it took to serialise, and to make durable."""

    generation: int
    epoch: int
    file: str
    length: int
    checksum: int
    position: int | None = None
    aligned_ns: int = 0
    snapshot_ns: int = 0
    durable_ns: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    generation: int
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Impaired:
    """The outer world (a full disk) does not let this stage go on in this generation. It lives, has dropped what it was
    doing, and waits for the next reset."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Guilty:
    """One row of a suspect batch that no fork survives. `via`: the way by which it came, of its span; `attempt`: 0 in
    the stream, n in the n-th replay of the dead letter; `manner` how the fork ended; `record` the row as msgpack, name
    -> value. `more`: that is a part of it, at most CHUNK_BYTES, and the next message goes on with it."""

    generation: int
    via: str
    source: str
    position: int
    attempt: int
    manner: str
    reason: str
    traceback: str
    record: bytes
    more: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A suspect batch was tried, and so many rows were named `Guilty` before this. 0: innocent, the stage goes on; else
    it waits for the next reset."""

    generation: int
    guilty: int


@dataclass(frozen=True, slots=True)
class CommitDone:
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """A source is at its end, after `records` in this generation, and has said so downstream."""

    generation: int
    records: int


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """The first batch of a generation has been processed, at CLOCK_MONOTONIC `at_ns`."""

    generation: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Part `part` of an answer; the last part has `more` false. `error` replaces the data."""

    request: int
    more: bool
    data: bytes
    error: str


@dataclass(frozen=True, slots=True)
class Event:
    """A log event of the catalogue."""

    event: str
    values: dict[str, Any]


Message: TypeAlias = (
    Fork | ForkApart | Forked | LauncherReady
    | Begin | Reset | Go | Barrier | Pause | Resume | Commit | Committed | Query | Roster
    | Loaded | Ready | Failed | SnapshotDone | SnapshotFailed | Impaired | Guilty | Judged | CommitDone | SourceEnded
    | FirstBatch | Reply | Event | Examine
)  # fmt: skip

_KINDS: Final[tuple[type[Any], ...]] = (
    Fork, ForkApart, Forked, LauncherReady,
    Begin, Reset, Go, Barrier, Pause, Resume, Commit, Committed, Query, Roster,
    Loaded, Ready, Failed, SnapshotDone, SnapshotFailed, Impaired, Guilty, Judged, CommitDone, SourceEnded,
    FirstBatch, Reply, Event, Examine,
)  # fmt: skip
_TAGS: Final = {kind: tag for tag, kind in enumerate(_KINDS)}
_FIELDS: Final = {kind: tuple(f.name for f in fields_of(kind)) for kind in _KINDS}


def encode(message: Message) -> bytes:
    """One datagram. A message over MESSAGE_BYTES_MAX is a wrong program."""
    kind = type(message)
    fields = [_TAGS[kind], *(getattr(message, name) for name in _FIELDS[kind])]
    try:
        data: bytes = msgpack.packb(fields)
    except UnicodeEncodeError:  # an exception quotes what it was given: better legible than none
        data = msgpack.packb(fields, unicode_errors="backslashreplace")
    if len(data) > MESSAGE_BYTES_MAX:
        raise FrameError(f"{kind.__name__} message of {len(data)} bytes, at most {MESSAGE_BYTES_MAX}")
    return data


def decode(data: bytes) -> Message:
    """The message of one datagram; FrameError when it is none."""
    try:
        tag, *values = msgpack.unpackb(data)
        message: Message = _KINDS[tag](*values)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise FrameError(f"not a control message ({len(data)} bytes): {error}") from error
    return message
