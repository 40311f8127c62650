"""A last stage that writes down what was served, row by row, so that it can be scored against labels of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Batch
from streampiped.stages.base import Stage, StageContext, StageOptions, State

SERVED: Final = ("prediction", "prediction_low", "prediction_high", "marks")
"""NaN where the stream has no such column."""
FILE: Final = "served.f64"


class Tap(Stage):
    """For runs that nobody kills: what is repeated after a death would be written twice."""

    def __init__(self, options: StageOptions, context: StageContext) -> None:
        self._file = open(context.directory / FILE, "wb", buffering=0)  # noqa: SIM115  open as long as the stage

    def process(self, batch: Batch) -> Batch:
        columns = [batch[name] if name in batch else np.full(batch.rows, np.nan) for name in SERVED]
        self._file.write(np.column_stack(columns).astype(np.float64).tobytes())
        return batch

    def restore(self, state: State | None) -> None:
        if state is None:
            self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


def served(directory: Path) -> dict[str, NDArray[np.float64]]:
    """What the tap has written into its directory: those columns of SERVED that there were."""
    table = np.fromfile(directory / FILE).reshape(-1, len(SERVED))
    return {name: table[:, i].copy() for i, name in enumerate(SERVED) if i == 0 or not np.isnan(table[:, i]).all()}
