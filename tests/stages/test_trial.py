"""Suspect batches tried in forks: who is guilty, what is said of it, and that nothing of a trial remains."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest

from streampiped import trial
from streampiped.errors import FrameError, OptionError, SchemaError, StorageError
from streampiped.records import Batch, Span
from streampiped.runtime import throwaway
from streampiped.runtime.linux import children
from streampiped.saver import Saver
from streampiped.skips import Skips, overlaps
from streampiped.stages.base import SinkStage, Stage, StageContext, StageOptions
from streampiped.stages.consumer import Consumer, ConsumerOptions
from streampiped.trial import Verdict, judge
from support.streams import Events, numbered

CPU_S = 0.1  # an innocent fork takes a few milliseconds on the CPU, however busy the machine is
WALL_S = 0.4
HANG_S = 0.5
SEGFAULT, RAISE, LOOP, SLEEP, LEAVE, KILL, CHATTER = range(1, 8)
SLEEPS = signal.pause  # for ever, in a child that nobody signals


class Fragile(Stage):
    """Dies of what the column `harm` says; of `pair` when both of its rows have been seen."""

    def __init__(self) -> None:
        super().__init__(StageOptions(), StageContext(name="fragile"))
        self.seen = 0
        self.pair: set[float] = set()
        self.batches: list[tuple[int, tuple[Span, ...]]] = []

    def process(self, batch: Batch) -> Batch | None:
        self.seen += batch.rows
        self.batches.append((batch.sequence, batch.spans))
        for harm, pair in zip(batch["harm"], batch["pair"], strict=True):
            self._suffer(harm)
            self.pair |= {pair} - {0.0}
            if len(self.pair) == 2:
                raise ValueError("these two")
        return batch

    def _suffer(self, harm: float) -> None:
        match harm:
            case 1.0:
                ctypes.string_at(0)
            case 2.0:
                raise ValueError("this one")
            case 3.0:
                while True:
                    pass
            case 4.0:
                SLEEPS()
            case 5.0:
                os._exit(0)
            case 6.0:
                os.kill(os.getpid(), signal.SIGKILL)
            case 7.0:
                while True:
                    os.write(2, b"x" * 4096)


def batch(rows: int = 100, harm: dict[int, int] | None = None, pair: tuple[int, ...] = ()) -> Batch:
    """Rows 0 to 59 are positions 1000 to 1059 of `a`, the others 5 and after of `b`."""
    columns = {"x": np.arange(rows, dtype=np.float64), "harm": np.zeros(rows), "pair": np.zeros(rows)}
    for row, kind in (harm or {}).items():
        columns["harm"][row] = kind
    for number, row in enumerate(pair, 1):
        columns["pair"][row] = number
    return Batch.build(columns, sequence=7, spans=(Span("a", 1000, 60), Span("b", 5, rows - 60)))


def judged(stage: Stage, suspect: Batch, ticks: list[float] | None = None) -> Verdict:
    def tick() -> None:
        if ticks is not None:
            ticks.append(time.monotonic())

    limits = {"cpu_limit": CPU_S, "wall_limit": WALL_S, "hang_limit": HANG_S}
    return judge(stage, suspect, **limits, tick=tick, forget_outside=lambda: None)


def guilty(suspect: Batch, stage: Stage | None = None) -> list[int]:
    return [row.index for row in judged(stage or Fragile(), suspect).guilty]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    """No trial leaves a child or a descriptor behind."""
    before = sorted(os.listdir("/proc/self/fd"))
    family = children()
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert children() == family


def test_an_innocent_batch_is_let_go() -> None:
    """A batch that a fork survives is innocent after one fork, and the stage has not seen it."""
    stage = Fragile()
    verdict = judged(stage, batch())
    assert (verdict.guilty, verdict.forks, stage.seen) == ((), 1, 0)


@pytest.mark.parametrize(
    ("harm", "manner", "reason", "traceback"),
    [
        (SEGFAULT, "crash", "died of SIGSEGV", "in _suffer"),
        (RAISE, "exception", "ValueError: this one", 'raise ValueError("this one")'),
        (LOOP, "loop", "still running after", "in _suffer"),
        (SLEEP, "loop", "still waiting", ""),
        (LEAVE, "crash", "left by itself with exit code 0", ""),
        (KILL, "kill", "killed by SIGKILL", ""),
        (CHATTER, "loop", "still ", ""),
    ],
)
def test_a_guilty_row_is_found(harm: int, manner: str, reason: str, traceback: str) -> None:
    """The one row of a batch that no process survives is named, with how, why and where."""
    (row,) = judged(Fragile(), batch(harm={77: harm})).guilty
    assert (row.index, row.source, row.position, row.manner) == (77, "b", 22, manner)
    assert reason in row.reason
    assert traceback in row.traceback
    assert len(row.traceback.encode()) <= 16 << 10
    assert msgpack.unpackb(row.record) == {"x": 77.0, "harm": float(harm), "pair": 0.0}


@pytest.mark.parametrize("rows", [(0, 99), (3, 4), (40, 60), (98, 99)])
def test_two_guilty_rows_are_both_found(rows: tuple[int, int]) -> None:
    """Two rows that kill independently, in different manners, are found wherever they stand."""
    assert guilty(batch(harm={rows[0]: SEGFAULT, rows[1]: RAISE})) == list(rows)


@pytest.mark.parametrize("rows", [(0, 99), (10, 11), (24, 25)])
def test_rows_guilty_together_are_both_found(rows: tuple[int, int]) -> None:
    """Rows that kill only together, and a single one beside them, are found; the rest is innocent."""
    assert guilty(batch(pair=rows)) == list(rows)
    assert guilty(batch(pair=rows, harm={50: RAISE})) == sorted((*rows, 50))


def test_a_batch_of_one_row() -> None:
    """A single row is guilty or innocent as any other, and an empty batch may be guilty of nothing."""
    one = numbered(9, 1, harm=[float(RAISE)], pair=[0.0])
    assert [(row.source, row.position) for row in judged(Fragile(), one).guilty] == [("s", 9)]
    assert guilty(numbered(9, 1, harm=[0.0], pair=[0.0])) == []
    assert guilty(numbered(9, 0, harm=np.zeros(0), pair=np.zeros(0))) == []


def test_the_stage_is_left_as_it_was() -> None:
    """Whatever the forks did with the stage, it has the state from before the trial."""
    stage = Fragile()
    stage.process(batch())
    guilty(batch(harm={3: RAISE}), stage)
    assert (stage.seen, stage.pair, len(stage.batches)) == (100, set(), 1)


def test_parts_keep_sequence_and_positions(tmp_path: Path) -> None:
    """A part of a batch is tried with the batch's number and its rows' positions."""

    class Noting(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            with (tmp_path / "seen").open("a") as file:
                file.write(f"{batch.sequence} {batch.spans[0].source} {batch.spans[0].start} {batch.rows}\n")
            return super().process(batch)

    assert guilty(batch(harm={99: RAISE}), Noting()) == [99]
    seen = (tmp_path / "seen").read_text().splitlines()
    assert {"7 a 1000 100", "7 a 1000 50", "7 a 1050 50", "7 b 44 1", "7 a 1000 99"} <= set(seen)


def test_the_outside_is_forgotten_first(tmp_path: Path) -> None:
    """`forget_outside` runs in each child before the stage does, and never in the parent."""
    stage = Fragile()
    muted: list[int] = []

    class Speaking(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            assert muted
            return batch

    verdict = judge(
        Speaking(),
        batch(),
        cpu_limit=CPU_S,
        wall_limit=WALL_S,
        hang_limit=HANG_S,
        tick=lambda: None,
        forget_outside=lambda: muted.append(1),
    )
    assert verdict.guilty == ()
    assert not muted
    assert stage.seen == 0


def test_a_kill_from_outside_condemns_nobody(tmp_path: Path) -> None:
    """A fork that is killed once, as the kernel does when memory is short, is tried again."""

    class Unlucky(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            if not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

    verdict = judged(Unlucky(), batch())
    assert (verdict.guilty, verdict.forks) == ((), 2)


def test_a_batch_that_only_takes_long_is_innocent() -> None:
    """A batch over the limit whose halves pass is tried with the whole limit once more before anybody is guilty."""
    stage = Fragile()
    spent: list[int] = []

    class Slow(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            until = time.process_time() + 0.003 * batch.rows  # 0.3 s for all, 0.15 for a half
            while time.process_time() < until:
                spent.append(0)
                spent.clear()
            return batch

    limits = {"cpu_limit": 0.22, "wall_limit": 5.0, "hang_limit": 0.0}
    verdict = judge(Slow(), batch(), **limits, tick=lambda: None, forget_outside=lambda: None)
    assert verdict.guilty == ()
    assert stage.seen == 0


def test_what_a_row_started_ends_with_it(tmp_path: Path) -> None:
    """A process that a fork left behind is killed with its group."""

    class Parent(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            pid = os.fork()
            if not pid:
                SLEEPS()
            (tmp_path / "pid").write_text(str(pid))
            return batch

    assert judged(Parent(), batch()).guilty == ()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    try:
        while _state(pid) not in "ZX":  # its new parent reaps it
            assert time.monotonic() < deadline
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def test_many_guilty_rows_are_found_alone() -> None:
    """When a tenth of the rows is guilty, each of them is found, and nobody else."""
    harm = dict.fromkeys(range(9, 300, 10), RAISE)
    assert guilty(batch(300, harm=harm)) == sorted(harm)


def test_what_there_is_no_time_for_is_left_to_the_next_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """When forks run out, those that were found alone are guilty, and nobody else; perhaps nobody."""
    harm = dict.fromkeys(range(0, 50, 3), RAISE)
    monkeypatch.setattr(trial, "FORKS_MAX", 20)
    verdict = judged(Fragile(), batch(harm=harm))
    assert verdict.guilty
    assert {row.index for row in verdict.guilty} < set(harm)
    assert verdict.forks <= 30
    monkeypatch.setattr(trial, "FORKS_MAX", 4)
    assert {row.index for row in judged(Fragile(), batch(harm=harm)).guilty} <= set(harm)


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When time runs out before anybody is found nobody is guilty; and the watcher is told all the while, often enough
    for any `hang_timeout`."""
    monkeypatch.setattr(trial, "SECONDS_FIRST_MAX", 0.1)
    ticks: list[float] = []
    began = time.monotonic()
    verdict = judged(Fragile(), batch(harm={5: SLEEP}), ticks)
    assert verdict.guilty == ()
    assert verdict.seconds < 0.1 + 4 * HANG_S
    moments = np.diff([began, *ticks, time.monotonic()])
    assert np.median(moments) < 1.5 * throwaway.TICK_S


