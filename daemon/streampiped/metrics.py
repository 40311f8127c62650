"""The metrics for Prometheus: the catalogue of their names, and the text of them all. Pure.

Format: Prometheus text 0.0.4. `page` is a function of one observation (`observation.py` makes it of the supervisor) and
of what the service monitor has measured of the processes. docs/specs/metrics.md lists the catalogue for people; a test
holds both together, and the dashboard and the alerts in etc/ to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from streampiped.histograms import cumulated

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LE_OCTAVES: Final = 2  # a bucket for a fourfold time: 15 of them, where the supervisor's own percentiles have 112
HEALTHS: Final = ("healthy", "lagging", "stalled", "flapping", "failed")
STATES: Final = ("starting", "running", "degraded", "resetting", "draining", "finished", "stopped", "failed")
CAUSES: Final = ("planned", "signal", "exit", "exception", "hung", "lost")
"""The values of the labels `health`, `state` and `reason`; a test holds them to the code that has them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue. Of a histogram the samples are `_bucket` (with `le`), `_sum` and `_count`, of a
    summary the latter two."""

    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


_STAGE: Final = ("stage",)
CATALOGUE: Final[Mapping[str, Metric]] = {
    # the daemon
    "streampipe_build_info": Metric("gauge", "1, with the version of the daemon.", ("version", "pipeline")),
    "streampipe_start_time_seconds": Metric("gauge", "When the daemon started, in seconds since the epoch."),
    "streampipe_observation_age_seconds": Metric(
        "gauge", "How old all of this is: a supervisor that hangs gives nothing new."
    ),
    # the pipeline
    "streampipe_pipeline_state": Metric("gauge", "1 for the state that the pipeline is in, else 0.", ("state",)),
    "streampipe_pipeline_health": Metric("gauge", "1 for the health that the pipeline has, else 0.", ("health",)),
    "streampipe_pipeline_ready": Metric("gauge", "1 when every stage that is wanted is ready, else 0."),
    "streampipe_generation": Metric("gauge", "The number of the current life of the links; every recovery adds one."),
    "streampipe_recovery_seconds": Metric(
        "gauge", "From the last death, or the start, to the first new batch at the last stage."
    ),
    "streampipe_source_records_total": Metric(
        "counter", "Records that the sources have given, those included that a recovery has repeated."
    ),
    "streampipe_latency_seconds": Metric(
        "histogram", "End to end: from the ingest of a batch until a last stage was done with it."
    ),
    "streampipe_dead_letters": Metric("gauge", "Records that are put aside and wait for an operator."),
    "streampipe_state_bytes": Metric("gauge", "What the state directory holds."),
    "streampipe_log_lines_dropped_total": Metric("counter", "Log lines that could not be written.", ("destination",)),
    # epochs
    "streampipe_epoch": Metric("gauge", "The number of the last committed epoch."),
    "streampipe_epoch_age_seconds": Metric("gauge", "Since the last commit: what a crash now would repeat."),
    "streampipe_epochs_aborted_total": Metric("counter", "Epochs that were begun and given up."),
    "streampipe_epoch_duration_seconds": Metric(
        "histogram", "From the request of an epoch to the last answer that it is committed."
    ),
    "streampipe_epoch_part_seconds": Metric(
        "summary", "What the parts of an epoch took: align, snapshot, fsync, manifest, sink_commit.", ("part",)
    ),
    # stages
    "streampipe_stage_health": Metric(
        "gauge", "1 for the health that the stage has, else 0.", ("stage", "health")
    ),
    "streampipe_stage_ready": Metric("gauge", "1 when the process is ready or runs, else 0.", _STAGE),
    "streampipe_stage_wanted": Metric("gauge", "0 when an operator has stopped it, else 1.", _STAGE),
    "streampipe_stage_restarts_total": Metric("counter", "Restarts since the daemon started.", ("stage", "reason")),
    "streampipe_stage_records_received_total": Metric("counter", "Records that the stage was done with.", _STAGE),
    "streampipe_stage_records_emitted_total": Metric("counter", "Records that the stage has given out.", _STAGE),
    "streampipe_stage_batches_total": Metric("counter", "Batches that the stage was done with.", _STAGE),
    "streampipe_stage_lag_seconds": Metric("gauge", "Age of the last batch when the stage was done with it.", _STAGE),
    "streampipe_stage_latency_seconds": Metric(
        "histogram", "From the ingest of a batch until the stage was done with it.", _STAGE
    ),
    "streampipe_stage_work_seconds": Metric("histogram", "What a batch took inside of the stage.", _STAGE),
    # processes
    "streampipe_process_cpu_seconds_total": Metric("counter", "CPU time, user and system.", _STAGE),
    "streampipe_process_resident_memory_bytes": Metric("gauge", "Resident memory (RSS).", _STAGE),
    "streampipe_process_unique_memory_bytes": Metric("gauge", "Memory of its own (USS).", _STAGE),
    "streampipe_process_proportional_memory_bytes": Metric(
        "gauge", "Memory with its share of what is shared (PSS): these may be added up.", _STAGE
    ),
    "streampipe_process_open_fds": Metric("gauge", "Open descriptors.", _STAGE),
    "streampipe_process_threads": Metric("gauge", "Threads.", _STAGE),
    "streampipe_process_context_switches_total": Metric("counter", "Context switches of the main thread.", _STAGE),
    "streampipe_process_read_bytes_total": Metric("counter", "Bytes read from disks.", _STAGE),
    "streampipe_process_written_bytes_total": Metric("counter", "Bytes written to disks.", _STAGE),
}  # fmt: skip
"""Name -> what it is. Every sample that `page` gives belongs to one of them."""

_USAGE: Final = {
    "cpu_seconds": "streampipe_process_cpu_seconds_total",
    "rss_bytes": "streampipe_process_resident_memory_bytes",
    "uss_bytes": "streampipe_process_unique_memory_bytes",
    "pss_bytes": "streampipe_process_proportional_memory_bytes",
    "fds": "streampipe_process_open_fds",
    "threads": "streampipe_process_threads",
    "ctx_switches": "streampipe_process_context_switches_total",
    "read_bytes": "streampipe_process_read_bytes_total",
    "write_bytes": "streampipe_process_written_bytes_total",
}
"""Of the service monitor's `sample`."""


