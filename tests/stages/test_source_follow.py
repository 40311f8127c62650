"""Files that are followed while another program writes, rotates and truncates them: every line exactly once."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streampiped.errors import SourceError
from streampiped.sources import lines as lines_module
from streampiped.sources.rotation import listing, successor
from streampiped.stages.base import Idle
from streampiped.stages.generator import Generator
from support.streams import Events, column, drain, generator, positions, travelled, write_lines

DEADLINE_S = 5.0


class Followed:
    """A generator on a followed file, driven as the shell does: asked again only when it said so."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.events = Events()
        self.options = {"type": "csv", "path": str(path), "follow": True, **options}
        self.stage = self.another()

    def another(self) -> Generator:
        """A new process of the stage."""
        return generator(self.options, emit=self.events, linger=0, batch_max=10)

    def now(self) -> list[Any]:
        """The values of column `n` that can be read at once; then the stage sleeps until its descriptor wakes it."""
        got = column(drain(self.stage), "n")
        answer = self.stage.read(0.0)
        assert isinstance(answer, Idle)
        assert answer.wake_at is None
        return got

    def woken(self) -> list[Any]:
        """The same after the descriptor has become readable."""
        fd = self.stage.wake_fd()
        assert fd is not None
        readable, _, _ = select.select([fd], [], [], DEADLINE_S)
        assert readable, "the change did not wake the source"
        return self.now()

    def asleep(self) -> bool:
        fd = self.stage.wake_fd()
        return fd is not None and not select.select([fd], [], [], 0)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.csv"


@pytest.fixture
def followed(path: Path) -> Iterator[Followed]:
    write_lines(path, "n,t", "0,a", "1,b")
    made = Followed(path)
    assert made.now() == [0, 1]
    yield made
    made.stage.close()


def numbers(first: int, end: int) -> list[str]:
    return [f"{i},x" for i in range(first, end)]


def test_growth_wakes(followed: Followed, path: Path) -> None:
    """What is appended wakes the source and is read once; otherwise it sleeps."""
    assert followed.asleep()
    write_lines(path, *numbers(2, 30))
    assert followed.woken() == list(range(2, 30))
    assert followed.asleep()


def test_a_partial_line_waits(followed: Followed, path: Path) -> None:
    """A line without its newline is no record yet, and one record when the newline comes."""
    with path.open("a") as file:
        for piece in ("2", ",", "a\n3"):
            file.write(piece)
            file.flush()
            expected = [2] if "\n" in piece else []
            assert followed.woken() == expected
        file.write(",b\n")
    assert followed.woken() == [3]


def test_a_file_may_come_later(path: Path) -> None:
    """A followed file need not be there at the start; its directory wakes the source."""
    made = Followed(path)
    assert made.now() == []
    write_lines(path, "n,t")
    assert made.woken() == []
    write_lines(path, "0,a")
    assert made.woken() == [0]


def test_rotation_by_rename(followed: Followed, path: Path) -> None:
    """Renamed, written to once more by its writer, created anew: every line once, in the order they were written."""
    with path.open("a") as writer:
        path.rename(path.with_name("in.csv.1"))
        path.touch()  # logrotate's `create`, before the writer was told
        writer.write("2,late\n")
        writer.flush()
        assert followed.woken() == [2]
        writer.write("3,later\n4,without newline")
        writer.flush()
    write_lines(path, "n,t", *numbers(5, 8))
    assert followed.woken() == [3, 4, 5, 6, 7]
    assert "source_rotated" in followed.events.names()
    write_lines(path, *numbers(8, 10))
    assert followed.woken() == [8, 9]


@pytest.mark.parametrize("first", ["2,x2", "2,2", "2,"])
def test_rotation_without_a_header_in_the_new_file(followed: Followed, path: Path, first: str) -> None:
    """A rotated file that begins with data is read from its first line on, also where that could be no header."""
    path.rename(path.with_name("in.csv.1"))
    write_lines(path, first, *numbers(3, 5))
    assert followed.woken() == [2, 3, 4]


def test_several_rotations_while_away(followed: Followed, path: Path) -> None:
    """A source that was down while its file was rotated several times reads them all, oldest first."""
    state = travelled(followed.stage.snapshot())
    followed.stage.close()
    write_lines(path, *numbers(2, 4))
    for first in (4, 7, 10):
        for number in (2, 1):
            if path.with_name(f"in.csv.{number}").exists():
                path.with_name(f"in.csv.{number}").rename(path.with_name(f"in.csv.{number + 1}"))
        path.rename(path.with_name("in.csv.1"))
        write_lines(path, "n,t", *numbers(first, first + 3))
        stamp = 1_000_000_000 + first  # as if the rotations were seconds apart, whatever the clock's resolution
        os.utime(path, (stamp, stamp))
    os.utime(path.with_name("in.csv.3"), (1_000_000_000, 1_000_000_000))
    assert [e.path.name for e in listing(path)] == ["in.csv.3", "in.csv.2", "in.csv.1", "in.csv"]
    followed.stage = followed.another()
    followed.stage.restore(state)
    assert followed.now() == list(range(2, 13))
    assert followed.stage.snapshot()["position"]["file"]["row"] == 13


def test_copytruncate_loses_nothing_that_was_copied(followed: Followed, path: Path) -> None:
    """Copied and truncated: lines that were not read before come from the copy, then the file from its top."""
    write_lines(path, *numbers(2, 6))
    shutil.copy(path, path.with_name("in.csv.1"))
    os.truncate(path, 0)
    write_lines(path, *numbers(6, 8))
    assert followed.woken() == list(range(2, 8))
    write_lines(path, *numbers(8, 10))
    assert followed.woken() == [8, 9]


