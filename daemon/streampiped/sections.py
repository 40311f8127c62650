"""The options of streampipe.toml that are the pipeline's own: one model per table.

Each option is one `Field` that carries type, default, unit and reason; etc/streampipe.toml is rendered from them, and
a test holds both together. Defaults come from `topology`, where the supervisor, which never sees this file, has them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from streampiped import topology
from streampiped.units import Duration, Rate, Size

NAME_CHARACTERS_MAX: Final = 32  # a table of stages stays 80 columns wide, a socket's path short
NAME_PATTERN: Final = re.compile(rf"[a-z][a-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}")

_SUPERVISION = topology.Supervision()
_CHECKPOINT = topology.Checkpoint()
_LINKS = topology.Links()
_CONTROL = topology.Control()
_LOGS = topology.Logs()
_HEALTH = topology.Thresholds()
_METRICS = topology.Metrics()


class Section(BaseModel):
    """A table of the file. Strict: "5" is no number and true no 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def as_name(value: str) -> str:
    """The value, if it can name a stage or a pipeline."""
    if NAME_PATTERN.fullmatch(value) is None:
        raise ValueError(
            f"should begin with a-z, have only a-z, 0-9, _ and -, and at most {NAME_CHARACTERS_MAX} characters"
        )
    return value


def as_listen(value: str) -> str:
    """The value, if it is an address and a port to listen at."""
    host, _, port = value.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError('should be an address and a port, such as "127.0.0.1:9464" or "[::1]:9464"') from None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError("should end with a port, 1 to 65535")
    return value


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address that `as_listen` has let through."""
    return ipaddress.ip_address(listen.rpartition(":")[0].removeprefix("[").removesuffix("]")).is_loopback


Name = Annotated[str, AfterValidator(as_name)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # TOML has lists only


class PipelineSection(Section):
    """The pipeline as a whole."""

    name: Name = Field("streampipe", description="Shown in status, logs and the report.")
    seed: int = Field(
        0,
        ge=0,
        lt=1 << 63,
        description="Every random choice of every stage follows from it: same seed, same input, same bits.",
    )
    python_path: Texts = Field(
        (),
        description="Directories where classes of your own are found, relative to this file.",
    )


class PathsSection(Section):
    """Where things are kept. Relative paths start at the working directory."""

    state: str | None = Field(
        None,
        min_length=1,
        description="Snapshots, databases and what else must survive a restart. "
        "Unset: $STATE_DIRECTORY, which systemd gives, else ./var/state.",
    )
    runtime: str | None = Field(
        None,
        min_length=1,
        description="Sockets. Short, for the path of a socket has at most 107 bytes. "
        "Unset: $RUNTIME_DIRECTORY, else ./var/run.",
    )
    logs: str | None = Field(None, min_length=1, description="Log files. Unset: $LOGS_DIRECTORY, else ./var/log.")


class ControlSection(Section):
    """Who may use `streampipectl`."""

    group: str = Field(
        _CONTROL.group, description="Its members may look. Without such a group only the service's user may."
    )
    operators: Texts = Field(
        _CONTROL.operators,
        description="Users who may also start, stop and restart, as root and the service's own user always may.",
    )


class CheckpointSection(Section):
    """How often the state of all stages is made durable."""

    interval: Duration = Field(
        _CHECKPOINT.interval,
        ge=0.01,
        description="Time between two epochs: what has to be computed again after a crash. Every epoch costs an "
        "fsync per stage.",
    )
    retain_epochs: int = Field(
        _CHECKPOINT.retain_epochs,
        ge=1,
        le=1000,
        description="Epochs kept, so that a damaged newest one does not cost everything.",
    )


class SupervisionSection(Section):
    """When a stage counts as lost and how it comes back."""

    start_timeout: Duration = Field(
        _SUPERVISION.start_timeout,
        gt=0,
        description="From the start of a process until it is ready. Importing scikit-learn from a cold disk takes "
        "seconds.",
    )
    reset_timeout: Duration = Field(
        _SUPERVISION.reset_timeout,
        gt=0,
        description="Until every stage has restored the last epoch after a crash; who has not is replaced.",
    )
    stop_timeout: Duration = Field(
        _SUPERVISION.stop_timeout, gt=0, description="From SIGTERM to SIGKILL for one process."
    )
    drain_timeout: Duration = Field(
        _SUPERVISION.drain_timeout,
        description="How long stopping waits for records on their way. Keep it below systemd's TimeoutStopSec.",
    )
    max_restarts: int = Field(
        _SUPERVISION.max_restarts,
        ge=0,
        description="More restarts of a stage than this within `window` and it is 'failed': the pipeline holds, "
        "and says so.",
    )
    window: Duration = Field(_SUPERVISION.window, gt=0, description="See max_restarts.")
    backoff_first: Duration = Field(
        _SUPERVISION.backoff_first,
        gt=0,
        description="Delay before the second restart; the first has none, later ones double it.",
    )
    backoff_max: Duration = Field(_SUPERVISION.backoff_max, gt=0, description="The delay grows to this at most.")
    stable_after: Duration = Field(
        _SUPERVISION.stable_after, gt=0, description="After this time without a death the delay starts anew."
    )
    poison_attempts: int = Field(
        _SUPERVISION.poison_attempts,
        ge=1,
        description="So often a stage may die with the same records in its hands before they are tried one by one in "
        "throw-away forks, and the guilty ones put aside. A bare SIGKILL counts a third.",
    )
    probe_timeout: Duration = Field(
        _SUPERVISION.probe_timeout,
        gt=0,
        description="Time on the CPU after which such a trial seems to loop, and its rows are tried in smaller parts. "
        "A row is put aside for it only when it takes as long as the stage's hang_timeout alone, and others do not.",
    )


class LinksSection(Section):
    """The pipes between stages."""

    frame_bytes_max: Size = Field(
        _LINKS.frame_bytes_max,
        ge=64 << 10,
        le=1 << 30,
        description="The largest batch on a link. Bounds what a reader allocates because of a damaged length.",
    )
    pipe_bytes: Size = Field(
        _LINKS.pipe_bytes,
        ge=4 << 10,
        le=1 << 20,
        description="Buffer of a pipe. 1MiB is the most an ordinary user gets (/proc/sys/fs/pipe-max-size).",
    )
    buffer_bytes: Size = Field(
        _LINKS.buffer_bytes,
        ge=0,
        le=1 << 30,
        description="Memory in which a stage shows its batches to those behind it, at most. Large batches use half "
        "of it, or as much as two for each of those stages take; a stage waits when all of that is in use. What is "
        "larger than half of it goes through the pipes. 0: everything does.",
    )
    poison: bool = Field(
        _LINKS.poison,
        description="Overwrite such memory with NaN when the last reader is done with it: a stage that keeps what it "
        "was only shown gives other results then. For trying out stages.",
    )


class LogsSection(Section):
    """The log, in the directory `paths.logs` and on stderr."""

    level: Literal["debug", "info", "notice", "warning", "error", "critical"] = Field(
        _LOGS.level,  # type: ignore[arg-type]  # the plan says str; the test of the example file holds them together
        description="The least that is logged.",
    )
    file_bytes_max: Size = Field(
        _LOGS.file_bytes_max, ge=64 << 10, description="A file of this size is renamed and a new one begun."
    )
    files_kept: int = Field(_LOGS.files_kept, ge=1, le=100, description="Older files kept beside the current one.")


class HealthSection(Section):
    """When `streampipectl health` calls a stage lagging, stalled or flapping. Nothing is done about it."""

    lagging_after: Duration = Field(
        _HEALTH.lagging_after,
        gt=0,
        description="Records that are older than this when a stage is done with them are late. The one that makes them "
        "late is lagging, not those before or behind it.",
    )
    stalled_after: Duration = Field(
        _HEALTH.stalled_after,
        gt=0,
        description="With work and no progress for this long a stage is stalled. Half of its hang_timeout, at which it "
        "is replaced, counts where that is shorter.",
    )
    flapping_deaths: int = Field(
        _HEALTH.flapping_deaths,
        ge=2,
        description="So many deaths within supervision.window are flapping: one is an accident, the third a pattern.",
    )
    epoch_after: Duration = Field(
        _HEALTH.epoch_after,
        gt=0,
        description="The pipeline is lagging when no epoch was committed for checkpoint.interval and this time: a "
        "crash would repeat all of it.",
    )
    clear_after: Duration = Field(
        _HEALTH.clear_after, description="A stage counts as better when it has been so for this long."
    )


class MetricsSection(Section):
    """Figures for Prometheus over HTTP, answered by the service monitor. `streampipectl metrics` needs none of it."""

    listen: Annotated[str, AfterValidator(as_listen)] | None = Field(
        _METRICS.listen,
        description="Address and port, such as 127.0.0.1:9464. Unset: nowhere. The unit needs the drop-in network.conf "
        "for it.",
    )
    anywhere: bool = Field(
        _METRICS.anywhere,
        description="true: `listen` may be an address that other machines reach. There is no password and no TLS.",
    )


class StageSection(Section):
    """One stage of the stream. Every other key is an option of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    klass: str | None = Field(
        None,
        alias="class",
        description="generator, normalizer, consumer, trainer, evaluator, or a class of your own as "
        '"package.module:Class". Unset: the kind of the stage\'s name.',
    )
    input: str | Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="The stage, or list of stages, whose output comes in. A source has none."
    )
    max_rate: Rate = Field(0.0, description="Records per second let into this stage. 0: no limit.")
    hang_timeout: Duration = Field(
        30.0,
        gt=0,
        description="With input, room for output and no progress for this long, the stage is hung and replaced. Time "
        "that it waits for a CPU does not count. After half of it its stack is in the log.",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else self.input


class ServiceSection(Section):
    """A process beside the stream. Every other key is an option of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    enabled: bool = Field(True, description="false: this process is not started.")


SECTIONS: Final[Mapping[str, type[Section]]] = {
    "pipeline": PipelineSection,
    "paths": PathsSection,
    "control": ControlSection,
    "checkpoint": CheckpointSection,
    "supervision": SupervisionSection,
    "links": LinksSection,
    "logs": LogsSection,
    "health": HealthSection,
    "metrics": MetricsSection,
}
"""Table -> model; beside these there are [stages.NAME] and the services."""
