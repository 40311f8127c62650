"""The work that everybody does: the same stages, made in the same way, over the same records."""

from __future__ import annotations

import functools
import importlib
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from streampiped.records import Batch, Block
from streampiped.stages.base import Ended, SinkStage, SourceStage, Stage, StageContext, State

CHAIN: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
SEED: Final = 0  # the pipeline's
PASS: Final = "speed.stages:Pass"
LAST: Final = "speed.stages:Tally"
TALLY: Final = "tally"
"""What its query is called. The module is not imported here: who only starts others had the evaluator in its memory."""
WATCHED: Final = "speed.stages:Watched"


@dataclass(frozen=True, slots=True)
class Work:
    """So many records of `columns` features and a target, in batches of at most `batch`."""

    records: int
    batch: int = 8192
    columns: int = 16
    rate: float = 0.0
    """Records per second; 0: as fast as it goes."""
    linger: float = 0.01
    """Seconds; with a rate alone."""
    log: str = ""
    """A file for the evaluator's times (`stages.Watched`)."""
    passes: int = 0
    """So many stages that only pass batches on, instead of the chain behind the generator; the last one counts."""
    sink: str = "none"
    members: tuple[str, ...] = ("sgd",)
    """The trainer's; none: those that it has by default."""

    estimator: str = ""
    """The trainer's; "": the built-in model."""
    csv: str = ""
    """A file of so many records and columns, instead of the synthetic source."""

    services: bool = False
    """Log extractor and service monitor run beside the stages; of streampipe alone."""

    @property
    def stages(self) -> tuple[str, ...]:
        return (CHAIN[0], *(f"pass{n + 1}" for n in range(self.passes))) if self.passes else CHAIN

    def kind(self, name: str) -> str:
        """What `class` says in a configuration."""
        if name.startswith("pass"):
            return LAST if name == self.stages[-1] else PASS
        return WATCHED if name == "evaluator" and self.log else name

    def options(self, name: str) -> dict[str, Any]:
        """Of a stage, as a configuration has them."""
        match name:
            case "generator":
                source: dict[str, Any] = {"type": "csv", "path": self.csv}
                if not self.csv:
                    source = {"type": "synthetic", "records": self.records, "features": self.columns}
                paced = {"rate": f"{self.rate:.0f}/s", "linger": f"{self.linger * 1e3:.0f}ms"} if self.rate else {}
                return {"batch_max": self.batch, "source": source, **paced}
            case "consumer":
                return {"sink": {"type": self.sink}}
            case "trainer":
                chosen = {"members": list(self.members)} if self.members else {}
                return chosen | ({"estimator": self.estimator} if self.estimator else {})
            case "evaluator" if self.log:
                return {"log": self.log}
        return {}


def stage(name: str, work: Work, directory: Path | None = None) -> Stage:
    """One of `work.stages` as the daemon constructs it, at the beginning of a stream."""
    module, _, klass_name = work.kind(name).partition(":")
    klass = getattr(
        importlib.import_module(module if klass_name else f"streampiped.stages.{name}"), klass_name or name.capitalize()
    )
    context = StageContext(
        name=name, seed=zlib.crc32(f"{SEED}:{name}".encode()), pipeline_seed=SEED, directory=directory or Path()
    )
    made: Stage = klass(klass.Options.model_validate(work.options(name)), context)
    if isinstance(made, SinkStage):
        made.rollback(None)
    made.restore(None)
    return made


def given(source: Stage) -> Iterator[Batch]:
    """All batches of a bounded source, each at its time."""
    assert isinstance(source, SourceStage)
    while not isinstance(found := source.read(time.monotonic()), Ended):
        if isinstance(found, Batch):
            found.ingest_ns = time.monotonic_ns()
            yield found
        elif found.wake_at is not None:
            time.sleep(max(0.0, found.wake_at - time.monotonic()))


def through(stages: Sequence[Stage], batch: Batch) -> None:
    """One batch through these, one after the other, in one call."""
    passed: Batch | None = batch
    for each in stages:
        if passed is None:
            return
        passed = each.process(passed)


class Reached(NamedTuple):
    """What the last stage has made of all batches: everybody has to come to the same."""

    records: int
    figure: float
    """The mean squared error; of stages that only pass batches on the sum over a column."""


def reached(last: Stage) -> Reached:
    """Of the last of `Work.stages`."""
    try:
        return of_tally(last.query(TALLY, {}))
    except KeyError:
        return of_report(last.query("report", {})["results"])


def of_report(results: Mapping[str, Any]) -> Reached:
    """The evaluator's."""
    return Reached(int(results["rows"]), float(results["total"]["mse"]))


def of_tally(state: State) -> Reached:
    """Of its snapshot."""
    return Reached(int(state["rows"]), float(state["total"]))


@functools.lru_cache(maxsize=8)
def wanted(records: int, batch: int, columns: int) -> Reached:
    """What `Tally` has to have reached behind the synthetic source."""
    first, last = (stage(name, Work(records, batch, columns, passes=1)) for name in ("generator", "pass1"))
    for each in given(first):
        last.process(each)
    return reached(last)


Message = tuple[Any, ...]


def taken_apart(batch: Batch) -> tuple[Message, Any, Any]:
    """What describes a batch, and its two blocks: what moves between processes by value."""
    return (batch.schema, batch.rows, batch.sequence, batch.spans, batch.ingest_ns), batch.floats.data, batch.ints.data


def put_together(about: Message, floats: Any, ints: Any) -> Batch:
    schema, rows, sequence, spans, ingest_ns = about
    blocks = Block(schema.floats, rows, floats), Block(schema.ints, rows, ints)
    return Batch(schema, rows, *blocks, {}, sequence=sequence, spans=spans, ingest_ns=ingest_ns)
