"""Latency at fixed rates, the way to the first record, and the way back after kill -9."""

from __future__ import annotations

from dataclasses import asdict, astuple, replace
from typing import Final

from bench.page import Cell
from speed import latency
from speed.bench import EVERYBODY, Bench, median, spread, title
from speed.contest import FailedError, NotThereError
from speed.latency import Latency
from speed.work import Work
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


def latencies(bench: Bench) -> None:
    bench.page.add("## Latency", LATENCY)
    kept = {str(m["contestant"]): m for m in bench.measured if m["part"] == "head"}
    names = [n for n in (("fused", "streampipe") if bench.quick else EVERYBODY) if n not in bench.absent]
    kinds = {
        "1,000/s, batches of one": SLOW,
        "1,000/s, batches of one, scikit-learn's SGDRegressor": SLOW_APART,
        "100,000/s": FAST,
        "half of its maximum": None,
    }
    for what, work in kinds.items():
        rows: list[list[Cell]] = []
        for name in ("fused", "streampipe") if work is SLOW_APART else names:
            if work is None and name not in kept:
                continue
            asked = work or Work(0, rate=kept[name]["records"] / kept[name]["seconds"] / 2)
            found = _measured(bench, name, asked)
            if found is None:
                rows.append([title(name), asked.rate, *[None] * 6])
                continue
            rows.append([title(name), asked.rate, *astuple(found)[:-1], f"{found.reached:.0%}"])
            if name == "streampipe":
                _targets(bench, asked, found)
        titles = ["records/s", "p50 ms", "p99 ms", "p99 with waiting", "cores", "rows in a batch", "rate reached"]
        bench.page.add(f"### {what[0].upper()}{what[1:]}")
        bench.page.add_table(["", *titles], rows)


def _measured(bench: Bench, name: str, work: Work) -> Latency | None:
    try:
        found = latency.measure(name, work, SECONDS_QUICK if bench.quick else SECONDS)
    except (FailedError, NotThereError) as error:
        bench.keep("latency", name, rate=work.rate, error=str(error))
        return None
    bench.keep("latency", name, rate=work.rate, batch=work.batch, **asdict(found))
    return found


def _targets(bench: Bench, work: Work, found: Latency) -> None:
    if work is SLOW:
        bench.most("1,000 records/s: p99, ms", found.p99, SLOW_P99_MS, ".1f")
        bench.most("1,000 records/s: cores", found.cores, SLOW_CORES, ".2f")
    elif work is SLOW_APART:
        bench.most("1,000 records/s, scikit-learn's SGDRegressor: p99, ms", found.p99, SLOW_APART_P99_MS, ".1f")
    elif work is FAST:
        bench.most("100,000 records/s: p99, ms", found.p99, FAST_P99_MS, ".1f")


def starts(bench: Bench) -> None:
    if bench.quick:
        return
    bench.page.add("## From the start to the first record", START)
    names = [name for name in EVERYBODY if name not in bench.absent and name != "streampipe_off"]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        for name, seconds in found.items():
            seconds.append(latency.start_of(name, Work(0)))
    for name, seconds in found.items():
        bench.keep("start", name, seconds=seconds)
    rows: list[list[Cell]] = [[title(name), median(each), spread(each, ".2f")] for name, each in found.items()]
    bench.page.add_table(["", "seconds", "from, to"], rows)


def recoveries(bench: Bench) -> None:
    bench.page.add("## After kill -9", RECOVERY)
    kills = 1 if bench.quick else KILLS
    rows: list[list[Cell]] = []
    with running(recovery.TEXT) as daemon:
        for name in STAGES:
            found = [recovery.stage(daemon, name) for _ in range(kills)]
            bench.keep("recovery", "streampipe", stage=name, seconds=found)
            rows.append([f"**streampipe**, {name}", median(found) * 1e3, max(found) * 1e3, len(found), "nothing"])
    if "ray" not in bench.absent and not bench.quick and (ran := bench.ran("recovery", "ray", RAY, "recover")):
        rows.append(["Ray actors, trainer", ran.seconds * 1e3, None, 1, "what the trainer had learned"])
    bench.page.add_table(["killed", "median ms", "worst ms", "kills", "lost"], rows)


LATENCY: Final = """From the source's handing a batch on to the return of the evaluator's `process`, weighed by rows,
the first second left out. *With waiting* counts from the moment that the rate gives to each record, so that it
includes the time until its batch was full enough (`linger` 10 ms) and whatever held the source back. *Cores*: all
processes together. Above batches of one, batches are as large as the load makes them, at most 8,192."""

START: Final = """From the start of a fresh process, with everything that it imports and starts, to the return of the
evaluator's `process` for a batch of 8,192. The median of three, in turn."""

RECOVERY: Final = """streampipe: one stage killed, at 100,000 records/s with SQLite, until the last stage has had a
batch of the new generation; the rest goes on. Ray: until the next batch is through, of an actor that it may restart.
The loop, the queues and ZeroMQ do not come back: who is left waits for ever, and all has to be started again from the
beginning. Bytewax and Pathway end as a whole, and have to be started again by somebody; each can then go on from a
store of its own, which this benchmark does not write."""
