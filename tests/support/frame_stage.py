"""A user's stage that is built on pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas
from sklearn.preprocessing import StandardScaler

from streampiped.stages.base import Stage

if TYPE_CHECKING:
    from streampiped.records import Batch


class Framed(Stage):
    """Passes batches on when scikit-learn has taken their data frame and given one; dies otherwise."""

    def __init__(self, options: Any, context: Any) -> None:
        self._scaler = StandardScaler().set_output(transform="pandas")

    def process(self, batch: Batch) -> Batch:
        names = [name for name in batch.schema.floats if name != "y"]
        frame = pandas.DataFrame({name: batch[name] for name in names})
        scaled = self._scaler.fit_transform(frame)
        if type(scaled) is not pandas.DataFrame or list(scaled.columns) != names:
            raise TypeError(f"scikit-learn gave {type(scaled)}")
        return batch
