"""What there is to see of a running pipeline: the status, and why a process is as it is. Looks; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import asdict
from typing import Any, Final, Protocol

from streampiped import __version__
from streampiped.control_backend import PIPELINE
from streampiped.core.epoch_commands import EpochTimes
from streampiped.core.lifecycle import State
from streampiped.core.processes import Process
from streampiped.core.supervision import Supervision
from streampiped.disk import Disk
from streampiped.errors import RpcError, StreampipeError
from streampiped.observation import LIVE_S, Observation
from streampiped.phases import Phase
from streampiped.reloading import Reloading
from streampiped.runtime.blackbox import Reading
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.spawn import Spawner
from streampiped.topology import Plan
from streampiped.verdicts import Verdicts
from streampiped.wire.rpc import PROTOCOL

USAGE_TIMEOUT_S: Final = 0.08  # `status` must not wait for a monitor that is busy or gone
SUMMARY_TIMEOUT_S: Final = 0.08  # nor for an evaluator in the middle of a slow batch
LETTERS_TIMEOUT_S: Final = 0.03  # nor for a disk that is in the middle of an fsync
JUMP_S: Final = 1.0  # less is a clock that is kept in step
USAGE_FIELDS: Final = ("cpu_percent", "rss_bytes", "uss_bytes")
MONITOR: Final = "service_monitor"
WAITS: Final = {
    State.STARTING: "the fork server",
    State.LOADING: "its imports and its construction",
    State.LOADED: "the other stages, to be reset together",
    State.RESETTING: "its own restore",
    State.READY: "the other stages to be ready",
    State.STOPPING: "the process to leave",
    State.KILLING: "the kernel to confirm its death",
    State.BACKOFF: "its back-off",
    State.STOPPED: "an operator's start",
    State.FAILED: "an operator's start",
}
"""What a process in a state waits for, for people."""
PHASES: Final = {
    Phase.WAITING: "input",
    Phase.PROCESSING: "nothing: it works",
    Phase.BLOCKED: "room in an output",
    Phase.PREPARING: "its sink to make an epoch durable",
    Phase.THROTTLED: "its max_rate",
    Phase.ENDED: "nothing: its source has ended",
    Phase.ALIGNING: "a barrier on its other inputs",
    Phase.CREDITS: "a reader that is behind",
    Phase.SLOTS: "a stage further on to be done with its batches",
    Phase.HOLDING: "leave to go on",
}
"""What a running process waits for."""


class Rates:
    """Records/s from two looks at growing counters; a look that comes too soon repeats the last answer."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int, float]] = {}

    def look(self, name: str, count: int, since: float, now: float) -> float:
        """`since`: when the counter was 0."""
        at, before, rate = self._seen.get(name, (since, 0, 0.0))
        if at < since or count < before:
            at, before, rate = since, 0, 0.0
        if now - at < 0.2:
            return rate
        rate = (count - before) / (now - at)
        self._seen[name] = (now, count, rate)
        return rate


class Watched(Protocol):
    """What of the supervisor is looked at."""

    plan: Plan
    supervision: Supervision
    spawner: Spawner
    disk: Disk
    verdicts: Verdicts
    log: EventLog
    times: EpochTimes | None
    recovery: float | None
    observation: Observation
    decided: float
    reloading: Reloading

    async def query(self, name: str, method: str, params: dict[str, Any], timeout: float) -> Any: ...


