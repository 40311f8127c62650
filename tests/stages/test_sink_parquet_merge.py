"""Small Parquet files become larger ones: no reader sees a row twice or misses one, whenever it looks."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from streampiped.records import Batch
from streampiped.sinks import parquet_files, parquet_merge
from streampiped.sinks.parquet import MERGE_BYTES, ParquetSink
from streampiped.sinks.parquet_files import Rows
from streampiped.sinks.parquet_merge import FILE_COST, MERGE_FILES, MERGED_BYTES, File, choose
from streampiped.sinks.parquet_options import ParquetOptions
from support.sinks import seen_in_parquet
from support.streams import Events, numbered

RETAINED = 3


def sink_in(directory: Path, events: Events | None = None) -> ParquetSink:
    made = ParquetSink(ParquetOptions(merge=True), directory, events or Events(), RETAINED)
    made.rollback(None)
    return made


def epoch(sink: ParquetSink, number: int, *batches: Batch) -> None:
    for batch in batches:
        sink.write(batch)
    sink.prepare(number)
    sink.commit(number)


def data(directory: Path) -> Path:
    return directory / "records.parquet" / "data"


def sizes(directory: Path) -> list[int]:
    """Rows of each file, in order."""
    return [pq.read_metadata(path).num_rows for path in sorted(data(directory).iterdir())]


def positions(directory: Path) -> list[int]:
    return [position for _, position, _ in seen_in_parquet(directory)]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_merge, "MERGE_FILES", 3)


def sized(*megabytes: int) -> list[File]:
    return [File(Rows(number, number + 1), size << 20) for number, size in enumerate(megabytes)]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ([], []),
        ([0] * (MERGE_FILES - 1), []),
        ([0] * MERGE_FILES, range(MERGE_FILES)),
        ([20, 20, 20], []),
        ([20, 20, 20, 20], range(4)),
        ([20, 20, 20, 20, 20], range(4)),
        ([40, *[1] * 39], []),
        ([40, *[1] * 40], range(25)),
        ([40, *[0] * MERGE_FILES], range(1, MERGE_FILES + 1)),
        ([64, *[0] * (MERGE_FILES - 1)], []),
        ([64, *[0] * MERGE_FILES], range(1, MERGE_FILES + 1)),
        ([1, 64, 64, 64], []),
        ([63, 1], []),
        ([63], []),
        ([0] * 2000, range(4 * MERGE_FILES)),
        ([60, *[0] * 300, 40, 40], range(1, 4 * MERGE_FILES + 1)),
    ],
)
def test_which_are_merged(files: list[int], chosen: Any) -> None:
    """Neighbours, up to the newest that may be, and behind the last one that is large enough: many of them, or as much
    as a file is to have; an older one when those behind it are as large."""
    assert MERGED_BYTES == 64 << 20
    assert [file.rows.first for file in choose(sized(*files))] == list(chosen)


def test_files_stay_few(tmp_path: Path) -> None:
    """After many epochs there are some small files and some merged ones, with every row once and in order; what a
    rollback may need is as it was."""
    sink = sink_in(tmp_path)
    most = 0
    for number in range(400):
        epoch(sink, number, numbered(number * 5, 5))
        most = max(most, len(sizes(tmp_path)))
    assert most <= MERGE_FILES + RETAINED + 12
    assert sizes(tmp_path)[-RETAINED:] == [5] * RETAINED
    assert positions(tmp_path) == list(range(2000))
    for back in range(RETAINED):
        sink.rollback(399 - back)
        assert positions(tmp_path) == list(range(2000 - 5 * back))
    sink.close()


@pytest.mark.usefixtures("_soon")
def test_epochs_that_were_given_up_are_not_retained_ones(tmp_path: Path) -> None:
    """Prepared and never committed, they push no committed epoch out of reach, however many they are."""
    sink = sink_in(tmp_path)
    for number in range(6):
        epoch(sink, number, numbered(number, 1))
    for number in range(6, 20):
        sink.write(numbered(number, 1))
        sink.prepare(number)
    epoch(sink, 20, numbered(20, 1))
    sink.prepare(21)
    for number, rows in ((20, 21), (5, 6), (4, 5)):
        sink.rollback(number)
        assert positions(tmp_path) == list(range(rows))
    sink.close()


@pytest.mark.usefixtures("_soon")
def test_new_columns_and_long_texts(tmp_path: Path) -> None:
    """Files with fewer columns are merged with those that have more, as null."""
    sink = sink_in(tmp_path)
    for number in range(20):
        more: dict[str, Any] = {f"new{number}": [1.5], "t": ["ü" * 1000]} if number % 4 == 1 else {}
        epoch(sink, number, numbered(number, 1, n=np.array([number]), **more))
    assert len(sizes(tmp_path)) < 15
    schema = pq.read_schema(max(data(tmp_path).iterdir()))
    found = pyarrow.dataset.dataset(data(tmp_path), schema).to_table()
    assert found.schema.types == [pa.string(), pa.int64(), pa.float64(), pa.int64(), *found.schema.types[4:]]
    assert found["n"].to_pylist() == list(range(20))
    assert found["source"].to_pylist() == ["s"] * 20
    for number in range(1, 20, 4):
        assert found[f"new{number}"].to_pylist() == [1.5 if n == number else None for n in range(20)]
    assert found["t"].to_pylist() == ["ü" * 1000 if n % 4 == 1 else None for n in range(20)]
    sink.close()


@pytest.mark.usefixtures("_soon")
def test_a_slice_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `prepare` copies more than its slice and one row group; a merge goes on through several."""
    monkeypatch.setattr("streampiped.sinks.parquet.MERGE_BYTES", 1)
    copied: list[int] = []
    plain = parquet_merge.Merge.copy

    def counted(merge: Any, size: int) -> bool:
        before = merge._copying
        merge._copying = (copied.append(each) or each for each in before)  # type: ignore[func-returns-value]
        try:
            return plain(merge, size)
        finally:
            merge._copying = before

    monkeypatch.setattr(parquet_merge.Merge, "copy", counted)
    sink = sink_in(tmp_path)
    for number in range(60):
        count = len(copied)
        epoch(sink, number, numbered(number * 10, 10))
        assert len(copied) - count <= 3
    assert len(sizes(tmp_path)) < 40
    assert positions(tmp_path) == list(range(600))
    sink.close()


