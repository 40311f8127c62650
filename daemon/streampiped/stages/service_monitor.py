"""The service monitor: what every process of the pipeline uses and how records flow, now and over the last days.

A service beside the data path. It samples with psutil whatever the roster names, is told by the supervisor what that
sees of the stages, keeps the samples of an hour and minutes for `retain` in `monitor.sqlite` in its directory, and
answers `status` with fresh figures and Prometheus with a page of them.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar, Final

import psutil
from pydantic import Field

from streampiped.errors import ExitCode, RpcError
from streampiped.metrics import page
from streampiped.stages import monitor_store, pipeline_flow
from streampiped.stages.base import Service, StageContext, StageOptions
from streampiped.stages.history import History
from streampiped.stages.process_probe import SHARES_KEPT_S, Probe, cumulative
from streampiped.units import Duration

FILE_NAME: Final = "monitor.sqlite"
FLUSH_S: Final = 10.0  # samples are written together: a fifth of the disk writes; a kill costs at most these seconds
SHARES_EVERY_S: Final = 10.0  # USS and PSS in the history: reading them is ten times dearer than all the rest
ANSWER_S: Final = 0.006  # spent on USS for one answer: `status` has 100 ms for everything
PROCESSES_MAX: Final = 64  # watched at once, and the bound of the database; a pipeline has about ten
UNWRITTEN_MAX: Final = 20_000  # samples kept while the database cannot be written; then the oldest go
POINTS_MAX: Final = 10_000  # in one answer
USAGE_POINTS: Final = 120  # of each process: what a chart of a report can show
DATABASE_BYTES: Final = 16 << 20  # beside the rows


class ServiceMonitorOptions(StageOptions):
    """`[services.service_monitor]`"""

    interval: Duration = Field(default=2.0, ge=0.1)
    """Between two samples."""
    retain: Duration = Field(default=7 * 86400.0, ge=3600, le=366 * 86400.0)
    """Means of as many minutes are kept, those in which the daemon ran."""


class ServiceMonitor(Service):
    """`query("sample")` gives {name: figures}, `query("history", {"process", "metric", "since"?, "limit"?})` the
    points of one metric, `query("usage", {"processes", "since"?, "points"?})` CPU and memory of several in short,
    `query("metrics")` the page for Prometheus; `query("observe", observation)` tells it what the
    supervisor sees."""

    Options: ClassVar[type[StageOptions]] = ServiceMonitorOptions

    def __init__(self, options: ServiceMonitorOptions, context: StageContext) -> None:
        self._options = options
        raw = monitor_store.RAW_KEPT_S / options.interval
        rows = 2 * PROCESSES_MAX * (raw + 2 * options.retain / monitor_store.MINUTE_S)
        self._history = History(
            context.directory / FILE_NAME,
            monitor_store.SCHEMA,
            monitor_store.VERSION,
            context.emit,
            bytes_max=DATABASE_BYTES + int(rows) * monitor_store.ROW_BYTES,
        )
        self._probes: dict[str, Probe] = {}
        self._used: deque[monitor_store.Row] = deque(maxlen=UNWRITTEN_MAX)
        self._flown: deque[monitor_store.Row] = deque(maxlen=UNWRITTEN_MAX)
        self._observed: Mapping[str, Any] | None = None
        self._kept: Mapping[str, Any] | None = None  # the last observation that is in the history
        self._sample_at = float("-inf")
        self._flush_at = float("-inf")
        self._minute = float("-inf")  # of the last means

    def wake(self, now: float) -> float | None:
        """Take the sample that is due; samples missed meanwhile (a suspended machine) are not made up for."""
        if now < self._sample_at:
            return self._sample_at
        interval = self._options.interval
        on_time = now - self._sample_at < interval
        self._sample_at = (self._sample_at if on_time else now) + interval
        self._sample(now)
        if now >= self._flush_at:
            self._flush_at = now + FLUSH_S
            self._flush(now)
        return self._sample_at

    def roster(self, processes: Mapping[str, int]) -> None:
        """Watch these; who keeps its pid keeps its history of rates."""
        now = time.monotonic()
        probes: dict[str, Probe] = {}
        for name, pid in list(processes.items())[:PROCESSES_MAX]:
            known = self._probes.get(name)
            if known is not None and known.pid == pid and known.alive:
                probes[name] = known
                continue
            try:
                probes[name] = Probe(pid, now)
            except (psutil.Error, ValueError):  # it died before we were told; the next roster will say so
                continue
        self._probes = probes

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        match method:
            case "sample":
                return self._figures(time.monotonic())
            case "history":
                return self._points(params)
            case "usage":
                return self._usage(params)
            case "observe":
                self._observed = params
                return None
            case "metrics":
                return self._page()
            case _:
                raise KeyError(method)

    def close(self) -> None:
        self._flush(time.monotonic())
        self._history.close()

    def _sample(self, now: float) -> None:
        ts = time.time()
        for name, probe in self._probes.items():
            reading = probe.read(now, shares_kept=SHARES_EVERY_S)
            if reading is not None:
                metrics = probe.rates(reading)
                self._used.append((name, ts, (probe.pid, *metrics.values())))
                probe.keep(reading)
        if (observed := self._observed) is not None and observed is not self._kept:
            self._flown += [(name, ts, values) for name, values in pipeline_flow.rows(self._kept, observed)]
            self._kept = observed

    def _flush(self, now: float) -> None:
        """Write the samples, and once a minute make means of them."""
        used, flown, ts = list(self._used), list(self._flown), time.time()
        minute = ts // monitor_store.MINUTE_S

        def act(db: sqlite3.Connection) -> None:
            if minute != self._minute:
                monitor_store.forget(db, ts, self._options.retain)
            monitor_store.add(db, monitor_store.USE, used)
            monitor_store.add(db, monitor_store.FLOW, flown)
            if minute != self._minute:
                monitor_store.roll_up(db, ts)

        if (used or flown) and self._history.write(act, now):
            self._used.clear()
            self._flown.clear()
            self._minute = minute

    def _figures(self, now: float) -> dict[str, dict[str, Any]]:
        """By process name; a process that is gone is left out. When USS of many large processes takes long, those
        read last keep the value of the last sample, and are first the next time."""
        found: dict[str, dict[str, Any]] = {}
        enough = time.perf_counter() + ANSWER_S
        for name, probe in sorted(self._probes.items(), key=lambda item: item[1].shares_at):
            kept = SHARES_KEPT_S if time.perf_counter() < enough else inf
            reading = probe.read(now, shares_kept=kept)
            if reading is not None:
                found[name] = {"pid": probe.pid, **probe.rates(reading), **cumulative(reading)}
        return found

    def _page(self) -> str:
        """RpcError REFUSED as long as the supervisor has told nothing."""
        if self._observed is None:
            raise RpcError("nothing has been observed yet", ExitCode.REFUSED)
        return page(self._observed, self._figures(time.monotonic()), time.time())

    def _points(self, params: Mapping[str, Any]) -> dict[str, Any]:
        process, metric = str(params.get("process", "")), str(params.get("metric", "cpu_percent"))
        if metric not in monitor_store.UNITS:
            raise RpcError(f"no metric {metric!r}; there are {', '.join(monitor_store.UNITS)}", ExitCode.USAGE)
        try:
            since, limit = float(params.get("since") or 0), int(params.get("limit") or POINTS_MAX)
        except (TypeError, ValueError, OverflowError):
            raise RpcError("since: seconds since the epoch; limit: a number", ExitCode.USAGE) from None
        self._flush(time.monotonic())
        limit = max(1, min(limit, POINTS_MAX))
        points = monitor_store.points(self._history, process, metric, since, time.time(), limit)
        return {"process": process, "metric": metric, "unit": monitor_store.UNITS[metric], "points": points}

    def _usage(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """In slices of time that are the same for all; at most PROCESSES_MAX processes."""
        try:
            processes = [str(name) for name in params["processes"]][:PROCESSES_MAX]
            since, slices = float(params.get("since") or 0), int(params.get("points") or USAGE_POINTS)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise RpcError(
                "processes: names; since: seconds since the epoch; points: a number", ExitCode.USAGE
            ) from None
        self._flush(time.monotonic())
        until, slices = time.time(), max(1, min(slices, POINTS_MAX))
        found = monitor_store.usage(self._history, processes, since, until, slices)
        history = {name: found[name] for name in processes if name in found}
        return {"since": since, "until": until, "history": history}
