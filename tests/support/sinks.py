"""The sinks that keep rows, and what a reader of each sees."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.dataset

from streampiped.sinks.base import Sink
from streampiped.sinks.jsonl import JsonlSink, JsonlSinkOptions
from streampiped.sinks.parquet import ParquetSink
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.sqlite import SqliteOptions, SqliteSink
from support.streams import Events

Row = tuple[str, int, float]


def sqlite(directory: Path, emit: Any = None) -> Sink:
    return SqliteSink(SqliteOptions(retain=0), directory, emit or Events())


def jsonl(directory: Path, emit: Any = None) -> Sink:
    return JsonlSink(JsonlSinkOptions(), directory, emit or Events())


def parquet(directory: Path, emit: Any = None) -> Sink:
    return ParquetSink(ParquetOptions(), directory, emit or Events())


def merged(directory: Path, emit: Any = None) -> Sink:
    return ParquetSink(ParquetOptions(merge=True), directory, emit or Events())


def seen_in_sqlite(directory: Path) -> list[Row]:
    with closing(sqlite3.connect(directory / "records.sqlite")) as db:
        db.row_factory = sqlite3.Row
        rows = db.execute("SELECT * FROM committed_records ORDER BY id").fetchall()
    return [(row["source"], row["position"], row["x"]) for row in rows]


def seen_in_jsonl(directory: Path) -> list[Row]:
    visible = json.loads((directory / "records.jsonl.epochs").read_text())["visible_bytes"]
    lines = (directory / "records.jsonl").read_bytes()[:visible].splitlines()
    return [(row["source"], row["position"], row["x"]) for row in map(json.loads, lines)]


def seen_in_parquet(directory: Path) -> list[Row]:
    """As any reader of a directory of Parquet files sees it."""
    data = directory / "records.parquet" / "data"
    if not any(data.iterdir()):
        return []  # without a file there is no column
    table = pyarrow.dataset.dataset(data).to_table(["source", "position", "x"])
    return [(row["source"], row["position"], row["x"]) for row in table.to_pylist()]


KINDS: dict[str, tuple[Any, Any]] = {
    "sqlite": (sqlite, seen_in_sqlite),
    "jsonl": (jsonl, seen_in_jsonl),
    "parquet": (parquet, seen_in_parquet),
    "merged": (merged, seen_in_parquet),
}
"""Kind -> how it is made in a directory, and what is seen there."""
