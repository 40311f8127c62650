"""The law of every sink that can take back: it shows exactly the rows of committed epochs, whatever happened."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streampiped.errors import StateError, StorageError
from streampiped.records import Batch
from streampiped.sinks import parquet_merge
from streampiped.sinks.base import Sink
from support.sinks import KINDS, Row
from support.streams import Events, numbered


def killed(directory: Path) -> Path:
    """A copy of a sink's files at this instant. SQLite's shared memory (-shm) is not in it: it is made anew from the
    WAL by the first process that opens the database."""
    copy = Path(tempfile.mkdtemp(prefix="streampipe-sink-"))
    shutil.copytree(directory, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
    return copy


class SinkMachine(RuleBasedStateMachine):
    """Batches, barriers, commits, crashes and rollbacks in any order; a list says what must be visible."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="streampipe-sink-"))
        self.make, self.seen = KINDS[self.kind]
        self.sink: Sink = self.make(self.directory)
        self.sink.rollback(None)
        self.written: list[Row] = []  # since the beginning, as far as not taken back
        self.epochs: dict[int, int] = {}  # prepared: epoch -> rows
        self.committed: int | None = None  # the manifest's word
        self.visible: int = 0
        self.epoch = 0

    @initialize()
    def begin(self) -> None:
        self.sink.rollback(None)

    @rule(rows=st.integers(0, 5), wide=st.booleans())
    def batch(self, rows: int, wide: bool) -> None:
        start = len(self.written)
        made: Batch = numbered(start, rows, **({"X": [float(rows)] * rows} if wide else {}))
        self.sink.write(made)
        self.written += [("s", start + i, float(start + i)) for i in range(rows)]

    @rule(burned=st.integers(1, 3))
    def prepare(self, burned: int) -> None:
        self.epoch += burned
        self.sink.prepare(self.epoch)
        self.epochs[self.epoch] = len(self.written)

    @precondition(lambda self: self.epochs)
    @rule(again=st.booleans())
    def commit(self, again: bool) -> None:
        self.committed = max(self.epochs)
        for _ in range(1 + again):
            self.sink.commit(self.committed)
        self.visible = self.epochs[self.committed]

    @precondition(lambda self: self.epochs)
    @rule()
    def manifest_without_commit(self) -> None:
        """The manifest is written, and the crash comes before any sink is told."""
        self.committed = max(self.epochs)
        self.crash()

    @rule()
    def crash(self) -> None:
        """A new process on the files as a SIGKILL leaves them: nothing was closed, locks are gone."""
        old, self.directory = self.directory, killed(self.directory)
        self.sink.close()
        shutil.rmtree(old)
        self.sink = self.make(self.directory)
        self.restore(self.committed)

    @rule(rows=st.integers(1, 5))
    def whole_epoch(self, rows: int) -> None:
        """The ordinary course, as one step: random steps alone seldom come so far."""
        self.batch(rows, False)
        self.prepare(1)
        self.commit(False)

    @rule(rows=st.integers(1, 5), killed=st.booleans())
    def lost_epoch(self, rows: int, killed: bool) -> None:
        """Prepared by this sink, and then never committed: some other stage was not in time."""
        self.batch(rows, False)
        self.prepare(1)
        self.batch(rows, False)
        if killed:
            self.crash()
        else:
            self.reset()

    @rule()
    def reset(self) -> None:
        """The same process goes back."""
        self.restore(self.committed)

    @rule(back=st.integers(1, 3))
    def ask_for_what_is_gone(self, back: int) -> None:
        """An epoch that was never prepared, between others or taken back since, is refused and nothing is touched."""
        gone = self.epoch - back
        if gone >= 0 and gone not in self.epochs and self.epoch:
            with pytest.raises(StateError, match=f"exactly the rows of epoch {gone}"):
                self.sink.rollback(gone)
            self.reset()

    @rule(data=st.data())
    def fall_back(self, data: Any) -> None:
        """The newest snapshot is damaged: an older retained epoch, or the beginning."""
        known = [epoch for epoch in self.epochs if self.committed is not None and epoch <= self.committed]
        self.committed = data.draw(st.sampled_from([None, *known]))
        self.restore(self.committed)

    def restore(self, epoch: int | None) -> None:
        self.epochs = {e: rows for e, rows in self.epochs.items() if epoch is not None and e <= epoch}
        self.visible = self.epochs[epoch] if epoch is not None else 0
        del self.written[self.visible :]
        for _ in range(2):
            self.sink.rollback(epoch)
            self.shows_exactly_the_committed_rows()

    @invariant()
    def shows_exactly_the_committed_rows(self) -> None:
        assert self.seen(self.directory) == self.written[: self.visible]

    def teardown(self) -> None:
        self.sink.close()
        shutil.rmtree(self.directory)


class SqliteMachine(SinkMachine):
    kind = "sqlite"


class JsonlMachine(SinkMachine):
    kind = "jsonl"


class ParquetMachine(SinkMachine):
    kind = "parquet"


