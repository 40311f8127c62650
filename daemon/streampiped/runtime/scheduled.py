"""What the kernel's scheduler says of a process: is it on a CPU, how long was it, how long has it waited for one?"""

from __future__ import annotations

import contextlib
import os
from typing import Final, NamedTuple

NANO: Final = 1e-9
PROC_BYTES_MAX: Final = 4096  # `stat` has 52 numbers and a name, `schedstat` three numbers


class Scheduled(NamedTuple):
    """Of all threads of a process together; seconds since it was forked."""

    kernel: str = "S"
    """R when one of its threads is on a CPU or wants to be; else the main thread's state (proc_pid_stat(5))."""
    cpu: float = 0.0
    queued: float = 0.0
    """Wanted a CPU and had none; the kernel counts a wait when it is over. 0 where it does not count these."""


def scheduled(pid: int) -> Scheduled:
    """A look at a process that is ours, so that its number is nobody else's."""
    states: list[str] = []
    cpu = queued = 0.0
    with contextlib.suppress(OSError):
        for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            with contextlib.suppress(OSError):  # a thread that has just ended
                states.append(_read(f"/proc/{pid}/task/{task}/stat").rpartition(")")[2].split()[0])
                had, waited, _ = _times(f"/proc/{pid}/task/{task}")
                cpu, queued = cpu + had, queued + waited
    kernel = "R" if "R" in states else next(iter(states), "S")
    return Scheduled(kernel, cpu, queued)


def scheduled_with_children(pid: int) -> Scheduled:
    """A process and those that it has forked, together: who waits for a child that has no CPU has none either."""
    try:
        children = [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    except (OSError, ValueError):
        children = []
    looks = [scheduled(each) for each in (pid, *children)]
    kernel = "R" if any(look.kernel == "R" for look in looks) else looks[0].kernel
    return Scheduled(kernel, sum(look.cpu for look in looks), sum(look.queued for look in looks))


def _times(task: str) -> tuple[float, float, float]:
    """Seconds on a CPU, in its queue, and how often. Without scheduler statistics in the kernel: clock ticks."""
    try:
        had, waited, slices = map(int, _read(f"{task}/schedstat").split())
    except (OSError, ValueError):
        fields = _read(f"{task}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 0.0, 0.0
    return had * NANO, waited * NANO, float(slices)


def _read(path: str) -> str:
    """Of a file of /proc, in three system calls where `open` makes eight: read once a second and thread."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, PROC_BYTES_MAX).decode(errors="replace")
    finally:
        os.close(fd)
