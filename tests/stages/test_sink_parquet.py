"""The Parquet sink: what stands in the files, what a reader of the directory sees, and what is refused."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from streampiped.errors import ExitCode, OptionError, StateError
from streampiped.records import Batch, Span
from streampiped.sinks import parquet_files, parquet_rows
from streampiped.sinks.parquet import ParquetSink
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.stages.base import StageContext
from streampiped.stages.consumer import Consumer, ConsumerOptions
from support.command_line import typed
from support.config_files import written
from support.sinks import seen_in_parquet
from support.streams import Events, numbered


def opened(directory: Path, **options: Any) -> ParquetSink:
    return ParquetSink(ParquetOptions(**options), directory, Events())


def sink_in(directory: Path, **options: Any) -> ParquetSink:
    made = opened(directory, **options)
    made.rollback(None)
    return made


def epoch(sink: ParquetSink, number: int, *batches: Batch) -> None:
    for batch in batches:
        sink.write(batch)
    sink.prepare(number)
    sink.commit(number)


def data(directory: Path) -> Path:
    return directory / "records.parquet" / "data"


def files(directory: Path) -> list[Path]:
    return sorted(data(directory).iterdir())


def table(directory: Path) -> pa.Table:
    """All columns, as the documentation says how to have them."""
    return pyarrow.dataset.dataset(data(directory), pq.read_schema(files(directory)[-1])).to_table()


def positions(directory: Path) -> list[int]:
    return [position for _, position, _ in seen_in_parquet(directory)]


def test_values_come_back(tmp_path: Path) -> None:
    """Doubles to the bit, NaN and None as null, infinities as they are, 64-bit integers, texts; and the types are plain
    to a reader."""
    sink = sink_in(tmp_path)
    x = np.array([0.1, np.nan, np.inf, -np.inf, -0.0, 5e-324])
    n = np.array([-(1 << 63), (1 << 63) - 1, 0, 1, 2, 3])
    texts = ["a", None, "", "ü", "new\nline", "\0"]
    spans = (Span("one", 5, 4), Span("two", 1 << 40, 2))
    epoch(sink, 1, Batch.build({"x": x, "n": n, "t": texts}, spans=spans))
    found = table(tmp_path)
    assert found.schema.types == [pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.string()]
    assert found["source"].to_pylist() == ["one"] * 4 + ["two"] * 2
    assert found["position"].to_pylist() == [5, 6, 7, 8, 1 << 40, (1 << 40) + 1]
    assert found["x"].is_null().to_pylist() == [False, True, False, False, False, False]
    assert found["x"].drop_null().to_numpy().tobytes() == np.delete(x, 1).tobytes()
    assert found["n"].to_pylist() == n.tolist()
    assert found["t"].to_pylist() == texts
    sink.close()


def test_rows_without_spans(tmp_path: Path) -> None:
    """They have neither source nor position, beside others that have both."""
    sink = sink_in(tmp_path)
    epoch(sink, 1, numbered(4, 1), Batch.build({"x": [7.0, 8.0]}))
    assert seen_in_parquet(tmp_path) == [("s", 4, 4.0), (None, None, 7.0), (None, None, 8.0)]
    sink.close()


@pytest.mark.parametrize("rows", [1, 7, 64, 65, 200])
def test_batches_of_any_size_are_the_same_rows(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller than a row group, as large, and larger: the rows come in their order, and no row group is larger than it
    may be but one that is a batch."""
    monkeypatch.setattr(parquet_rows, "ROWS_MAX", 64)
    monkeypatch.setattr(parquet_rows, "ROWS_MIN", 64)
    sink = sink_in(tmp_path)
    for start in range(0, 1000, rows):
        count = min(rows, 1000 - start)
        sink.write(numbered(start, count, t=[str(start)] * count, n=np.arange(start, start + count)))
    epoch(sink, 1)
    found = table(tmp_path)
    assert found["x"].to_pylist() == found["n"].to_pylist() == found["position"].to_pylist() == list(range(1000))
    assert found["t"].to_pylist() == [str(n // rows * rows) for n in range(1000)]
    described = pq.ParquetFile(files(tmp_path)[0]).metadata
    groups = [described.row_group(number).num_rows for number in range(described.num_row_groups)]
    assert max(groups) <= max(64, rows)
    assert min(groups[:-1]) >= min(32, rows)
    sink.close()


def test_rows_go_out_before_the_barrier(tmp_path: Path) -> None:
    """What is not prepared yet is written in row groups, also where long texts are most of it, so that memory stays
    bounded."""
    sink = sink_in(tmp_path, compression="none")
    prepared = tmp_path / "records.parquet" / "prepared"
    for start in range(0, 100_000, 1000):
        sink.write(numbered(start, 1000))
    (part,) = prepared.iterdir()
    assert part.stat().st_size > 8 * (parquet_rows.ROWS_MAX - 1000)
    before = part.stat().st_size
    for number in range(40):
        sink.write(numbered(number, 10, x2=[0.0] * 10, t=[f"{number} {row}" * (1 << 16) for row in range(10)]))
    assert sum(path.stat().st_size for path in prepared.iterdir()) - before > parquet_rows.GROUP_BYTES
    sink.close()


def test_columns_may_come_and_go(tmp_path: Path) -> None:
    """A new column begins a new file, which has all of the older ones too; one that is absent is null, and names that
    differ in case only, or are the sink's own, are told apart."""
    sink = sink_in(tmp_path)
    epoch(sink, 1, numbered(0, 1))
    epoch(sink, 2, numbered(1, 1), numbered(2, 1, X=[7.0], epoch=[8.0], n=np.array([5]), t=["w"]), numbered(3, 1))
    epoch(sink, 3, numbered(4, 1))
    assert [path.name for path in files(tmp_path)] == [
        f"{first:015d}-{last:015d}.parquet" for first, last in ((0, 0), (1, 1), (2, 3), (4, 4))
    ]
    found = table(tmp_path)
    assert found.column_names == ["source", "position", "x", "X_2", "epoch_2", "n", "t"]
    assert found["x"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    for name, value in (("X_2", 7.0), ("epoch_2", 8.0), ("n", 5), ("t", "w")):
        assert found[name].to_pylist() == [None, None, value, None, None]
    sink.close()


def test_a_column_of_another_type_is_another_column(tmp_path: Path) -> None:
    """No value is bent to a type: what comes under a known name as text or integer gets another one, for good."""
    sink = sink_in(tmp_path)
    epoch(sink, 1, numbered(0, 1, v=[0.5]))
    epoch(sink, 2, numbered(1, 1, v=["half"]), numbered(2, 1, v=np.array([3])))
    sink.close()
    sink = opened(tmp_path)
    sink.rollback(2)
    epoch(sink, 3, numbered(3, 1, v=["more"]), numbered(4, 1, v=[1.5]))
    found = table(tmp_path)
    assert found["v"].to_pylist() == [0.5, None, None, None, 1.5]
    assert found["v_2"].to_pylist() == [None, "half", None, "more", None]
    assert found["v_3"].to_pylist() == [None, None, 3, None, None]
    sink.close()


@pytest.mark.parametrize(("compression", "codec"), [("zstd", "ZSTD"), ("none", "UNCOMPRESSED")])
def test_compression(tmp_path: Path, compression: str, codec: str) -> None:
    """As the option says, in every column."""
    sink = sink_in(tmp_path, compression=compression)
    epoch(sink, 1, numbered(0, 1000, t=["a"] * 1000))
    group = pq.ParquetFile(files(tmp_path)[0]).metadata.row_group(0)
    assert {group.column(number).compression for number in range(group.num_columns)} == {codec}
    sink.close()


def test_an_epoch_without_rows_has_no_file(tmp_path: Path) -> None:
    """It is committed all the same, and can be gone back to."""
    sink = sink_in(tmp_path)
    epoch(sink, 1, numbered(0, 2))
    epoch(sink, 2)
    epoch(sink, 3, numbered(2, 2))
    assert len(files(tmp_path)) == 2
    sink.rollback(2)
    assert sink.summary() == {"sink": "parquet", "path": str(tmp_path / "records.parquet"), "rows": 2, "epoch": 2}
    assert positions(tmp_path) == [0, 1]
    sink.close()


# what a kill or a power failure leaves


def killed(directory: Path, copy: Path) -> ParquetSink:
    """Another process on the files as they are."""
    shutil.copytree(directory, copy)
    return opened(copy)


def three_epochs(directory: Path) -> ParquetSink:
    """Two are committed; the third is prepared, and rows behind it are in a row group on the disk."""
    directory.mkdir()
    sink = sink_in(directory)
    epoch(sink, 1, numbered(0, 10))
    epoch(sink, 2, numbered(10, 10))
    sink.write(numbered(20, 10))
    sink.prepare(3)
    sink.write(numbered(30, parquet_rows.ROWS_MAX))
    return sink


def _half_renamed(root: Path) -> None:
    """`commit` was killed behind the rename."""
    name = f"{20:015d}-{29:015d}.parquet"
    (root / "prepared" / name).replace(root / "data" / name)


def _half_side(root: Path) -> None:
    (root / "epochs.json.new").write_text('{"visible_epoch": 3, "vis')


def _unsynced(root: Path) -> None:
    """A power failure may take back renames that nobody made durable: `commit` makes none."""
    for path in list((root / "data").iterdir())[:1]:
        path.replace(root / "prepared" / path.name)


def _nothing(root: Path) -> None:
    """A kill between two calls."""


@pytest.mark.parametrize("harm", [_nothing, _half_renamed, _half_side, _unsynced])
@pytest.mark.parametrize("to", [None, 1, 2, 3])
def test_after_a_kill_exactly_the_committed_rows(tmp_path: Path, harm: Callable[[Path], None], to: int | None) -> None:
    """Killed anywhere in `prepare` and `commit`, the sink goes to any epoch that was prepared, leaves nothing else
    behind, and goes on."""
    sink = three_epochs(tmp_path / "one")
    again = killed(tmp_path / "one", tmp_path / "two")
    harm(tmp_path / "two" / "records.parquet")
    again.rollback(to)
    rows = 10 * (to or 0)
    assert positions(tmp_path / "two") == list(range(rows))
    assert list((tmp_path / "two" / "records.parquet" / "prepared").iterdir()) == []
    epoch(again, 4, numbered(rows, 5))
    assert positions(tmp_path / "two") == list(range(rows + 5))
    again.close()
    sink.close()


def test_a_torn_side_file_is_refused(tmp_path: Path) -> None:
    """The side file is never half written; one that is damaged all the same is named, and no row is touched."""
    epoch(sink := sink_in(tmp_path), 1, numbered(0, 10))
    sink.close()
    side = tmp_path / "records.parquet" / "epochs.json"
    whole = side.read_text()
    other = [('"columns"', '"cols"'), ('"visible_rows": 10', '"visible_rows": null'), ('"1": 10', '"1": "10"')]
    other += [('"newest_epoch": 1', '"newest_epoch": [1]'), ('"visible_epoch": 1', '"visible_epoch": "1"')]
    assert all(old in whole for old, _ in other)
    for torn in (whole[: len(whole) // 2], "", "[]", "{}", *(whole.replace(*each) for each in other)):
        side.write_text(torn)
        with pytest.raises(StateError, match=r"records\.parquet: epochs\.json is damaged.*put it back"):
            opened(tmp_path).rollback(1)
        assert positions(tmp_path) == list(range(10))
    side.write_text(whole)
    opened(tmp_path).rollback(1)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_missing_rows_are_refused(tmp_path: Path, number: int) -> None:
    """A file that a rollback may need and that is gone is damage: refused, and what is there stays."""
    sink = sink_in(tmp_path)
    for each in range(3):
        epoch(sink, each, numbered(each * 10, 10))
    sink.close()
    files(tmp_path)[number].unlink()
    left = files(tmp_path)
    if number:
        with pytest.raises(StateError, match="has not all of the 30 rows that were committed"):
            opened(tmp_path).rollback(2)
        assert files(tmp_path) == left
    else:  # who needs the room may remove what no rollback needs
        opened(tmp_path).rollback(2)
        assert positions(tmp_path) == list(range(10, 30))


def test_the_oldest_files_may_be_removed(tmp_path: Path) -> None:
    """Up to the retained epochs, however many are remembered: the sink goes on, goes to each epoch that is left, and
    says of the others that it cannot. One file more is damage, and changes nothing."""
    sink = ParquetSink(ParquetOptions(), tmp_path, Events(), 3)
    sink.rollback(None)
    for number in range(30):
        epoch(sink, number, numbered(number, 1))
    sink.close()
    side = tmp_path / "records.parquet" / "epochs.json"
    before = side.read_bytes()

    def again(copy: str, removed: int) -> tuple[ParquetSink, Path]:
        shutil.copytree(tmp_path / "records.parquet", tmp_path / copy / "records.parquet")
        for path in files(tmp_path / copy)[:removed]:
            path.unlink()
        return ParquetSink(ParquetOptions(), tmp_path / copy, Events(), 3), tmp_path / copy

    for removed in (1, 10, 27):
        sink, copy = again(f"{removed}", removed)
        for back in (29, 28, max(removed, 27)):
            sink.rollback(back)
            assert positions(copy) == list(range(removed, back + 1))
        with pytest.raises(
            StateError, match=rf"exactly the rows of epoch {removed - 1}:.* go to epochs {removed} to 27"
        ):
            sink.rollback(removed - 1)
        assert positions(copy) == list(range(removed, 28))
    for removed in (29, 30):
        sink, copy = again(f"{removed}", removed)
        with pytest.raises(StateError, match="has not all of the 30 rows that were committed, from row 28 on"):
            sink.rollback(29)
        assert (copy / "records.parquet" / "epochs.json").read_bytes() == before


def test_a_file_with_two_names_has_one_again(tmp_path: Path) -> None:
    """After a power failure that took back half of a rename: `rollback` leaves nothing in `prepared`."""
    sink = sink_in(tmp_path)
    epoch(sink, 1, numbered(0, 3))
    epoch(sink, 2, numbered(3, 3))
    for path in files(tmp_path):
        (tmp_path / "records.parquet" / "prepared" / path.name).hardlink_to(path)
    sink.rollback(2)
    assert list((tmp_path / "records.parquet" / "prepared").iterdir()) == []
    assert positions(tmp_path) == list(range(6))
    sink.close()


def test_the_directory_itself_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is in its parent before a row is taken."""
    synced: list[Path] = []
    monkeypatch.setattr(parquet_files, "sync_directory", synced.append)
    sink_in(tmp_path).close()
    assert tmp_path in synced


def test_another_programs_files_are_left_alone(tmp_path: Path) -> None:
    """A directory with files and without marks, and a path that is a file, are refused and unchanged; files of other
    names beside ours stay where they are."""
    (tmp_path / "records.parquet" / "data").mkdir(parents=True)
    mine = tmp_path / "records.parquet" / "data" / f"{0:015d}-{9:015d}.parquet"
    mine.write_text("mine")
    sink = opened(tmp_path)
    for _ in range(2):
        with pytest.raises(StateError, match=r"has 1 files and no epochs\.json"):
            sink.rollback(None)
    assert mine.read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="is no directory"):
        opened(tmp_path, path=Path("file")).rollback(None)
    mine.unlink()
    sink.rollback(None)
    (data(tmp_path) / "notes.txt").touch()
    sink.rollback(None)
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]


def test_checking_a_configuration_creates_nothing(tmp_path: Path) -> None:
    """A sink that was only constructed and closed has no directory."""
    opened(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sink that is let go while it writes says nothing and finishes no file."""
    sink = sink_in(tmp_path)
    sink.write(numbered(0, parquet_rows.ROWS_MAX))
    (part,) = (tmp_path / "records.parquet" / "prepared").iterdir()
    size = part.stat().st_size
    sink.close()
    del sink
    assert part.stat().st_size == size
    assert capfd.readouterr() == ("", "")


def test_a_text_that_is_none_is_the_batchs_fault(tmp_path: Path) -> None:
    """Half of a character is told when its batch is written, as an error of the record and not of the disk."""
    sink = sink_in(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        sink.write(numbered(0, 2, t=["fine", "\ud800"]))
    sink.close()


# the extra

NEEDED = r"needs pyarrow.*pip install 'streampipe-daemon\[arrow\]'"


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is not installed the consumer cannot be made, and `check` says what brings it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [name for name in sys.modules if name.startswith("streampiped.sinks.parquet")]:
        if name != "streampiped.sinks.parquet_options":
            monkeypatch.delitem(sys.modules, name)
    options = ConsumerOptions.model_validate({"sink": {"type": "parquet"}})
    with pytest.raises(OptionError, match=NEEDED):
        Consumer(options, StageContext(name="consumer", directory=tmp_path))


def test_check_names_the_extra(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`streampiped check`, in the process where it makes the stages, is as clear."""
    test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch)
    file = written(tmp_path, '[stages.generator]\n[stages.consumer]\ninput = "generator"\nsink = {type = "parquet"}\n')
    done = typed(capfd, "check", "--config", file)
    assert done.returncode == ExitCode.CONFIG
    assert re.search(NEEDED, done.stdout + done.stderr)