def test_truncation_begins_anew_and_is_told(followed: Followed, path: Path) -> None:
    """Truncated without a copy: the file is read from its top again, also when it is longer than before."""
    with path.open("w") as file:
        file.write("n,t\n" + "".join(line + "\n" for line in numbers(100, 110)))
    assert followed.woken() == list(range(100, 110))
    assert "source_truncated" in followed.events.names()


def test_truncation_spares_what_was_read(followed: Followed, path: Path) -> None:
    """Lines that were read before a truncation, and not given out yet, are given out."""
    write_lines(path, *numbers(2, 30))
    assert column(drain(followed.stage, count=1), "n") == list(range(2, 12))
    with path.open("w") as file:
        file.write("n,t\n100,x\n")
    assert followed.now() == [*range(12, 30), 100]


def test_a_late_write_to_the_old_file_is_seen(followed: Followed, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the writer adds to the old file between the last read of it and the look at the new one comes first."""
    path.rename(path.with_name("in.csv.1"))
    write_lines(path, "3,x")

    def write_then_look(*arguments: Any) -> int | None:
        if len(path.with_name("in.csv.1").read_text().splitlines()) == 3:
            write_lines(path.with_name("in.csv.1"), "2,late")
        return successor(*arguments)

    monkeypatch.setattr(lines_module, "successor", write_then_look)
    assert followed.now() == [2, 3]


def test_position_is_found_after_rotation(followed: Followed, path: Path) -> None:
    """A position in a file that was renamed since goes on there and then in its successor."""
    write_lines(path, *numbers(2, 5))
    state = travelled(followed.stage.snapshot())
    path.rename(path.with_name("in.csv-20260131"))
    write_lines(path, "n,t", *numbers(5, 7))
    followed.stage.restore(state)
    assert followed.now() == [2, 3, 4, 5, 6]


def test_a_position_before_the_first_line_knows_its_file(path: Path) -> None:
    """A snapshot of a source that has read nothing names the file that was there: rotated, it is read all the same."""
    write_lines(path, "n,t", "1,x")
    made = Followed(path)
    made.stage.restore(None)
    state = travelled(made.stage.snapshot())
    made.stage.close()
    path.rename(path.with_name("in.csv.1"))
    write_lines(path, "n,t", "2,x")
    again = made.another()
    again.restore(state)
    assert column(drain(again), "n") == [1, 2]
    again.close()


def test_a_position_of_an_older_version_is_told_by_its_inode(path: Path) -> None:
    """A position without marks, of a file of which only the header had been read: the one with its inode is gone on in,
    and when copies have lost the inodes nobody can tell, and it says so."""
    write_lines(path.with_name("in.csv-20251231"), "n,t", "0,x")
    write_lines(path, "n,t")
    made = Followed(path)
    assert made.now() == []
    state = travelled(made.stage.snapshot())
    del state["position"]["file"]["before"]
    made.stage.close()
    for number in (1, 2):
        write_lines(path, f"{number},x")
        path.rename(path.with_name(f"in.csv-2026010{number}"))
        write_lines(path, "n,t")
    write_lines(path, "3,x")
    again = made.another()
    again.restore(state)
    assert column(drain(again), "n") == [1, 2, 3]
    again.close()
    shutil.copytree(path.parent, path.parent / "copy", ignore=shutil.ignore_patterns("copy"))
    copied = Followed(path.parent / "copy" / "in.csv")
    with pytest.raises(
        SourceError, match=r"only 4 bytes .* in\.csv, in\.csv-20260102, in\.csv-20260101, in\.csv-20251231 all"
    ):
        copied.stage.restore(state)


def test_every_cut_of_a_rotated_stream_restores(path: Path) -> None:
    """From the position after any batch, before, at and after a rotation, the rest comes exactly once."""
    write_lines(path, "n,t", *numbers(0, 25))
    made = Followed(path)
    stages = [travelled(made.stage.snapshot())]
    for _ in range(3):
        drain(made.stage, count=1)
        stages.append(travelled(made.stage.snapshot()))
    path.rename(path.with_name("in.csv.1"))
    write_lines(path, "n,t", *numbers(25, 50))
    while drain(made.stage, count=1):
        stages.append(travelled(made.stage.snapshot()))
    assert len(stages) == 7
    for state in stages[1:]:  # the first has seen no file yet: its beginning is what is at the path now
        made.stage.restore(state)
        rest = drain(made.stage)
        row = state["position"]["file"]["row"]
        assert column(rest, "n") == list(range(row, 50))
        assert positions(rest) == list(range(row, 50))


def test_changed_columns_are_refused(followed: Followed, path: Path) -> None:
    """A new file with other columns under known names is an error: values would land in the wrong ones."""
    path.rename(path.with_name("in.csv.1"))
    write_lines(path, "t,n", "a,2")
    with pytest.raises(SourceError, match="columns changed"):
        drain(followed.stage)


def test_hundreds_of_rotations_hold_no_descriptors(followed: Followed, path: Path) -> None:
    """Descriptors and watches do not add up."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2, 302):
        path.replace(path.with_name("in.csv.1"))
        write_lines(path, f"{number},x")
        assert followed.now() == [number]
    assert len(os.listdir("/proc/self/fd")) == before
    fd = followed.stage.wake_fd()
    watches = [line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "inotify wd" in line]
    assert len(watches) <= 3


def test_json_lines_are_followed_too(tmp_path: Path) -> None:
    """Following belongs to every file of lines."""
    path = tmp_path / "in.jsonl"
    write_lines(path, '{"n": 0}')
    made = Followed(path, type="jsonl")
    assert made.now() == [0]
    path.rename(tmp_path / "in.jsonl.1")
    write_lines(path, '{"n": 1}')
    assert made.woken() == [1]