class StatusView:
    """The fields of docs/specs/control.md."""

    def __init__(self, supervisor: Watched) -> None:
        self._supervisor = supervisor
        self._started = time.time()
        self._began = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.reporter: str | None = None
        """The stage that has answered with a report or a summary."""
        self._usage: dict[str, dict[str, Any]] = {}
        self._summary: dict[str, Any] | None = None
        self._letters = 0
        self._rates = Rates()

    @property
    def uptime(self) -> float:
        """In seconds, whatever was done to the clock; a suspended machine's time counts."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._began

    @property
    def started(self) -> float:
        """Seconds since the epoch, by the clock of now: one that has jumped since, as at a boot without a battery,
        gives another answer."""
        told = time.time() - self.uptime
        if abs(told - self._started) > JUMP_S:
            self._started = told
        return self._started

    @property
    def _plan(self) -> Plan:
        return self._supervisor.plan

    async def status(self, want_usage: bool, want_summary: bool = True) -> dict[str, Any]:
        """docs/specs/control.md describes the fields. What is not wanted is as of the last time that it was."""
        questions = [self._ask_letters()]
        if want_summary:
            questions.append(self._ask_summary())
        if want_usage:
            questions.append(self._ask_usage())
        await asyncio.gather(*questions)
        supervision = self._supervisor.supervision
        now, wall = time.monotonic(), time.time()
        processes = [self._process(p, now, wall) for p in supervision.processes.values()]
        state, reason = self.state()
        observation = self._supervisor.observation
        return {
            "pipeline": self._plan.pipeline,
            "version": __version__,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "config": self._config(),
            "state": state,
            "reason": reason,
            "since": self.started,
            "uptime": self.uptime,
            "generation": supervision.generation,
            "epoch": supervision.epochs.committed,
            "epoch_age": self._supervisor.disk.epoch_age(now),
            "epoch_parts": _parts(self._supervisor.times),
            "state_bytes": self._supervisor.disk.state_bytes,
            "dead_letters": self._letters,
            "recovery_s": self._supervisor.recovery,
            "log_drops": self._supervisor.log.counts(),
            "held": [p.name for p in supervision.processes.values() if not p.wanted and not supervision.closing],
            "health": observation.whole.health.value,
            "health_reason": observation.whole.reason,
            "latency": observation.end_to_end(),
            "report": self._summary,
            "totals": self._totals(processes, now),
            "processes": processes,
        }

    def _config(self) -> dict[str, Any]:
        reloading = self._supervisor.reloading
        return {"file": self._plan.config_file, "reloads": reloading.count, "since": reloading.at}

    def _sources(self) -> list[Reading]:
        """A look at every source that lives."""
        found = []
        for spec in self._plan.stages:
            incarnation = self._supervisor.supervision.processes[spec.name].incarnation
            child = self._supervisor.spawner.child(spec.name, incarnation) if spec.role == "source" else None
            if child is not None:
                found.append(child.blackbox.read())
        return found

    def records(self) -> int:
        """Records that the sources have given in this generation."""
        return sum(reading.records_out for reading in self._sources())

    def total(self) -> int | None:
        """Records of the whole stream, when every source is bounded."""
        totals = [reading.total for reading in self._sources()]
        return sum(totals) if totals and all(totals) else None

    async def _ask_summary(self) -> None:
        names = [self.reporter] if self.reporter else [s.name for s in self._plan.stages if "evaluator" in s.klass]
        for name in names:
            with contextlib.suppress(RpcError, AttributeError):  # a user's class may answer anything
                summary = await self._supervisor.query(name, "summary", {}, SUMMARY_TIMEOUT_S)
                self._summary = {key: summary.get(key) for key in ("rows", "mse", "r2")}
                self.reporter = name

    async def _ask_usage(self) -> None:
        if MONITOR in self._supervisor.supervision.processes:
            with contextlib.suppress(RpcError):
                self._usage = await self._supervisor.query(MONITOR, "sample", {}, USAGE_TIMEOUT_S)

    async def _ask_letters(self) -> None:
        disk = self._supervisor.disk
        with contextlib.suppress(StreampipeError, TimeoutError):  # as of the last time that the disk had a moment
            counts = await asyncio.wait_for(disk.do(disk.letters.counts), LETTERS_TIMEOUT_S)
            self._letters = counts["dead"]

    def state(self) -> tuple[str, str | None]:
        supervision = self._supervisor.supervision
        if supervision.closing is not None:
            return "draining", supervision.closing
        if failed := [s for s in supervision.stages if s.state is State.FAILED]:
            return "failed", "; ".join(f"{stage.name} failed: {stage.last_reason}" for stage in failed)
        if held := [s.name for s in supervision.stages if s.state is State.STOPPED and not s.wanted]:
            forgetful = (
                f", which the disk refuses to remember: {supervision.forgetful}" if supervision.forgetful else ""
            )
            return "stopped", f"{', '.join(held)} stopped on purpose{forgetful}"
        if (trouble := supervision.trouble or self._supervisor.verdicts.trouble) is not None:
            return "degraded", trouble
        if not supervision.running:
            if not supervision.ever_ran:
                return "starting", None
            return "resetting", next(
                (f"{s.name} is {s.state.value}" for s in supervision.stages if not s.ready_for), None
            )
        if supervision.epochs.finished:
            return "finished", "every source has ended"
        trouble = supervision.epochs.failure or self._supervisor.disk.trouble
        if trouble is not None:
            return "degraded", f"no epoch can be committed: {trouble}"
        return "running", None

    def why(self, name: str) -> dict[str, Any]:
        """A process's state, its reason, what it waits for, and the story that led there; of the supervisor and the
        launcher that of the pipeline as a whole."""
        if name in PIPELINE:
            state, reason = self.state()
            return {
                "stage": name,
                "state": state,
                "since": None,
                "reason": reason,
                "waits_for": None,
                "next_attempt_s": None,
                "story": self._story(""),
            }
        process = self._supervisor.supervision.processes[name]
        now, wall = time.monotonic(), time.time()
        due = process.deadline if process.state is State.BACKOFF else None
        return {
            "stage": name,
            "state": process.state.value,
            "since": wall - (now - process.since),
            "reason": process.last_reason,
            "waits_for": self._waits_for(process),
            "next_attempt_s": max(0.0, due - now) if due is not None else None,
            "story": self._story(name),
        }

    def _story(self, name: str) -> list[dict[str, Any]]:
        past = time.time() - time.monotonic()
        story = self._supervisor.supervision.story(name)
        return [{"ts": past + at, "what": what, "cause": None} for at, what in story]

    def _waits_for(self, process: Process) -> str | None:
        supervision = self._supervisor.supervision
        if process.state is State.READY:
            late = [s.name for s in supervision.stages if s.state is not State.READY]
            return f"{', '.join(late)} to be ready" if late else WAITS[State.READY]
        if process.state is not State.RUNNING:
            return WAITS[process.state]
        if supervision.trouble is not None:
            return f"the next reset, because {supervision.trouble}"
        if (trouble := self._supervisor.verdicts.of(process.name)) is not None:
            return trouble
        child = self._supervisor.spawner.child(process.name, process.incarnation)
        phase = child.blackbox.read().phase if child is not None else Phase.WAITING
        waits_for = PHASES.get(phase, phase.name.lower())
        if process.successor is not None:
            done = "its barrier" if process.successor.loaded else "its successor's imports"
            return f"{done}; the old one for {waits_for}"
        return waits_for

    def _process(self, process: Process, now: float, wall: float) -> dict[str, Any]:
        spec = self._plan.spec(process.name)
        child = self._supervisor.spawner.child(process.name, process.incarnation)
        reading: Reading | None = child.blackbox.read() if child is not None else None
        data = reading is not None and not process.service
        usage = self._usage.get(process.name, {}) if child is not None else {}
        return {
            "name": process.name,
            "role": spec.role,
            "inputs": list(spec.inputs),
            "state": process.state.value,
            "since": wall - (now - process.since),
            "pid": process.pid or None,
            "restarts": process.restarts,
            "last_reason": process.last_reason,
            "next_attempt_s": max(0.0, (process.deadline or now) - now) if process.state is State.BACKOFF else None,
            "records_in": reading.records_in if data and reading else None,
            "records_out": reading.records_out if data and reading else None,
            "records_per_s": self._rates.look(process.name, reading.records_in, process.since, now)
            if data and reading
            else None,
            "lag_s": reading.lag_ns / 1e9 if data and reading and reading.batches else None,
            "phase": reading.phase.name.lower() if reading is not None else None,
            **{field: usage.get(field) for field in USAGE_FIELDS},
            "wanted": process.wanted,
            "health": self._supervisor.observation.verdicts[process.name].health.value,
            "health_reason": self._supervisor.observation.verdicts[process.name].reason,
            "latency": self._supervisor.observation.latency(process.name),
        }

    def health(self, name: str | None) -> dict[str, Any]:
        """Of a process, or of the pipeline with all of its processes."""
        observation, processes = self._supervisor.observation, self._supervisor.supervision.processes
        named = [name] if name is not None else list(processes)
        ready = observation.ready if name is None else processes[name].state in (State.READY, State.RUNNING)
        return {
            **observation.verdict(name or ""),
            "live": time.monotonic() - self._supervisor.decided < LIVE_S,
            "ready": ready,
            "stages": [{"name": each, **observation.verdict(each)} for each in named],
        }

    def _totals(self, processes: list[dict[str, Any]], now: float) -> dict[str, Any]:
        sources = [p for p in processes if p["role"] == "source"]
        lags = [p["lag_s"] for p in processes if p["lag_s"] is not None]
        totals: dict[str, Any] = {
            "records": self.records(),
            "records_per_s": sum(p["records_per_s"] or 0.0 for p in sources),
            "lag_s": max(lags, default=None),
            "total": self.total(),
            "restarts": sum(p["restarts"] for p in processes),
        }
        everyone = [*processes, self._usage.get("supervisor", {}), self._usage.get("launcher", {})]
        for field in USAGE_FIELDS:
            known = [p[field] for p in everyone if p.get(field) is not None]
            totals[field] = sum(known) if known else None
        return totals


def _parts(times: EpochTimes | None) -> dict[str, float] | None:
    return asdict(times) if times is not None else None
