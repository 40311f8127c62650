"""How the cost grows: with the size of a batch, the number of columns, the length of the pipeline, and the stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bench.page import Cell
from speed import peer_streampipe, usage
from speed.bench import BY_VALUE, Bench, title
from speed.contest import Ran
from speed.work import Work
from support.daemon import Daemon, running

SWEPT: Final = ("fused", "streampipe", *BY_VALUE)
BATCHES: Final = {1: 4_000, 64: 100_000, 1024: 500_000, 8192: 1_000_000}
"""Rows of a batch -> records, so that each takes a few seconds."""
COLUMNS: Final = {4: 1_000_000, 16: 1_000_000, 64: 400_000, 256: 100_000}
LENGTHS: Final = (1, 4, 10)
LENGTH_BATCHES: Final = {1024: 3_000, 8192: 600}
"""Rows of a batch -> batches through stages that only pass them on."""
PASS_US: Final = 40.0
MARKS: Final = (1_000_000, 2_000_000, 5_000_000, 10_000_000)
LONG: Final = (20_000_000, 50_000_000, 100_000_000)
GROWTH_MIB: Final = 16.0  # what allocators breathe
LOOK_S: Final = 0.25
DEADLINE_S: Final = 1_800.0


def _row(bench: Bench, part: str, work: Work, names: tuple[str, ...] = SWEPT) -> dict[str, Ran]:
    found = bench.alternating(part, names, work, 1)
    return {name: runs[0] for name, runs in found.items()}


def _table(bench: Bench, what: str, found: dict[str, dict[str, Ran]]) -> None:
    """A line for each size: records/s and CPU of everybody."""
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    figures: dict[str, Callable[[Ran], float]] = {
        "records/s": lambda ran: ran.rate,
        "CPU ns/record": lambda ran: ran.ns,
    }
    for figure, of in figures.items():
        rows: list[list[Cell]] = [
            [at, *(of(each[n]) if n in each else None for n in names)] for at, each in found.items()
        ]
        bench.page.add_table([f"{what}: {figure}", *map(title, names)], rows)


def batches(bench: Bench) -> None:
    bench.page.add("## Sizes of batches", "16 columns; one run each.")
    sizes = {1024: 100_000} if bench.quick else BATCHES
    _table(bench, "rows", {f"{batch:,}": _row(bench, "batches", Work(n, batch=batch)) for batch, n in sizes.items()})


def columns(bench: Bench) -> None:
    bench.page.add("## Columns", "Batches of 8,192; one run each.")
    sizes = {64: 50_000} if bench.quick else COLUMNS
    _table(bench, "columns", {f"{wide}": _row(bench, "columns", Work(n, columns=wide)) for wide, n in sizes.items()})


def length(bench: Bench) -> None:
    bench.page.add("## Length", LENGTH)
    lengths, names = ((1, 4) if bench.quick else LENGTHS), ("streampipe", *BY_VALUE)
    for rows, count in ({8192: 100} if bench.quick else LENGTH_BATCHES).items():
        work = Work(rows * count, batch=rows)
        found = {passes: _row(bench, "length", replace(work, passes=passes), names) for passes in lengths}
        _table(bench, f"stages, {rows:,} rows", {f"{passes}": each for passes, each in found.items()})
        short, far = lengths[0], lengths[-1]
        for name in names:
            if name in found[short] and name in found[far]:
                us = (found[far][name].cpu - found[short][name].cpu) / (far - short) / count * 1e6
                bench.page.add(f"{title(name)}: {us:.0f} us on the CPU for each frame and stage more.")
                bench.keep("length", name, rows=rows, us_per_frame=us)
                if name == "streampipe":
                    bench.most(f"a stage that passes on, us per frame of {rows:,} rows", us, PASS_US, ".0f")


def memory(bench: Bench) -> None:
    if bench.quick:
        return
    marks = (*MARKS, *LONG) if bench.long else MARKS
    bench.page.add("## Memory over a long stream", MEMORY)
    rows: list[list[Cell]] = []
    with running(peer_streampipe.config(Work(0, batch=8192))) as daemon:
        for mark in marks:
            _wait(daemon, mark)
            rows.append([f"{mark:,}", usage.pss_mib(daemon.process.pid)])
            bench.keep("long", "streampipe", records=mark, pss_mib=rows[-1][1])
    bench.page.add_table(["records", "sum of PSS, MiB"], rows)
    sizes = [float(row[1] or 0.0) for row in rows]
    bench.most(f"growth up to {marks[-1]:,} records, MiB", max(sizes) - sizes[0], GROWTH_MIB, ".0f")


def _wait(daemon: Daemon, records: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while peer_streampipe.done(daemon) < records:
        if time.monotonic() > until:
            raise TimeoutError(f"{records:,} records are not through in {DEADLINE_S:g} s")
        time.sleep(LOOK_S)


LENGTH: Final = """Stages that only pass batches of 17 columns on, behind the generator; one run each. What a further
one costs is the difference between the longest and the shortest."""

MEMORY: Final = """An endless stream in batches of 8,192, as fast as it goes, looked at on its way."""
