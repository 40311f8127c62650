"""Alarms and intervals: none where nothing changes, soon where something does, and nine of ten labels inside.

*Calm*: 100,000 rows of one law, twice (linear, and Friedman's). *Abrupt*: Friedman's two laws in turn, nine changes in
80,000 rows, so that the 500 rows after a change are 4,500 in all: over 500 alone chance would move the coverage by
more than the 0.02 that are allowed (its standard error is 0.013). *Switch*: a linear law that becomes another one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench import generators, pipeline
from bench.pipeline import Ran
from bench.score import covered
from bench.streams import Stream, cached

CALM_ROWS: Final = 100_000
CHANGES: Final = tuple(range(8_000, 80_000, 8_000))
SWITCH: Final = 10_000
SEED: Final = 21
FOUND_WITHIN: Final = 100
AFTER: Final = 500
COVERAGE: Final = (0.88, 0.92)


def streams() -> dict[str, tuple[Stream, tuple[int, ...]]]:
    """Name -> the stream, and the rows at which its law changes."""
    made = {
        "calm_linear": (functools.partial(generators.linear, SEED, CALM_ROWS), ()),
        "calm_friedman": (functools.partial(generators.friedman_drift, "gra", (), SEED, CALM_ROWS), ()),
        "abrupt": (functools.partial(generators.friedman_drift, "recurring", CHANGES, SEED, 80_000), CHANGES),
        "switch": (functools.partial(generators.linear, SEED, 2 * SWITCH, 8, SWITCH), (SWITCH,)),
    }
    return {name: (Stream(name, "y", cached(name, make)), changes) for name, (make, changes) in made.items()}


@dataclass(frozen=True, slots=True)
class Watched:
    """What was said of one stream. None: not reported."""

    name: str
    rows: int
    changes: tuple[int, ...]
    alarms: int | None
    false_alarms: int | None
    """Before the first change; behind one, an alarm may be late but is not false."""
    delays: tuple[int | None, ...] | None
    """Rows from each change to the first alarm after it and before the next; None in it: not found."""
    coverage: float | None
    after: float | None
    """Coverage in the AFTER rows from each change on, together."""


def measure(run: Callable[[Stream], Ran] = pipeline.run) -> list[Watched]:
    return [watched(run(stream), changes) for stream, changes in streams().values()]


def watched(ran: Ran, changes: tuple[int, ...]) -> Watched:
    stream, rows = ran.stream, alarm_rows(ran.results)
    count = alarms(ran.results)
    after = [covered(ran.served, stream.labels, slice(at, at + AFTER)) for at in changes]
    known = [share for share in after if share is not None]
    return Watched(
        stream.name,
        stream.rows,
        changes,
        count,
        count if not changes else None if rows is None else sum(row < changes[0] for row in rows),
        None if rows is None else tuple(_delays(rows, changes, stream.rows)),
        covered(ran.served, stream.labels),
        sum(known) / len(known) if known else None,
    )


def alarm_rows(results: Mapping[str, Any]) -> list[int] | None:
    """The rows at which the champion's error was said to have drifted."""
    drifts = (results.get("model") or {}).get("drifts")
    return None if drifts is None else sorted(int(each["row"]) for each in drifts if each["kind"] == "drift")


def alarms(results: Mapping[str, Any]) -> int | None:
    """All of them, listed or not."""
    model = results.get("model") or {}
    return model.get("drift_count", None if "drifts" not in model else len(alarm_rows(results) or ()))


def _delays(rows: list[int], changes: tuple[int, ...], end: int) -> list[int | None]:
    edges = (*changes, end)
    return [next((row - at for row in rows if at <= row < until), None) for at, until in itertools.pairwise(edges)]
