"""The SQLite sink as somebody with the sqlite3 shell sees it, and what that must not do to the pipeline."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import StateError, StorageError
from streampiped.records import Batch, Span
from streampiped.sinks import sqlite as sqlite_module
from streampiped.sinks.sqlite import SqliteOptions, SqliteSink
from support.streams import Events, numbered


def sink_in(directory: Path, **options: Any) -> SqliteSink:
    made = SqliteSink(SqliteOptions(**options), directory, Events())
    made.rollback(None)
    return made


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SqliteSink]:
    made = sink_in(tmp_path)
    yield made
    made.close()


def query(directory: Path, text: str) -> list[Any]:
    with closing(sqlite3.connect(directory / "records.sqlite", timeout=0)) as db:
        return db.execute(text).fetchall()


def epoch(sink: SqliteSink, number: int, *batches: Batch) -> None:
    for batch in batches:
        sink.write(batch)
    sink.prepare(number)
    sink.commit(number)


def test_a_column_per_column_with_its_type(sink: SqliteSink, tmp_path: Path) -> None:
    """Floats are REAL, integers INTEGER, text TEXT; NaN and None are NULL, infinities infinite."""
    columns = {
        "x": np.array([1.5, np.nan, -np.inf]),
        "n": np.array([1, -(1 << 63), (1 << 63) - 1]),
        "t": ["a", None, "ü\N{SNOWMAN}"],
    }
    epoch(sink, 7, Batch.build(columns, spans=(Span("a", 5, 2), Span("b", 0, 1))))
    assert query(tmp_path, "SELECT source, position, epoch, x, n, t FROM committed_records ORDER BY id") == [
        ("a", 5, 7, 1.5, 1, "a"),
        ("a", 6, 7, None, -(1 << 63), None),
        ("b", 0, 7, -np.inf, (1 << 63) - 1, "ü\N{SNOWMAN}"),
    ]
    assert query(tmp_path, "SELECT name, type FROM pragma_table_info('records')")[3:] == [
        ("x", "REAL"),
        ("n", "INTEGER"),
        ("t", "TEXT"),
    ]


@pytest.mark.parametrize("source", ["it's", "a\0b", "ü\N{SNOWMAN}", ""])
def test_any_source_and_numbers_without_a_gap(sink: SqliteSink, tmp_path: Path, source: str) -> None:
    """Whatever the source is called, alone in a batch or one of several, its rows say so; ids go on by one over batches
    of any size, also when rows that a reader has seen were removed by hand."""
    spans = (
        (Span(source, 0, 3),),
        (Span(source, 3, 1),),
        (Span(source, 4, 2), Span("b", 0, 1)),
        (),
        (Span("b", 1, 2),),
    )
    for number, each in enumerate(spans):
        rows = sum(span.count for span in each)
        epoch(sink, number, Batch.build({"x": np.zeros(rows)}, spans=each))
    expected = [(source, n) for n in range(6)] + [("b", n) for n in range(3)]
    # SQLite's own text functions end at a NUL: compared as bytes
    found = query(tmp_path, "SELECT id, CAST(source AS BLOB), position FROM committed_records ORDER BY id")
    assert [(text.decode(), position) for _, text, position in found] == expected
    assert [number for number, _, _ in found] == list(range(1, 10))
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as db:
        db.execute("DELETE FROM records WHERE id > 5")
        db.commit()
    sink.write(numbered(0, 3))
    assert query(tmp_path, "SELECT id FROM committed_records ORDER BY id") == [(n,) for n in range(1, 6)]
    sink.prepare(9)
    sink.commit(9)
    assert query(tmp_path, "SELECT max(id), count(*) FROM committed_records") == [(12, 8)]


def test_floats_keep_their_bits(sink: SqliteSink, tmp_path: Path) -> None:
    """Every finite double comes back as it went in."""
    x = np.random.default_rng(0).integers(0, 1 << 64, 2000, dtype=np.uint64).view(np.float64)
    x = x[np.isfinite(x)]
    epoch(sink, 1, Batch.build({"x": x}, spans=(Span("s", 0, len(x)),)))
    found = [value for (value,) in query(tmp_path, "SELECT x FROM committed_records ORDER BY id")]
    assert np.array(found).tobytes() == x.tobytes()


def test_columns_may_come_and_go(sink: SqliteSink, tmp_path: Path) -> None:
    """A new column is added, one that is absent is NULL, and names that SQLite takes for the same are told apart."""
    epoch(sink, 1, numbered(0, 1))
    epoch(sink, 2, numbered(1, 1, X=[7.0], epoch=[8.0], **{'odd "name"': ["w"]}))
    epoch(sink, 3, numbered(2, 1))
    rows = query(tmp_path, 'SELECT x, "X_2", epoch_2, "odd ""name""" FROM committed_records ORDER BY id')
    assert rows == [(0.0, None, None, None), (1.0, 7.0, 8.0, "w"), (2.0, None, None, None)]
    assert ("X", "X_2") in query(tmp_path, "SELECT name, outer_name FROM columns")