def test_every_trial_finds_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait for ever, spread out so that every large part has one, are found one by one by trials that have
    no time for more, and nobody beside them."""
    monkeypatch.setattr(trial, "SECONDS_MAX", 0.0)
    left = dict.fromkeys((7, 37, 67, 97), SLEEP)
    for _ in range(4):
        (row,) = guilty(batch(harm=left))
        assert left.pop(row)
    assert guilty(batch(harm=left)) == []


class Heavy(Fragile):
    """Takes longer than CPU_S whatever it is given, as a refit would."""

    SECONDS = 2 * CPU_S

    def process(self, batch: Batch) -> Batch | None:
        until = time.process_time() + self.SECONDS
        while time.process_time() < until:
            pass
        return super().process(batch)


def test_slow_is_not_looping() -> None:
    """Where every call takes longer than the limit of the search nobody is guilty for that; a row that is guilty for
    something else, or takes as long as a process that hangs, is found, and nobody beside it."""
    assert guilty(batch(), Heavy()) == []
    assert guilty(batch(8 + 60, harm={64: RAISE}), Heavy()) == [64]
    assert guilty(batch(8 + 60, harm={61: LOOP}), Heavy()) == [61]


class Misconfigured(Fragile):
    """Has an option that names a column which the stream has not; with `rows` only where there are rows."""

    def __init__(self, rows: int = 0, kind: type[Exception] = OptionError) -> None:
        super().__init__()
        self.least = rows
        self.kind = kind

    def process(self, batch: Batch) -> Batch | None:
        if batch.rows >= self.least:
            raise self.kind("no column 'yy'")
        return super().process(batch)


@pytest.mark.parametrize("kind", [OptionError, SchemaError])
def test_an_impossible_option_is_no_rows_fault(kind: type[Exception]) -> None:
    """What a stage says of its options, or a link of its columns, whatever rows it is given, condemns none of them;
    what it says of rows alone does."""
    verdict = judged(Misconfigured(kind=kind), batch())
    assert (verdict.guilty, verdict.forks) == ((), 2)
    assert guilty(batch(62), Misconfigured(rows=1)) == list(range(62))


def test_where_no_row_is_left_none_is_guilty() -> None:
    """A batch whose rows were all put aside before condemns nobody, though the stage raises at it."""
    assert guilty(numbered(9, 0, harm=np.zeros(0), pair=np.zeros(0)), Misconfigured()) == []


def test_where_every_row_loops_none_is_guilty() -> None:
    """A stage that hangs at whatever it is given is the stage's fault; of a single row nobody can tell."""

    class Stuck(Heavy):
        SECONDS = 1e6

    assert guilty(batch(64), Stuck()) == []
    assert guilty(numbered(9, 1, harm=[0.0], pair=[0.0]), Stuck()) == [0]