def test_many_files_are_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of very many tiny files, from before the option was set: each `prepare` opens no more of them than
    cost what its slice does, and in the end they are few."""
    sink = ParquetSink(ParquetOptions(), tmp_path, Events(), RETAINED)
    sink.rollback(None)
    for number in range(600):
        epoch(sink, number, numbered(number, 1))
    sink.close()
    opened: list[Path] = []
    plain = pq.ParquetFile

    def counted(path: Path) -> pq.ParquetFile:
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    sink = ParquetSink(ParquetOptions(merge=True), tmp_path, Events(), RETAINED)
    sink.rollback(599)
    most = 0
    for number in range(600, 660):
        opened.clear()
        epoch(sink, number, numbered(number, 1))
        most = max(most, len(opened))
        assert len(opened) <= MERGE_BYTES // FILE_COST + 1
    assert most > MERGE_FILES // 2
    assert len(sizes(tmp_path)) < 2 * MERGE_FILES
    assert positions(tmp_path) == list(range(660))
    sink.close()


@pytest.fixture
def instants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Copies of the directory `sink`, before and after each call that changes what is there."""
    found: list[Path] = []
    (tmp_path / "sink").mkdir()
    copying = False

    def copy() -> None:
        nonlocal copying
        if not copying:
            copying = True
            found.append(tmp_path / f"instant{number()}")
            shutil.copytree(tmp_path / "sink", found[-1])
            copying = False

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*arguments: Any, **named: Any) -> Any:
            copy()
            result = call(*arguments, **named)
            copy()
            return result

        return watching

    number = count().__next__
    monkeypatch.setattr(parquet_files, "RENAMEAT2", watched(parquet_files.RENAMEAT2))
    for name in ("link", "replace", "mkdir", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    yield found
    monkeypatch.undo()


@pytest.mark.usefixtures("_soon")
def test_killed_at_any_instant(tmp_path: Path, instants: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of an epoch in which files are merged, and of the next: a reader sees the rows of the epochs
    committed so far, and a successor goes to any retained epoch exactly."""
    sink = sink_in(tmp_path / "sink")
    for number in range(6):
        epoch(sink, number, numbered(number, 1))
    known: dict[int, list[Path]] = {}
    before = sizes(tmp_path / "sink")
    for number in (6, 7):
        instants.clear()
        sink.write(numbered(number, 1))
        sink.prepare(number)
        known[number] = list(instants)
        sink.commit(number)
    after = sizes(tmp_path / "sink")
    sink.close()
    monkeypatch.undo()
    assert before == [1] * 6
    assert after[0] == 3
    for number, copies in known.items():
        assert len(copies) > 10
        for copy in copies:
            assert positions(copy) == list(range(number))
            for back in range(1, RETAINED + 1):
                successor = ParquetSink(ParquetOptions(merge=True), copy, Events(), RETAINED)
                successor.rollback(number - back)
                assert positions(copy) == list(range(number - back + 1))
                successor.close()


@pytest.mark.usefixtures("_soon")
def test_a_reader_that_holds_the_directory(tmp_path: Path) -> None:
    """It lists and opens what was there before the merge, every row once, and its directory is not removed before the
    next merge; one that is being removed has another name."""
    sink = sink_in(tmp_path)
    numbers = count()

    def go_on_until_merged() -> int:
        inode = data(tmp_path).stat().st_ino
        while data(tmp_path).stat().st_ino == inode:
            number = next(numbers)
            sink.write(numbered(number, 1))
            sink.prepare(number)
            rows = len(positions(tmp_path))
            sink.commit(number)
        return rows

    go_on_until_merged()
    fd = os.open(data(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for still in (True, False):
            rows = go_on_until_merged()
            assert held_open(tmp_path, fd) is still
            if still:
                found = pyarrow.dataset.dataset(f"/proc/self/fd/{fd}").to_table(["position"])
                assert found["position"].to_pylist() == list(range(rows))
    finally:
        os.close(fd)
    sink.close()


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("disk", ["fine", "full"])
def test_a_recovery_leaves_it_to_its_readers(tmp_path: Path, disk: str) -> None:
    """What was `data` before the merge is whole behind a restart too; a disk that refuses takes it for its room, and so
    does a sink that merges no more."""
    sink = sink_in(tmp_path)
    fd = os.open(data(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = -1
        while os.fstat(fd).st_ino == data(tmp_path).stat().st_ino:
            epoch(sink, number := number + 1, numbered(number, 1))
        if disk == "full":
            sink._refusal.storage("full")
        sink.rollback(number)
        assert held_open(tmp_path, fd) is (disk == "fine")
        if disk == "fine":
            found = pyarrow.dataset.dataset(f"/proc/self/fd/{fd}").to_table(["position"])
            assert found["position"].to_pylist() == list(range(number))
        sink.close()
        sink = ParquetSink(ParquetOptions(), tmp_path, Events(), RETAINED)
        sink.rollback(number)
        assert not held_open(tmp_path, fd)
        assert positions(tmp_path) == list(range(number + 1))
    finally:
        os.close(fd)
    sink.close()


@pytest.mark.usefixtures("_soon")
def test_who_may_read_may_read_the_merged_files(tmp_path: Path) -> None:
    """The new directory has the mode of the old one, and its owner and group where they may be given."""
    sink = sink_in(tmp_path)
    data(tmp_path).chmod(0o2755)
    if os.geteuid() == 0:
        os.chown(data(tmp_path), 12345, 23456)
    before = data(tmp_path).stat()
    for number in range(20):
        epoch(sink, number, numbered(number, 1))
    after = data(tmp_path).stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    sink.close()


def held_open(directory: Path, fd: int) -> bool:
    """Whether the directory is whole: nobody has begun to remove it."""
    there = [path.stat().st_ino for path in (data(directory), data(directory).with_name("next")) if path.exists()]
    return os.fstat(fd).st_ino in there


def test_without_the_option_no_file_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads by path sees every row once at every instant: files only come."""
    monkeypatch.setattr(parquet_merge, "MERGE_FILES", 2)
    sink = ParquetSink(ParquetOptions(), tmp_path, Events(), RETAINED)
    sink.rollback(None)
    for number in range(20):
        epoch(sink, number, numbered(number, 1))
    assert sizes(tmp_path) == [1] * 20
    sink.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.ENOTSUP, None])
