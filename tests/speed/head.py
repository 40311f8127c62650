"""The head-to-head, what each stage costs in it, and lines of streampipe's own."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from bench.page import Cell
from speed.bench import BY_VALUE, EVERYBODY, OTHERS, OWN, Bench, median, paired, spread, title
from speed.contest import Ran
from speed.peer_streampipe import NEVER
from speed.work import CHAIN, Work

RECORDS, RECORDS_QUICK = 3_000_000, 300_000
ROUNDS_OWN: Final = 5
OVERHEAD_NS: Final = 65.0
CORES: Final = 2
BY_VALUE_TIMES: Final = 3.0
WALL: Final = 0.8
RATIO: Final = 1.15
MEMORY_MIB: Final = 250.0
LINE_RECORDS, FEW_RECORDS = 1_000_000, 200_000
CSV_RATE: Final = 150_000.0


def head_to_head(bench: Bench) -> None:
    work = Work(RECORDS_QUICK if bench.quick else RECORDS)
    bench.page.add("## Side by side", HEAD.format(records=work.records, never=NEVER))
    found = bench.alternating("head", EVERYBODY, work, bench.rounds)
    if not bench.quick:
        more = bench.alternating("head", OWN, work, ROUNDS_OWN - bench.rounds)
        found |= {name: found[name] + more[name] for name in more}
    fused = median(ran.rate for ran in found["fused"])
    rows: list[list[Cell]] = []
    for name, runs in found.items():
        watched = None
        if name == "streampipe" or not bench.quick:
            watched = bench.ran("memory", name, work, watched=True)
        ns, rate = [ran.ns for ran in runs], median(ran.rate for ran in runs)
        above = median(paired({"fused": found["fused"][: len(runs)], name: runs}, name))
        peak = watched.peak_mib if watched else None
        rows.append([title(name), rate, rate / fused, median(ns), spread(ns), above, peak, len(runs)])
        if name == "streampipe" and peak:
            bench.most("peak of the sum of PSS, MiB", peak, MEMORY_MIB, ".0f")
    titles = ["records/s", "by the loop", "CPU ns/record", "from, to", "above the loop", "peak MiB", "runs"]
    bench.page.add_table(["", *titles], rows)
    bench.page.add(f"All reached the same MSE, {found['fused'][0].mse:.12g}.")
    bench.page.add(*(f"{title(name)}: {why}." for name, why in bench.absent.items()))
    _targets(bench, found)
    _stages(bench, found, work)


def _targets(bench: Bench, found: dict[str, list[Ran]]) -> None:
    rates = {name: median(ran.rate for ran in runs) for name, runs in found.items()}
    bench.most("CPU above the fused loop, ns/record", median(paired(found, "streampipe")), OVERHEAD_NS, ".0f")
    ratio = median(a.ns / b.ns for a, b in zip(found["streampipe"], found["fused"], strict=True))
    bench.most("CPU by that of the fused loop", ratio, RATIO)
    for name in BY_VALUE:
        if name in rates:
            bench.least(
                f"throughput by that of {title(name)}", rates["streampipe"] / rates[name], BY_VALUE_TIMES, ".2f"
            )
    for name in ("fused", *OTHERS):
        if name in rates:
            bench.least(f"throughput by that of {title(name)}", rates["streampipe"] / rates[name], 1.0, ".2f")


def _stages(bench: Bench, found: dict[str, list[Ran]], work: Work) -> None:
    """Of every process and its counterpart in the loop, and what the longest of them allows."""
    apart = bench.ran("stages", "fused", work, "by_stage")
    assert apart is not None
    alone = {name: seconds / work.records * 1e9 for name, seconds in apart.parts.items()}
    bench.page.add("### Where it goes", STAGES)
    runs = {name: found[name] for name in ("streampipe", "streampipe_off")}
    rows: list[list[Cell]] = []
    for part in (*CHAIN, "supervisor"):
        own = [median(ran.parts[part] for ran in each) / work.records * 1e9 for each in runs.values()]
        rows.append([part, alone.get(part), *own, own[0] - alone.get(part, 0.0)])
    columns = [[row[place] or 0.0 for row in rows] for place in range(1, 5)]
    rows.append(["sum", *(sum(float(value) for value in column) for column in columns)])
    titles = ["in the fused loop", "as a process", "without epochs", "above the loop"]
    bench.page.add_table(["CPU ns/record", *titles], rows)
    longest, fused = max(alone.values()), sum(alone.values())
    possible = min(CORES, fused / longest)
    wall = median(ran.rate for ran in found["streampipe"]) / median(ran.rate for ran in found["fused"])
    bench.page.add(
        f"The longest stage takes {longest / fused:.0%} of the loop, so that processes beside each other can be at "
        f"most {possible:.2f} times as fast on {CORES} cores; streampipe is {wall:.2f} times."
    )
    bench.least("part of the throughput that the longest stage allows", wall / possible, WALL, ".2f")


def lines(bench: Bench) -> None:
    """SQLite, all members, CSV."""
    if bench.quick:
        return
    bench.page.add("## Other sinks, members and sources", LINES)
    base = Work(LINE_RECORDS, sink="sqlite")
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        few, many = (_table(Path(directory), replace(base, records=count)) for count in (FEW_RECORDS, LINE_RECORDS))
        for what, work in (
            ("SQLite", base),
            ("SQLite, members as by default", replace(base, members=())),
            ("from CSV into SQLite", replace(base, csv=many)),
            ("from CSV into SQLite", replace(base, csv=few, records=FEW_RECORDS)),
        ):
            found = bench.alternating("lines", ("fused", "streampipe"), work, bench.rounds)
            rates = {name: median(ran.rate for ran in runs) for name, runs in found.items()}
            cpu = {name: median(ran.ns for ran in runs) for name, runs in found.items()}
            each = (value for name in found for value in (rates[name], cpu[name]))
            rows.append([what, work.records, *each, rates["streampipe"] / rates["fused"]])
            if work.csv == many:
                bench.least("from CSV into SQLite, records/s", rates["streampipe"], CSV_RATE, ",.0f")
    titles = ["fused loop, records/s", "CPU ns/record", "streampipe, records/s", "CPU ns/record", "by the loop"]
    bench.page.add_table(["", "records", *titles], rows)


def _table(directory: Path, work: Work) -> str:
    """A table for the source of CSV: a line through standard normal features, and noise."""
    path = directory / f"{work.records}.csv"
    random = np.random.default_rng(0)
    x = random.standard_normal((work.records, work.columns))
    y = x @ random.standard_normal(work.columns) + 0.1 * random.standard_normal(work.records)
    names = ",".join([*(f"x{n + 1}" for n in range(work.columns)), "y"])
    np.savetxt(path, np.column_stack([x, y]), fmt="%.6f", delimiter=",", header=names, comments="")
    return str(path)


HEAD: Final = """{records:,} records of 16 float64 columns and a target in batches of 8,192 through generator,
normalizer, consumer (no sink), trainer (one member, `sgd`) and evaluator. Everybody calls the same
stages on the same records. From 'everything is ready' to the end of the stream, which for streampipe includes its
last epoch; medians of runs in turn. CPU is the sum over all processes, *above the loop* the median of
differences within a round, *peak* the largest sum of PSS in one more run. *No epochs*: one every {never}."""

STAGES: Final = """Time on the CPU of every process of streampipe, and of the same calls in the loop, in one more run
with a clock between them. The difference is what a stage costs by being a process: frames, pipes, the loop, its
snapshots."""

LINES: Final = """Batches of 8,192. The fused loop commits its sink once a second, and keeps nothing else. The last
line is the beginning of the one above it: the first blocks of the trainer and the last epoch are most of what it has
more."""