def test_signs_of_life_begin_the_limits_anew() -> None:
    """A row whose work takes longer than a hang, and that says so meanwhile, is innocent: in life it lives."""

    class Refits(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            for _ in range(8):
                until = time.process_time() + HANG_S / 4
                while time.process_time() < until:
                    pass
                throwaway.alive()
            return super().process(batch)

    assert guilty(batch(harm={3: RAISE})) == [3]
    assert guilty(batch(), Refits()) == []


def test_a_full_disk_is_no_verdict() -> None:
    """What is no death in life condemns nobody: StorageError ends the trial, whoever is guilty beside it."""

    class Full(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            if batch.rows < 60:
                raise StorageError("/mnt/full: no space left on device")
            return super().process(batch)

    with pytest.raises(StorageError, match="no space left on device"):
        judged(Full(), batch(harm={3: RAISE}))


def test_a_result_that_makes_no_frame_is_found() -> None:
    """A row whose result cannot be sent is guilty as one that raises; where only all of them together are too long
    nobody is."""

    class Polite(Fragile):
        def process(self, batch: Batch) -> Batch | None:
            return batch

    limits = {"cpu_limit": CPU_S, "wall_limit": WALL_S, "hang_limit": HANG_S}
    for room, harm in ((1000, {33: RAISE}), (60, {})):

        def encode(result: Batch, room: int = room) -> None:
            if (result["harm"] == RAISE).any() or result.rows > room:
                raise FrameError("too long")

        verdict = judge(
            Polite(), batch(harm=harm), **limits, tick=lambda: None, forget_outside=lambda: None, encode=encode
        )
        assert [row.index for row in verdict.guilty] == list(harm)


def test_waiting_for_a_slow_disk_is_no_hang(tmp_path: Path) -> None:
    """Before a trial the thread that waits for fsync is waited for, and whoever watches is told all the while."""
    released = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 2:
            released.set()

    plan = SimpleNamespace(paths=SimpleNamespace(state=str(tmp_path)))
    spec = SimpleNamespace(name="fragile", klass="x:Fragile")
    saver = Saver(SimpleNamespace(loop=None, tick=tick, plan=plan, spec=spec), Fragile())  # type: ignore[arg-type]  # a fake
    saver._thread.submit(released.wait, 20.0)  # a disk that is slow
    saver.join()
    saver.close()
    assert len(ticks) >= 2


# --- sinks --------------------------------------------------------------------------------------------------------


def consumer(directory: Path, **options: Any) -> Consumer:
    context = StageContext(name="consumer", directory=directory, emit=Events())
    made = Consumer(ConsumerOptions.model_validate(options), context)
    made.rollback(None)
    made.restore(None)
    return made


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith("-shm")]


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "parquet", "none"])
def test_a_sink_is_not_touched(tmp_path: Path, kind: str) -> None:
    """Rows tried on a sink with an epoch half written: its files keep every byte, and it goes on."""
    stage = consumer(tmp_path, sink={"type": kind})
    stage.process(numbered(0, 500))
    stage.prepare(1)
    stage.commit(1)
    stage.process(numbered(500, 500))
    files = {path: path.read_bytes() for path in _files(tmp_path)}
    verdict = judged(stage, numbered(1000, 500, text=["word"] * 500))
    assert verdict.guilty == ()
    assert {path: path.read_bytes() for path in files} == files
    assert set(_files(tmp_path)) == set(files)
    stage.process(numbered(1000, 500))
    stage.prepare(2)
    stage.commit(2)
    sink = stage.query("summary", {})["sink"]
    assert sink.get("rows", 1500) == 1500
    stage.close()


