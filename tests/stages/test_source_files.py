"""CSV and JSON Lines files that are read to their end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError, SourceError
from streampiped.records import Batch, Span
from streampiped.sources import lines as lines_module
from streampiped.sources.lines import LINE_BYTES_MAX, LineFile
from streampiped.stages.base import Ended
from streampiped.stages.generator import Generator
from support.streams import Events, column, drain, generator, idle, positions, same, travelled

KINDS = ("csv", "jsonl")


def put(path: Path, kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the rows as a file of the kind; the source option that reads it."""
    if kind == "csv":
        names = list(rows[0])
        text = [",".join(names), *(",".join("" if row[n] is None else str(row[n]) for n in names) for row in rows)]
    else:
        text = [json.dumps({n: v for n, v in row.items() if v is not None}) for row in rows]
    path.write_text("".join(line + "\n" for line in text))
    return {"type": kind, "path": str(path)}


def plain(path: Path, text: str | bytes) -> dict[str, Any]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"type": path.suffix[1:], "path": str(path)}


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"a": i, "b": None if i % 7 == 3 else i / 3, "who": None if i % 5 == 2 else f"n{i}"} for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_values_types_and_missing(tmp_path: Path, kind: str) -> None:
    """Numbers become float64 with NaN for missing, words text with None, in the file's order."""
    rows = rows_of(600)
    batches = drain(generator(put(tmp_path / "in", kind, rows), batch_max=256))
    assert batches[0].schema.floats == ("a", "b")
    assert batches[0].schema.texts == ("who",)
    assert column(batches, "a") == [row["a"] for row in rows]
    assert column(batches, "who") == [row["who"] for row in rows]
    expected = np.array([np.nan if row["b"] is None else row["b"] for row in rows])
    assert np.array(column(batches, "b")).tobytes() == expected.tobytes()
    assert [b.spans for b in batches] == [
        (Span("generator", 0, 256),),
        (Span("generator", 256, 256),),
        (Span("generator", 512, 88),),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", range(5))
def test_restore_continues_bit_identically(tmp_path: Path, kind: str, boundary: int) -> None:
    """A file source restored at any batch boundary gives what an undisturbed one gives, rejected lines included."""
    source = put(tmp_path / "in", kind, rows_of(300))
    lines = (tmp_path / "in").read_text().splitlines()
    lines[50:50] = ['"torn', "", "[1]"]
    (tmp_path / "in").write_text("\n".join(lines))  # the last line without its newline
    whole = drain(generator(source, batch_max=70))
    stage = generator(source, batch_max=70)
    drain(stage, count=boundary)
    state = travelled(stage.snapshot())
    for successor in (generator(source, batch_max=70), stage):
        successor.restore(state)
        assert travelled(successor.snapshot()) == state
        assert all(map(same, drain(successor), whole[boundary:]))
        assert successor.query("summary", {})["rejected"] == 2
    assert sum(b.rows for b in whole) == 300


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"1,2,3", "3 fields, not 2"),
        (b"1", "1 fields, not 2"),
        (b'"1,2', "unexpected end of data"),
        (b"1,\xff\xfe", "no UTF-8"),
        (b"1,much", "'much' in column b is no float"),
        (b"1,2\r3,4", "new-line character"),
    ],
)
def test_bad_csv_lines_are_counted_and_skipped(tmp_path: Path, bad: bytes, reason: str) -> None:
    """A line that is no record costs itself alone, keeps its position, and is told once with its reason."""
    good = b"".join(b"%d,%d\n" % (i, i) for i in range(10))
    source = plain(tmp_path / "in.csv", b"a,b\n" + good + bad + b"\n" + good)
    events = Events()
    stage = generator(source, emit=events)
    batches = drain(stage)
    assert column(batches, "a") == [*range(10), *range(10)]
    assert positions(batches) == [*range(10), *range(11, 21)]
    assert [name for name, _ in events.seen] == ["records_rejected"]
    assert events.seen[0][1]["count"] == 1
    assert events.seen[0][1]["row"] == 10
    assert reason in events.seen[0][1]["reason"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "no JSON"),
        (b"[1, 2]", "should be an object, is list"),
        (b"null", "should be an object, is NoneType"),
        (b"{}", "empty object"),
        (b'{"a": "x"}', "'x' in column a is no float"),
        (b'{"a": [1]}', "'[1]' in column a is no float"),
        (b'{"a": 1, "t": "\\ud800"}', "no UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"1" + b"]" * 100_000 + b"}", "no JSON"),
        (b'{"a": 1' + b"0" * 400 + b"}", "in column a is no float"),
    ],
)
def test_bad_json_lines_are_counted_and_skipped(tmp_path: Path, bad: bytes, reason: str) -> None:
    """A line that is no record costs itself alone, keeps its position, and is told once with its reason."""
    good = b"".join(b'{"a": %d, "t": "w"}\n' % i for i in range(10))
    events = Events()
    batches = drain(generator(plain(tmp_path / "in.jsonl", good + bad + b"\n" + good), emit=events))
    assert column(batches, "a") == [*range(10), *range(10)]
    assert positions(batches) == [*range(10), *range(11, 21)]
    assert events.names() == ["records_rejected"]
    assert reason in events.seen[0][1]["reason"]