def test_columns_are_known_after_a_restart(sink: SqliteSink, tmp_path: Path) -> None:
    """A new process goes on with the same names."""
    epoch(sink, 1, numbered(0, 1, X=[7.0]))
    sink.close()
    again = SqliteSink(SqliteOptions(), tmp_path, Events())
    again.rollback(1)
    epoch(again, 2, numbered(1, 1, X=[8.0]))
    assert query(tmp_path, "SELECT id, x, X_2 FROM committed_records") == [(1, 0.0, 7.0), (2, 1.0, 8.0)]
    again.close()


def test_a_long_reader_breaks_nothing(sink: SqliteSink, tmp_path: Path) -> None:
    """A reader in one transaction keeps its view while epochs go on; then it sees them."""
    epoch(sink, 1, numbered(0, 10))
    with closing(sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)) as reader:
        count = "SELECT count(*) FROM committed_records"
        reader.execute("BEGIN")
        assert reader.execute(count).fetchone() == (10,)
        for number in range(2, 12):
            epoch(sink, number, numbered(number * 10, 10, **{f"new{number}": [1.0] * 10}))
        sink.rollback(11)
        assert reader.execute(count).fetchone() == (10,)
        reader.execute("COMMIT")
        assert reader.execute(count).fetchone() == (110,)


def test_a_short_writer_is_waited_for(sink: SqliteSink, tmp_path: Path) -> None:
    """Somebody else's write transaction delays the sink and does not fail it."""
    epoch(sink, 1, numbered(0, 10))
    other = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE mine (x)")
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.1, other.execute, ["COMMIT"])
    timer.start()
    epoch(sink, 2, numbered(10, 10))
    timer.join()
    other.close()
    assert query(tmp_path, "SELECT count(*) FROM committed_records") == [(20,)]


def test_a_writer_that_stays_is_an_error_that_heals(
    sink: SqliteSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked out for too long, the sink fails with the file's name; after a rollback it works again."""
    epoch(sink, 1, numbered(0, 10))
    sink.close()
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.05)
    with closing(sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)) as other:
        sink.rollback(1)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"records\.sqlite: database is locked"):
            sink.write(numbered(10, 10))
        other.execute("ROLLBACK")
    with pytest.raises(StorageError, match="must be written again"):
        sink.prepare(2)
    sink.rollback(1)
    epoch(sink, 2, numbered(10, 10))
    assert query(tmp_path, "SELECT count(*) FROM committed_records") == [(20,)]


