"""The plan of a pipeline: what the configuration says, resolved, checked and free of any import of user code.

Everything here is plain data, so that the small supervisor can hold it. `config.py` makes it, in a process that is
thrown away; it travels as msgpack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

Role: TypeAlias = Literal["source", "transform", "sink", "service"]

PAIRS_MAX: Final = 125
"""Of descriptors that one message takes: links, a stage's own memory, and that of others."""
SEEN_MAX: Final = 16
"""Stages whose memory one is shown, if the links leave so much room. A batch that comes from further away is copied
once on its way."""
COPIES_MAX: Final = 100
"""Readers that a batch may have in shared memory: what all of them give back at once fits into a pipe."""
PER_PROCESS, PER_LINK, PER_OWNER = 3, 4, 3
OPEN_BESIDE: Final = 64
"""Open files of the supervisor that are nobody's: two dozen of its own (log, state, sockets, the fork server), a fork
under way, and clients."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One process of the plan."""

    name: str
    klass: str
    """`package.module:Class`, resolved also for built-in kinds."""
    role: Role
    inputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """The stage's own options as written (msgpack-able), with the names of its secrets; the stage validates them again
    (`credentials.py`)."""
    api: bool = False
    """It serves `NAME.sock` in the runtime directory."""
    max_rate: float | None = None
    """Records/s that the shell lets into this stage; None: no limit."""
    hang_timeout: float = 30.0
    retractable: bool = True
    """A sink that can take rows back, or a source that can go back to an older position."""
    isolates: bool = True
    """False of a sink without `isolate`: of a batch that kills it no single row can be found."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Absolute directories; all exist and are writable once the plan is accepted."""

    state: str
    runtime: str
    logs: str


@dataclass(frozen=True, slots=True)
class Supervision:
    """Seconds, unless the name says otherwise; etc/streampipe.toml gives the reasons."""

    start_timeout: float = 60.0
    reset_timeout: float = 10.0
    stop_timeout: float = 5.0
    drain_timeout: float = 20.0
    max_restarts: int = 5
    window: float = 60.0
    backoff_first: float = 0.1
    backoff_max: float = 30.0
    stable_after: float = 60.0
    poison_attempts: int = 2
    probe_timeout: float = 1.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    interval: float = 1.0
    retain_epochs: int = 3


@dataclass(frozen=True, slots=True)
class Links:
    frame_bytes_max: int = 64 << 20
    pipe_bytes: int = 1 << 20
    buffer_bytes: int = 16 << 20
    """Of memory that a stage shares with those behind it; 0: none, everything goes through the pipes."""
    poison: bool = False
    """That memory is overwritten as soon as nobody may look at it any more; for tests."""


@dataclass(frozen=True, slots=True)
class Control:
    group: str = "streampipe"
    operators: tuple[str, ...] = ()
    """User names that may change things, beside root and the service's own user."""