def test_what_json_has_beside_text_is_json_in_a_text_column(tmp_path: Path) -> None:
    """Lists, objects, numbers and booleans that stand where the other lines have a text are kept as their JSON; a key
    that can name no column is left out."""
    values = ["a", ["a", 1], {"b": None}, 7, 1.5, True, None, "NA"]
    lines = [json.dumps({"tag": value, "": 1, "k" * 300: 2, "x": 1}) for value in ["t"] * 100 + values]
    batches = drain(generator(plain(tmp_path / "in.jsonl", "\n".join(lines))))
    assert batches[0].schema.names == ("x", "tag")
    assert column(batches, "tag")[100:] == ["a", '["a", 1]', '{"b": null}', "7", "1.5", "true", None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_long_lines_make_small_batches(tmp_path: Path, kind: str) -> None:
    """A batch has at most 4 MiB of lines, whatever `batch_max`, also in the replay from any of its positions: a frame
    could not carry more. A complete one waits for no others."""
    rows = [{"n": n, "t": "ab"[n % 2] * 900_000} for n in range(10)]
    options = put(tmp_path / "in", kind, rows)
    batches = drain(generator(options, batch_max=1000, linger="60s"))
    assert [batch["n"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    first = generator(options, batch_max=1000)
    drain(first, count=1)
    again = generator(options, batch_max=1000)
    again.restore(travelled(first.snapshot()))
    assert [batch["n"].tolist() for batch in drain(again)] == [[4, 5, 6, 7], [8, 9]]


def test_a_file_of_garbage_ends(tmp_path: Path) -> None:
    """A file without a single record ends; what was rejected is counted, with one event per batch at most."""
    events = Events()
    stage = generator(plain(tmp_path / "in.jsonl", "what\n" * 1000), emit=events, batch_max=100)
    assert drain(stage) == []
    assert stage.query("summary", {})["rejected"] == 1000
    assert len(events.seen) == 10


def test_header_may_have_a_mark_and_windows_line_ends(tmp_path: Path) -> None:
    """A byte order mark, CR LF, spaces around names and quoted delimiters are read as they are meant."""
    batches = drain(generator(plain(tmp_path / "in.csv", b'\xef\xbb\xbfa, b\r\n1,"x, ""y"""\r\n')))
    assert column(batches, "a") == [1.0]
    assert column(batches, "b") == ['x, "y"']


def test_columns_types_missing_and_delimiter_are_options(tmp_path: Path) -> None:
    """The operator chooses columns and their order, types, what means missing, and the delimiter."""
    source = plain(tmp_path / "in.csv", "7;2;-\n8;3;5\n9;x;5\n")
    source |= {"names": ["i", "t", "f"], "delimiter": ";", "columns": ["f", "i", "t"], "missing": ["-"]}
    batch = drain(generator({**source, "types": {"i": "int", "t": "text"}}))[0]
    assert (batch.schema.floats, batch.schema.ints, batch.schema.texts) == (("f",), ("i",), ("t",))
    assert batch["i"].tolist() == [7, 8, 9]
    assert batch["t"] == ["2", "3", "x"]
    assert np.isnan(batch["f"][0])


def test_types_stay_those_of_the_first_lines(tmp_path: Path) -> None:
    """Types are told by the first lines and go with the position: a resumed run does not guess anew."""
    text = "".join(f'{{"a": {i}}}\n' for i in range(300)) + '{"a": "word"}\n{"a": 301}\n'
    source = plain(tmp_path / "in.jsonl", text)
    stage = generator(source, batch_max=300)
    drain(stage, count=1)
    other = generator(source, batch_max=300)
    other.restore(travelled(stage.snapshot()))
    rest = drain(other)
    assert rest[0].schema.floats == ("a",)
    assert positions(rest) == [301]


def test_columns_asked_for_later_are_found(tmp_path: Path) -> None:
    """After the operator has changed `columns`, the source goes on from its position with the new ones."""
    source = put(tmp_path / "in", "csv", rows_of(30))
    stage = generator({**source, "columns": ["a"]}, batch_max=10)
    drain(stage, count=1)
    other = generator({**source, "columns": ["who", "a"]}, batch_max=10)
    other.restore(travelled(stage.snapshot()))
    rest = drain(other)
    assert column(rest, "a") == list(range(10, 30))
    assert column(rest, "who") == [row["who"] for row in rows_of(30)[10:]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "does not exist"),
        ("a,b\n1,2\n", {"columns": ["c"]}, "has no column c; there are a, b"),
        ("a,a\n1,2\n", {}, "names that differ"),
        ('"a\n1,2\n', {}, "header cannot be read"),
    ],
)
def test_impossible_files_are_told_at_construction(
    tmp_path: Path, text: str | None, options: dict[str, Any], message: str
) -> None:
    """What is wrong with a file is an OptionError of the constructor, before the pipeline starts."""
    path = tmp_path / "in.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=message):
        generator({"type": "csv", "path": str(path), **options})


def test_construction_leaves_nothing_open(tmp_path: Path) -> None:
    """A stage that was only constructed holds no descriptor."""
    source = put(tmp_path / "in", "csv", rows_of(3))
    before = os.listdir("/proc/self/fd")
    generator(source)
    assert os.listdir("/proc/self/fd") == before


def test_replay_at_a_speed(tmp_path: Path) -> None:
    """With `speed`, a record comes when its time has come, and the wait until then is exact."""
    source = plain(tmp_path / "in.csv", "t,v\n" + "".join(f"{100 + 10 * i},{i}\n" for i in range(5)))
    stage = generator({**source, "speed": 10.0, "time_column": "t"}, linger=0)
    assert column(drain(stage, 7.0), "v") == [0]
    assert idle(stage, 7.0).wake_at == pytest.approx(8.0)
    assert column(drain(stage, 9.5), "v") == [1, 2]
    state = travelled(stage.snapshot())
    assert column(drain(stage, 11.0), "v") == [3, 4]
    assert stage.read(11.0) == Ended()
    stage.restore(state)
    assert column(drain(stage, 500.0), "v") == [3]  # the clock starts anew with the next record
    assert idle(stage, 500.0).wake_at == pytest.approx(501.0)


def test_replay_takes_what_has_no_time(tmp_path: Path) -> None:
    """A record without a time, with an earlier one, or no record at all, comes with the one before it."""
    source = plain(tmp_path / "in.csv", "t,v\n10,0\n,1\nbad line\n5,2\n20,3\n")
    stage = generator({**source, "speed": 1.0, "time_column": "t"}, linger=0)
    assert column(drain(stage, 0.0), "v") == [0, 1, 2]
    assert idle(stage, 0.0).wake_at == pytest.approx(10.0)


def feed_sizes(path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[int]]:
    """All lines and the offset behind each, read in chunks of `chunk` bytes."""
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", chunk)
    file = LineFile(path, follow=False, emit=Events())
    file.seek(None)
    lines, offsets = [], []
    while file.fill(1):
        lines += file.take(1)
        offsets.append(file.offset)
    file.close()
    return lines, offsets


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_lines_do_not_depend_on_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: bytes) -> None:
    """Read whole, byte by byte, or anything between: the same lines at the same offsets."""
    content = b"one\n\ntwo three\n" + b"x" * 50 + b"\nlast" + ending
    (tmp_path / "in").write_bytes(content)
    expected = content.removesuffix(b"\n").split(b"\n")
    for chunk in (1, 2, 3, 7, 64, 1000):
        lines, offsets = feed_sizes(tmp_path / "in", chunk, monkeypatch)
        assert lines == expected
        assert offsets[-1] == len(content)
        assert offsets[0] == 4


