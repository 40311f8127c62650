"""The learning stages called one after the other in this process: what a daemon reports must equal what they give."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Batch, Span
from streampiped.stages.base import Stage, StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions

DATA = Path(__file__).parent.parent / "data"
STREAMS = {"chick_weights.csv": "weight", "trump_approval.csv": "five_thirty_eight"}
"""File in tests/data -> name of its target."""

Floats = NDArray[np.float64]


def read_stream(name: str) -> dict[str, Floats]:
    """Columns of a CSV file in tests/data."""
    with (DATA / name).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return {column: np.array([float(row[i]) for row in rows]) for i, column in enumerate(header)}


def batches_of(columns: Mapping[str, Floats], size: int, source: str) -> Iterator[Batch]:
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, size):
        part = slice(start, min(rows, start + size))
        span = Span(source, start, part.stop - start)
        yield Batch.build({name: values[part] for name, values in columns.items()}, spans=(span,))


def reference_results(name: str, batch: int, *, seed: int, number: int | str = "") -> dict[str, Any]:
    """`results` of the evaluator for a file of STREAMS. `seed` is the pipeline's; stages are named with `number`."""
    target, columns = STREAMS[name], read_stream(name)

    def context(stage: str) -> StageContext:
        return StageContext(f"{stage}{number}", zlib.crc32(f"{seed}:{stage}{number}".encode()), seed)

    chain: list[Stage] = [
        Normalizer(NormalizerOptions(target=target), context("normalizer")),
        Trainer(TrainerOptions(target=target), context("trainer")),
        Evaluator(EvaluatorOptions(target=target), context("evaluator")),
    ]
    for each in batches_of(columns, batch, f"generator{number}"):
        passed: Batch | None = each
        for stage in chain:
            assert passed is not None
            passed = stage.process(passed)
    results: dict[str, Any] = chain[-1].query("report", {"sections": {}})["results"]
    return results
