"""Is a process hung? A pure judgement from what its black box and its descriptors say.

Slow is not hung: a process is hung when there is something for it to do, nothing holds it up from outside, and its
pulse has stood still for `timeout` seconds. The timeout is longer than any CPU starvation we want to live through.
"""

from __future__ import annotations

from dataclasses import dataclass

from streampiped.phases import Phase


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process. `waiting_input`: bytes lie on an input pipe or in its control socket, unread.
    `blocked_output`: a pipe it writes to has no room, or (in CREDITS) its reader has given nothing back."""

    pulse: int
    phase: Phase
    waiting_input: bool
    waiting_control: bool
    blocked_output: bool


def has_work(sample: Sample) -> bool:
    """Whether the process ought to make progress right now.

    An unread control message always counts: every healthy process reads those between two batches, so this finds a
    stopped process in any phase. A blocked phase counts only when the output has room again.
    """
    if sample.waiting_control or sample.phase in (
        Phase.PROCESSING,
        Phase.RESTORING,
        Phase.PREPARING,
        Phase.LEAVING,
    ):
        return True
    if sample.phase in (Phase.BLOCKED, Phase.CREDITS):
        return not sample.blocked_output
    return sample.phase is Phase.WAITING and sample.waiting_input


class StallClock:
    """How long one process has had work and made no progress."""

    def __init__(self) -> None:
        self._pulse = -1
        self._since: float | None = None

    def look(self, sample: Sample, now: float) -> float:
        """Seconds without progress at `now`; 0 when there is progress or nothing to do."""
        working = has_work(sample)
        if sample.pulse != self._pulse or self._since is None or not working:
            self._pulse = sample.pulse
            self._since = now if working else None
            return 0.0
        return now - self._since

    def forget(self) -> None:
        """A new process, or one that was not expected to make progress."""
        self._since = None
        self._pulse = -1