class MergingMachine(SinkMachine):
    """Files that no rollback needs are merged as soon as there are three: only the epochs that the pipeline retains can
    be gone back to."""

    kind = "merged"
    RETAINED = 3

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(parquet_merge, "MERGE_FILES", 3)
        super().__init__()
        self.commits: list[int] = []

    @rule(again=st.booleans())
    @precondition(lambda self: self.epochs)
    def commit(self, again: bool) -> None:
        super().commit(again)
        if self.committed not in self.commits:
            self.commits.append(self.committed or 0)

    @rule(count=st.integers(4, 9))
    def undisturbed(self, count: int) -> None:
        """Nothing is merged before as many epochs as are retained were committed behind the last rollback."""
        for _ in range(count):
            self.whole_epoch(1)

    @rule(data=st.data())
    def fall_back(self, data: Any) -> None:
        self.commits = [epoch for epoch in self.commits if epoch in self.epochs][-self.RETAINED :]
        self.committed = data.draw(st.sampled_from([None, *self.commits]))
        self.restore(self.committed)

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # no shrinking: with fsync in every step it takes minutes
QUICK = settings(max_examples=20, stateful_step_count=25, deadline=None, phases=PHASES)
TestSqliteMachine = pytest.mark.system(SqliteMachine.TestCase)
TestSqliteMachine.settings = QUICK
TestJsonlMachine = pytest.mark.system(JsonlMachine.TestCase)
TestJsonlMachine.settings = QUICK
TestParquetMachine = pytest.mark.system(ParquetMachine.TestCase)
TestParquetMachine.settings = QUICK
TestMergingMachine = pytest.mark.system(MergingMachine.TestCase)
TestMergingMachine.settings = QUICK


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Sink, Any, Events]]:
    make, seen = KINDS[request.param]
    events = Events()
    sink: Sink = make(tmp_path, events)
    sink.rollback(None)
    yield sink, lambda: seen(tmp_path), events
    sink.close()


def test_prepared_rows_survive_a_kill_but_stay_invisible(made: tuple[Sink, Any, Events], tmp_path: Path) -> None:
    """What was prepared is in the files, what was only written may not be, and neither is shown before `commit`."""
    sink, seen, _ = made
    sink.write(numbered(0, 3))
    sink.prepare(1)
    sink.write(numbered(3, 3))
    assert seen() == []
    found = killed(tmp_path)
    make, seen_in = KINDS[sink.summary()["sink"]]
    successor: Sink = make(found)
    successor.rollback(1)
    assert [position for _, position, _ in seen_in(found)] == [0, 1, 2]
    successor.close()
    shutil.rmtree(found)


def test_a_lost_file_is_told(made: tuple[Sink, Any, Events]) -> None:
    """A sink that is asked for an epoch it never saw goes on from what it has, and says so loudly."""
    sink, seen, events = made
    sink.write(numbered(0, 3))
    sink.prepare(4)
    sink.rollback(4)
    assert events.names() == []
    sink.rollback(9)
    assert events.names() == ["sink_incomplete"]
    assert len(seen()) == 3


def test_going_back_is_exact_or_refused(made: tuple[Sink, Any, Events], tmp_path: Path) -> None:
    """An epoch that was taken back cannot be asked for again: it is refused with what there is, and nothing changes."""
    sink, seen, events = made
    for number in (2, 4, 6):
        sink.write(numbered(number, 1))
        sink.prepare(number)
        sink.commit(number)
    sink.rollback(4)
    for gone in (1, 3, 5, 6):
        with pytest.raises(StateError, match=r"can go to epochs 2 to 4.*streampiped restore --from"):
            sink.rollback(gone)
        with pytest.raises(StateError, match="must be written again"):
            sink.write(numbered(9, 1))
        assert [position for _, position, _ in seen()] == [2, 4]
    sink.rollback(None)
    with pytest.raises(StateError, match="no epoch left"):
        sink.rollback(4)
    sink.rollback(None)
    assert events.names() == []
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    sink.close()
    sink.rollback(4)
    assert events.names() == ["sink_incomplete"]
    assert seen() == []


def test_summary_says_where_it_stands(made: tuple[Sink, Any, Events]) -> None:
    """The summary tells the committed epoch, before and after the first one."""
    sink, _, _ = made
    assert sink.summary()["epoch"] is None
    sink.write(numbered(0, 3))
    sink.prepare(2)
    sink.commit(2)
    assert sink.summary()["epoch"] == 2


def test_a_sink_that_failed_refuses_until_rolled_back(tmp_path: Path) -> None:
    """After a write that failed nothing can be prepared: a hole in the rows must not become part of an epoch."""
    directory = tmp_path / "not-yet"
    for make, _ in KINDS.values():
        sink = make(directory)
        with pytest.raises(StorageError, match="not-yet"):
            sink.write(numbered(0, 3))
        directory.mkdir()
        with pytest.raises(StorageError, match="must be written again"):
            sink.prepare(1)
        sink.rollback(None)
        sink.write(numbered(0, 3))
        sink.prepare(1)
        sink.close()
        shutil.rmtree(directory)