def page(observation: Mapping[str, Any], usage: Mapping[str, Mapping[str, Any]], now: float) -> str:
    """Everything at `now` (seconds since the epoch); what is not known is left out. `usage`: the service monitor's
    answer to `sample`, perhaps empty."""
    text = _Page()
    _pipeline(text, observation, now)
    _epochs(text, observation)
    for row in observation["status"]["processes"]:
        _stage(text, row, observation["figures"]["stages"].get(row["name"], {}))
    for name, figures in sorted(usage.items()):
        for key, metric in _USAGE.items():
            text.put(metric, figures.get(key), stage=name)
    return text.text()


def _pipeline(text: _Page, observation: Mapping[str, Any], now: float) -> None:
    status, figures = observation["status"], observation["figures"]
    text.put("streampipe_build_info", 1, version=status["version"], pipeline=status["pipeline"])
    text.put("streampipe_start_time_seconds", status["since"])
    text.put("streampipe_observation_age_seconds", max(0.0, now - observation["at"]))
    text.one_of("streampipe_pipeline_state", "state", STATES, status["state"])
    text.one_of("streampipe_pipeline_health", "health", HEALTHS, status["health"])
    text.put("streampipe_pipeline_ready", int(figures["ready"]))
    text.put("streampipe_generation", status["generation"])
    text.put("streampipe_recovery_seconds", status["recovery_s"])
    sources = [row["name"] for row in status["processes"] if row["role"] == "source"]
    given = sum(figures["stages"][name]["records_out"] for name in sources)
    text.put("streampipe_source_records_total", given)
    text.histogram("streampipe_latency_seconds", figures["latency"]["seconds"], figures["latency"]["counts"])
    text.put("streampipe_dead_letters", status["dead_letters"])
    text.put("streampipe_state_bytes", status["state_bytes"])
    for destination, count in figures["log_drops"].items():
        text.put("streampipe_log_lines_dropped_total", count, destination=destination.removesuffix("_dropped"))


