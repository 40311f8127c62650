"""What the supervisor sees of its processes, once a second: counters that only grow, times, and their health.

The black boxes count within a generation or a life; here that is added up over all of them since the daemon started,
which is what rates and Prometheus want. A process that is killed takes at most the last second of its counts along.
Nothing is decided here: the judgement is `core/judgement.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from streampiped.core.epoch_commands import EpochTimes
from streampiped.core.health import Sample
from streampiped.core.judgement import Health, Judge, Look, Member, Verdict, Whole
from streampiped.core.lifecycle import State
from streampiped.core.processes import Process
from streampiped.core.supervision import Supervision
from streampiped.disk import Disk
from streampiped.histograms import BUCKETS, bucket, quantile
from streampiped.runtime.blackbox import Reading, Times
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.spawn import Child, Spawner
from streampiped.topology import Plan

LOOK_S: Final = 1.0  # a stage that stalls for less is nobody's concern; those of seven processes take 0.2 ms
WINDOW_LOOKS: Final = 30  # percentiles are those of the last half minute
PAUSE_S: Final = 5.0  # of the time between two looks no more counts: beyond, it was us who stood still
LIVE_S: Final = 10.0  # without a decision for so long the supervisor counts as hung; it makes one every LOOK_S
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TIMES: Final = tuple(each.name for each in fields(Times))
EPOCH_PARTS: Final = ("align", "snapshot", "fsync", "manifest", "sink_commit")


class Watched(Protocol):
    """What of the supervisor is looked at."""

    plan: Plan
    supervision: Supervision
    spawner: Spawner
    disk: Disk
    log: EventLog

    def sample(self, child: Child) -> Sample: ...


@dataclass(slots=True)
class Account:
    """A stage's counters since the daemon started."""

    records_in: int = 0
    records_out: int = 0
    batches: int = 0
    times: Times = field(default_factory=lambda: Times(0.0, (0,) * BUCKETS, 0.0, (0,) * BUCKETS))
    _life: int = 0
    _reading: Reading | None = None
    _seen: Times | None = None
    _window: deque[Times] = field(default_factory=lambda: deque(maxlen=WINDOW_LOOKS + 1))

    def add(self, life: int, reading: Reading, times_of: Callable[[], Times]) -> bool:
        """A look at the black box of the incarnation `life`; whether something has happened there."""
        same = life == self._life
        if same and reading == self._reading:
            self._window.append(self.times)
            return False
        times = times_of()
        before = self._reading if same and self._reading and self._reading.generation == reading.generation else None
        self.records_in += reading.records_in - (before.records_in if before else 0)
        self.records_out += reading.records_out - (before.records_out if before else 0)
        self.batches += reading.batches - (before.batches if before else 0)
        seen = self._seen if same else None
        self.times = _sum(self.times, _difference(times, seen) if seen else times)
        self._life, self._reading, self._seen = life, reading, times
        self._window.append(self.times)
        return True

    def recent(self) -> Times:
        """The times of the last half minute."""
        return _difference(self.times, self._window[0]) if self._window else self.times

    def figures(self) -> dict[str, Any]:
        counts = {"records_in": self.records_in, "records_out": self.records_out, "batches": self.batches}
        times = {name: _plain(getattr(self.times, name)) for name in TIMES}
        return {**counts, **times}


