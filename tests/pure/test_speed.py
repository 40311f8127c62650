"""The benchmark says who failed, and believes nobody who has not done the work; its contestants are made up here."""

from __future__ import annotations

import argparse
import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from speed import head, run, sweeps, timely
from speed.bench import BY_VALUE, Bench
from speed.contest import FailedError, NotThereError, Ran, UnequalError, agreed, arrived
from speed.latency import complete
from speed.stages import ENTRY
from speed.work import CHAIN, TALLY, Reached, Work, given, stage, wanted
from support.recovery import Kept

PARTS: Final[tuple[Callable[[Bench], None], ...]] = (head.head_to_head, timely.latencies, sweeps.length)
WHY: Final = "SIGSEGV"


class Contestants:
    """Stands for `contest.run`: everybody takes a second, but for those who raise."""

    def __init__(self, raising: Mapping[str, Exception], figure: Mapping[str, float] | None = None) -> None:
        self._raising, self._figure = raising, figure or {}

    def __call__(self, name: str, work: Work, function: str = "run", *, watched: bool = False) -> Ran:
        if name in self._raising:
            raise self._raising[name]
        if work.log:
            _write(Path(work.log), work)
        parts = dict.fromkeys((*work.stages, *CHAIN, "supervisor", "launcher"), 0.1)
        return Ran(work.records, self._figure.get(name, 0.5), 1.0, 1.0, parts, 0, 1.0)


def _write(log: Path, work: Work) -> None:
    """As `stages.Watched`, each batch a millisecond after it was full."""
    with log.open("wb") as file:
        for first in range(0, work.records, rows := min(work.batch, 1_000)):
            at = int((first + rows) / work.rate * 1e9)
            file.write(ENTRY.pack(first, min(rows, work.records - first), at, at + 1_000_000))


def _bench(**raising: Exception) -> Bench:
    """After all of `PARTS`."""
    bench = Bench(argparse.Namespace(quick=True, long=False, pathway=None), Contestants(raising))
    for part in PARTS:
        part(bench)
    return bench


def test_a_failure_of_streampipe_is_every_target_missed() -> None:
    """Where streampipe does not come to its end, the targets are those of a run in which it did: each of them missed,
    with 'failed' as what was found, and the reason stands on the page and in the JSON."""
    calm, bench = _bench(), _bench(streampipe=FailedError(WHY))
    assert [t.what for t in bench.targets] == [t.what for t in calm.targets]
    assert {(t.found, bool(t.kept)) for t in bench.targets} == {("failed", False)}
    assert any(WHY in part for part in bench.verdict())
    told = json.loads(json.dumps(bench.told()))
    assert WHY in told["failed"][0]["reason"]
    assert not any(target["kept"] for target in told["targets"])


@pytest.mark.parametrize("name", BY_VALUE)
def test_a_failure_of_a_peer_does_not_take_its_target_away(name: str) -> None:
    """A peer that fails leaves its line, missed, which names it; one that is not installed leaves none."""
    what = [t.what for t in _bench().targets]
    failed = {t.what: t for t in _bench(**{name: FailedError(WHY)}).targets}
    assert list(failed) == what
    (line,) = (t for t in failed.values() if "failed" in t.found)
    assert "throughput" in line.what
    assert not line.kept
    absent = _bench(**{name: NotThereError(name)})
    assert [t.what for t in absent.targets] == [each for each in what if each != line.what]
    assert absent.told()["absent"] == {name: "not installed"}


def test_nothing_goes_on_without_the_loop_or_with_another_figure() -> None:
    """Without the loop there is nothing to compare with, and with somebody whose figure is another nothing is believed:
    the run ends there, with the reason."""
    quick = argparse.Namespace(quick=True, long=False, pathway=None)
    assert WHY in str(run.measured(Bench(quick, Contestants({"fused": FailedError(WHY)})), ["head"]))
    for figure in (0.6, math.nan):
        said = run.measured(Bench(quick, Contestants({}, figure={"zmq": figure})), ["head"])
        assert said is not None
        assert str(figure) in said


@pytest.mark.parametrize("other", [math.nan, math.inf, 1.0 + 1e-6, 0.0])
def test_no_other_number_agrees(other: float) -> None:
    """Figures agree up to a part in 10^9, whoever stands first, and what is not a number with nothing."""
    agreed({"a": 1.0, "b": 1.0 + 1e-12})
    for figures in ({"a": 1.0, "b": other}, {"a": other, "b": 1.0}):
        with pytest.raises(UnequalError):
            agreed(figures)
    if not math.isfinite(other):
        with pytest.raises(UnequalError):
            agreed({"a": other, "b": other})


