"""Files in and out: what the readers, the sinks and the whole pipeline cost, beside SQLite alone.

    PYTHONPATH=daemon:ctl:tests python -m bench.inout [--rows 1000000] [--repeat 3] [--without pyarrow --without orjson]

CPU in ns per record of 16 columns of random doubles, the best of `--repeat`; for the sinks the wall time too.
`--without` does as if a library were not installed, here and in the daemon.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from streampiped.records import Batch, Span
from streampiped.sinks.base import Sink
from streampiped.sinks.jsonl import JsonlSink, JsonlSinkOptions
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.sqlite import CHECKPOINT_PAGES, PAGE_BYTES, SqliteOptions, SqliteSink
from support.cost import cpu_seconds
from support.daemon import chain, running, wait_for
from support.streams import Events, generator

NAMES: Final = (*(f"x{number}" for number in range(1, 16)), "y")
CHUNK: Final = 10_000
EPOCH_ROWS: Final = 200_000
"""Between two epochs: a second of the pipeline at full speed."""
KINDS: Final[tuple[Literal["zstd", "none"], ...]] = ("zstd", "none")
"""Compressions of Parquet."""
FINISHED_S: Final = 600.0

OFF: Final = "[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench.inout", description="What files in and out cost.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without", action="append", default=[], choices=("pyarrow", "orjson"))
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="streampipe-inout-") as kept:
        directory = Path(kept)
        _hide(asked.without, directory)
        write(directory, asked.rows)
        for line in (
            *readers(directory, asked.repeat),
            *sinks(directory, asked.repeat, with_parquet="pyarrow" not in asked.without),
        ):
            print(line, flush=True)
        for _ in range(asked.repeat):
            print(pipeline(directory / "in.csv", asked.rows), flush=True)


def _hide(modules: Sequence[str], directory: Path) -> None:
    """Import errors in the place of modules, for this process and for those that it starts."""
    for module in modules:
        (directory / f"{module}.py").write_text(f"raise ImportError('{module} is left out')\n")
    sys.path.insert(0, str(directory))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(directory), os.environ.get("PYTHONPATH", "")))


def write(directory: Path, rows: int) -> None:
    """The same records as CSV and as JSON Lines."""
    random = np.random.default_rng(1)
    template = "{" + ", ".join(f'"{name}": %r' for name in NAMES) + "}\n"
    with (directory / "in.csv").open("w") as csv, (directory / "in.jsonl").open("w") as jsonl:
        csv.write(",".join(NAMES) + "\n")
        for start in range(0, rows, CHUNK):
            block = random.standard_normal((min(CHUNK, rows - start), len(NAMES))).tolist()
            csv.write("".join(",".join(map(repr, row)) + "\n" for row in block))
            jsonl.write("".join(template % tuple(row) for row in block))


def readers(directory: Path, repeat: int) -> Iterator[str]:
    for kind in ("csv", "jsonl"):
        for size in (1024, 8192):
            cpu = min(_read({"type": kind, "path": str(directory / f"in.{kind}")}, size) for _ in range(repeat))
            yield f"source {kind:8} batches of {size:5}: {cpu:6.0f} ns CPU"


def _read(source: dict[str, Any], size: int) -> float:
    stage = generator(source, batch_max=size)
    stage.read(0.0)  # imports and the look at the first lines
    rows, began = 0, time.process_time()
    while rows < EPOCH_ROWS and isinstance(batch := stage.read(0.0), Batch):
        rows += batch.rows
    took = time.process_time() - began
    stage.close()
    return took / max(rows, 1) * 1e9


def sinks(directory: Path, repeat: int, *, with_parquet: bool) -> Iterator[str]:
    """SQLite alone: tuples that stand ready, into the sink's tables, one transaction, the sink's pragmas or its own
    defaults. In turn, so that a machine whose speed drifts does not decide."""
    for size in (1024, 8192):
        batches = _batches(EPOCH_ROWS * 2, size)
        tuples = [row for batch in batches for row in _tuples(batch)]
        ways: dict[str, Callable[[Path], None]] = {
            "sqlite alone, WAL": partial(_alone, rows=tuples, wal=True),
            "sqlite alone, rollback journal": partial(_alone, rows=tuples, wal=False),
            "sink sqlite": partial(_fill, make=_sqlite, batches=batches),
            "sink jsonl": partial(_fill, make=_jsonl, batches=batches),
        }
        if with_parquet:
            ways |= {f"sink parquet, {kind}": partial(_fill, make=_parquet(kind), batches=batches) for kind in KINDS}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(repeat):
            for name, way in ways.items():
                found[name].append(_timed(way, directory, len(tuples)))
        for name, times in found.items():
            cpu, wall = (min(values) for values in zip(*times, strict=True))
            yield f"{name:31} batches of {size:5}: {cpu:6.0f} ns CPU {wall:6.0f} ns wall"


def _timed(way: Callable[[Path], None], directory: Path, rows: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=directory) as kept:
        cpu, wall = time.process_time(), time.perf_counter()
        way(Path(kept))
        return (time.process_time() - cpu) / rows * 1e9, (time.perf_counter() - wall) / rows * 1e9


def _batches(rows: int, size: int) -> list[Batch]:
    random = np.random.default_rng(1)
    return [
        Batch.build(
            dict(zip(NAMES, random.standard_normal((len(NAMES), size)), strict=True)),
            spans=(Span("generator", start, size),),
        )
        for start in range(0, rows // size * size, size)
    ]


def _tuples(batch: Batch) -> Iterator[tuple[Any, ...]]:
    values = (column.tolist() for column in batch.columns().values())
    return zip(["generator"] * batch.rows, batch.positions().tolist(), *values, strict=True)


def _alone(directory: Path, rows: list[tuple[Any, ...]], *, wal: bool) -> None:
    with closing(sqlite3.connect(directory / "alone.sqlite", isolation_level=None)) as db:
        if wal:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        columns = ", ".join(f"{name} REAL" for name in NAMES)
        db.execute(f"CREATE TABLE records (id INTEGER PRIMARY KEY, source TEXT, position INTEGER, {columns})")
        db.execute("BEGIN")
        places = ", ".join("?" * (len(NAMES) + 2))
        db.executemany(f"INSERT INTO records (source, position, {', '.join(NAMES)}) VALUES ({places})", rows)
        db.execute("COMMIT")


def _sqlite(directory: Path) -> Sink:
    return SqliteSink(SqliteOptions(retain=0), directory, Events())


def _jsonl(directory: Path) -> Sink:
    return JsonlSink(JsonlSinkOptions(), directory, Events())


def _parquet(compression: Literal["zstd", "none"]) -> Callable[[Path], Sink]:
    from streampiped.sinks.parquet import ParquetSink

    return lambda directory: ParquetSink(ParquetOptions(compression=compression), directory, Events())


def _fill(directory: Path, make: Callable[[Path], Sink], batches: list[Batch]) -> None:
    sink = make(directory)
    sink.rollback(None)
    rows, epoch = 0, 0
    for batch in batches:
        sink.write(batch)
        rows += batch.rows
        if rows >= (epoch + 1) * EPOCH_ROWS or batch is batches[-1]:
            epoch += 1
            sink.prepare(epoch)
            sink.commit(epoch)
    sink.close()


def pipeline(path: Path, rows: int) -> str:
    """The file through five processes into SQLite, from "ready" to "finished"; then every row is there once."""
    cpu: dict[str, float] = {}
    generator = f'batch_max = 8192\nsource = {{ type = "csv", path = {json.dumps(str(path))} }}'
    consumer, trainer = 'sink = { type = "sqlite", retain = 0 }\n', 'members = ["sgd"]\n'
    with running(OFF + chain(generator, consumer, trainer)) as daemon:

        def is_finished() -> bool:
            status = daemon.status()
            if status["state"] != "finished":
                return False
            cpu.update({name: cpu_seconds(pid) for name, pid in daemon.pids().items()})
            return True

        wait_for(is_finished, "the file ends", FINISHED_S, 0.1)
        ready, finished = (daemon.wait_event(name)["ts"] for name in ("pipeline_ready", "pipeline_finished"))
        with closing(sqlite3.connect(daemon.state / "stages" / "consumer" / "records.sqlite")) as db:
            query = "SELECT count(*), count(DISTINCT position), max(position) FROM committed_records"
            assert db.execute(query).fetchone() == (rows, rows, rows - 1)
    each = ", ".join(f"{name} {seconds / rows * 1e9:.0f}" for name, seconds in cpu.items())
    return f"pipeline csv to sqlite: {rows / (finished - ready):8.0f} records/s; ns CPU, starts included: {each}"


if __name__ == "__main__":
    main()
