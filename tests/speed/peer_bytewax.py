"""Bytewax: the stages as steps of one flow, in one worker.

Its workers share a stream by key, and this one has no key: every record depends on those before it.
"""

from __future__ import annotations

import importlib
import time
from datetime import UTC, datetime
from typing import Any

from speed.clock import Clock
from speed.work import Reached, Work, reached, stage
from streampiped.records import Batch
from streampiped.stages.base import Ended, SourceStage, Stage

TITLE = "Bytewax"


def run(work: Work, clock: Clock) -> Reached:
    flow, chain = flow_of(work)
    testing = importlib.import_module("bytewax.testing")
    with clock.running():
        testing.run_main(flow)
    return reached(chain[-1])


def flow_of(work: Work) -> tuple[Any, list[Stage]]:
    """The flow, and the stages in it."""
    op: Any = importlib.import_module("bytewax.operators")
    inputs: Any = importlib.import_module("bytewax.inputs")
    outputs: Any = importlib.import_module("bytewax.outputs")
    first, *chain = (stage(name, work) for name in work.stages)
    assert isinstance(first, SourceStage)
    source: SourceStage = first

    class Partition(inputs.StatelessSourcePartition):  # type: ignore[misc]
        """Asks the generator."""

        def __init__(self) -> None:
            self._wake: datetime | None = None

        def next_batch(self) -> list[Batch]:
            found = source.read(time.monotonic())
            self._wake = None
            if isinstance(found, Ended):
                raise StopIteration
            if isinstance(found, Batch):
                found.ingest_ns = time.monotonic_ns()
                return [found]
            if found.wake_at is not None:
                self._wake = datetime.fromtimestamp(time.time() + found.wake_at - time.monotonic(), UTC)
            return []

        def next_awake(self) -> datetime | None:
            return self._wake

    class Source(inputs.DynamicSource):  # type: ignore[misc]
        """One partition."""

        def build(self, step_id: str, worker_index: int, worker_count: int) -> Partition:
            return Partition()

    class Nowhere(outputs.StatelessSinkPartition):  # type: ignore[misc]
        """Drops what comes."""

        def write_batch(self, items: list[Batch]) -> None:
            pass

    class Sink(outputs.DynamicSink):  # type: ignore[misc]
        """One partition."""

        def build(self, step_id: str, worker_index: int, worker_count: int) -> Nowhere:
            return Nowhere()

    flow = importlib.import_module("bytewax.dataflow").Dataflow("speed")
    stream = op.input("generator", flow, Source())
    for name, each in zip(work.stages[1:], chain, strict=True):
        stream = op.map(name, stream, each.process)
    op.output("out", stream, Sink())
    return flow, chain
