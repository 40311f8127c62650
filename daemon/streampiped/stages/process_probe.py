"""What one process uses, read by psutil, never another's numbers.

Measured for a stage with scikit-learn loaded: 60 us for everything but USS and PSS, which cost 735 us more, because the
kernel walks the process's page tables with its memory map locked. So they are read rarely and kept for a moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

STILL_S: Final = 60.0  # a process that does not run is read anew after so long: only its PSS can change meanwhile
SHARES_KEPT_S: Final = 1.0  # USS and PSS answered again without reading: a `status --watch` asks ten times a second
BASE_MIN_S: Final = 0.5  # shortest time over which a rate is computed: CPU time comes in ticks of 10 ms

METRICS: Final[Mapping[str, str]] = {
    "cpu_percent": "% of one core",
    "rss_bytes": "bytes",
    "uss_bytes": "bytes",
    "pss_bytes": "bytes",
    "fds": "descriptors",
    "threads": "threads",
    "ctx_switches_per_s": "1/s",
    "read_bytes_per_s": "bytes/s",
    "write_bytes_per_s": "bytes/s",
}
"""What a history has, with its unit, in the order of its columns."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of a process at `at` (CLOCK_MONOTONIC seconds); None: not allowed to be seen."""

    at: float
    cpu_s: float
    rss_bytes: int
    threads: int
    ctx_switches: int
    fds: int | None
    read_bytes: int | None
    write_bytes: int | None
    uss_bytes: int | None
    pss_bytes: int | None


class Probe:
    """Reads the process that has `pid` now; when that one is gone, `read` gives None for ever, whoever has the pid
    then. Raises psutil.NoSuchProcess when there is none."""

    def __init__(self, pid: int, now: float) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)  # remembers the start time, which tells a reused pid apart
        self._bases = [self._birth(now)]
        self._shares: tuple[int | None, int | None] = (None, None)
        self._last: Reading | None = None
        self._ran: int | None = None
        self.shares_at = float("-inf")
        """When USS and PSS were read last."""

    @property
    def alive(self) -> bool:
        """The process is still there, and the same one."""
        return bool(self._process.is_running())

    def read(self, now: float, *, shares_kept: float) -> Reading | None:
        """Everything at `now`; USS and PSS are at most `shares_kept` seconds old (inf: whatever is known), and where
        the process has not run since, STILL_S."""
        ran = _time_on_cpu(self.pid)
        if ran is not None and ran == self._ran and self._last is not None and now < self.shares_at + STILL_S:
            return replace(self._last, at=now)  # it has not run; nor has another one taken its pid, which would have
        try:
            self._last = found = self._read(now, shares_kept)
            self._ran = ran
            # asked *after* reading: if the process is still the same, what was read in between was its own
            return found if self._process.is_running() else None
        except psutil.Error:  # gone, or a zombie
            return None

    def keep(self, reading: Reading) -> None:
        """Let later rates count from here."""
        self._bases = [self._bases[-1], reading]

    def rates(self, reading: Reading) -> dict[str, float | None]:
        """The METRICS of a reading. Rates are over the time since the newest kept reading that is at least
        BASE_MIN_S older; the first ones over the life of the process."""
        base = next((b for b in reversed(self._bases) if reading.at - b.at >= BASE_MIN_S), self._bases[0])
        seconds = max(reading.at - base.at, 0.01)
        return {
            "cpu_percent": max(0.0, (reading.cpu_s - base.cpu_s) / seconds * 100),
            "rss_bytes": reading.rss_bytes,
            "uss_bytes": reading.uss_bytes,
            "pss_bytes": reading.pss_bytes,
            "fds": reading.fds,
            "threads": reading.threads,
            "ctx_switches_per_s": (reading.ctx_switches - base.ctx_switches) / seconds,
            "read_bytes_per_s": _rate(reading.read_bytes, base.read_bytes, seconds),
            "write_bytes_per_s": _rate(reading.write_bytes, base.write_bytes, seconds),
        }

    def _read(self, now: float, shares_kept: float) -> Reading:
        process = self._process
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                raise psutil.ZombieProcess(self.pid)
            cpu, switches = process.cpu_times(), process.num_ctx_switches()
            io = _allowed(process.io_counters)
            if now - self.shares_at >= shares_kept:
                full = _allowed(process.memory_full_info)
                self._shares = (full.uss, full.pss) if full else (None, None)
                self.shares_at = now
            return Reading(
                at=now,
                cpu_s=cpu.user + cpu.system,
                rss_bytes=process.memory_info().rss,
                threads=process.num_threads(),
                ctx_switches=switches.voluntary + switches.involuntary,
                fds=_allowed(process.num_fds),
                read_bytes=io.read_bytes if io else None,
                write_bytes=io.write_bytes if io else None,
                uss_bytes=self._shares[0],
                pss_bytes=self._shares[1],
            )

    def _birth(self, now: float) -> Reading:
        """Nothing used yet, when the process began: the base of the first rates."""
        age = max(0.0, time.time() - self._process.create_time())
        return Reading(now - age, 0.0, 0, 0, 0, 0, 0, 0, None, None)


def _time_on_cpu(pid: int) -> int | None:
    """Nanoseconds that its threads have been on a CPU: the same number again says that it has not run in between.
    None where the kernel does not count them, or tells nothing of that process."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return sum(int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) for task in tasks)
    except (OSError, ValueError):
        return None


def _allowed(read: Callable[[], _T]) -> _T | None:
    """None for what the kernel does not tell this user about that process."""
    try:
        return read()
    except psutil.AccessDenied:
        return None


def _rate(value: int | None, base: int | None, seconds: float) -> float | None:
    return None if value is None or base is None else (value - base) / seconds


def cumulative(reading: Reading) -> dict[str, Any]:
    """The counters since the process began, for whoever wants to take differences."""
    return {
        "cpu_seconds": reading.cpu_s,
        "ctx_switches": reading.ctx_switches,
        "read_bytes": reading.read_bytes,
        "write_bytes": reading.write_bytes,
    }