class Observation:
    """The last look at everything."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        plan = watched.plan
        members = _members(plan)
        self._began = time.monotonic()
        self._judge = Judge(members, plan.health, self._began)
        self._accounts = {spec.name: Account() for spec in plan.stages}
        readers = {source for spec in plan.stages for source in spec.inputs}
        self._last = [spec.name for spec in plan.stages if spec.name not in readers and spec.inputs]
        self._aborted = 0
        self._waited = 0.0
        """Seconds since the last commit in which an epoch was due: while nothing runs none can be made."""
        self._waited_at = self._began
        self._epoch_seconds = 0.0
        self._epoch_counts = [0] * BUCKETS
        self._epoch_parts = dict.fromkeys(EPOCH_PARTS, 0.0)
        self.moved_at = self._began
        """When something was last seen to happen in a stage, on the clock of time.monotonic."""
        self.look_at = self._began
        """When the next look is due, on the clock of time.monotonic."""
        self.whole = Verdict(Health.HEALTHY, since=self._began)
        self.verdicts = {member.name: Verdict(Health.HEALTHY, since=self._began) for member in members}

    # what comes in

    def adopt(self, plan: Plan) -> None:
        """A plan with the same processes takes effect."""
        self._judge.adopt(_members(plan), plan.health)

    def look(self, now: float) -> bool:
        """Look at everything; whether somebody's health has changed."""
        self.look_at = now + LOOK_S
        processes = self._watched.supervision.processes
        looks = {name: self._look(processes[name], now) for name in self.verdicts}
        before = self.verdicts
        self.whole, self.verdicts = self._judge.look(looks, self._whole(now), now)
        changed = [name for name in before if self.verdicts[name].health is not before[name].health]
        for name in changed:
            self._tell(name, before[name], self.verdicts[name], now)
        return bool(changed)

    def committed(self, times: EpochTimes) -> None:
        self._waited = 0.0
        self._epoch_seconds += times.total
        self._epoch_counts[bucket(int(times.total * 1e9))] += 1
        for part in EPOCH_PARTS:
            self._epoch_parts[part] += getattr(times, part)

    def aborted(self) -> None:
        self._aborted += 1

    def _look(self, process: Process, now: float) -> Look:
        child = self._watched.spawner.child(process.name, process.incarnation)
        known = Look(
            process.state,
            now - process.since,
            process.wanted,
            deaths=process.intensity.recent(now),
            window=process.intensity.window,
            reason=process.last_reason,
            next_attempt=max(0.0, (process.deadline or now) - now) if process.state is State.BACKOFF else None,
        )
        if child is None or child.channel.fileno() < 0:
            return known
        reading = child.blackbox.read()
        if process.name in self._accounts:
            account = self._accounts[process.name]
            if account.add(process.incarnation, reading, child.blackbox.times):
                self.moved_at = now
        sample = self._watched.sample(child)
        return Look(
            known.state,
            known.in_state,
            known.wanted,
            sample,
            reading.generation,
            reading.batches,
            reading.lag_ns / 1e9,
            known.deaths,
            known.window,
            known.reason,
            known.next_attempt,
        )

    def _whole(self, now: float) -> Whole:
        supervision, disk = self._watched.supervision, self._watched.disk
        due = supervision.running and supervision.closing is None and not supervision.epochs.finished
        if due:
            self._waited += min(now - self._waited_at, PAUSE_S)
        self._waited_at = now
        waited = max(0.0, self._waited - self._watched.plan.checkpoint.interval)
        return Whole(due, supervision.trouble, supervision.epochs.failure or disk.trouble, waited if due else None)

    def _tell(self, name: str, before: Verdict, after: Verdict, now: float) -> None:
        log = self._watched.log
        if after.health is Health.HEALTHY:
            seconds = now - before.since
            log.write("health_restored", stage=name, before=before.health.value, seconds=seconds)
        else:
            log.write("health_changed", stage=name, health=after.health.value, reason=after.reason)

    # what is asked for

    def verdict(self, name: str) -> dict[str, Any]:
        """Of a process; of the pipeline when the name is empty. `since`: seconds since the epoch."""
        verdict = self.verdicts[name] if name else self.whole
        since = time.time() - (time.monotonic() - verdict.since)
        return {"health": verdict.health.value, "reason": verdict.reason, "cause": verdict.cause, "since": since}

    def latency(self, name: str) -> dict[str, dict[str, float | None]] | None:
        """Percentiles of a stage's last half minute: of the `work` on a batch and of its `age`."""
        account = self._accounts.get(name)
        if account is None:
            return None
        recent = account.recent()
        return {"work": _quantiles(recent.work), "age": _quantiles(recent.age)}

    def end_to_end(self) -> dict[str, float | None]:
        """Percentiles from the ingest of a batch until a last stage was done with it."""
        recent = [self._accounts[name].recent().age for name in self._last]
        return _quantiles([sum(counts) for counts in zip(*recent, strict=True)])

    def figures(self) -> dict[str, Any]:
        """All counters, msgpack-able; docs/specs/metrics.md names them."""
        processes = self._watched.supervision.processes
        last = [self._accounts[name].times for name in self._last]
        return {
            "ready": self.ready,
            "stages": {
                name: {
                    **(self._accounts[name].figures() if name in self._accounts else {}),
                    "restarts": {cause.value: count for cause, count in process.causes.items()},
                }
                for name, process in processes.items()
            },
            "latency": {
                "seconds": sum(times.age_s for times in last),
                "counts": [sum(counts) for counts in zip(*(times.age for times in last), strict=True)],
            },
            "epochs": {
                "aborted": self._aborted,
                "seconds": self._epoch_seconds,
                "counts": list(self._epoch_counts),
                "parts": dict(self._epoch_parts),
            },
            "log_drops": self._watched.log.counts(),
        }

    @property
    def ready(self) -> bool:
        """Every stage that is wanted is up, and the pipeline is not on its way out. Services do not count: who asks
        whether the pipeline may be relied on asks about records, which flow without them."""
        supervision = self._watched.supervision
        return supervision.ready and supervision.closing is None


def _members(plan: Plan) -> list[Member]:
    return [
        Member(spec.name, spec.inputs, spec.role == "service", spec.hang_timeout)
        for spec in (*plan.stages, *plan.services)
    ]


def _quantiles(counts: Sequence[int]) -> dict[str, float | None]:
    return {name: quantile(counts, share) for name, share in QUANTILES.items()}


def _plain(value: float | tuple[int, ...]) -> float | list[int]:
    return list(value) if isinstance(value, tuple) else value


def _sum(a: Times, b: Times) -> Times:
    return Times(a.work_s + b.work_s, _each(a.work, b.work, 1), a.age_s + b.age_s, _each(a.age, b.age, 1))


def _difference(a: Times, b: Times) -> Times:
    return Times(a.work_s - b.work_s, _each(a.work, b.work, -1), a.age_s - b.age_s, _each(a.age, b.age, -1))


def _each(a: tuple[int, ...], b: tuple[int, ...], sign: int) -> tuple[int, ...]:
    return tuple([x + sign * y for x, y in zip(a, b, strict=True)])