@pytest.mark.parametrize("excess", [-1, 0, 1, 300_000, 3 << 20])
def test_long_lines_are_skipped_in_bounded_memory(tmp_path: Path, excess: int) -> None:
    """A line of up to LINE_BYTES_MAX bytes is read, a longer one rejected, and the offsets stay right."""
    long = b"x" * (LINE_BYTES_MAX + excess)
    path = tmp_path / "in"
    path.write_bytes(b"first\n" + long + b"\nlast\n")
    file = LineFile(path, follow=False, emit=Events())
    file.seek(None)
    assert file.fill(10) == 3
    assert file.take(1) == [b"first"]
    state = travelled(file.position())
    again = LineFile(path, follow=False, emit=Events())
    again.seek(state)
    for reader in (file, again):
        reader.fill(10)
        assert reader.take(2) == [long if excess <= 0 else lines_module.TOO_LONG, b"last"]
        assert reader.offset == path.stat().st_size
        reader.close()


def test_a_replaced_file_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    """A position finds its file under a rotated name; a file of other content is refused, with what was looked for."""
    source = put(tmp_path / "in.csv", "csv", rows_of(30))
    stage = generator(source, batch_max=10)
    drain(stage, count=1)
    state = travelled(stage.snapshot())
    (tmp_path / "in.csv").rename(tmp_path / "in.csv.1")
    put(tmp_path / "in.csv", "csv", [{"a": 1, "b": 2, "who": "other"}])
    other = generator(source, batch_max=10)
    other.restore(state)
    assert column(drain(other), "a") == list(range(10, 30))
    (tmp_path / "in.csv.1").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"in\.csv is not the file that was being read"):
        other.restore(state)


