"""Rotated files that begin alike: which of them a position belongs to, and in which order they are read."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streampiped.errors import SourceError
from streampiped.sources import rotation as rotation_module
from streampiped.sources.rotation import Entry, listing
from support.rotations import WAYS, Writer
from support.streams import Events, column, drain, generator, travelled, write_lines


class Reader:
    """A generator on a followed file whose only column is n; `header` is the file's first line, if it has one."""

    def __init__(self, path: Path, *, header: bool = True, batch_max: int = 10) -> None:
        self.path = path
        self.events = Events()
        self._batch_max = batch_max
        self._names = {} if header else {"names": ["n"]}
        self.head = ("n",) if header else ()
        self.start(path)

    def start(self, path: Path, state: Any = None) -> None:
        """As a new process."""
        options = {"type": "csv", "path": str(path), "follow": True, **self._names}
        self.stage = generator(options, emit=self.events, linger=0, batch_max=self._batch_max)
        self.stage.restore(state)

    def read(self, count: int | None = None) -> list[int]:
        return [int(n) for n in column(drain(self.stage, count=count), "n")]

    def stop(self) -> Any:
        """The state of a process that is no more."""
        state = travelled(self.stage.snapshot())
        self.stage.close()
        return state

    def resumed(self, state: Any, path: Path | None = None) -> list[int]:
        self.start(path or self.path, state)
        return self.read()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "in.csv"


