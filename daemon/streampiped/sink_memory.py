"""What becomes of the built-in sinks at an epoch: `streampiped restore` says where it cannot be exact.

A sink remembers a bounded number of epochs and rows, and somebody may have removed some. It is asked what its
`rollback` would do, which goes by marks and rows. Only looks; a store that cannot be read is a sentence too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from streampiped.credentials import Credentials
from streampiped.errors import OptionError, StateError
from streampiped.sinks.base import unreachable
from streampiped.sinks.jsonl import JsonlSink, JsonlSinkOptions
from streampiped.sinks.null import NullOptions
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.sqlite import SqliteOptions
from streampiped.stages.base import Emit
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
    told: list[str] = []
    try:
        sink = Credentials(plan.config_file).options(ConsumerOptions, spec.options).sink
        match sink:
            case NullOptions():
                return
            case _ if not (path := directory / sink.path).exists():
                told = [f"{path} is not there; it begins empty behind epoch {epoch}"]
            case SqliteOptions():
                told = list(_of_sqlite(path, epoch))
            case JsonlSinkOptions():
                JsonlSink(sink, directory, _hears(told)).foresee(epoch)
            case ParquetOptions():
                from streampiped.sinks.parquet import ParquetSink  # pyarrow, which others need not have

                ParquetSink(sink, directory, _hears(told), plan.checkpoint.retain_epochs).foresee(epoch)
    except StateError as error:
        told = [f"the start will refuse: {path} {error}"]
    except (ValidationError, OptionError, sqlite3.Error, OSError, ValueError, LookupError, ImportError) as error:
        told = [f"whether its store can go back to epoch {epoch} is unknown: {error}"]
    yield from told


def _hears(told: list[str]) -> Emit:
    """What `rollback` would log."""

    def emit(event: str, /, **fields: Any) -> None:
        told.append(_incomplete(fields["path"], fields["epoch"], fields["reason"]))

    return emit


def _incomplete(path: object, epoch: int, reason: str) -> str:
    return f"{path} goes on from what it has, and may lack older rows: it never had epoch {epoch}, {reason}"


def _of_sqlite(path: Path, epoch: int) -> Iterator[str]:
    """Only looks, which opening the sink does not: a database without a log is not given one."""
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as db:
        known = {number for (number,) in db.execute("SELECT epoch FROM epochs")}
        oldest, newest = db.execute("SELECT oldest, newest FROM reach").fetchone() or (None, None)
    kept = {number for number in known if oldest is None or number >= oldest}
    if epoch in kept:
        return
    if newest is not None and epoch <= newest:
        raise unreachable(epoch, min(kept, default=None), max(kept, default=None))
    before = max((number for number in known if number <= epoch), default=None)
    reason = "the file is new" if before is None else f"the newest epoch it knows is {before}"
    yield _incomplete(path, epoch, reason)