def test_a_copied_file_is_the_same_file(tmp_path: Path) -> None:
    """A file moved to another disk has another inode and the same content: the position holds."""
    source = put(tmp_path / "in.csv", "csv", rows_of(30))
    stage = generator(source, batch_max=10)
    drain(stage, count=2)
    state = travelled(stage.snapshot())
    content = (tmp_path / "in.csv").read_bytes()
    (tmp_path / "in.csv").rename(tmp_path / "away")
    (tmp_path / "in.csv").write_bytes(content)
    other = generator(source, batch_max=10)
    other.restore(state)
    assert column(drain(other), "a") == list(range(20, 30))


def test_a_shrinking_file_fails_loudly(tmp_path: Path) -> None:
    """A bounded file that is truncated under the reader is an error, not an early end."""
    path = tmp_path / "in.csv"
    path.write_text("a\n" + "1\n" * 400_000)  # more than one read takes
    stage = generator({"type": "csv", "path": str(path)})
    drain(stage, count=1)
    os.truncate(path, 10)
    with pytest.raises(SourceError, match="truncated"):
        drain(stage)


def test_an_ended_source_needs_its_file_no_more(tmp_path: Path) -> None:
    """Once it has ended, a source can be restored although its file is gone."""
    path = tmp_path / "in.csv"
    source = put(path, "csv", rows_of(5))
    stage: Generator = generator(source)
    drain(stage)
    assert stage.read(0.0) == Ended()
    state = travelled(stage.snapshot())
    path.unlink()
    other = generator(source, resuming=True)
    other.restore(state)
    assert other.read(0.0) == Ended()
    assert travelled(other.snapshot()) == state
    assert not isinstance(other.read(0.0), Batch)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_resumed_source_is_refused_by_its_position_alone(tmp_path: Path, is_replaced: bool) -> None:
    """Constructed where there are committed epochs, with its file rotated away: it is found and read to its end, also
    when a file of other columns is at the path; gone for good, it is the restore that refuses. A new source is refused
    when it is constructed."""
    path = tmp_path / "in.csv"
    source = {**put(path, "csv", rows_of(30)), "columns": ["a"]}
    stage = generator(source, batch_max=10)
    drain(stage, count=1)
    state = travelled(stage.snapshot())
    path.rename(tmp_path / "in.csv.1")
    if is_replaced:
        path.write_text("other\n1\n")
    other = generator(source, batch_max=10, resuming=True)
    other.restore(state)
    assert column(drain(other), "a") == list(range(10, 30))
    assert other.read(0.0) == Ended()
    with pytest.raises(OptionError):
        generator(source)
    (tmp_path / "in.csv.1").unlink()
    other = generator(source, resuming=True)
    with pytest.raises(SourceError, match="is not the file that was being read"):
        other.restore(state)


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_last_line_that_goes_on_is_refused(tmp_path: Path, is_ended: bool) -> None:
    """A last line without its newline was given out as a record. When it has grown since, the rest of it is none: that
    is said, with what was added. Once it is taken back, or begins behind a newline, what follows is read."""
    path = tmp_path / "in.csv"
    source = plain(path, "a\n1\n2\n12")
    stage = generator(source, batch_max=3)
    assert column(drain(stage, count=1), "a") == [1, 2, 12]
    if is_ended:
        assert stage.read(0.0) == Ended()
    state = travelled(stage.snapshot())
    for added, expected in (("", []), ("\n", []), ("\n345\n6", [345, 6]), ("\n345\n6\n", [345, 6])):
        path.write_text("a\n1\n2\n12" + added)
        stage.restore(state)
        rest = drain(stage)
        assert column(rest, "a") == expected
        assert positions(rest) == [*range(3, 3 + len(expected))]
        assert stage.read(0.0) == Ended()
        stage.restore(travelled(stage.snapshot()))
        assert stage.read(0.0) == Ended()
    path.write_text("a\n1\n2\n12345\n6\n")
    stage.restore(state)
    with pytest.raises(
        SourceError, match=r"line at position 2 had no newline .* goes on with b'345'.* behind a newline"
    ):
        drain(stage)


