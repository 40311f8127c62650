"""Is a process hung? A pure judgement from what its black box and its descriptors say.

Slow is not hung: a process is hung when there is something for it to do, nothing holds it up from outside, and its
pulse has stood still for `timeout` seconds of its own. Its own are those in which it had the CPU, or did not want it:
one that waits for a CPU which others have is starved, however long that takes, and nobody gains from its death.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streampiped.phases import BEHIND, Phase

RUNNABLE: Final = "R"
ASLEEP: Final = "S"
STOPPED: Final = "Tt"
CONDITIONS: Final = {
    RUNNABLE: "on the CPU",
    ASLEEP: "asleep",
    "D": "in an uninterruptible wait of the kernel, as for a disk",
    "T": "stopped by a signal (SIGSTOP or SIGTSTP; SIGCONT lets it go on)",
    "t": "stopped by a debugger",
}
"""What the kernel says of a process (proc_pid_stat(5)), for people."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process. `waiting_input`: bytes lie on an input pipe or in its control socket, unread.
    `blocked_output`: a pipe it writes to has no room, or (in CREDITS and SLOTS) its readers have given nothing back."""

    pulse: int
    phase: Phase
    waiting_input: bool
    waiting_control: bool
    blocked_output: bool
    kernel: str = ASLEEP
    """Of `CONDITIONS`."""
    cpu: float = 0.0
    """Seconds that it has had on a CPU since it was forked."""
    queued: float = 0.0
    """Seconds that it wanted a CPU and had none, as far as the kernel has counted: a wait counts when it is over."""


FORKED: Final = Sample(0, Phase.LOADING, False, False, False)
"""Of a process that has had no time yet."""


def has_work(sample: Sample) -> bool:
    """Whether the process ought to make progress right now.

    An unread control message always counts: every healthy process reads those between two batches, so this finds a
    stopped process in any phase; so does the kernel, without a message. A blocked phase counts only when the output has
    room again.
    """
    if (
        sample.waiting_control
        or sample.kernel in STOPPED
        or sample.phase
        in (
            Phase.PROCESSING,
            Phase.RESTORING,
            Phase.PREPARING,
            Phase.LEAVING,
        )
    ):
        return True
    if sample.phase in (Phase.BLOCKED, *BEHIND):
        return not sample.blocked_output
    return sample.phase is Phase.WAITING and sample.waiting_input


def own_time(before: Sample, after: Sample, seconds: float) -> float:
    """How much of the `seconds` between two looks was the process's own.

    >>> still = Sample(1, Phase.PROCESSING, False, False, False)
    >>> own_time(still, still, 2.0)
    2.0
    >>> from dataclasses import replace
    >>> own_time(still, replace(still, kernel=RUNNABLE), 2.0)  # it has waited all the time, and still does
    0.0
    >>> own_time(still, replace(still, cpu=4.0, queued=9.0), 2.0)  # threads of it have had both CPUs, and wanted more
    2.0
    """
    had = min(seconds, max(0.0, after.cpu - before.cpu))
    if after.kernel == RUNNABLE:
        return had
    return max(had, seconds - min(seconds, max(0.0, after.queued - before.queued)))


class StallClock:
    """How long one process has had work and made no progress."""

    def __init__(self) -> None:
        self._last: tuple[Sample, float] | None = None
        self.own = 0.0
        """Seconds of its own without progress."""
        self.whole = 0.0
        """The same, with those in which it waited for a CPU."""
        self.told = False
        """Somebody has been told of this stall."""

    def look(self, sample: Sample, now: float, longest: float) -> None:
        """Take a look into account. Of the time since the last one at most `longest` seconds count: if nobody looked
        for longer than that, it was us who stood still, and perhaps everybody."""
        if not has_work(sample):
            self.forget()
            return
        if self._last is None or self._last[0].pulse != sample.pulse:
            self.forget()
        else:
            before, then = self._last
            seconds = min(now - then, longest)
            self.whole += seconds
            self.own += own_time(before, sample, seconds)
        self._last = sample, now

    def forget(self) -> None:
        """A new process, or one that was not expected to make progress."""
        self._last = None
        self.own = self.whole = 0.0
        self.told = False


class RestClock:
    """How long one process has been where only another process can take it further: without a credit, or without
    input. Either is healthy; a writer without credits above readers without input is not, for then nobody moves."""

    def __init__(self) -> None:
        self._pulse: int | None = None
        self._since = 0.0
        self._looks = 0
        self.phase: Phase | None = None
        """CREDITS, SLOTS or WAITING while it rests."""

    def look(self, sample: Sample, now: float) -> None:
        """Take a look into account."""
        if not _rests(sample):
            self.forget()
            return
        if (self._pulse, self.phase) != (sample.pulse, sample.phase):
            self._pulse, self.phase, self._since, self._looks = sample.pulse, sample.phase, now, 0
        self._looks += 1

    def rests(self, seconds: float, looks: int, now: float) -> bool:
        """For so long, and seen so often: time in which nobody looked, as on a frozen machine, proves nothing."""
        return self.phase is not None and self._looks > looks and now - self._since >= seconds

    def forget(self) -> None:
        """It moves."""
        self._pulse = self.phase = None
        self._looks = 0


def _rests(sample: Sample) -> bool:
    if sample.waiting_control or sample.kernel in STOPPED:
        return False
    if sample.phase in BEHIND:
        return sample.blocked_output
    return sample.phase is Phase.WAITING and not sample.waiting_input
