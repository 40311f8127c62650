"""The options of the Parquet sink, apart from it: the sink itself imports pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from streampiped.stages.base import StageOptions

SIDE: Final = "epochs.json"  # in the directory: the marks, as side_file.py writes them, and the columns


class ParquetOptions(StageOptions):
    """`type = "parquet"`."""

    type: Literal["parquet"] = "parquet"
    path: Path = Path("records.parquet")
    """A directory, relative to the stage's. Its `data` has the rows."""
    compression: Literal["zstd", "none"] = "zstd"
    """Of the files that are written from now on."""
