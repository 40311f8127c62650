"""A fork that does one piece of work and is thrown away; the parent learns how it ended.

For work that may be the last thing a process does: a segmentation fault, an endless loop, a wait that never ends. The
child has the parent's memory as it is and its own copy of whatever it changes. It gets no event loop, no signal
handler and no output of the parent, but shares its other descriptors: the caller mutes what would reach anybody.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, NoReturn, TypeAlias

from streampiped.runtime.linux import die_with_parent

Manner: TypeAlias = Literal["passed", "exception", "crash", "loop", "sleep", "kill"]

TRACEBACK_BYTES_MAX: Final = 16 << 10  # the end of it is kept: that is where it happened
REASON_CHARS_MAX: Final = 2000  # as of a stage's own failure
TICK_S: Final = 0.1  # between two words to whoever watches the parent; no `hang_timeout` of sense is as short
PIPE_BYTES: Final = 64 << 10  # a pipe holds no more: one read empties it
STRETCH: Final = 10  # times the limit of sleep that a child may take by the clock, however little of it was sleep

_PASSED: Final = b"\0"  # first byte of the answer; else it is `reason NUL traceback`


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended. `seconds` is the time on the CPU, its own and that of its threads; `lasted` the time by the
    clock."""

    manner: Manner
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0
    lasted: float = 0.0


_signs: mmap.mmap | None = None
_cpu_limit = 0.0


def alive() -> None:
    """In a child: its limits begin anew, as those of a process that says that it does not hang. Elsewhere nothing."""
    if _signs is not None:
        _signs[0] = (_signs[0] + 1) & 0xFF
        signal.setitimer(signal.ITIMER_PROF, _cpu_limit)


def run(work: Callable[[], None], *, cpu_limit: float, sleep_limit: float, tick: Callable[[], None]) -> Ending:
    """Fork, do `work` in the child, and wait. Main thread only, and no other thread may hold a lock that `work` wants:
    it does not exist in the child.

    A child that uses `cpu_limit` seconds on the CPU loops. One that for `sleep_limit` seconds neither ran nor was kept
    from running sleeps: a machine that has no time for it condemns nobody. Either is killed, and so is its group. Both
    begin anew whenever the child calls `alive`."""
    signs = mmap.mmap(-1, 1)
    output, output_end = os.pipe2(os.O_CLOEXEC)
    answer, answer_end = os.pipe2(os.O_CLOEXEC)
    try:
        parent = os.getpid()
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside other threads. Ours has at most the thread that waits for fsync, which
            # the caller knows to be idle; nothing but `work` runs in the child, and it leaves by os._exit.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _be_child(work, parent, output_end, answer_end, cpu_limit, signs)
        os.close(output_end)
        os.close(answer_end)
        output_end = answer_end = -1
        began = time.monotonic()
        ending = _watch(pid, output, answer, sleep_limit, tick, signs)
        return replace(ending, lasted=time.monotonic() - began)
    finally:
        signs.close()
        for fd in (output, output_end, answer, answer_end):
            if fd >= 0:
                os.close(fd)


# --- the child ----------------------------------------------------------------------------------------------------


def _be_child(
    work: Callable[[], None], parent: int, output: int, answer: int, cpu_limit: float, signs: mmap.mmap
) -> NoReturn:
    global _signs, _cpu_limit
    code = 1
    try:
        os.setpgid(0, 0)  # what it starts is killed with it
        if not die_with_parent(signal.SIGKILL, parent):
            os._exit(1)
        _forget_signals()
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable(2)
        # The dump is written by the handler itself, whatever Python is doing; then the default action kills.
        faulthandler.register(signal.SIGPROF, 2, all_threads=True, chain=True)
        _signs, _cpu_limit = signs, cpu_limit
        signal.setitimer(signal.ITIMER_PROF, cpu_limit)
        work()
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(answer, _PASSED)
        code = 0
    except BaseException as error:  # noqa: BLE001  nothing may leave this function
        signal.setitimer(signal.ITIMER_PROF, 0)
        with contextlib.suppress(OSError):
            os.write(answer, _described(error))
    finally:
        os._exit(code)


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _described(error: BaseException) -> bytes:
    """Both parts together fit into a pipe that nobody reads before the end."""
    try:
        reason = f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  an exception that cannot say what it is
        reason, text = type(error).__name__, ""
    return (
        reason.replace("\0", "").encode(errors="replace") + b"\0" + text.encode(errors="replace")[-TRACEBACK_BYTES_MAX:]
    )


# --- the parent ---------------------------------------------------------------------------------------------------


def _watch(
    pid: int, output: int, answer: int, sleep_limit: float, tick: Callable[[], None], signs: mmap.mmap
) -> Ending:
    said, slept = b"", False
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # whoever of the two comes first
            os.setpgid(pid, pid)
        said, slept = _await(pid, output, sleep_limit, tick, signs)
    finally:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # before it is reaped: until then nobody else can have its number
        _, status, usage = os.wait4(pid, 0)
    os.set_blocking(answer, False)
    answered = b""
    with contextlib.suppress(BlockingIOError):  # a process that left its group still has the other end
        answered = os.read(answer, PIPE_BYTES)
    seconds = usage.ru_utime + usage.ru_stime
    return _ending(status, answered, said.decode(errors="replace"), seconds, sleep_limit if slept else None)


def _await(pid: int, output: int, sleep_limit: float, tick: Callable[[], None], signs: mmap.mmap) -> tuple[bytes, bool]:
    """What it wrote, the end of it, and whether it was still there when its time was over."""
    os.set_blocking(output, False)
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(output, select.POLLIN)
        began = since = time.monotonic()
        said, sign, rested = b"", signs[0], 0.0
        while True:
            asleep = _asleep(pid, time.monotonic() - began)
            if signs[0] != sign:
                sign, since, rested = signs[0], time.monotonic(), asleep
            left = min(sleep_limit - (asleep - rested), sleep_limit * STRETCH - (time.monotonic() - since))
            if left <= 0:
                return said, True
            ready = {fd for fd, _ in poll.poll(max(1.0, min(left, TICK_S) * 1e3))}
            tick()
            if output in ready:
                data = os.read(output, PIPE_BYTES)
                said = (said + data)[-TRACEBACK_BYTES_MAX:]
                if not data:
                    poll.unregister(output)
            if pidfd in ready:
                return said, False
    finally:
        os.close(pidfd)


def _asleep(pid: int, elapsed: float) -> float:
    """Of so many seconds, those that the process was neither on a CPU nor waiting for one."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            ran, waited, _ = file.read().split()
    except (OSError, ValueError):  # a kernel without it
        return elapsed
    return elapsed - (int(ran) + int(waited)) / 1e9


def _ending(status: int, answered: bytes, said: str, seconds: float, slept: float | None) -> Ending:
    if slept is not None:
        return Ending("sleep", f"still waiting for something after {slept:g} s", said, seconds)
    if answered == _PASSED and os.waitstatus_to_exitcode(status) == 0:
        return Ending("passed", seconds=seconds)
    if answered and answered != _PASSED:
        words, _, text = answered.partition(b"\0")
        return Ending("exception", words.decode(errors="replace"), text.decode(errors="replace"), seconds)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return Ending("loop", f"still running after {seconds:.2g} s on the CPU", said, seconds)
    if code == -signal.SIGKILL:
        return Ending("kill", "killed by SIGKILL", said, seconds)
    reason = f"died of {signal.Signals(-code).name}" if code < 0 else f"left by itself with exit code {code}"
    return Ending("crash", reason, said, seconds)