def _epochs(text: _Page, observation: Mapping[str, Any]) -> None:
    status, epochs = observation["status"], observation["figures"]["epochs"]
    text.put("streampipe_epoch", status["epoch"])
    text.put("streampipe_epoch_age_seconds", status["epoch_age"])
    text.put("streampipe_epochs_aborted_total", epochs["aborted"])
    text.histogram("streampipe_epoch_duration_seconds", epochs["seconds"], epochs["counts"])
    for part, seconds in epochs["parts"].items():
        text.summary("streampipe_epoch_part_seconds", seconds, sum(epochs["counts"]), part=part)


def _stage(text: _Page, row: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    name = row["name"]
    text.one_of("streampipe_stage_health", "health", HEALTHS, row["health"], stage=name)
    text.put("streampipe_stage_ready", int(row["state"] in ("ready", "running")), stage=name)
    text.put("streampipe_stage_wanted", int(row["wanted"]), stage=name)
    for cause in CAUSES:
        count = figures.get("restarts", {}).get(cause, 0)
        text.put("streampipe_stage_restarts_total", count, stage=name, reason=cause)
    if row["role"] == "service":
        return
    text.put("streampipe_stage_records_received_total", figures["records_in"], stage=name)
    text.put("streampipe_stage_records_emitted_total", figures["records_out"], stage=name)
    text.put("streampipe_stage_batches_total", figures["batches"], stage=name)
    text.put("streampipe_stage_lag_seconds", row["lag_s"], stage=name)
    text.histogram("streampipe_stage_work_seconds", figures["work_s"], figures["work"], stage=name)
    if row["role"] != "source":  # at a source every record is new
        text.histogram("streampipe_stage_latency_seconds", figures["age_s"], figures["age"], stage=name)


class _Page:
    """Samples by metric, in the order of the catalogue: those of one must stand together."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {name: [] for name in CATALOGUE}

    def put(self, name: str, value: float | None, **labels: str) -> None:
        self._put(name, "", value, labels)

    def one_of(self, name: str, label: str, values: Sequence[str], present: str, **labels: str) -> None:
        """1 for the one that is, 0 for the others: a query can add them up over time."""
        for value in values:
            self._put(name, "", int(value == present), {**labels, label: value})

    def summary(self, name: str, seconds: float, count: int, **labels: str) -> None:
        self._put(name, "_sum", seconds, labels)
        self._put(name, "_count", count, labels)

    def histogram(self, name: str, seconds: float, counts: Sequence[int], **labels: str) -> None:
        for limit, count in cumulated(counts, LE_OCTAVES):
            self._put(name, "_bucket", count, {**labels, "le": repr(limit)})
        self._put(name, "_bucket", sum(counts), {**labels, "le": "+Inf"})
        self.summary(name, seconds, sum(counts), **labels)

    def text(self) -> str:
        lines = []
        for name, samples in self._samples.items():
            if samples:
                metric = CATALOGUE[name]
                lines += [f"# HELP {name} {metric.text}", f"# TYPE {name} {metric.kind}", *samples]
        return "\n".join(lines) + "\n"

    def _put(self, name: str, suffix: str, value: float | None, labels: Mapping[str, str]) -> None:
        if value is None:
            return
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        self._samples[name].append(f"{name}{suffix}{{{pairs}}} {value!r}" if pairs else f"{name}{suffix} {value!r}")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
