"""What happened to whom and what was decided about it: the answer to "why is it down?". Pure.

The supervision tells every event and every command here; a process's story is the last of them that concern it, with
those that concern the whole pipeline between. Epochs that are committed as they should be are no news.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier, AskPause, AskResume

LINES_KEPT: Final = 60  # per process; a crash loop has about eight lines a turn
PIPELINE: Final = ""
"""The name under which the pipeline's own story is kept."""

Line = tuple[float, str]
"""When, on the clock of `now`, and what."""


class Story:
    """The last events and decisions, by process."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, deque[tuple[int, Line]]] = defaultdict(lambda: deque(maxlen=LINES_KEPT))
        self._count = 0

    def heard(self, event: p.Event, now: float) -> None:
        if (told := _event(event)) is not None:
            self._keep(told[0], (now, told[1]))

    def did(self, command: p.Command, now: float) -> None:
        if (told := _command(command)) is not None:
            self._keep(told[0], (now, f"-> {told[1]}"))

    def of(self, name: str) -> list[Line]:
        """Oldest first."""
        both = heapq.merge(*(self._lines[each] for each in {name, PIPELINE}))
        return [line for _, line in both][-LINES_KEPT:]

    def _keep(self, name: str, line: Line) -> None:
        self._count += 1  # many things happen at the same time; their order is what explains
        self._lines[name].append((self._count, line))


def _event(event: p.Event) -> tuple[str, str] | None:
    match event:
        case p.Tick() | p.SnapshotDone() | p.CommitDone():  # nearly all events
            return None
        case p.LauncherReady():
            return PIPELINE, "the fork server is ready"
        case p.LauncherDied(reason):
            return PIPELINE, f"the fork server died: {reason}"
        case p.Forked(name, _, pid):
            return name, f"forked, pid {pid}"
        case p.ForkFailed(name, _, reason):
            return name, f"could not be forked: {reason}"
        case p.Loaded(name):
            return name, "loaded"
        case p.Ready(name, _, generation):
            return name, f"ready for generation {generation}"
        case p.Failed(name, _, phase, reason):
            return name, f"failed in {phase}: {reason}"
        case p.Died(name, _, reason, inside):
            return name, f"died: {reason}" + (" inside process" if inside else "")
        case p.Impaired(name, _, _, reason):
            return name, f"cannot go on: {reason}"
        case p.LinksFailed(generation, reason):
            return PIPELINE, f"the links of generation {generation} could not be made: {reason}"
        case p.Judged(name, _, _, None):
            return name, "died before its verdict was kept; the records will be tried again"
        case p.Judged(name, _, _, guilty):
            return name, f"tried the suspected records: {guilty} guilty"
        case p.SnapshotFailed(name, _, epoch, reason):
            return name, f"could not write its snapshot of epoch {epoch}: {reason}"
        case p.ManifestFailed(_, epoch, reason):
            return PIPELINE, f"the manifest of epoch {epoch} could not be written: {reason}"
        case p.SourceEnded(name):
            return name, "its source has ended"
        case p.Operate(_, verb, names, _, force):
            return PIPELINE, f"an operator wants: {verb} {' '.join(names) or 'all'}{' by force' if force else ''}"
        case p.Checkpoint():
            return PIPELINE, "an operator wants: an epoch"
        case p.Propose(_, change):
            return PIPELINE, f"an operator wants: {change['kind']} in {change['stage']}"
        case p.Reload(_, _, names):
            return PIPELINE, f"an operator wants: reload, with others for {', '.join(names) or 'nobody'}"
        case p.StopsKept(_, refused) if refused is not None:
            return PIPELINE, f"who is stopped cannot be remembered: {refused}"
        case p.Shutdown(reason):
            return PIPELINE, f"shutting down: {reason}"
    return None


def _command(command: p.Command) -> tuple[str, str] | None:
    match command:
        case p.Fork(name):
            return name, "fork it"
        case p.SendReset(name, _, generation, epoch, suspects):
            origin = "the beginning" if epoch is None else f"epoch {epoch}"
            return name, f"reset to {origin} for generation {generation}{', with suspects' if suspects else ''}"
        case p.SendGo(name, generation):
            return name, f"go, generation {generation}"
        case p.AskLeave(name):
            return name, "asked to leave"
        case p.Kill(name):
            return name, "killed"
        case p.Adopt():
            return PIPELINE, "the reloaded configuration takes effect"
        case p.DumpStack(name):
            return name, "asked for its stack: it hangs"
        case AskBarrier(name, _, epoch, hold) if hold:
            return PIPELINE, f"{name} is to hold behind epoch {epoch}"
        case AskPause(name):
            return PIPELINE, f"{name} is to pause"
        case AskResume(name):
            return PIPELINE, f"{name} goes on"
        case p.Log(event, name, values) if event in ("stage_restart_scheduled", "stage_given_up"):
            return name, event.replace("_", " ") + ": " + ", ".join(f"{k} {v}" for k, v in values.items())
    return None
