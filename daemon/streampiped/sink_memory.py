"""What the built-in sinks still know of an epoch: `streampiped restore` says where it cannot be exact.

A sink remembers a bounded number of epochs and rows. Only looks; a store that
cannot be read is a sentence too.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from streampiped.credentials import Credentials
from streampiped.errors import OptionError
from streampiped.sinks.jsonl import JsonlSinkOptions
from streampiped.sinks.parquet_options import SIDE, ParquetOptions
from streampiped.sinks.sqlite import SqliteOptions
from streampiped.stages.consumer import ConsumerOptions
from streampiped.topology import Plan, StageSpec

CONSUMER = "streampiped.stages.consumer:Consumer"


def cautions(plan: Plan, epoch: int) -> list[str]:
    """A sentence for every sink that cannot go back to `epoch` exactly."""
    sinks = [spec for spec in plan.stages if spec.role == "sink"]
    return [f"{spec.name}: {text}" for spec in sinks for text in _of_stage(plan, spec, epoch)]


def _of_stage(plan: Plan, spec: StageSpec, epoch: int) -> Iterator[str]:
    if not spec.retractable:
        yield f"cannot take back what it has given out since epoch {epoch}; it is given out again"
    if spec.klass != CONSUMER:
        return
    directory = Path(plan.paths.state, "stages", spec.name)
    try:
        sink = Credentials(plan.config_file).options(ConsumerOptions, spec.options).sink
        match sink:
            case SqliteOptions() if (path := directory / sink.path).exists():
                yield from _of_sqlite(path, epoch)
            case JsonlSinkOptions() if (path := directory / sink.path).exists():
                yield from _of_side_file(path, path.with_name(path.name + ".epochs"), epoch)
            case ParquetOptions() if (path := directory / sink.path).exists():
                yield from _of_side_file(path, path / SIDE, epoch)
            case SqliteOptions() | JsonlSinkOptions() | ParquetOptions():
                yield f"{path} is not there; it begins empty behind epoch {epoch}"
    except (ValidationError, OptionError, sqlite3.Error, OSError, ValueError, LookupError) as error:
        yield f"whether its store can go back to epoch {epoch} is unknown: {error}"


def _of_sqlite(path: Path, epoch: int) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        known = {number for (number,) in db.execute("SELECT epoch FROM epochs")}
        found = db.execute("SELECT oldest FROM reach").fetchone()
    oldest = found[0] if found and found[0] is not None else 0
    yield from _unreachable(path, epoch, {number for number in known if number >= oldest})


def _of_side_file(path: Path, side: Path, epoch: int) -> Iterator[str]:
    yield from _unreachable(path, epoch, set(map(int, json.loads(side.read_text())["epochs"])))


def _unreachable(path: Path, epoch: int, known: set[int]) -> Iterator[str]:
    if epoch not in known:
        others = f"from {min(known)} on" if known else "to none"
        yield (
            f"{path} has not kept what epoch {epoch} showed (it can go back {others}); the start will refuse: choose "
            "another epoch, or move the file away, and it begins empty"
        )
