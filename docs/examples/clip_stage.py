"""A stage of your own: values beyond given limits are brought to the limit, and counted.

Put this file into a directory, name the directory and the class in the configuration, and check it:

    [pipeline]
    python_path = ["my_stages"]

    [stages.clip]
    class = "clip_stage:Clip"
    input = "generator"
    low = -3.0
    high = 3.0

    [stages.normalizer]
    input = "clip"

The contract is docs/specs/stage.md; tests/stages/test_example_stage.py is what a test of a stage can look like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import model_validator

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.base import Stage, StageContext, StageOptions, State


class ClipOptions(StageOptions):
    """The stage's keys in the configuration; a wrong one is told by `streampiped check`."""

    low: float
    """Values below become this."""
    high: float
    """Values above become this."""
    columns: tuple[str, ...] = ()
    """Float columns to clip; empty: all of them."""

    @model_validator(mode="after")
    def _fits(self) -> ClipOptions:
        if self.low >= self.high:
            raise ValueError(f"low should be below high, got {self.low:g} and {self.high:g}")
        return self


class Clip(Stage):
    """Clips float columns. A missing value (NaN) stays missing."""

    Options = ClipOptions

    def __init__(self, options: ClipOptions, context: StageContext) -> None:
        self._options = options
        self._clipped: dict[str, int] = {}

    def process(self, batch: Batch) -> Batch:
        # Columns are read-only views, valid until this returns: make new arrays, keep none of the old ones.
        changed: dict[str, Any] = {}
        for column in self._options.columns or batch.schema.floats:
            if column not in batch.schema.floats:
                raise OptionError(f"columns: no float column {column!r}; there are {', '.join(batch.schema.floats)}")
            values = batch[column]
            clipped = np.clip(values, self._options.low, self._options.high)
            count = int(np.count_nonzero(clipped != values)) - int(np.count_nonzero(np.isnan(values)))
            if count:
                self._clipped[column] = self._clipped.get(column, 0) + count
                changed[column] = clipped
        return batch.with_columns(changed) if changed else batch

    def snapshot(self) -> State:
        """Everything that later results depend on, here the counts: after a crash the stage goes on from the last
        committed snapshot, and the batches since then come again."""
        return {"clipped": dict(self._clipped)}

    def restore(self, state: State | None) -> None:
        self._clipped = dict(state["clipped"]) if state else {}

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != "summary":
            raise KeyError(method)
        return {"clipped": dict(self._clipped)}
