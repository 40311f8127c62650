"""How the cost grows: with the size of a batch, the number of columns, the length of the pipeline, and the stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bench.page import Cell
from speed import peer_streampipe, usage
from speed.bench import BY_VALUE, PROMISED, Bench, median, title
from speed.contest import Ran
from speed.work import Work
from streampiped.errors import RpcError
from support.daemon import Daemon, running

SWEPT: Final = ("fused", "streampipe", *BY_VALUE)
BATCHES: Final = {1: 2_000, 64: 50_000, 1024: 250_000, 8192: 450_000}
"""Rows of a batch -> records, so that each run takes about a second, in which the pipeline commits an epoch or two."""
COLUMNS: Final = {4: 450_000, 16: 450_000, 64: 200_000, 256: 100_000}
"""The beginning of a wide stream costs more: 30,000 records of 256 columns took twice as long each as 100,000."""
LENGTHS: Final = (1, 4, 10)
LENGTH_BATCHES: Final = {1024: 3_000, 8192: 600}
"""Rows of a batch -> batches through stages that only pass them on."""
LENGTH_SHARE: Final = 4  # those who copy take up to five times as long and commit nothing: a quarter says as much
PASS_US: Final = 40.0
MARKS: Final = (1_000_000, 2_000_000, 5_000_000, 10_000_000)
LONG: Final = (20_000_000, 50_000_000, 100_000_000)
"""Behind `MARKS`, with --long."""
GROWTH_MIB: Final = 16.0  # what allocators breathe
LOOK_S: Final = 0.25
DEADLINE_S: Final = 1_800.0
Runs = dict[str, list[Ran]]
"""Contestant -> its runs, in turn with those of the others."""


def _table(bench: Bench, what: str, found: dict[str, Runs]) -> None:
    """A line for each size: records/s and CPU of everybody."""
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    figures: dict[str, Callable[[Ran], float]] = {
        "records/s": lambda ran: ran.rate,
        "CPU ns/record": lambda ran: ran.ns,
    }
    for figure, of in figures.items():
        rows: list[list[Cell]] = [
            [at, *(median(map(of, runs[n])) if n in runs else None for n in names)] for at, runs in found.items()
        ]
        bench.page.add_table([f"{what}: {figure}", *map(title, names)], rows)
    bench.page.add(ahead(what, found))


def ahead(what: str, found: dict[str, Runs]) -> str:
    """Who that moves batches by value has more records/s than links by reference, and where."""
    said: list[str] = []
    for name in BY_VALUE:
        both = {
            at: (runs[name], runs["streampipe"]) for at, runs in found.items() if {name, "streampipe"} <= runs.keys()
        }
        times = {at: median(r.rate for r in peer) / median(r.rate for r in own) for at, (peer, own) in both.items()}
        places = ", ".join(f"{at} ({each:.2f} times)" for at, each in times.items() if each > 1)
        if places:
            said.append(f"{title(name)} at {places}")
    if not any("streampipe" in runs for runs in found.values()):
        return "streampipe has failed here."
    if not said:
        return f"Records/s, {what}: nobody who moves batches by value is ahead of links by reference."
    return f"Records/s, {what}: ahead of links by reference, though by value: {'; '.join(said)}."


def batches(bench: Bench) -> None:
    bench.page.add("## Sizes of batches", f"16 columns; {_runs(bench)}.")
    sizes = {1024: 100_000} if bench.quick else BATCHES
    works = {f"{batch:,}": Work(records, batch=batch) for batch, records in sizes.items()}
    _table(bench, "rows", {at: _swept(bench, "batches", work) for at, work in works.items()})


def columns(bench: Bench) -> None:
    bench.page.add("## Columns", f"Batches of 8,192; {_runs(bench)}.")
    sizes = {64: 50_000} if bench.quick else COLUMNS
    works = {f"{wide}": Work(records, columns=wide) for wide, records in sizes.items()}
    _table(bench, "columns", {at: _swept(bench, "columns", work) for at, work in works.items()})


def _swept(bench: Bench, part: str, work: Work) -> Runs:
    """The work that both tables have, 16 columns in batches of 8,192, is measured once."""
    if work not in bench.swept:
        bench.swept[work] = bench.alternating(part, SWEPT, work, bench.rounds)
    return bench.swept[work]


def _runs(bench: Bench) -> str:
    return "one run each" if bench.rounds == 1 else f"medians of {bench.rounds} runs in turn"


def length(bench: Bench) -> None:
    bench.page.add("## Length", LENGTH.format(runs=_runs(bench)))
    lengths = (1, 4) if bench.quick else LENGTHS
    for rows, count in ({8192: 100} if bench.quick else LENGTH_BATCHES).items():
        ran = {passes: _lengthened(bench, rows, count, passes) for passes in lengths}
        found = {at: {n: runs for n, runs in each.items() if n not in bench.absent} for at, each in ran.items()}
        _table(bench, f"stages, {rows:,} rows", {f"{passes}": each for passes, each in found.items()})
        short, far = lengths[0], lengths[-1]
        target = f"a stage that passes on, us per frame of {rows:,} rows"
        if PROMISED not in found[short]:
            bench.most(target, None, PASS_US, ".0f")
        for name in found[short]:
            pairs = zip(found[short][name], found[far][name], strict=True)
            us = median((b.ns - a.ns) / (far - short) * rows / 1e3 for a, b in pairs)
            bench.page.add(f"{title(name)}: {us:.0f} us on the CPU for each frame and stage more.")
            bench.keep("length", name, rows=rows, us_per_frame=us)
            if name == "streampipe":
                bench.most(target, us, PASS_US, ".0f")


def _lengthened(bench: Bench, rows: int, count: int, passes: int) -> Runs:
    """Through so many stages. In turn, though the others are given fewer frames."""
    whole = Work(rows * count, batch=rows, passes=passes)
    part = replace(whole, records=whole.records // LENGTH_SHARE)
    found: Runs = {}
    for _ in range(bench.rounds):
        for work, names in ((whole, ("streampipe",)), (part, BY_VALUE)):
            for name, runs in bench.alternating("length", names, work, 1).items():
                found.setdefault(name, []).extend(runs)
    return found


def memory(bench: Bench) -> None:
    if bench.quick:
        return
    bench.page.add("## Memory over a long stream", MEMORY)
    sizes: dict[int, float] = {}
    try:
        with running(peer_streampipe.config(Work(0, batch=8192))) as daemon:
            for mark in (*MARKS, *LONG) if bench.long else MARKS:
                _wait(daemon, mark)
                sizes[mark] = usage.pss_mib(daemon.process.pid)
                bench.keep("long", "streampipe", records=mark, pss_mib=sizes[mark])
    except (AssertionError, OSError, RpcError) as error:  # a TimeoutError is an OSError
        bench.failed.append(("memory", PROMISED, f"{type(error).__name__}: {error}"))
    bench.page.add_table(["records", "sum of PSS, MiB"], [[f"{mark:,}", size] for mark, size in sizes.items()])
    for first, last in ((MARKS[0], MARKS[-1]), (MARKS[-1], LONG[-1])) if bench.long else ((MARKS[0], MARKS[-1]),):
        between = [size for mark, size in sizes.items() if first <= mark <= last]
        growth = max(between) - sizes[first] if last in sizes else None
        bench.most(f"growth from {first:,} up to {last:,} records, MiB", growth, GROWTH_MIB, ".0f")


def _wait(daemon: Daemon, records: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while peer_streampipe.done(daemon) < records:
        if time.monotonic() > until:
            raise TimeoutError(f"{records:,} records are not through in {DEADLINE_S:g} s")
        time.sleep(LOOK_S)


LENGTH: Final = """Stages that only pass batches of 17 columns on, behind the generator; {runs}. Who moves them by value
is given a quarter of the frames. For everybody the last stage counts the records and adds up a column, and
both have to be what the source has given. What a further stage costs is the difference between the longest and the
shortest."""

MEMORY: Final = """An endless stream in batches of 8,192, as fast as it goes, looked at on its way."""
