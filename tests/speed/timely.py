"""Latency at fixed rates, the way to the first record, and the way back after kill -9."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.page import Cell
from speed import latency
from speed.bench import EVERYBODY, NOT_INSTALLED, PROMISED, Bench, median, spread, title
from speed.contest import SAME, FailedError, NotThereError
from speed.latency import Latency
from speed.work import Work
from streampiped.errors import RpcError
from support import idle as quiet
from support import recovery
from support.daemon import running
from support.law import STAGES

SECONDS, SECONDS_QUICK = 3.0, 1.0
SLOW: Final = Work(0, batch=1, rate=1_000.0, linger=0.0)
FAST: Final = Work(0, rate=100_000.0)
SLOW_APART: Final = replace(SLOW, members=("estimator",), estimator="sklearn.linear_model.SGDRegressor")
SLOW_P99_MS, SLOW_CORES, SLOW_APART_P99_MS, FAST_P99_MS = 5.0, 0.5, 10.0, 25.0
STARTS: Final = 3
KILLS: Final = 5
RAY: Final = Work(300_000)
NOTHING: Final = "nothing"
SETTLE_S, IDLE_S = 5.0, 20.0
"""The last epoch and what the log extractor has to write; what is looked at."""
IDLE_PERCENT: Final = 0.3


def latencies(bench: Bench) -> None:
    bench.page.add("## Latency", LATENCY)
    kept = {str(m["contestant"]): m for m in bench.measured if m["part"] == "head"}
    names = [
        name
        for name in (("fused", "streampipe") if bench.quick else EVERYBODY)
        if name not in bench.absent or name == PROMISED
    ]
    kinds = {
        "1,000/s, batches of one": SLOW,
        "1,000/s, batches of one, scikit-learn's SGDRegressor": SLOW_APART,
        "100,000/s": FAST,
        "half of its maximum": None,
    }
    for what, work in kinds.items():
        rows: list[list[Cell]] = []
        taking = ("fused", "streampipe") if work is SLOW_APART else names
        for name in taking if work else [name for name in names if name in kept]:
            asked = work or Work(0, rate=kept[name]["records"] / kept[name]["seconds"] / 2)
            found = _measured(bench, name, asked)
            if name == "streampipe":
                _targets(bench, asked, found)
            if found is None:
                rows.append([title(name), asked.rate, *[None] * 6])
                continue
            rows.append([title(name), asked.rate, *astuple(found)[:-1], f"{found.reached:.0%}"])
        if not rows:
            continue
        titles = ["records/s", "p50 ms", "p99 ms", "p99 with waiting", "cores", "rows in a batch", "rate reached"]
        bench.page.add(f"### {what[0].upper()}{what[1:]}")
        bench.page.add_table(["", *titles], rows)


def _measured(bench: Bench, name: str, work: Work) -> Latency | None:
    if name in bench.absent:
        return None
    try:
        found, figure = latency.measure(name, work, SECONDS_QUICK if bench.quick else SECONDS, bench.run)
    except NotThereError:
        bench.absent[name] = NOT_INSTALLED
        return None
    except FailedError as error:
        bench.failed.append((f"latency, {work.rate:,.0f}/s", name, str(error)))
        return None
    if work.batch == 1:  # larger ones are cut by the clock, and each is predicted by what was learned before it
        bench.agree(name, work, figure)
    bench.keep("latency", name, rate=work.rate, batch=work.batch, **asdict(found))
    return found


def _targets(bench: Bench, work: Work, found: Latency | None) -> None:
    p99 = found.p99 if found else None
    if work is SLOW:
        bench.most("1,000 records/s: p99, ms", p99, SLOW_P99_MS, ".1f")
        bench.most("1,000 records/s: cores", found.cores if found else None, SLOW_CORES, ".2f")
    elif work is SLOW_APART:
        bench.most("1,000 records/s, scikit-learn's SGDRegressor: p99, ms", p99, SLOW_APART_P99_MS, ".1f")
    elif work is FAST:
        bench.most("100,000 records/s: p99, ms", p99, FAST_P99_MS, ".1f")


def starts(bench: Bench) -> None:
    if bench.quick:
        return
    bench.page.add("## From the start to the first record", START)
    names = [name for name in EVERYBODY if name not in bench.absent and name != "streampipe_off"]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        for name in list(found):
            try:
                found[name].append(latency.start_of(name, Work(0), bench.run))
            except NotThereError:
                del found[name]
                bench.absent[name] = NOT_INSTALLED
            except FailedError as error:
                del found[name]
                bench.failed.append(("start", name, str(error)))
    for name, seconds in found.items():
        bench.keep("start", name, seconds=seconds)
    rows: list[list[Cell]] = [[title(name), median(each), spread(each, ".2f")] for name, each in found.items()]
    bench.page.add_table(["", "seconds", "from, to"], rows)


def recoveries(bench: Bench) -> None:
    bench.page.add("## After kill -9", RECOVERY)
    rows: list[list[Cell]] = []
    wrong: int | None = None
    try:
        wrong = _killed(bench, rows)
    except (AssertionError, OSError, RpcError) as error:
        bench.failed.append(("recovery", "streampipe", f"{type(error).__name__}: {error}"))
    bench.most("records lost or doubled by kill -9", wrong, 0, "d")
    if "ray" not in bench.absent and not bench.quick and (ran := bench.ran("recovery", "ray", RAY, "recover")):
        calm = bench.ran("recovery", "fused", RAY)
        assert calm is not None
        same = math.isclose(calm.figure, ran.figure, rel_tol=SAME)
        rows.append(["Ray actors, trainer", ran.seconds * 1e3, None, 1, NOTHING if same else "what it had learned"])
    bench.page.add_table(["killed", "median ms", "worst ms", "kills", "lost"], rows)


def _killed(bench: Bench, rows: list[list[Cell]]) -> int:
    """Every stage of a running pipeline, a line for each: how many rows the sink has too many or too few."""
    wrong = 0
    with running(recovery.TEXT) as daemon:
        kept = recovery.Kept()
        for name in STAGES:
            found = [recovery.stage(daemon, name) for _ in range(1 if bench.quick else KILLS)]
            lost, doubled = kept.more(daemon)
            wrong += lost + doubled
            bench.keep("recovery", "streampipe", stage=name, seconds=found, lost=lost, doubled=doubled, rows=kept.rows)
            said = f"{lost:,} lost, {doubled:,} doubled" if lost or doubled else NOTHING
            rows.append([f"**streampipe**, {name}", median(found) * 1e3, max(found) * 1e3, len(found), said])
        bench.page.add(f"Of {kept.rows:,} rows in the sink {wrong:,} are missing or there twice.")
    return wrong


def idle(bench: Bench) -> None:
    """The default chain with its services, behind a file that does not grow."""
    if bench.quick:
        return
    bench.page.add("## Idle", IDLE.format(seconds=IDLE_S))
    share: float | None = None
    try:
        with TemporaryDirectory() as directory, running(quiet.quiet_chain(Path(directory) / "quiet.csv")) as daemon:
            daemon.wait_progress(quiet.RECORDS)
            pids = quiet.processes(daemon)
            quiet.measure(pids, SETTLE_S)
            uses = quiet.measure(pids, IDLE_S)
    except (AssertionError, OSError, RpcError) as error:
        bench.failed.append(("idle", "streampipe", f"{type(error).__name__}: {error}"))
    else:
        share = sum(use.cpu for use in uses.values()) * 100
        bench.keep("idle", "streampipe", cores={name: use.cpu for name, use in uses.items()})
        rows: list[list[Cell]] = [[name, use.cpu * 100, use.wakes_per_s] for name, use in uses.items()]
        bench.page.add_table(["process", "% of a core", "wake-ups/s"], rows)
    bench.most("idle pipeline, % of a core", share, IDLE_PERCENT, ".2f")


IDLE: Final = """The default chain, log extractor and service monitor included, behind a file that has a few records and
gets no more, over {seconds:.0f} s."""

LATENCY: Final = """From the source's handing a batch on to the return of the evaluator's `process`, weighed by rows,
the first second left out. *With waiting* counts from the moment that the rate gives to each record, so that it
includes the time until its batch was full enough (`linger` 10 ms) and whatever held the source back. *Cores*: all
processes together. Above batches of one, batches are as large as the load makes them, at most 8,192. Every record
has to come to the evaluator, once and in its place, and with batches of one everybody has to reach the same MSE."""

START: Final = """From the start of a fresh process, with everything that it imports and starts, to the return of the
evaluator's `process` for a batch of 8,192. The median of three, in turn."""

RECOVERY: Final = """streampipe: one stage killed, at 100,000 records/s with SQLite, until the last stage has had a
batch of the new generation; the rest goes on. *Lost*: by the positions of the rows that are committed to the sink
behind the kills, each of which has to be there once. Ray: until the next batch is through, of an actor that it may
restart. The loop, the queues and ZeroMQ do not come back: who is left waits for ever, and all has to be started again
from the beginning. Bytewax and Pathway end as a whole, and have to be started again by somebody; each can then go on
from a store of its own, which this benchmark does not write."""
