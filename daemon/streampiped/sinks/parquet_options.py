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
    merge: bool = False
    """Make larger files of the small ones, one for each epoch, that no rollback needs. Who reads while the pipeline
    runs then has to hold the directory open, or may miss rows without notice (docs/components/consumer.md)."""