def test_a_rotated_last_line_that_goes_on_is_refused(tmp_path: Path) -> None:
    """The same in a file that is followed, whose last line was whole once the next file had one."""
    path = tmp_path / "in.csv"
    source = {**plain(path, "a\n1\n12"), "follow": True}
    stage = generator(source, batch_max=1, linger=0)
    assert column(drain(stage, count=1), "a") == [1]
    path.rename(tmp_path / "in.csv.1")
    path.write_text("a\n7\n")
    assert column(drain(stage, count=1), "a") == [12]
    with (tmp_path / "in.csv.1").open("a") as file:
        file.write("345\n")
    with pytest.raises(SourceError, match="line at position 1 had no newline"):
        drain(stage)
    stage.close()


@pytest.mark.parametrize("follow", [False, True])
def test_a_position_behind_a_long_line_is_found(tmp_path: Path, follow: bool) -> None:
    """Behind a line that was too long to be kept, what was read is known all the same."""
    path = tmp_path / "in.csv"
    source = {**plain(path, b"a\n1\n" + b"x" * (LINE_BYTES_MAX + 5) + b"\n2\n"), "follow": follow}
    stage = generator(source, batch_max=2, linger=0)
    drain(stage, count=1)
    state = travelled(stage.snapshot())
    stage.restore(state)
    assert travelled(stage.snapshot()) == state
    assert column(drain(stage), "a") == [2]
    stage.close()


LONG = "a\n" + "".join(f"{i}\n" for i in range(3000))  # several times what a file is known by at its beginning


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    "replacement",
    [
        LONG[:8000],  # shorter than what was read
        "",
        LONG.replace("1990\n", "9991\n"),  # the same beginning, and other records behind it
        "a\n" + LONG,
    ],
    ids=["shorter", "emptied", "changed", "other"],
)
def test_a_file_replaced_between_runs_is_refused(tmp_path: Path, replacement: str, follow: bool) -> None:
    """What was read is no longer in the file: refused, also by a source that follows, for records would be lost or come
    twice without a word. With the file back in its place it goes on."""
    path = tmp_path / "in.csv"
    source = {**plain(path, LONG), "follow": follow}
    stage = generator(source, batch_max=2000)
    drain(stage, count=1)
    state = travelled(stage.snapshot())
    stage.close()
    other = generator(source, batch_max=2000, linger=0)
    path.write_text(replacement)
    with pytest.raises(SourceError, match=r"in\.csv is not the file that was being read"):
        other.restore(state)
    path.write_text(LONG + "3000\n")
    other.restore(state)
    assert column(drain(other), "a") == [*map(float, range(2000, 3001))]
    other.close()


@pytest.mark.parametrize("kind", KINDS)
def test_position_counts_the_records_given(tmp_path: Path, kind: str) -> None:
    """`position` is the number of records given, over rejected lines and restores, also when the file is gone."""
    path = tmp_path / "in"
    source = put(path, kind, rows_of(30))
    with path.open("a") as file:
        file.write('"torn\n')
    stage = generator(source, batch_max=10)
    assert stage.position() == 0
    drain(stage, count=2)
    assert stage.position() == 20
    state = travelled(stage.snapshot())
    drain(stage)
    assert (stage.position(), stage.read(0.0)) == (30, Ended())
    final = travelled(stage.snapshot())
    path.unlink()
    stage.restore(final)
    assert stage.position() == 30
    with pytest.raises(SourceError):
        stage.restore(state)
