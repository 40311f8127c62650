"""A loop in one process that calls the stages one after the other: what somebody would write instead."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from speed.clock import Clock
from speed.work import Reached, Work, given, reached, stage, through
from streampiped.stages.base import SinkStage

TITLE = "fused loop"


COMMIT_S = 1.0  # as the pipeline's epochs


def run(work: Work, clock: Clock) -> Reached:
    """A sink that keeps what it is given makes it durable as often as the pipeline does; nothing else is kept."""
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        source, *chain = (stage(name, work, Path(directory)) for name in work.stages)
        sinks = [each for each in chain if isinstance(each, SinkStage) and work.sink != "none"]
        with clock.running():
            until, epoch = time.monotonic() + COMMIT_S, 0
            for batch in given(source):
                through(chain, batch)
                if sinks and time.monotonic() > until:
                    until, epoch = time.monotonic() + COMMIT_S, epoch + 1
                    commit(sinks, epoch)
            commit(sinks, epoch + 1)
        return reached(chain[-1])


def commit(sinks: list[SinkStage], epoch: int) -> None:
    for sink in sinks:
        sink.seal(epoch)
        sink.prepare(epoch)
        sink.commit(epoch)


def by_stage(work: Work, clock: Clock) -> Reached:
    """As `run`, with the time on the CPU of each stage, at the cost of a clock per call."""
    source, *chain = (stage(name, work) for name in work.stages)
    spent, now, batches = [0] * (1 + len(chain)), time.process_time_ns, given(source)
    at = now()
    while (passed := next(batches, None)) is not None:
        for place, each in enumerate(chain, 1):
            spent[place - 1] += (moment := now()) - at
            at = moment
            passed = each.process(passed) or passed
        spent[-1] += (moment := now()) - at
        at = moment
    clock.parts = {name: ns / 1e9 for name, ns in zip(work.stages, spent, strict=True)}
    clock.cpu = clock.seconds = sum(clock.parts.values())
    return reached(chain[-1])
