"""What the built-in sinks still know of an epoch: `streampiped restore` says where it cannot be exact.

A sink remembers a bounded number of epochs and, with `retain`, a bounded number of rows. Only looks; a store that
cannot be read is a sentence too.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from streampiped.sinks.jsonl import JsonlSinkOptions
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
        sink = ConsumerOptions.model_validate(dict(spec.options)).sink
        match sink:
            case SqliteOptions() if (path := directory / sink.path).exists():
                yield from _of_sqlite(path, sink.retain, epoch)
            case JsonlSinkOptions() if (path := directory / sink.path).exists():
                yield from _of_jsonl(path, epoch)
            case SqliteOptions() | JsonlSinkOptions():
                yield f"{path} is not there; it begins empty behind epoch {epoch}"
    except (ValidationError, sqlite3.Error, OSError, ValueError, LookupError) as error:
        yield f"whether its store can go back to epoch {epoch} is unknown: {error}"


def _of_sqlite(path: Path, retain: int, epoch: int) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        query = "SELECT epoch, last_id FROM epochs WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1"
        mark = db.execute(query, (epoch,)).fetchone()
        oldest = db.execute("SELECT min(id) FROM records").fetchone()[0]
    if mark is None or mark[0] != epoch:
        yield f"{path} no longer knows epoch {epoch}; {_instead(mark[0] if mark else None)}"
    elif oldest is not None:
        first = max(1, mark[1] - retain + 1) if retain else 1
        if missing := min(oldest, mark[1] + 1) - first:
            yield f"{path} has removed {missing} rows (retain = {retain}) that epoch {epoch} showed; they stay away"


def _of_jsonl(path: Path, epoch: int) -> Iterator[str]:
    side = json.loads(path.with_name(path.name + ".epochs").read_text())
    known = [number for number in map(int, side["epochs"]) if number <= epoch]
    if epoch not in known:
        yield f"{path} no longer knows epoch {epoch}; {_instead(max(known, default=None))}"


def _instead(epoch: int | None) -> str:
    if epoch is None:
        return "it begins empty, and what came before is missing"
    return f"it goes back to epoch {epoch}, and what came between is missing"