def test_a_row_that_the_database_refuses_is_found(tmp_path: Path) -> None:
    """The double does the sink's own work: a text that SQLite cannot take is guilty there too."""
    stage = consumer(tmp_path)
    texts = ["fine"] * 64
    texts[20] = "\ud800"  # half of a character: no UTF-8
    stage.process(numbered(0, 1, text=["a"]))
    (row,) = judged(stage, numbered(1, 64, text=texts)).guilty
    assert (row.position, row.manner) == (21, "exception")
    assert "UnicodeEncodeError" in row.reason
    stage.close()


def test_a_sink_that_cannot_be_isolated_is_not_tried() -> None:
    """Without `isolate` no row reaches the sink, and the whole batch is guilty."""

    class Outside(SinkStage):
        def process(self, batch: Batch) -> Batch | None:
            raise AssertionError("reached")

    verdict = judged(Outside(StageOptions(), StageContext(name="outside")), numbered(3, 4))
    assert [row.position for row in verdict.guilty] == [3, 4, 5, 6]
    assert {row.reason for row in verdict.guilty} == {"this sink cannot be tried with single rows"}
    assert not verdict.tried
    assert judged(Fragile(), numbered(3, 4, harm=[0.0] * 4, pair=[0.0] * 4)).tried


def test_a_sink_by_its_methods_alone_is_not_tried_either() -> None:
    """Whoever offers a sink's methods without the base class, and has no `isolate`, is not reached from a fork."""

    class Outside:
        def process(self, batch: Batch) -> Batch | None:
            raise AssertionError("reached")

        def prepare(self, epoch: int) -> None: ...

        commit = rollback = prepare

    verdict = judged(Outside(), numbered(3, 4))  # type: ignore[arg-type]  # that is the point
    assert (len(verdict.guilty), verdict.tried) == (4, False)


