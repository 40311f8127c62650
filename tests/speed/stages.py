"""Stages of the benchmark: one that only passes batches on, and an evaluator that writes down when it was done."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from speed.work import TALLY
from streampiped.records import Batch, IntArray
from streampiped.stages.base import Stage, StageContext, StageOptions, State
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions

ENTRY: Final = struct.Struct("=qqqq")


class Pass(Stage):
    """The contract's own `process`."""


class Tally(Pass):
    """The last of those: it counts rows, and adds up the last column of floats, in the order of the batches."""

    def __init__(self, options: StageOptions, context: StageContext) -> None:
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        self._rows += batch.rows
        self._total += float(batch[batch.schema.floats[-1]].sum())
        return batch

    def snapshot(self) -> State:
        return {"rows": self._rows, "total": self._total}

    def restore(self, state: State | None) -> None:
        self._rows: int = state["rows"] if state else 0
        self._total: float = state["total"] if state else 0.0

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != TALLY:
            raise KeyError(method)
        return self.snapshot()


class WatchedOptions(EvaluatorOptions):
    """`log`: a file, appended to."""

    log: str


class Watched(Evaluator):
    """Writes first position, rows, when the source emitted them and when they were done, for every batch."""

    Options = WatchedOptions

    def __init__(self, options: WatchedOptions, context: StageContext) -> None:
        super().__init__(options, context)
        self._log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def process(self, batch: Batch) -> Batch:
        result = super().process(batch)
        os.write(self._log, ENTRY.pack(batch.spans[0].start, batch.rows, batch.ingest_ns, time.monotonic_ns()))
        return result

    def close(self) -> None:
        os.close(self._log)


def entries(log: Path) -> IntArray:
    """`(batches, 4)`, in the order of `Watched`; none while there is no file."""
    if not log.exists():
        return np.zeros((0, 4), dtype=np.int64)
    data = log.read_bytes()
    return np.frombuffer(data[: len(data) // ENTRY.size * ENTRY.size], dtype=np.int64).reshape(-1, 4)
