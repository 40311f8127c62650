"""What the compliance test of the stage contract needs: batches with everything in them, and bit-exact comparison."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from streampiped.records import Batch, Block, Span
from streampiped.stages.base import Ended, SourceStage, Stage, StageContext
from streampiped.wire import state as wire_state

BATCHES: Final = 8
GARBAGE: Final = 0xA5  # as bytes of a float64: -3.6e-127, of an int64: a large negative number
PATIENCE: Final = 10_000  # reads after which a bounded source must have ended


@dataclass(frozen=True)
class Subject:
    """A class with options it should work with; `{inputs}` in texts is the directory with the files."""

    klass: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> content of what must be in `{inputs}`."""
    inputs: Path = field(default_factory=Path)

    def provided(self, inputs: Path) -> Subject:
        """The same with its files in place."""
        for name, content in self.files.items():
            (inputs / name).write_text(content)
        return replace(self, inputs=inputs)

    def load(self) -> Any:
        module, _, name = self.klass.partition(":")
        return getattr(importlib.import_module(module), name)

    def make(self, directory: Path) -> Any:
        """A new object, as a new process would make it; the same directory again is the same stage restarted."""
        loaded = self.load()
        options = loaded.Options.model_validate(filled(self.options, self.inputs))
        return loaded(options, StageContext(name="subject", seed=7, pipeline_seed=11, directory=directory))


def filled(options: Any, inputs: Path) -> Any:
    """The options with `{inputs}` replaced."""
    if isinstance(options, str):
        return options.replace("{inputs}", str(inputs))
    if isinstance(options, Mapping):
        return {name: filled(value, inputs) for name, value in options.items()}
    return [filled(value, inputs) for value in options] if isinstance(options, list) else options


def batches(seed: int = 0) -> Iterator[Batch]:
    """A stream as it may come to any stage: sizes from 0 to some hundred rows, floats with missing, infinite and
    absurd values, a column that never changes, integers, text, and what the trainer adds."""
    random = np.random.default_rng(seed)
    start = 0
    for number, rows in enumerate([1, 200, 7, 0, 64, 65, 300, 128][:BATCHES]):
        x = random.normal(size=(4, rows))
        x[1] = 3.0
        x[2, random.random(rows) < 0.1] = np.nan
        x[3, random.random(rows) < 0.02] = np.inf
        x[0, random.random(rows) < 0.01] = 1e6
        y = 2.0 * x[0] - np.nan_to_num(x[2]) + random.normal(size=rows) * 0.1
        y[random.random(rows) < 0.02] = np.nan
        texts: list[str | None] = [None if i % 5 == 0 else f"text {i}" for i in range(rows)]
        columns = {
            **{f"x{i + 1}": column for i, column in enumerate(x)},
            "y": y,
            "prediction": np.nan_to_num(y) + random.normal(size=rows) * 0.2,
            "model_version": np.full(rows, number, dtype=np.int64),
            "note": texts,
        }
        yield Batch.build(columns, sequence=number, spans=(Span("numbers", start, rows, "left"),), ingest_ns=number)
        start += rows


def packed(stage: Any) -> bytes:
    """The snapshot as it goes to the disk; raises when it is not portable."""
    return wire_state.pack("contract", stage.snapshot())


def unpacked(data: bytes) -> dict[str, Any]:
    """The state as a new process gets it."""
    return wire_state.unpack(data, "contract")


def bits(batch: Batch | None) -> Any:
    """Everything that a batch is, comparable to the bit: NaN equals NaN of the same payload, -0.0 is not 0.0."""
    if batch is None:
        return None
    columns = {
        name: values if isinstance(values, list) else (values.dtype.str, values.tobytes())
        for name, values in batch.columns().items()
    }
    return (batch.schema, batch.rows, batch.sequence, batch.spans, columns)


def garble(batch: Batch) -> None:
    """Overwrite the columns' memory, as the next frame of a link does with the one before."""
    for block in (*batch.floats.parts, *batch.ints.parts):
        if block.nbytes:
            memory(block).fill(GARBAGE)


def memory(block: Block) -> Any:
    """The bytes below the read-only views of a block built in this process; not those of others in the same piece."""
    base: Any = block.data
    while base.base is not None:
        base = base.base
    whole = base.reshape(-1).view(np.uint8)
    first = block.data.ctypes.data - whole.ctypes.data
    return whole[first : first + block.data.nbytes]


def steps(stage: Any) -> Iterator[Any]:
    """Run the stage step by step over its whole stream: the comparable output of every `process` or `read`."""
    if isinstance(stage, SourceStage):
        yield from _reads(stage)
    else:
        for batch in batches():
            yield bits(stage.process(batch))


def steps_from(stage: Any, first: int) -> Iterator[Any]:
    """The same for a stage that was restored after `first` steps."""
    if isinstance(stage, SourceStage):
        yield from _reads(stage)
    else:
        for batch in list(batches())[first:]:
            yield bits(stage.process(batch))


def _reads(stage: SourceStage) -> Iterator[Any]:
    for now in range(PATIENCE):
        answer = stage.read(float(now))
        if isinstance(answer, Ended):
            return
        if isinstance(answer, Batch):
            yield bits(answer)
    raise AssertionError(f"a bounded source has not ended after {PATIENCE} reads")


def fresh(subject: Subject, directory: Path, state: bytes | None) -> Stage:
    """A new process of the stage, restored."""
    stage: Stage = subject.make(directory)
    stage.restore(None if state is None else unpacked(state))
    return stage