@dataclass(frozen=True, slots=True)
class Logs:
    level: str = "info"
    file_bytes_max: int = 16 << 20
    files_kept: int = 2


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Of the judgement of health: seconds, unless the name says otherwise; etc/streampipe.toml gives the reasons."""

    lagging_after: float = 5.0
    stalled_after: float = 10.0
    flapping_deaths: int = 3
    epoch_after: float = 30.0
    clear_after: float = 5.0


@dataclass(frozen=True, slots=True)
class Metrics:
    listen: str | None = None
    """`host:port` where the service monitor answers over HTTP; None: nowhere."""
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole pipeline. `stages` stand in topological order, sources first; services are apart."""

    pipeline: str
    seed: int
    config_file: str
    paths: Paths
    stages: tuple[StageSpec, ...]
    services: tuple[StageSpec, ...] = ()
    supervision: Supervision = field(default_factory=Supervision)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    links: Links = field(default_factory=Links)
    control: Control = field(default_factory=Control)
    logs: Logs = field(default_factory=Logs)
    health: Thresholds = field(default_factory=Thresholds)
    metrics: Metrics = field(default_factory=Metrics)
    python_path: tuple[str, ...] = ()
    """Absolute directories put in front of `sys.path` before a stage's class is imported."""

    @property
    def processes(self) -> tuple[StageSpec, ...]:
        """Services first: they watch the others start, and leave after them."""
        return self.services + self.stages

    def spec(self, name: str) -> StageSpec:
        for spec in self.processes:
            if spec.name == name:
                return spec
        raise KeyError(name)

    def edges(self) -> tuple[tuple[str, str], ...]:
        """(writer, reader) of every link, in the order of the readers."""
        return tuple((source, spec.name) for spec in self.stages for source in spec.inputs)

    def outputs(self, name: str) -> tuple[str, ...]:
        return tuple(reader for writer, reader in self.edges() if writer == name)

    def number(self, name: str) -> int:
        """Of a stage, in every process the same."""
        return [spec.name for spec in self.stages].index(name)

    def seen(self, name: str) -> tuple[str, ...]:
        """The stages whose memory this one is shown: those it may get batches of, the nearest first. Some that are far
        away are left out (`SEEN_MAX`), and so are those of whose batches there may be too many (`COPIES_MAX`)."""
        if not self.links.buffer_bytes:
            return ()
        copies, above = self.copies(), list(self.spec(name).inputs)
        at = 0
        while at < len(above):
            above += [further for further in self.spec(above[at]).inputs if further not in above]
            at += 1
        edges = len(self.spec(name).inputs) + len(self.outputs(name))
        most = min(SEEN_MAX, max(0, PAIRS_MAX - 1 - edges))
        return tuple(each for each in above if copies[each] <= COPIES_MAX)[:most]

    def owners(self) -> dict[str, int]:
        """The stages that share memory with those behind them, and how much."""
        shown = {name for spec in self.stages for name in self.seen(spec.name)}
        return {spec.name: self.links.buffer_bytes for spec in self.stages if spec.name in shown}

    def descriptors(self) -> int:
        """What the supervisor may have open at once, at most: per process a socket, a pidfd and the output, and as many
        of its successor; per link two pipes and per owner its memory and a pipe, of two generations."""
        generation = PER_LINK * len(self.edges()) + PER_OWNER * len(self.owners())
        return OPEN_BESIDE + 2 * (PER_PROCESS * len(self.processes) + generation)

    def lends(self, name: str) -> tuple[str, ...]:
        """Whose memory a stage may name to all of its readers: its own, and what it is shown itself."""
        readers = self.outputs(name)
        everywhere = (set(self.seen(reader)) for reader in readers)
        common = set.intersection(*everywhere) if readers else set()
        return tuple(each for each in (name, *self.seen(name)) if each in common)

    def copies(self) -> dict[str, int]:
        """How often a batch of each stage is received at most, on all ways that lead on from it."""
        found = {spec.name: 0 for spec in self.stages}
        for spec in reversed(self.stages):
            for source in spec.inputs:
                found[source] += 1 + found[spec.name]
        return found

    def ways(self) -> tuple[str, ...]:
        """Every `via` that a span may have (records.py), the empty one first. As many as there are ways through the
        stages with several inputs: two behind a diamond, four behind two of them in a row."""
        found: dict[str, set[str]] = {}
        for spec in self.stages:
            inputs = [(via, name) for name in spec.inputs for via in found[name]]
            behind = {f"{via}/{name}" if via else name for via, name in inputs}
            found[spec.name] = behind if len(spec.inputs) > 1 else {via for via, _ in inputs} or {""}
        return ("", *sorted(set().union(*found.values()) - {""}))

    def to_dict(self) -> dict[str, Any]:
        """msgpack-able, and the argument of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        return cls(
            pipeline=data["pipeline"],
            seed=data["seed"],
            config_file=data["config_file"],
            paths=Paths(**data["paths"]),
            stages=tuple(_stage(s) for s in data["stages"]),
            services=tuple(_stage(s) for s in data["services"]),
            supervision=Supervision(**data["supervision"]),
            checkpoint=Checkpoint(**data["checkpoint"]),
            links=Links(**data["links"]),
            control=Control(data["control"]["group"], tuple(data["control"]["operators"])),
            logs=Logs(**data["logs"]),
            health=Thresholds(**data["health"]),
            metrics=Metrics(**data["metrics"]),
            python_path=tuple(data["python_path"]),
        )


def _stage(data: Mapping[str, Any]) -> StageSpec:
    return StageSpec(**{**data, "inputs": tuple(data["inputs"])})