# --- records and skips --------------------------------------------------------------------------------------------


def test_a_record_is_whole() -> None:
    """Every value of a row is in its record, however long: a replay gives back what came."""
    row = Batch.build({"x": [np.nan], "n": np.array([1 << 62]), "t": ["word"], "none": [None]})
    found = msgpack.unpackb(trial.record_of(row, 0))
    assert np.isnan(found.pop("x"))
    assert found == {"n": 1 << 62, "t": "word", "none": None}
    huge = Batch.build({"x": [1.0], "t": ["a" * 10_000_000], "u": ["ü" * 5000]})
    assert msgpack.unpackb(trial.record_of(huge, 0)) == {"x": 1.0, "t": "a" * 10_000_000, "u": "ü" * 5000}


def test_skips_leave_out_exactly_their_rows() -> None:
    """Positions are looked up by source and attempt; a batch without any is told by None."""
    suspect = batch()
    found = {("a", 0): [3, 1000, 1059, 1060], ("b", 0): [4, 5, 44, 45], ("b", 1): [6], ("c", 0): [1]}
    skips = Skips({("", *key): positions for key, positions in found.items()})
    keep = skips.keep(suspect)
    assert keep is not None
    assert np.flatnonzero(~keep).tolist() == [0, 59, 60, 99]
    again = skips.keep(suspect, attempt=1)
    assert again is not None
    assert np.flatnonzero(~again).tolist() == [61]
    assert skips.keep(numbered(0, 100)) is None
    assert Skips({("", "a", 0): [999, 1060]}).keep(suspect) is None
    assert Skips({("", "a", 0): []}).keep(suspect) is None
    assert (len(skips), len(Skips({}))) == (10, 0)


