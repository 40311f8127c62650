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
DEFAULT_BATCH: Final = 1024
MEMORY_MIB: Final = 250.0
SUPERVISOR_PERCENT: Final = 1.0
DEFAULT_RECORDS, DEFAULT_RECORDS_QUICK = 1_000_000, 100_000
LINE_RECORDS, FEW_RECORDS = 1_000_000, 200_000
CSV_RATE: Final = 150_000.0


def head_to_head(bench: Bench) -> None:
    work = Work(RECORDS_QUICK if bench.quick else RECORDS)
    bench.page.add("## Side by side", HEAD.format(records=work.records, never=NEVER))
    found, apart = _rounds(bench, work)
    fused = median(ran.rate for ran in found["fused"])
    rows: list[list[Cell]] = []
    for name, runs in found.items():
        watched = None if bench.quick else bench.ran("memory", name, work, watched=True)
        ns, rate = [ran.ns for ran in runs], median(ran.rate for ran in runs)
        above = median(paired({"fused": found["fused"][: len(runs)], name: runs}, name))
        peak = watched.peak_mib if watched else None
        rows.append([title(name), rate, rate / fused, median(ns), spread(ns), above, peak, len(runs)])
    titles = ["records/s", "by the loop", "CPU ns/record", "from, to", "above the loop", "peak MiB", "runs"]
    bench.page.add_table(["", *titles], rows)
    bench.page.add(f"All reached the same MSE, {found['fused'][0].figure:.12g}.")
    bench.page.add(*(f"{title(name)}: {why}." for name, why in bench.absent.items()))
    _default(bench)
    _targets(bench, found)
    _stages(bench, found, apart, work)


def _rounds(bench: Bench, work: Work) -> tuple[dict[str, list[Ran]], list[Ran]]:
    """The runs of everybody, and those of the loop with a clock between its stages, all in turn."""
    found: dict[str, list[Ran]] = {}
    apart: list[Ran] = []
    for names in [EVERYBODY] * bench.rounds + [OWN] * (0 if bench.quick else ROUNDS_OWN - bench.rounds):
        for name, runs in bench.alternating("head", names, work, 1).items():
            found.setdefault(name, []).extend(runs)
        if (ran := bench.ran("stages", "fused", work, "by_stage")) is not None:
            apart.append(ran)
    return {name: runs for name, runs in found.items() if name not in bench.absent}, apart


def _default(bench: Bench) -> None:
    """The peak of the memory of all that runs by default."""
    records = DEFAULT_RECORDS_QUICK if bench.quick else DEFAULT_RECORDS
    work = Work(records, batch=DEFAULT_BATCH, members=(), sink="sqlite", services=True)
    ran = bench.ran("default", "streampipe", work, watched=True)
    if ran is not None:
        bench.page.add(DEFAULT.format(records=work.records, peak=ran.peak_mib, rate=ran.rate))
    bench.most("default pipeline: peak of the sum of PSS, MiB", ran.peak_mib if ran else None, MEMORY_MIB, ".0f")


def _targets(bench: Bench, found: dict[str, list[Ran]]) -> None:
    rates = {name: median(ran.rate for ran in runs) for name, runs in found.items()}
    own, fused = found.get("streampipe"), found["fused"]
    above = median(paired(found, "streampipe")) if own else None
    ratio = median(a.ns / b.ns for a, b in zip(own, fused, strict=True)) if own else None
    share = median(ran.parts["supervisor"] / ran.seconds for ran in own) * 100 if own else None
    bench.most("CPU above the fused loop, ns/record", above, OVERHEAD_NS, ".0f")
    bench.most("CPU by that of the fused loop", ratio, RATIO)
    bench.most("supervisor at full speed, % of a core", share, SUPERVISOR_PERCENT, ".2f")
    bounds = dict.fromkeys(BY_VALUE, BY_VALUE_TIMES) | dict.fromkeys(("fused", *OTHERS), 1.0)
    for name, bound in bounds.items():
        if bench.is_promised(name):
            times = rates["streampipe"] / rates[name] if own and name in rates else None
            what = f"throughput by that of {title(name)}"
            bench.least(what, times, bound, ".2f", peer="" if name in rates else name)


def _stages(bench: Bench, found: dict[str, list[Ran]], apart: list[Ran], work: Work) -> None:
    """Of every process and its counterpart in the loop, and what the longest of them allows."""
    what = "part of the throughput that the longest stage allows"
    if "streampipe" not in found:
        bench.least(what, None, WALL, ".2f")
        return
    alone = {name: median(ran.parts[name] for ran in apart) / work.records * 1e9 for name in CHAIN}
    bench.page.add("### Where it goes", STAGES)
    rows: list[list[Cell]] = []
    for part in (*CHAIN, "supervisor", "launcher"):
        own, off = (_part(found.get(name, []), part) for name in ("streampipe", "streampipe_off"))
        assert own is not None
        rows.append([part, alone.get(part), own, off, own - alone.get(part, 0.0)])
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
    loop, clocked = (median(ran.ns for ran in runs) for runs in (found["fused"], apart))
    bench.page.add(
        f"The loop takes {loop:,.0f} ns with one clock around all of it and {clocked:,.0f} with one between its "
        "stages: the last column is held against the latter, the first table against the former."
    )
    bench.least(what, wall / possible, WALL, ".2f")


def _part(runs: list[Ran], part: str) -> float | None:
    """Nanoseconds on the CPU per record of a process."""
    return median(ran.parts[part] / ran.records * 1e9 for ran in runs) if runs else None


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
            own = rates.get("streampipe")
            times = own / rates["fused"] if own else None
            rows.append([what, work.records, rates["fused"], cpu["fused"], own, cpu.get("streampipe"), times])
            if work.csv == many:
                bench.least("from CSV into SQLite, records/s", own, CSV_RATE, ",.0f")
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
stages on the same records. Log extractor and service monitor, which streampipe runs beside them by default,
are switched off: nobody else has them. From 'everything is ready' to the end of the stream, which for streampipe
includes its last epoch; medians of runs in turn. CPU is the sum over all processes, *above the loop* the median of
differences within a round, *peak* the largest sum of PSS in one more run. *No epochs*: one every {never}."""

DEFAULT: Final = """The default pipeline, with SQLite, all members, log extractor and service monitor, over {records:,}
records in batches of 1,024, the default: a peak of {peak:.0f} MiB at {rate:,.0f} records/s."""

STAGES: Final = """Time on the CPU of every process of streampipe, and of the same calls in the loop, in runs of
their own with a clock between them, in turn with the others: medians. The difference is what a stage costs by being a
process: frames, pipes, the loop, its snapshots. A sum of medians need not be the median of sums, which stands *above
the loop* in the first table."""

LINES: Final = """Batches of 8,192. The fused loop commits its sink once a second, and keeps nothing else. The last
line is the beginning of the one above it: the first blocks of the trainer and the last epoch are most of what it has
more."""