def test_records_that_do_not_arrive_are_missed() -> None:
    """Of stages that only pass on, the last one's count and sum have to be those of the source: neither a batch less
    nor one twice for another is taken for all of them."""
    work = Work(1_000, batch=100, passes=3)
    source, last = stage("generator", work), stage("pass3", work)
    batches = [batch.copy() for batch in given(source)]
    for chosen, good in ((batches, True), (batches[::2], False), ([*batches[:-1], batches[0]], False)):
        last.restore(None)
        for batch in chosen:
            last.process(batch)
        found = last.query(TALLY, {})
        reached = Reached(found["rows"], found["total"])
        if good:
            assert reached == wanted(1_000, 100, 16)
            arrived("x", work, reached)
            continue
        with pytest.raises(UnequalError):
            arrived("x", work, reached)


def test_the_records_of_the_chain_are_counted() -> None:
    """Where the figure is an error, which says nothing of how many there were, their number has to be right as well."""
    arrived("x", Work(1_000), Reached(1_000, 0.5))
    with pytest.raises(UnequalError):
        arrived("x", Work(1_000), Reached(999, 0.5))


def test_a_tally_goes_on_from_its_snapshot() -> None:
    """Batches behind a restore are counted and added to those before it."""
    work = Work(1_000, batch=100, passes=1)
    one, other = stage("pass1", work), stage("pass1", work)
    for place, batch in enumerate(given(stage("generator", work))):
        (one if place < 5 else other).process(batch)
        if place == 4:
            other.restore(one.snapshot())
    found = other.query(TALLY, {})
    assert Reached(found["rows"], found["total"]) == wanted(1_000, 100, 16)


@pytest.mark.parametrize("left", [[0, 2], [0, 1], [0, 1, 1, 2], [1, 0, 2], []])
def test_a_latency_is_of_all_records(left: list[int]) -> None:
    """The evaluator's log must have every batch once and in its place."""
    log = np.array([[0, 2, 0, 1], [2, 2, 0, 1], [4, 2, 0, 1]], dtype=np.int64)
    complete("x", log, 6)
    with pytest.raises(UnequalError):
        complete("x", log[left], 6)


@pytest.mark.parametrize(
    ("positions", "found"),
    [([3, 4, 5], (0, 0)), ([3, 5], (1, 0)), ([4, 5], (1, 0)), ([3, 3, 4, 5], (0, 1)), ([3, 4, 2, 5], (0, 1))],
)
def test_what_a_kill_has_cost_is_counted(tmp_path: Path, positions: list[int], found: tuple[int, int]) -> None:
    """Each look at the sink counts the positions that are missing and the rows too many since the last one, a row
    again that the last one had seen included."""
    file, kept = tmp_path / "records.sqlite", Kept()
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("CREATE TABLE committed_records (id INTEGER PRIMARY KEY, position INTEGER)")
        db.executemany("INSERT INTO committed_records (position) VALUES (?)", [(n,) for n in range(3)])
        assert kept.look(file) == (0, 0)
        with pytest.raises(AssertionError):
            kept.look(file)
        db.executemany("INSERT INTO committed_records (position) VALUES (?)", [(n,) for n in positions])
    assert kept.look(file) == found
    assert kept.rows == 3 + len(positions)


def test_an_impossible_path_is_told_at_once(tmp_path: Path) -> None:
    """What could not be written at the end is refused before anything is measured, and a path that is good is left as
    it was."""
    file = tmp_path / "file"
    file.write_text("no marks")
    for report, page in ((file / "x.json", None), (tmp_path, None), (None, file), (None, tmp_path / "none")):
        with pytest.raises((OSError, ValueError)):
            run.writable(report, page)
    with pytest.raises(SystemExit):
        run.main(["--quick", "--only", "idle", "--json", str(tmp_path)])
    run.writable(tmp_path / "sub" / "x.json", None)
    assert not list((tmp_path / "sub").iterdir())
    file.write_text(f"a\n{run.BEGIN}\nb\n{run.END}\nc\n")
    before = file.read_text()
    run.writable(None, file)
    assert file.read_text() == before


def test_parts_without_targets_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """'0 of 0 kept' is said of nothing."""
    assert run.main(["--quick", "--only", "idle"]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "No targets in these parts."


def test_half_of_the_maximum_needs_the_head_to_head() -> None:
    """Where nobody's maximum is known there is no table of its half; where it is, there is."""
    bench, title = Bench(argparse.Namespace(quick=True, long=False, pathway=None), Contestants({})), "### Half"
    timely.latencies(bench)
    assert title not in bench.page.text()
    assert title in _bench().page.text()


def _at(rate: float) -> list[Ran]:
    return [Ran(1_000, 0.5, 1_000 / rate, 1.0, {}, 0, 0.0)]


def test_who_is_ahead_by_value_is_named() -> None:
    """The sentence under a sweep names every peer that is faster by value, and where."""
    found = {"64": {"streampipe": _at(100.0), "zmq": _at(90.0)}, "256": {"streampipe": _at(100.0), "zmq": _at(107.0)}}
    assert sweeps.ahead("columns", found).endswith("ZeroMQ at 256 (1.07 times).")
    del found["256"]
    assert "nobody" in sweeps.ahead("columns", found)