def test_overlaps_is_told_by_source_and_position() -> None:
    """A batch overlaps a suspect span that shares at least one row with one of its own."""
    spans = batch().spans
    assert overlaps(spans, [["", "a", 0, 1001]])
    assert overlaps(spans, [["", "c", 0, 9999], ["", "b", 44, 1]])
    others = (("a", 0, 1000), ("a", 1060, 5), ("b", 45, 5), ("b", 0, 5), ("c", 1000, 60))
    assert not overlaps(spans, [["", *other] for other in others])
    assert not overlaps(spans, [])


# --- rows that have come by different ways ------------------------------------------------------------------------


def two_ways() -> Batch:
    """Records 5 to 7 of `a` over the left, and the same over the right."""
    return Batch.build({"x": np.arange(6.0)}, spans=(Span("a", 5, 3, "left"), Span("a", 5, 3, "right")))


@pytest.mark.parametrize(
    ("skips", "gone"),
    [
        ({("left", "a", 0): [6]}, [1]),
        ({("right", "a", 0): [6]}, [4]),
        ({("right", "a", 0): [6], ("left", "a", 0): [7]}, [2, 4]),
        ({("", "a", 0): [6]}, [1, 4]),
        ({("", "a", 0): [6], ("right", "a", 0): [6, 7]}, [1, 4, 5]),
    ],
)
def test_skips_are_of_one_way(skips: dict[tuple[str, str, int], list[int]], gone: list[int]) -> None:
    """What was put aside by one way is left out of it alone; what was put aside by none in particular, of all."""
    keep = Skips(skips).keep(two_ways())
    assert keep is not None
    assert np.flatnonzero(~keep).tolist() == gone
    assert Skips({("other", "a", 0): [6]}).keep(two_ways()) is None


def test_suspects_are_of_one_way() -> None:
    """A batch overlaps a suspect span of its own way only."""
    left, right = two_ways().spans
    assert overlaps([left], [["left", "a", 6, 1]])
    assert not overlaps([right], [["left", "a", 6, 1]])


def test_guilty_row_has_its_way() -> None:
    """Parts of a batch keep the way of their rows, and so does the guilty one."""
    columns = {"harm": [0.0, 0.0, 0.0, 0.0, float(RAISE), 0.0], "pair": np.zeros(6)}
    (row,) = judged(Fragile(), Batch.build(columns, spans=two_ways().spans)).guilty
    assert (row.via, row.source, row.position) == ("right", "a", 6)
