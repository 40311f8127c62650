"""What the control server asks of the supervisor: status, report, logs, changes. Reads; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from streampiped import __version__
from streampiped.control_backend import Identity, Subscription, Verb
from streampiped.core.lifecycle import State
from streampiped.core.processes import Process
from streampiped.core.supervision import Supervision
from streampiped.disk import Disk
from streampiped.errors import ExitCode, RpcError
from streampiped.runtime.blackbox import Reading
from streampiped.runtime.dead_letters import Status
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.spawn import Spawner
from streampiped.topology import Plan
from streampiped.wire.rpc import PROTOCOL

USAGE_TIMEOUT_S: Final = 0.08  # `status` must not wait for a monitor that is busy or gone
SUMMARY_TIMEOUT_S: Final = 0.08  # nor for an evaluator in the middle of a slow batch
REPORT_TIMEOUT_S: Final = 5.0
USAGE_FIELDS: Final = ("cpu_percent", "rss_bytes", "uss_bytes")
MONITOR: Final = "service_monitor"


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


class Host(Protocol):
    """What of the supervisor is looked at."""

    plan: Plan
    log: EventLog
    supervision: Supervision
    spawner: Spawner
    disk: Disk

    def operate(self, ticket: int, verb: Verb, stages: tuple[str, ...], timeout: float) -> None: ...
    async def query(self, name: str, method: str, params: dict[str, Any], timeout: float) -> Any: ...


class SupervisorBackend:
    """The `control_server.Backend` of the real supervisor."""

    def __init__(self, supervisor: Host) -> None:
        self._supervisor = supervisor
        self._plan = supervisor.plan
        self._started = time.time()
        self._usage: dict[str, dict[str, Any]] = {}
        self._summary: dict[str, Any] | None = None
        self._reporter: str | None = None
        self._rates = Rates()
        self._status_callbacks: list[Callable[[dict[str, Any]], None]] = []
        self.tickets: dict[int, asyncio.Future[tuple[int, str]]] = {}
        self._ticket = 0

    @property
    def identity(self) -> Identity:
        control = self._plan.control
        return Identity(self._plan.pipeline, __version__, control.operators, control.group)

    def stage_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._plan.processes)

    def roster(self) -> dict[str, int]:
        """The pids of all living processes by name, supervisor and launcher included."""
        found = {child.name: child.pid for child in self._supervisor.spawner.all() if child.name == "launcher"}
        found |= {q.name: q.pid for q in self._supervisor.supervision.processes.values() if q.pid}
        return {"supervisor": os.getpid(), **found}

    # changes

    async def change(
        self, verb: Verb, stages: tuple[str, ...], timeout: float, who: str, force: bool = False
    ) -> dict[str, Any]:
        if force:
            raise _not_offered("restart by force")
        self._ticket += 1
        ticket = self._ticket
        future = self.tickets[ticket] = asyncio.get_running_loop().create_future()
        try:
            self._supervisor.operate(ticket, verb, stages, timeout)
            code, text = await future
        finally:
            self.tickets.pop(ticket, None)
        if code:
            raise RpcError(text, code)
        return {"changed": list(stages or self.stage_names()), "text": text, "who": who}

    def answer(self, ticket: int, code: int, text: str) -> None:
        future = self.tickets.get(ticket)
        if future is not None and not future.done():
            future.set_result((code, text))

    # epochs, reasons and dead letters

    async def why(self, stage: str) -> dict[str, Any]:
        raise _not_offered("why")

    async def checkpoint(self, keep: str | None, timeout: float, who: str) -> dict[str, Any]:
        raise _not_offered("checkpoint")

    async def checkpoints(self) -> list[dict[str, Any]]:
        raise _not_offered("checkpoints")

    async def forget_checkpoint(self, name: str, who: str) -> dict[str, Any]:
        raise _not_offered("checkpoints")

    async def dead_letters(
        self, stage: str | None, status: Status | None, after: int, limit: int, whole: bool
    ) -> list[dict[str, Any]]:
        raise _not_offered("dead letters")

    async def dead_letter_counts(self, stage: str | None) -> dict[Status, int]:
        raise _not_offered("dead letters")

    async def dead_letter(self, letter: int) -> dict[str, Any] | None:
        raise _not_offered("dead letters")

    async def replay(self, letters: Sequence[int], stage: str | None, timeout: float, who: str) -> dict[str, Any]:
        raise _not_offered("replay")

    async def drop(self, letters: Sequence[int], stage: str | None, who: str) -> dict[str, Any]:
        raise _not_offered("drop")

    # logs and subscriptions

    def log_tail(self, stage: str | None, lines: int, level: str) -> list[dict[str, Any]]:
        return self._supervisor.log.tail(stage, lines, level)

    def subscribe(self, kind: Subscription, callback: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        if kind == "logs":
            return self._supervisor.log.subscribe(lambda record: callback(dict(record)))
        self._status_callbacks.append(callback)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._status_callbacks.remove(callback)

        return unsubscribe

    def changed(self) -> None:
        """A process or the pipeline changed its state."""
        for callback in tuple(self._status_callbacks):
            callback({})

    # the report

    async def report(self) -> dict[str, Any]:
        """The first stage from the end that has a report gives it; ours are the operations."""
        candidates = [self._reporter] if self._reporter else [spec.name for spec in reversed(self._plan.stages)]
        errors: list[str] = []
        for name in candidates:
            try:
                report = await self._supervisor.query(name, "report", {}, REPORT_TIMEOUT_S)
                answer = {"text": str(report["text"]), "results": report["results"]}
                operations = {**report.get("operations", {}), **self._operations()}
            except RpcError as error:
                errors.append(str(error))
            except (KeyError, TypeError, AttributeError):
                errors.append(f"{name} answers with something that is no report")
            else:
                self._reporter = name
                return {**answer, "operations": operations}
        raise RpcError(f"no report: {'; '.join(errors)}", ExitCode.REFUSED)

    def _operations(self) -> dict[str, Any]:
        supervision = self._supervisor.supervision
        return {
            "generation": supervision.generation,
            "epoch": supervision.epochs.committed,
            "uptime": time.time() - self._started,
            "restarts": {p.name: p.restarts for p in supervision.processes.values()},
            "log_drops": self._supervisor.log.counts(),
        }

    # status

    async def status(self, want_usage: bool) -> dict[str, Any]:
        """docs/specs/control.md describes the fields."""
        questions = [self._ask_summary()]
        if want_usage:
            questions.append(self._ask_usage())
        await asyncio.gather(*questions)
        supervision = self._supervisor.supervision
        now, wall = time.monotonic(), time.time()
        processes = [self._process(p, now, wall) for p in supervision.processes.values()]
        state, reason = self.state()
        return {
            "pipeline": self._plan.pipeline,
            "version": __version__,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "state": state,
            "reason": reason,
            "since": self._started,
            "uptime": wall - self._started,
            "generation": supervision.generation,
            "epoch": supervision.epochs.committed,
            "epoch_age": self._supervisor.disk.epoch_age(now),
            "report": self._summary,
            "totals": self._totals(processes, now),
            "processes": processes,
        }

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
        names = [self._reporter] if self._reporter else [s.name for s in self._plan.stages if "evaluator" in s.klass]
        for name in names:
            with contextlib.suppress(RpcError, AttributeError):  # a user's class may answer anything
                summary = await self._supervisor.query(name, "summary", {}, SUMMARY_TIMEOUT_S)
                self._summary = {key: summary.get(key) for key in ("rows", "mse", "r2")}
                self._reporter = name

    async def _ask_usage(self) -> None:
        if MONITOR in self._supervisor.supervision.processes:
            with contextlib.suppress(RpcError):
                self._usage = await self._supervisor.query(MONITOR, "sample", {}, USAGE_TIMEOUT_S)

    def state(self) -> tuple[str, str | None]:
        supervision = self._supervisor.supervision
        if supervision.closing is not None:
            return "draining", supervision.closing
        for stage in supervision.stages:
            if stage.state is State.FAILED:
                return "failed", f"{stage.name} failed: {stage.last_reason}"
        for stage in supervision.stages:
            if stage.state is State.STOPPED and not stage.wanted:
                return "stopped", f"{stage.name} is stopped on purpose"
        if not supervision.running:
            if not supervision.ever_ran:
                return "starting", None
            return "resetting", next(
                (f"{s.name} is {s.state.value}" for s in supervision.stages if not s.ready_for), None
            )
        if supervision.epochs.finished:
            return "finished", "every source has ended"
        if supervision.epochs.failure is not None:
            return "degraded", f"no epoch can be committed: {supervision.epochs.failure}"
        return "running", None

    def _process(self, process: Process, now: float, wall: float) -> dict[str, Any]:
        spec = self._plan.spec(process.name)
        child = self._supervisor.spawner.child(process.name, process.incarnation)
        reading: Reading | None = child.blackbox.read() if child is not None else None
        data = reading is not None and not process.service
        usage = self._usage.get(process.name, {}) if child is not None else {}
        return {
            "name": process.name,
            "role": spec.role,
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


def _not_offered(what: str) -> RpcError:
    return RpcError(f"{what}: this daemon does not offer it", ExitCode.REFUSED)