@pytest.mark.usefixtures("_soon")
def test_a_file_system_that_cannot_exchange(
    tmp_path: Path, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its small files, and the rows go on; what was begun is removed, and it is tried and told once. So it is
    where libc knows no such call (None)."""
    tried = []

    def refused(*arguments: Any) -> int:
        tried.append(arguments)
        parquet_files.ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(parquet_merge, "RETRY_EPOCHS", 1)
    monkeypatch.setattr(parquet_files, "RENAMEAT2", None if number is None else refused)
    events = Events()
    sink = sink_in(tmp_path, events)
    for each in range(20):
        epoch(sink, each, numbered(each, 1))
    assert events.names() == ["files_not_merged"]
    assert sizes(tmp_path) == [1] * 20
    assert positions(tmp_path) == list(range(20))
    root = tmp_path / "records.parquet"
    assert sorted(path.name for path in root.iterdir()) == ["data", "epochs.json", "prepared"]
    assert list((root / "prepared").iterdir()) == []
    assert len(tried) == (0 if number is None else 1)
    sink.close()


@pytest.mark.usefixtures("_soon")
def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    """A file that goes while it is to be merged is no failure: nothing is merged for a while."""
    sink = sink_in(tmp_path)
    for number in range(5):
        epoch(sink, number, numbered(number, 1))
    min(data(tmp_path).iterdir()).unlink()
    for number in range(5, 20):
        epoch(sink, number, numbered(number, 1))
    assert positions(tmp_path) == list(range(1, 20))
    sink.close()
