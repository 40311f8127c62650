"""The few Linux calls that Python does not offer: prctl, malloc's thresholds, and what /proc tells about children."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
COMM_BYTES_MAX: Final = 15  # of the name that pstree, top and ps -c show
MADV_DONTNEED: Final = 4
M_TRIM_THRESHOLD: Final = -1  # malloc.h
M_MMAP_THRESHOLD: Final = -3
ROUND_BYTES: Final = 4 << 20  # what one epoch or batch takes and gives back at once, at most

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    argument = value if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl({option})")


def become_subreaper(yes: bool = True) -> None:
    """Orphaned descendants become our children, so that nobody gets away (or, with False, no longer)."""
    _prctl(PR_SET_CHILD_SUBREAPER, int(yes))


def die_with_parent(signum: signal.Signals, parent: int) -> bool:
    """Get `signum` when the present parent's thread ends. False when `parent` is not our parent (any more): it died
    before the request could take effect. To be called from the main thread, after the last re-parenting."""
    _prctl(PR_SET_PDEATHSIG, signum)
    return os.getppid() == parent


def set_comm(name: str) -> None:
    """The short name of this process; longer ones are cut."""
    _prctl(PR_SET_NAME, name.encode()[:COMM_BYTES_MAX])


def comm_of(pid: int) -> str:
    """The short name of a process, empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def children() -> set[int]:
    """The pids of all children of this process, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                found.update(int(pid) for pid in file.read().split())
        except FileNotFoundError:  # a thread that has just ended
            continue
    return found


def threads() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def environment_has(pid: int, entry: bytes) -> bool:
    """Whether the process was executed (or forked from one that was) with `entry`, a `KEY=value`. False when it is
    gone or not ours to look at."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except OSError:
        return False


def keep_freed_memory() -> None:
    """What malloc gets back it keeps for the next round, up to a few times ROUND_BYTES; children inherit it.

    By default glibc returns every array of a few hundred kilobytes to the kernel, which a stage takes again with the
    next epoch, page by page: 420 faults, 1.6 ms of the evaluator's CPU. Elsewhere than with glibc nothing happens."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, ROUND_BYTES)
        _libc.mallopt(M_TRIM_THRESHOLD, 4 * ROUND_BYTES)


def let_go_of_files() -> None:
    """Let go of the pages of program files that this process has read so far; they come back when they are needed
    again, without a disk as long as the kernel keeps them. A mapping with a page that was written, in memory or in
    swap, stays as it is. Where the kernel does not tell, all stay.

    A hundred libraries that were imported and initialised leave 28 MiB that the launcher never runs again, and that no
    other process has touched. Takes 20 ms."""
    with suppress(OSError), open("/proc/self/smaps", errors="replace") as file:
        for first, end in untouched_files(file):
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_DONTNEED)


def untouched_files(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """From where to where a file is mapped that this process cannot write, and of which it has written no page.

    >>> said = ["Anonymous: 0 kB", "Swap: 0 kB"]
    >>> first, second = (f"{place} r--p 0000 08:01 34 /lib/a.so" for place in ("7000-8000", "9000-a000"))
    >>> [(hex(first), hex(end)) for first, end in untouched_files([first, *said, second, said[0], "Swap: 4 kB"])]
    [('0x7000', '0x8000')]
    """
    stretch, written = "", {"Anonymous:": "", "Swap:": ""}
    for line in smaps:
        key, value, *more = line.split(maxsplit=5)
        if not key.endswith(":"):  # "7f12a000-7f13b000 r-xp 00001000 08:01 3456 /usr/lib/..."
            stretch, written = "", dict.fromkeys(written, "")
            if value in ("r-xp", "r--p") and more[2] != "0":
                stretch = key
        elif stretch and key in written:
            written[key] = value
            if all(said == "0" for said in written.values()):
                first, _, end = stretch.partition("-")
                yield int(first, 16), int(end, 16)