def test_a_prepare_that_fails_leaves_no_setting_behind(
    sink: SqliteSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `prepare` sets for its own transactions is gone after a failure: a `commit` with it waits for the disk."""
    epoch(sink, 1, numbered(0, 10))
    sink.close()
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.05)
    sink.rollback(1)
    with closing(sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            sink.prepare(2)
        other.execute("ROLLBACK")
    sink.rollback(1)
    db = sink._opened  # settings of a connection can be asked only there
    assert db is not None
    settings = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "wal_autocheckpoint")]
    assert settings == [1, 0]


def test_a_full_disk_leaves_no_hole(sink: SqliteSink, tmp_path: Path) -> None:
    """When the database cannot grow, the sink refuses until it is rolled back, and nothing of the epoch is shown."""
    epoch(sink, 1, numbered(0, 10))
    db = sink._opened  # the only way to make this one file full
    assert db is not None
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageError, match="full"):
        sink.write(numbered(10, 20_000))
    with pytest.raises(StorageError, match="must be written again"):
        sink.prepare(2)
    db.execute("PRAGMA max_page_count = 1000000")
    sink.rollback(1)
    epoch(sink, 2, numbered(10, 5))
    assert query(tmp_path, "SELECT max(position), count(*) FROM committed_records") == [(14, 15)]


def test_prepare_may_run_in_a_thread(sink: SqliteSink, tmp_path: Path) -> None:
    """`prepare` from a helper thread, as the shell does it."""
    sink.write(numbered(0, 10))
    thread = threading.Thread(target=sink.prepare, args=(1,))
    thread.start()
    thread.join()
    sink.commit(1)
    assert query(tmp_path, "SELECT count(*) FROM committed_records") == [(10,)]


def test_retention_shows_the_newest_and_bounds_the_file(tmp_path: Path) -> None:
    """With `retain` exactly the newest rows are shown, and the table does not grow without end."""
    sink = sink_in(tmp_path, retain=5000)
    for number in range(1, 60):
        epoch(sink, number, numbered(number * 1000, 1000))
        shown = query(tmp_path, "SELECT min(position), max(position), count(*) FROM committed_records")
        first = max(1000, (number + 1) * 1000 - 5000)
        assert shown == [(first, number * 1000 + 999, number * 1000 + 1000 - first)]
    assert query(tmp_path, "SELECT count(*) <= 5000 + 4 * 1000 FROM records") == [(1,)]
    assert sink.summary()["rows"] == 5000
    sink.close()


@pytest.mark.parametrize("kept", [1, 3, 8])
def test_retention_fits_the_epochs_kept(tmp_path: Path, kept: int) -> None:
    """Every epoch that the pipeline may go back to keeps its rows, however many these are; an older one is refused."""
    oldest = 30 - kept - 1  # the last rows were deleted before epoch 30 was committed
    for back in range(kept + 4):
        directory = tmp_path / str(back)
        directory.mkdir()
        sink = SqliteSink(SqliteOptions(retain=2500), directory, Events(), retain_epochs=kept)
        sink.rollback(None)
        for number in range(1, 31):
            epoch(sink, number, numbered(number * 1000, 1000))
        sink.write(numbered(0, 5000))
        sink.close()
        sink = SqliteSink(SqliteOptions(retain=2500), directory, Events(), retain_epochs=kept)
        if 30 - back < oldest:
            with pytest.raises(StateError, match=f"rows of epoch {30 - back}: .* epochs {oldest} to 30"):
                sink.rollback(30 - back)
        else:
            sink.rollback(30 - back)
            found = [p for (p,) in query(directory, "SELECT position FROM committed_records ORDER BY id")]
            assert found == list(range((30 - back) * 1000 - 1500, (30 - back) * 1000 + 1000))
            ((rows,),) = query(directory, "SELECT count(*) FROM records")
            assert rows <= 2500 + 1000 * (kept + 2)
        sink.close()


def test_a_file_of_an_older_version_goes_on(sink: SqliteSink, tmp_path: Path) -> None:
    """A database without the table `reach` gets it; of its epochs the visible one is known to be whole."""
    for number in range(1, 4):
        epoch(sink, number, numbered(number * 10, 10))
    sink.close()
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as db:
        db.execute("DROP TABLE reach")
        db.execute("DELETE FROM records WHERE id <= 5")
        db.commit()
    again = SqliteSink(SqliteOptions(), tmp_path, Events())
    again.rollback(3)
    assert query(tmp_path, "SELECT oldest, newest FROM reach") == [(3, 3)]
    with pytest.raises(StateError, match="can go to epochs 3 to 3"):
        again.rollback(2)
    again.close()


def test_retention_does_not_depend_on_kills(tmp_path: Path) -> None:
    """After kills and falls back to a retained epoch, exactly the rows of an undisturbed run are shown."""
    sink = sink_in(tmp_path, retain=2500)
    number = 0
    for back in (0, 1, 2, 3, 0, 2):
        for _ in range(7):
            number += 1
            epoch(sink, number, numbered(number * 1000, 1000))
        sink.write(numbered(0, 500))
        sink.close()
        sink = SqliteSink(SqliteOptions(retain=2500), tmp_path, Events())
        number -= back
        sink.rollback(number)
        found = [p for (p,) in query(tmp_path, "SELECT position FROM committed_records ORDER BY id")]
        assert found == list(range(number * 1000 - 1500, number * 1000 + 1000))
    sink.close()


def test_a_shortened_retention_is_reached_in_slices(tmp_path: Path) -> None:
    """After `retain` was lowered the view shows the new number at once, and old rows go a bounded slice per batch."""
    sink = sink_in(tmp_path, retain=0)
    for number in range(1, 11):
        epoch(sink, number, numbered(number * 3000, 3000))
    sink.close()
    sink = SqliteSink(SqliteOptions(retain=1000), tmp_path, Events())
    sink.rollback(10)
    assert query(tmp_path, "SELECT count(*) FROM committed_records") == [(1000,)]
    left = []
    for number in range(11, 17):
        epoch(sink, number, numbered(number * 3000, 1))
        left += [count for (count,) in query(tmp_path, "SELECT count(*) FROM records")]
    assert max(a - b for a, b in zip([30_000, *left], left, strict=False)) <= sqlite_module.DELETE_ROWS
    assert left[-1] < 16_000
    sink.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """A file with tables of somebody else, or that is no database, is refused and unchanged."""
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as db:
        db.execute("CREATE TABLE precious (x)")
    content = (tmp_path / "records.sqlite").read_bytes()
    with pytest.raises(StateError, match="another program's tables"):
        sink_in(tmp_path)
    assert (tmp_path / "records.sqlite").read_bytes() == content
    (tmp_path / "records.sqlite").write_bytes(b"my diary\n" * 1000)
    with pytest.raises(StateError, match="not a database"):
        sink_in(tmp_path)


def test_too_many_columns_are_refused_with_advice(sink: SqliteSink) -> None:
    """More columns than SQLite takes are an error that says what to do."""
    wide = Batch.build({f"x{i}": [0.0] for i in range(2000)}, spans=(Span("s", 0, 1),))
    with pytest.raises(StateError, match="use the jsonl sink"):
        sink.write(wide)


def test_checking_a_configuration_creates_nothing(tmp_path: Path) -> None:
    """A sink that was only constructed and closed has no file."""
    SqliteSink(SqliteOptions(), tmp_path, Events()).close()
    assert list(tmp_path.iterdir()) == []
