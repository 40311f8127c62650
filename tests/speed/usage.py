"""What a process and everything below it have used: time on the CPU to the nanosecond, and memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from support.daemon import all_pids, stat

TICKS: Final = os.sysconf("SC_CLK_TCK")
SCHEDULED: Final = 2  # CPUCLOCK_SCHED in the kernel's numbering: the time of all threads, also of those that ended
BETWEEN_S: Final = 0.1  # two looks at memory; each walks the page tables of a family


def family(root: int) -> list[int]:
    """The process and everything below it."""
    parents = {pid: int(fields[1]) for pid in all_pids() if (fields := stat(pid))}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def own_cpu(pid: int) -> float:
    """Seconds of a process; the same as utime and stime of its stat, but not in ticks."""
    try:
        return time.clock_gettime((~pid << 3) | SCHEDULED)
    except OSError:  # a zombie has no clock any more
        fields = stat(pid)
        return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def cpu(root: int) -> float:
    """Seconds of all in the family, and of the children that were waited for."""
    total = 0.0
    for pid in family(root):
        if fields := stat(pid):
            total += own_cpu(pid) + (int(fields[13]) + int(fields[14])) / TICKS
    return total


def pss_mib(root: int, *, without_root: bool = False) -> float:
    """Sum over the family: a page that several share counts once."""
    total = 0
    for pid in family(root)[int(without_root) :]:
        with contextlib.suppress(OSError, StopIteration):  # it has ended meanwhile
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1024


class Peak:
    """The largest sum of PSS while the block runs. `without_root`: the first process only starts the others."""

    def __init__(self, root: int, *, without_root: bool = False) -> None:
        self._root, self._without_root = root, without_root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def _watch(self) -> None:
        while not self._over.wait(BETWEEN_S):
            self.mib = max(self.mib, pss_mib(self._root, without_root=self._without_root))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