@pytest.fixture(params=[True, False], ids=["header", "bare"])
def reader(path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Nothing but the header, if there is one, has been read; one file, which had lines, stands before."""
    head = ("n",) if request.param else ()
    write_lines(path.with_name("in.csv.1"), *head, "-2", "-1")
    write_lines(path, *head)
    made = Reader(path, header=request.param)
    assert made.read() == []
    yield made
    made.stage.close()


def lines(first: int, end: int) -> list[str]:
    return [str(n) for n in range(first, end)]


def shift(path: Path) -> None:
    """in.csv.1 becomes in.csv.2 and so on."""
    numbered = [p for p in path.parent.glob("in.csv.*") if p.suffix[1:].isdigit()]
    names = sorted(numbered, key=lambda p: -int(p.suffix[1:]))
    for name in names:
        name.rename(path.with_name(f"in.csv.{int(name.suffix[1:]) + 1}"))


def rename(path: Path, head: tuple[str, ...]) -> None:
    shift(path)
    path.rename(path.with_name("in.csv.1"))
    path.touch()
    write_lines(path, *head)


def copytruncate(path: Path, head: tuple[str, ...]) -> None:
    shift(path)
    shutil.copyfile(path, path.with_name("in.csv.1"))
    os.truncate(path, 0)
    write_lines(path, *head)


Rotate = Callable[[Path, tuple[str, ...]], None]
both_ways = pytest.mark.parametrize("rotate", [rename, copytruncate])


@both_ways
@pytest.mark.parametrize("times", [1, 3])
def test_a_file_of_which_nothing_was_read_is_found_after_rotations(reader: Reader, rotate: Rotate, times: int) -> None:
    """Rotated while the pipeline was down, once or more: what was written since is read, and nothing from before."""
    state = reader.stop()
    for number in range(times):
        write_lines(reader.path, *lines(3 * number, 3 * number + 3))
        rotate(reader.path, reader.head)
    write_lines(reader.path, *lines(3 * times, 3 * times + 2))
    assert reader.resumed(state) == list(range(3 * times + 2))


@both_ways
def test_files_copied_elsewhere_are_found_without_inodes_and_times(reader: Reader, rotate: Rotate) -> None:
    """A directory that was copied file by file, so that neither inodes nor times say anything, is read in its order."""
    state = reader.stop()
    for number in range(3):
        write_lines(reader.path, str(number))
        rotate(reader.path, reader.head)
    write_lines(reader.path, "3")
    elsewhere = reader.path.parent.with_name("elsewhere")
    elsewhere.mkdir()
    for stamp, name in enumerate(["in.csv", "in.csv.1", "in.csv.3", "in.csv.2", "in.csv.4"]):
        shutil.copyfile(reader.path.with_name(name), elsewhere / name)
        os.utime(elsewhere / name, (stamp, stamp))
    assert reader.resumed(state, elsewhere / "in.csv") == [0, 1, 2, 3]


@both_ways
@pytest.mark.parametrize("how", ["deleted", "compressed"])
def test_without_the_file_before_everything_left_comes_after(reader: Reader, rotate: Rotate, how: str) -> None:
    """The oldest go first: when the file before the own one was deleted or compressed, all that are left are later."""
    state = reader.stop()
    for number in range(3):
        write_lines(reader.path, str(number))
        rotate(reader.path, reader.head)
    oldest = reader.path.with_name("in.csv.4")
    if how == "compressed":
        with gzip.open(oldest.with_name("in.csv.4.gz"), "wb") as file:
            file.write(oldest.read_bytes())
    oldest.unlink()
    assert reader.resumed(state) == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_file_that_was_compressed_before_it_was_read_is_missed(path: Path, suffix: str) -> None:
    """The open file and the one behind it were compressed: nobody goes on with what is left. Decompressed, it is read.
    The open file's own archive, and older ones, are no hindrance."""

    def compress(number: int) -> Path:
        """As gzip does: with the file's time."""
        file = path.with_name(f"in.csv.{number}")
        archive = file.with_name(file.name + suffix)
        archive.write_bytes({".gz": gzip, ".xz": lzma}[suffix].compress(data) if suffix != ".zst" else data[::-1])
        os.utime(archive, ns=(0, file.stat().st_mtime_ns))
        file.unlink()
        return archive

    def rotate(*new: str) -> None:
        shift(path)
        path.rename(path.with_name("in.csv.1"))
        write(*new)

    def write(*new: str) -> None:
        write_lines(path, "n", *new)
        os.utime(path, (0, 1_700_000_000 + 60 * int(new[0])))  # archives have their time in whole seconds

    write(*lines(0, 3))
    reader = Reader(path)
    assert reader.read() == [0, 1, 2]
    data = path.read_bytes()
    rotate(*lines(3, 6))
    own = compress(1)
    assert reader.read() == [3, 4, 5]  # the archive of what was read
    data = path.read_bytes()
    own.rename(path.with_name(f"in.csv.9{suffix}"))
    rotate(*lines(6, 9))
    rotate(*lines(9, 12))
    compress(2)
    data = path.with_name("in.csv.1").read_bytes()
    unread = compress(1)
    with pytest.raises(SourceError, match=rf"in\.csv\.1\{suffix} was compressed before it was read; decompress it"):
        reader.read()
    unread.unlink()
    path.with_name("in.csv.1").write_bytes(data)
    assert reader.read() == list(range(6, 12))
    reader.stop()


def test_truncated_where_nothing_but_the_header_was_read(reader: Reader) -> None:
    """A file of which a new process has read nothing yet is copied and truncated to what was read of it: the copy is
    read, also when the file is renamed before anybody looks."""
    state = reader.stop()
    with reader.path.open("a") as file:
        file.write("0\n1\n")
    reader.start(reader.path, state)
    copytruncate(reader.path, reader.head)
    assert reader.read() == [0, 1]
    rename(reader.path, reader.head)
    with reader.path.open("a") as file:
        file.write("2\n")
    assert reader.read() == [2]


def test_a_file_before_may_be_taken_away_by_hand(path: Path) -> None:
    """Of the files before the own one the newest was moved away, and older ones are still there: they are not read."""
    for number in (3, 2, 1):
        write_lines(path.with_name(f"in.csv.{number}"), "n", str(-number))
    write_lines(path, "n")
    reader = Reader(path)
    assert reader.read() == []
    state = reader.stop()
    path.with_name("in.csv.1").unlink()
    write_lines(path, "0")
    assert reader.resumed(state) == [0]


@both_ways
def test_files_without_lines_do_not_matter(reader: Reader, rotate: Rotate) -> None:
    """Files that hold a header only, or nothing, before the own one and behind it, are all equal and passed over."""
    for _ in range(5):
        rotate(reader.path, reader.head)
        assert reader.read() == []
    state = reader.stop()
    write_lines(reader.path, "0", "1")
    for _ in range(3):
        rotate(reader.path, reader.head)
    for number in (9, 8, 7):  # the files without lines that had stood before it
        if (name := reader.path.with_name(f"in.csv.{number}")).exists():
            name.unlink()
    write_lines(reader.path, "2")
    assert reader.resumed(state) == [0, 1, 2]


@pytest.mark.parametrize("is_deleted", [False, True])
@both_ways
def test_files_of_equal_content(path: Path, rotate: Rotate, is_deleted: bool) -> None:
    """Two files of the same lines, one before the other: neither is taken for the other."""
    write_lines(path, "n", "0", "1")
    reader = Reader(path)
    assert reader.read() == [0, 1]
    rename(path, ("n",))
    assert reader.read() == []
    state = reader.stop()
    write_lines(path, "0", "1")
    rotate(path, ("n",))
    if is_deleted:
        path.with_name("in.csv.2").unlink()
    write_lines(path, "2")
    assert reader.resumed(state) == [0, 1, 2]


def test_a_used_inode_is_no_identity(path: Path) -> None:
    """A new file that got the inode of the deleted one before the own one is not taken for it."""
    write_lines(path.with_name("in.csv.1"), "n", "-1")
    write_lines(path, "n")
    reader = Reader(path)
    assert reader.read() == []
    state = reader.stop()
    marks = state["position"]["file"]["before"]
    write_lines(path, "0")
    path.with_name("in.csv.1").unlink()
    rename(path, ("n",))
    write_lines(path, "1")
    marks[0]["inode"] = path.stat().st_ino
    assert reader.resumed(state) == [0, 1]


def test_a_position_before_there_was_a_file(path: Path) -> None:
    """Committed while there was nothing to read: files that came and were rotated since are read, older ones not."""
    write_lines(path.with_name("in.csv.1"), "n", "-1")
    reader = Reader(path)
    assert reader.read() == []
    state = reader.stop()
    assert state["position"]["file"]["identity"] is None
    write_lines(path, "n", "0")
    rename(path, ("n",))
    write_lines(path, "1")
    assert reader.resumed(state) == [0, 1]


@both_ways
def test_rotated_and_grown_between_two_looks(reader: Reader, rotate: Rotate) -> None:
    """While the source sleeps its file is rotated and has grown beyond what was read, with the same beginning."""
    write_lines(reader.path, *lines(0, 3))
    rotate(reader.path, reader.head)
    write_lines(reader.path, *lines(3, 6))
    rotate(reader.path, reader.head)
    write_lines(reader.path, *lines(6, 9))
    assert reader.read() == list(range(9))


def test_a_file_that_was_moved_away_is_read_to_its_end(path: Path) -> None:
    """With logrotate's `olddir`, or deleted, the file that is open comes to its end before those that came after it."""
    write_lines(path.with_name("in.csv.1"), "n", "-1")
    write_lines(path, "n")
    reader = Reader(path)
    assert reader.read() == []
    write_lines(path, "0")
    path.rename(path.parent.with_name("old"))
    write_lines(path, "n", "1")
    rename(path, ("n",))
    write_lines(path, "2")
    assert reader.read() == [0, 1, 2]
    reader.stage.close()


def test_truncated_without_a_copy_no_older_file_is_taken(path: Path) -> None:
    """A file with nothing but a header read is truncated and begun anew: told, and a rotated file with the same header,
    which was read to its end, does not come again."""
    write_lines(path, "n", *lines(0, 5))
    reader = Reader(path)
    assert reader.read() == list(range(5))
    rename(path, ("n",))
    assert reader.read() == []
    os.truncate(path, 0)
    assert reader.read() == []
    assert "source_truncated" in reader.events.names()
    write_lines(path, "n", "5", "6")
    assert reader.read() == [5, 6]
    reader.stage.close()


@pytest.mark.parametrize("is_down", [False, True])
def test_a_position_saved_while_the_file_is_rotated(path: Path, is_down: bool) -> None:
    """The file was copied and truncated, nobody has looked since, and lines that had been read wait to be given out:
    the position belongs to the copy."""
    write_lines(path, "n", *lines(-3, 0))
    reader = Reader(path)
    assert reader.read() == [-3, -2, -1]
    rename(path, ("n",))
    write_lines(path, *lines(0, 30))
    assert reader.read(1) == list(range(10))
    copytruncate(path, ("n",))
    state = reader.stop() if is_down else travelled(reader.stage.snapshot())
    write_lines(path, *lines(30, 60))
    if is_down:
        copytruncate(path, ("n",))
        assert reader.resumed(state) == list(range(10, 60))
    else:
        assert reader.read() == list(range(10, 60))
    reader.stage.close()


@pytest.mark.parametrize("is_down", [False, True])
def test_a_rotation_while_it_looks(path: Path, monkeypatch: pytest.MonkeyPatch, is_down: bool) -> None:
    """The file is renamed, and the next one begun, between the look at the names and the opening: it is seen."""
    write_lines(path, "n", "-1")
    reader = Reader(path)
    assert reader.read() == [-1]
    path.rename(path.with_name("in.csv-20260101"))
    write_lines(path, "n", "0")
    state = None
    if is_down:
        assert reader.read() == [0]
        state = reader.stop()
    looks = 0

    def look(at: Path) -> list[Entry]:
        nonlocal looks
        entries, looks = listing(at), looks + 1
        if looks == (2 if is_down else 1):  # the first of a restore says which marks are there
            write_lines(path, "1")
            path.rename(path.with_name("in.csv-20260102"))
            write_lines(path, "n", "2")
        return entries

    monkeypatch.setattr(rotation_module, "listing", look)
    assert (reader.resumed(state) if is_down else reader.read()) == ([1, 2] if is_down else [0, 1, 2])
    assert looks > 2
    reader.stage.close()


@pytest.mark.parametrize("size", [3, 3000])
def test_a_copy_that_is_not_yet_truncated(path: Path, size: int) -> None:
    """Between the copy and the truncation the file itself is read on, after a restore and behind older files too; after
    the truncation what is left comes from the copy."""
    write_lines(path, "n")
    reader = Reader(path)
    assert reader.read() == []
    state = reader.stop()
    write_lines(path, *lines(0, size))
    shutil.copyfile(path, path.with_name("in.csv.1"))
    reader.start(path, state)
    first = reader.read(1)
    state = reader.stop()
    os.truncate(path, 0)
    write_lines(path, "n", str(size))
    assert first + reader.resumed(state) == list(range(size + 1))
    reader.stage.close()


def test_a_copy_in_the_making_is_not_the_next_file(path: Path) -> None:
    """Who comes from an older file goes on in the file that is being copied, not in its copy, and reads it once."""
    write_lines(path, "n", "0")
    reader = Reader(path)
    assert reader.read() == [0]
    rename(path, ("n",))
    write_lines(path, *lines(1, 20))
    shift(path)
    copy = path.with_name("in.csv.1")
    copy.write_bytes(path.read_bytes()[:10])
    assert reader.read(1) == list(range(1, 11))
    shutil.copyfile(path, copy)
    os.truncate(path, 0)
    write_lines(path, "n", "20")
    assert reader.read() == list(range(11, 21))
    reader.stage.close()


def test_a_pipeline_may_begin_beside_a_copy(path: Path) -> None:
    """Started between the copy and the truncation, it reads the file once, whatever of it is left when it is read."""
    write_lines(path, "n", *lines(0, 20))
    shutil.copyfile(path, path.with_name("in.csv.1"))
    reader = Reader(path)
    state = reader.stop()
    os.truncate(path, 0)
    write_lines(path, "n", "20")
    assert reader.resumed(state) == list(range(21))
    reader.stage.close()


def test_deeply_rotated_lines_come_once_from_every_position(path: Path) -> None:
    """From the position after any batch over files rotated both ways, the rest comes exactly once."""
    write_lines(path, "n", *lines(0, 5))
    reader = Reader(path, batch_max=2)
    states: list[Any] = [travelled(reader.stage.snapshot())]
    for number, rotate in enumerate((rename, copytruncate, copytruncate, rename), 1):
        while reader.read(1):
            states.append(travelled(reader.stage.snapshot()))
        rotate(path, ("n",))
        write_lines(path, *lines(5 * number, 5 * number + 5))
    reader.stage.close()
    assert len(states) == 13
    for state in states:
        assert reader.resumed(state) == list(range(state["position"]["file"]["row"], 25))
        reader.stage.close()


@pytest.mark.parametrize(
    "names",
    [
        [".10", ".9", ".2", ".1"],
        ["-20251231", "-20260101", "-20260101-1", "-20260101-2", "-20260101-10", "-20260102"],
        [".20251231", ".20260101", ".20260102"],
    ],
    ids=["numbers", "dates", "dotted"],
)
def test_names_say_the_order(path: Path, names: list[str]) -> None:
    """A larger number is older, an earlier date and counter too; times say nothing, as after copying."""
    for stamp, name in enumerate(["", *reversed(names)]):
        write_lines(path.with_name(path.name + name), "n")
        os.utime(path.with_name(path.name + name), (stamp, stamp))
    assert [entry.path.name[len("in.csv") :] for entry in listing(path)] == [*names, ""]


def test_numbers_and_dates_are_merged_by_time(path: Path) -> None:
    """Where names of both kinds stand side by side, times put the one kind among the other; either keeps its order."""
    for name, stamp in {".3": 1, "-20260101": 2, ".2": 3, ".1": 1, "-20260102": 4}.items():
        write_lines(path.with_name(path.name + name), "n")
        os.utime(path.with_name(path.name + name), (stamp, stamp))
    assert [entry.path.name[len("in.csv") :] for entry in listing(path)] == [".3", "-20260101", ".2", ".1", "-20260102"]


def test_other_names_are_no_rotated_files(path: Path) -> None:
    """Compressed files, copies of other tools and directories are left alone."""
    for name in (".1.gz", ".bak", "-old", "2", ".1~"):
        write_lines(path.with_name(path.name + name), "n")
    path.with_name("in.csv.1").mkdir()
    assert listing(path) == []


WAYS_TOGETHER = (("dated",), ("numbered",), ("copied",), ("numbered", "copied"), WAYS)


@pytest.mark.parametrize("header", [True, False], ids=["header", "bare"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("STREAMPIPE_ROTATION_SEEDS", "10"))))
def test_every_line_once_through_any_rotation(path: Path, seed: int, header: bool) -> None:
    """While a file is written and rotated in several ways, step by step, its oldest parts are deleted, and the source
    reads, saves its position and dies between any two steps: every line comes once, in order."""
    rng = random.Random(seed)
    writer = Writer(path, rng, "n\n" if header else "", WAYS_TOGETHER[seed % len(WAYS_TOGETHER)])
    reader = Reader(path, header=header, batch_max=rng.choice((3, 50)))
    state, rows, committed = travelled(reader.stage.snapshot()), list[int](), 0

    def disturb() -> None:
        nonlocal state, committed
        for _ in range(rng.choice((0, 0, 1, 2))):
            kind = rng.choice(("read", "read", "save", "die"))
            if kind == "read":
                rows.extend(reader.read(rng.choice((1, 2, None))))
            elif kind == "save":
                state, committed = travelled(reader.stage.snapshot()), len(rows)
            else:
                reader.stop()
                reader.start(path, state)
                del rows[committed:]
        assert rows == list(range(len(rows)))

    for _ in range(25):
        writer.write(rng.choice((0, 1, 2, 5, 400)))
        disturb()
        if rng.random() < 0.5:
            for _ in writer.rotate():
                disturb()
        elif rng.random() < 0.2:
            remove_oldest(path, committed)
    writer.finish_line()
    rows.extend(reader.read())
    reader.stage.close()
    assert rows == list(range(writer.written))


def remove_oldest(path: Path, committed: int) -> None:
    """As logrotate does when there are too many; but of those with lines that were read the last stays, for the saved
    position may be in it."""
    names = [entry.path for entry in listing(path) if entry.path != path]
    lines_of = {name: [int(n) for n in name.read_text().split() if n != "n"] for name in names}
    read = [name for name, found in lines_of.items() if found and max(found) < committed]
    for name in names[: names.index(read[-1]) if read else 0]:
        name.unlink()
