"""The log extractor: every line counted once, whatever happens to it, to the files and to its database."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.errors import OptionError
from streampiped.runtime.event_file import EventFile
from streampiped.stages import log_extractor
from streampiped.stages.base import StageContext
from streampiped.stages.log_extractor import FILE_NAME, LogExtractor, LogExtractorOptions
from streampiped.stages.log_facts import ErrorWindow, fact_of
from streampiped.stages.log_since import MINUTES_MAX
from support.log_lines import labelled
from support.services import Emitted, settle, wait_until

START = 1_700_000_000.0


class Pipeline:
    """A log directory, its writer, and the extractor's place."""

    def __init__(self, root: Path) -> None:
        self.logs = root / "logs"
        self.place = root / "state"
        self.logs.mkdir()
        self.place.mkdir()
        self.emitted = Emitted()
        self.rotate_at(1 << 20)
        self._extractors: list[LogExtractor] = []
        self._lines = 0

    def rotate_at(self, file_bytes_max: int, files_kept: int = 5) -> None:
        self.file = EventFile(self.logs, file_bytes_max=file_bytes_max, files_kept=files_kept)

    def extractor(self, processes: tuple[str, ...] = (), **options: Any) -> LogExtractor:
        context = StageContext("log_extractor", directory=self.place, emit=self.emitted, processes=processes)
        extractor = LogExtractor(LogExtractorOptions(path=str(self.file.path), **options), context)
        self._extractors.append(extractor)
        return extractor

    def say(self, count: int = 1, /, **fields: Any) -> None:
        for _ in range(count):
            self._lines += 1
            record = {"ts": START + self._lines, "level": "info", "event": "stage_output", "stage": "trainer"}
            self.file.append(json.dumps({**record, "line": "hello", **fields}).encode() + b"\n")

    def close(self) -> None:
        for extractor in self._extractors:
            extractor.close()
        self.file.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    found = Pipeline(tmp_path)
    yield found
    found.close()


def summary(extractor: LogExtractor, **params: Any) -> Any:
    return extractor.query("summary", params)


def events(extractor: LogExtractor) -> int:
    return int(summary(extractor)["events"])


GARBAGE = [
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"ts":"x"}', b'{"ts":NaN,"level":"info","event":"a","stage":"b"}',
    b'{"ts":1,"level":"loud","event":"a","stage":"b"}', b'{"ts":1,"level":"info","event":1,"stage":"b"}',
    b'{"ts":1e999,"level":"info","event":"a","stage":"b"}', b"[" * 100_000, b"9" * 10_000,
    b'{"ts":1,"level":[],"event":"a","stage":"b"}',
]  # fmt: skip


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: repr(line[:40]))
def test_garbage_is_no_fact(line: bytes) -> None:
    """Whatever is no event is told apart, without an exception."""
    assert fact_of(line) is None


@given(st.binary())
def test_no_bytes_raise(line: bytes) -> None:
    """No bytes at all make the parser raise."""
    fact_of(line)


def test_garbage_is_counted(pipeline: Pipeline) -> None:
    """Garbage between lines is counted and the lines around it too; lone surrogates and huge counts are stored."""
    extractor = pipeline.extractor()
    pipeline.say(event="pipeline_ready", generation=1, seconds=10**400)
    for line in GARBAGE[1:]:
        pipeline.file.append(line + b"\n")
    pipeline.say(stage="\ud800", event="output_dropped", count=1 << 70)
    settle(extractor)
    found = summary(extractor)
    assert (found["events"], found["garbage"]) == (2, len(GARBAGE) - 1)


def test_counts_by_stage_level_and_template(pipeline: Pipeline) -> None:
    """The summary has counts per stage and level, templates with first and last time, drops and deaths."""
    pipeline.say(3, line="loss 0.5")
    pipeline.say(2, line="loss 0.25")
    pipeline.say(stage="generator", level="warning", event="output_dropped", count=7)
    pipeline.say(2, stage="generator", level="error", event="stage_died", reason="signal 9")
    extractor = pipeline.extractor()
    settle(extractor)
    found = summary(extractor)
    assert found["events"] == 8
    assert found["stages"]["trainer"]["levels"] == {"info": 5}
    assert found["stages"]["generator"] == {
        "levels": {"warning": 1, "error": 2},
        "drops": {"output_dropped": 7},
        "deaths": {"count": 2, "last": START + 8, "reason": "signal 9"},
        "first_seen": START + 6,
        "last_seen": START + 8,
    }
    first = found["templates"][0]
    assert (first["template"], first["count"], first["example"]) == ("loss <n>", 5, "loss 0.5")
    assert (first["first_seen"], first["last_seen"]) == (START + 1, START + 5)
    assert [i["reason"] for i in found["incidents"]] == ["signal 9", "signal 9"]
    assert list(summary(extractor, stage="generator")["stages"]) == ["generator"]


def test_restarts_have_reasons(pipeline: Pipeline) -> None:
    """Deaths count by their reason, however its numbers vary; so does what an operator restarts, and each start."""
    pipeline.say(stage="supervisor", event="pipeline_started", pipeline="p", version="1", stages=3, state_dir="/x")
    for row in range(3):
        pipeline.say(level="error", event="stage_died", reason=f"ValueError: row {row} is bad")
    pipeline.say(level="error", event="stage_died", reason="killed by SIGKILL")
    asked = {"stage": "supervisor", "event": "command_received", "uid": 0, "who": "ann"}
    pipeline.say(**asked, method="restart", params="trainer normalizer by force")
    pipeline.say(**asked, method="restart", params="all")
    pipeline.say(**asked, method="stop", params="trainer")
    extractor = pipeline.extractor()
    settle(extractor)
    found = {(row["stage"], row["reason"]): row["count"] for row in summary(extractor)["restarts"]}
    assert found == {
        ("supervisor", "the daemon started"): 1,
        ("trainer", "ValueError: row 2 is bad"): 3,
        ("trainer", "killed by SIGKILL"): 1,
        ("trainer", "asked for by ann"): 1,
        ("normalizer", "asked for by ann"): 1,
        ("(all)", "asked for by ann"): 1,
    }
    assert {row["stage"] for row in summary(extractor, stage="trainer")["restarts"]} == {"trainer"}


def test_slow_epochs(pipeline: Pipeline) -> None:
    """Each slow epoch is counted, those too of which only the end of a spell tells; the newest that were told are
    listed, and one whose fields are none costs nothing."""
    slow = {"stage": "supervisor", "event": "epoch_delayed", "median": 0.05, "part": "fsync"}
    for epoch in range(30):
        pipeline.say(**slow, epoch=epoch, seconds=1.5)
    pipeline.say(**slow, epoch="x", seconds=[])
    extractor = pipeline.extractor()
    settle(extractor)
    found = summary(extractor)["slow_epochs"]
    assert found["count"] == 30
    newest = {"ts": START + 30, "epoch": 29, "seconds": 1.5, "median": 0.05, "part": "fsync"}
    assert (found["last"][0], len(found["last"])) == (newest, 20)
    assert summary(extractor, stage="trainer")["slow_epochs"] == {"count": 0, "last": []}
    pipeline.say(stage="supervisor", event="epochs_settled", epoch=40, count=7, seconds=1.9)
    settle(extractor)
    found = summary(extractor)["slow_epochs"]
    assert (found["count"], len(found["last"])) == (37, 20)


def test_tables_are_bounded(pipeline: Pipeline) -> None:
    """However many kinds of restarts, slow epochs and bursts a log tells of, the tables keep the newest."""
    for n in range(400):
        pipeline.say(level="error", event="stage_died", reason="".join(random.Random(n).choices("abcdef", k=9)))
        pipeline.say(stage="supervisor", event="epoch_delayed", epoch=n, seconds=2.0, median=0.1, part="fsync")
    extractor = pipeline.extractor(burst_errors=2, burst_window="1ms")
    settle(extractor)
    with closing(sqlite3.connect(pipeline.place / FILE_NAME)) as database:
        sizes = {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("restarts", "slow_epochs", "bursts")
        }
    assert sizes["restarts"] <= 201
    assert sizes["slow_epochs"] == 200
    assert sizes["bursts"] <= 201
    assert summary(extractor)["slow_epochs"]["count"] == 400


def test_both_ends_of_a_traceback(pipeline: Pipeline) -> None:
    """An event with a traceback is told by what it says and by the exception, not by the frames between."""
    for n in range(3):
        trace = f'Traceback (most recent call last):\n  File "x.py", line {n}\nValueError: no {n}'
        pipeline.say(level="error", event="my_own", line=f"batch {n} lost\n{trace}")
        pipeline.say(
            level="error", event="stage_raised", phase="process", reason=f"ValueError: no {n}", traceback=trace
        )
    extractor = pipeline.extractor()
    settle(extractor)
    found = {row["template"]: row["count"] for row in summary(extractor)["templates"]}
    assert found == {
        "my_own line=batch <n> lost ... ValueError: no <n>": 3,
        "raised in process: ValueError: no <n>": 3,
    }


def test_rests_until_something_happens(pipeline: Pipeline) -> None:
    """Without news the extractor asks for no wake-up, and its descriptor becomes readable with the next line."""
    extractor = pipeline.extractor()
    pipeline.say()
    now = settle(extractor)
    fd = extractor.wake_fd()
    assert fd is not None
    with pytest.raises(BlockingIOError):
        os.read(fd, 4096)
    pipeline.say()
    assert extractor.wake(now) is not None or events(extractor) == 2
    settle(extractor, now + 1)
    assert events(extractor) == 2


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_rotation_while_following(pipeline: Pipeline, kept: int) -> None:
    """Every line is counted once across rotations, when it looks often enough for the files that are kept."""
    pipeline.rotate_at(2000, kept)
    extractor = pipeline.extractor()
    now = 0.0
    for n in range(300):
        pipeline.say()
        if n % 7 == 0:
            now = settle(extractor, now + 1)
    settle(extractor, now + 1)
    found = summary(extractor)
    assert (found["events"], found["garbage"], found["gaps"]) == (300, 0, 0)


def test_rotated_away_while_down(pipeline: Pipeline) -> None:
    """What was rotated away while the extractor was down is missing, and said to be; the rest is counted once."""
    pipeline.rotate_at(2000, 2)
    first = pipeline.extractor()
    pipeline.say(5)
    settle(first)
    first.close()
    pipeline.say(200)
    second = pipeline.extractor()
    settle(second)
    found = summary(second)
    there = sum(len(path.read_bytes().splitlines()) for path in pipeline.logs.iterdir())
    assert (found["events"], found["gaps"]) == (5 + there, 1)


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _cut(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(b"".join(lines[:2])))


def _move(path: Path) -> None:
    path.rename(path.with_name("mine"))


def _copy(path: Path) -> None:
    shutil.copy(path, path.with_name(f"{path.name}.9"))


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("act", [_delete, _empty, _cut, _move, _copy])
def test_operator_meddles_with_the_file(pipeline: Pipeline, act: Callable[[Path], None], down: bool) -> None:
    """The newest file deleted, emptied, cut, moved away or copied, with the extractor running or down: nothing that was
    counted is counted again, neither of it nor of the older files."""
    pipeline.rotate_at(2000, 3)
    extractor = pipeline.extractor()
    pipeline.say(40)
    now = settle(extractor)
    assert len(list(pipeline.logs.iterdir())) > 1
    if down:
        extractor.close()
    act(pipeline.file.path)
    if not down:
        now = settle(extractor, now + 1)
    pipeline.say(3)
    if down:
        extractor = pipeline.extractor()
    settle(extractor, now + 1)
    # of a file that was cut and written to again nobody can say what is new: missing, and said to be
    uncertain = down and act is _cut
    assert events(extractor) == (40 if uncertain else 43)
    pipeline.say()
    settle(extractor, now + 2)
    assert events(extractor) == (41 if uncertain else 44)
    assert summary(extractor)["gaps"] > 0 or not uncertain


def test_a_copy_that_is_there_at_first(pipeline: Pipeline) -> None:
    """The log is read on where its copy ended."""
    pipeline.say(40)
    path = pipeline.file.path
    shutil.copy(path, path.with_name(path.name + ".1"))
    pipeline.say(3)
    extractor = pipeline.extractor()
    settle(extractor)
    assert (events(extractor), summary(extractor)["gaps"]) == (43, 0)


def test_emptied_and_filled_again_between_two_looks(pipeline: Pipeline) -> None:
    """A log that was emptied and has grown beyond what was read of it is read from its top, and says that lines may be
    missing."""
    extractor = pipeline.extractor()
    pipeline.say(5)
    now = settle(extractor)
    os.truncate(pipeline.file.path, 0)
    pipeline.say(20)
    settle(extractor, now + 1)
    found = summary(extractor)
    assert (found["events"], found["garbage"], found["gaps"]) == (25, 0, 1)


def test_half_a_line_waits(pipeline: Pipeline) -> None:
    """A line is counted when it is whole; one that was torn for good is counted as garbage once."""
    extractor = pipeline.extractor()
    pipeline.say()
    with pipeline.file.path.open("ab") as file:
        file.write(b'{"ts":1700000001,"level":"info","event":"a_b",')
        file.flush()
        now = settle(extractor)
        assert events(extractor) == 1
        file.write(b'"stage":"x"}\n')
    now = settle(extractor, now + 1)
    assert events(extractor) == 2
    with pipeline.file.path.open("ab") as file:
        file.write(b'{"ts":17')
    pipeline.file.close()
    pipeline.say()
    settle(extractor, now + 1)
    assert (events(extractor), summary(extractor)["garbage"]) == (3, 1)


def test_no_file_yet(pipeline: Pipeline) -> None:
    """The extractor may come before the first line and before the directory."""
    pipeline.logs.rmdir()
    extractor = pipeline.extractor()
    assert extractor.wake(0.0) is not None, "an unwatched directory must be looked for"
    pipeline.logs.mkdir()
    now = settle(extractor, 10.0)
    pipeline.say()
    settle(extractor, now + 1)
    assert events(extractor) == 1


def test_templates_are_bounded(pipeline: Pipeline) -> None:
    """A storm of unique lines forgets the oldest templates into `(other)`; no event is lost from the sum."""
    extractor = pipeline.extractor(templates_max=10)
    for n in range(100):
        pipeline.say(line="".join(random.Random(n).choices("abcdefgh", k=8)))
    pipeline.say(line="the last")
    settle(extractor)
    found = summary(extractor)
    assert len(found["templates"]) == 11
    assert sum(t["count"] for t in found["templates"]) == 101
    assert found["templates"][0]["template"] == "(other)"
    assert "the last" in {t["template"] for t in found["templates"]}
    assert found["templates_forgotten"] == 91


def test_fewer_templates_in_a_full_database(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `templates_max` was lowered a database that is larger than it may be forgets at once what is too many, and
    has room again: whatever comes is counted."""
    extractor = pipeline.extractor(templates_max=1000)
    for n in range(300):
        pipeline.say(line=" ".join(random.Random(n).choices("abcdefgh", k=300)))
    settle(extractor)
    extractor.close()
    monkeypatch.setattr(log_extractor, "FIXED_BYTES", 0)
    extractor = pipeline.extractor(templates_max=10)
    for n in range(300):
        pipeline.say(ts=START + 3600 + 60 * n, stage=f"stage{n % 40}")
    settle(extractor)
    found = summary(extractor)
    assert pipeline.emitted.names == []
    assert found["events"] == 600
    assert sum(t["count"] for t in found["templates"]) == 600
    kept = [t for t in found["templates"] if t["template"] != "(other)"]
    assert len(kept) == 10
    assert found["templates_forgotten"] == 590


def test_templates_grow_across_restarts(pipeline: Pipeline) -> None:
    """A template that becomes more general is so in the database, and to the next extractor."""
    for number, name in enumerate(("alice", "bob", "carol"), 1):
        pipeline.say(line=f"user {name} logged in")
        extractor = pipeline.extractor()
        settle(extractor)
        extractor.close()
        (template,) = summary(pipeline.extractor())["templates"]
        assert template["template"] == ("user alice logged in" if number == 1 else "user <*> logged in")
        assert (template["count"], template["example"]) == (number, "user alice logged in")


def test_a_failed_write_does_not_change_the_templates(pipeline: Pipeline) -> None:
    """Lines that a full disk kept from being counted leave no trace: in the end the templates are those of an
    undisturbed run."""
    lines = [text for _, text in labelled(2000, 5)]
    extractor = pipeline.extractor(templates_max=30)
    database = extractor._history._db  # its limit of pages is how a full disk looks to SQLite
    now, failed = 0.0, 0
    for n in range(0, len(lines), 100):
        for text in lines[n : n + 100]:
            pipeline.say(line=text)
        database.execute("PRAGMA max_page_count = 1")
        for _ in range(3):
            due = extractor.wake(now + 1)
            now = max(now + 1, due or 0.0)
        database.execute("PRAGMA max_page_count = 100000")
        failed = len(pipeline.emitted.names)
        now = settle(extractor, now + 10)
    assert failed > 2
    assert mined(extractor) == undisturbed(pipeline, templates_max=30)


def mined(extractor: LogExtractor) -> list[tuple[Any, ...]]:
    """Every template with its count and times."""
    return [tuple(row.values()) for row in summary(extractor)["templates"]]


def undisturbed(pipeline: Pipeline, **options: Any) -> list[tuple[Any, ...]]:
    """What an extractor that nothing happens to makes of the log."""
    pipeline.place = pipeline.place.with_name("undisturbed")
    pipeline.place.mkdir()
    extractor = pipeline.extractor(**options)
    settle(extractor)
    return mined(extractor)


def test_stage_names_are_bounded(pipeline: Pipeline) -> None:
    """Names that strangers write into the log cannot grow the tables without bound."""
    for n in range(200):
        pipeline.say(stage=f"stage{n}")
    extractor = pipeline.extractor()
    settle(extractor)
    found = summary(extractor)["stages"]
    assert len(found) == 65
    assert found["(other)"]["levels"]["info"] == 200 - 64


def test_strangers_take_no_place_of_the_pipelines(pipeline: Pipeline) -> None:
    """However many names strangers write first, the plan's processes count by their own, also those that an earlier
    run has counted, and also what an operator restarts."""
    for n in range(200):
        pipeline.say(stage=f"stage{n}")
    for stage in ("supervisor", "trainer", "late"):
        pipeline.say(3, stage=stage, level="warning")
    restart = {"stage": "supervisor", "event": "command_received", "method": "restart", "who": "ann"}
    pipeline.say(**restart, params="late stranger")
    extractor = pipeline.extractor(("trainer", "late"))
    settle(extractor)
    extractor.close()
    extractor = pipeline.extractor(("trainer", "late"))
    pipeline.say(stage="trainer", level="warning")
    pipeline.say(stage="stage0")
    pipeline.say(stage="another")
    settle(extractor)
    found = summary(extractor)
    counted = {name: found["stages"][name]["levels"].get("warning") for name in ("supervisor", "trainer", "late")}
    assert counted == {"supervisor": 3, "trainer": 4, "late": 3}
    assert found["stages"]["stage0"]["levels"] == {"info": 2}
    assert found["stages"]["(other)"]["levels"] == {"info": 200 - 64 + 1}
    assert {row["stage"] for row in found["restarts"]} == {"late", "(other)"}


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("how", [shutil.move, shutil.copy])
def test_a_done_file_put_back_at_the_logs_place(
    pipeline: Pipeline, how: Callable[[Path, Path], None], down: bool
) -> None:
    """An old file that was counted and stands at the log's own path again, moved there or copied over it, counts
    nothing twice; what the daemon writes behind it counts once, and so does the file that follows."""
    pipeline.say(5)
    extractor = pipeline.extractor()
    settle(extractor)
    path, old = pipeline.file.path, pipeline.file.path.with_name("kept")
    shutil.copy(path, old)
    path.rename(path.with_name(path.name + ".1"))
    pipeline.say(2)
    settle(extractor)
    assert events(extractor) == 7
    if down:
        extractor.close()
    how(old, path)
    if not down:
        settle(extractor)
        assert events(extractor) == 7
    pipeline.say(3)
    extractor = pipeline.extractor() if down else extractor
    settle(extractor)
    assert events(extractor) == 10
    path.rename(path.with_name(path.name + ".2"))
    pipeline.say(4)
    settle(extractor)
    assert events(extractor) == 14
    extractor.close()
    again = pipeline.extractor()
    settle(again)
    assert events(again) == 14
    assert summary(again)["garbage"] == 0


def test_a_copy_with_a_torn_end_is_passed(pipeline: Pipeline) -> None:
    """A done file that ends in a piece of a line is read to its end once, and no copy of it stands in the way of the
    files that follow."""
    pipeline.say(3)
    extractor = pipeline.extractor()
    settle(extractor)
    path = pipeline.file.path
    with path.open("ab") as file:
        file.write(b'{"torn')
    shutil.copy(path, path.with_name(path.name + ".2"))
    path.rename(path.with_name(path.name + ".1"))
    pipeline.say(2)
    settle(extractor)
    assert (events(extractor), summary(extractor)["garbage"]) == (5, 1)


SINCE = START - START % 60 + 120
"""The beginning of a minute, after which some of the events of `dated` come."""


def dated(pipeline: Pipeline) -> None:
    """Events before and after SINCE."""
    for ts in (SINCE - 90, SINCE - 0.001):
        pipeline.say(ts=ts, line="before and after")
        pipeline.say(ts=ts, line="only early")
        pipeline.say(ts=ts, level="error", event="stage_died", reason="killed by SIGKILL")
        pipeline.say(ts=ts, event="output_dropped", count=5)
    for ts in (SINCE, SINCE + 100):
        pipeline.say(ts=ts, line="before and after")
        pipeline.say(ts=ts, line="really late")
        pipeline.say(ts=ts, level="error", event="stage_died", reason="ValueError")
        pipeline.say(ts=ts, event="output_dropped", count=7)
    slow = {"stage": "supervisor", "event": "epoch_delayed", "median": 0.05, "part": "fsync", "seconds": 1.5}
    pipeline.say(**slow, ts=SINCE - 10, epoch=1)
    pipeline.say(**slow, ts=SINCE + 10, epoch=2)
    pipeline.say(stage="supervisor", event="epochs_settled", ts=SINCE + 20, epoch=9, count=4, seconds=1.4)


def test_summary_since_is_exact(pipeline: Pipeline) -> None:
    """From a minute on: events, levels, drops, deaths and slow epochs are those of an extractor that has seen the later
    events alone; a template or restart that is new since then has its count, one that is older an upper bound, and what
    was not seen since is left out."""
    dated(pipeline)
    extractor = pipeline.extractor()
    settle(extractor)
    found = summary(extractor, since=SINCE + 59.9)
    assert (found["since"], found["events"]) == (SINCE, 10)
    trainer = found["stages"]["trainer"]
    assert (trainer["levels"], trainer["drops"]) == ({"info": 6, "error": 2}, {"output_dropped": 14})
    assert trainer["deaths"] == {"count": 2, "last": SINCE + 100, "reason": "ValueError"}
    assert (trainer["first_seen"], trainer["last_seen"]) == (SINCE, SINCE + 100)
    assert (found["slow_epochs"]["count"], [row["epoch"] for row in found["slow_epochs"]["last"]]) == (5, [2])
    counts = {row["template"]: (row["count"], row["count_max"]) for row in found["templates"]}
    assert counts["before and after"] == (None, 4)
    assert counts["really late"] == (2, 2)
    assert "only early" not in counts
    assert [(row["reason"], row["count"]) for row in found["restarts"]] == [("ValueError", 2)]
    assert [row["ts"] for row in found["incidents"]] == [SINCE + 100, SINCE]
    assert found["garbage"] is found["gaps"] is None
    assert summary(extractor, since=SINCE, stage="supervisor")["events"] == 2
    assert summary(extractor, since=SINCE - 3600)["events"] == summary(extractor)["events"]
    assert summary(extractor, since=SINCE + 3600)["events"] == 0


def test_summary_since_says_how_far_it_reaches(pipeline: Pipeline) -> None:
    """Minutes are bounded; who asks for older ones is told from when on the answer counts, and it is exact for that."""
    pipeline.rotate_at(64 << 20)
    minutes = MINUTES_MAX + 90
    line = '{{"ts":{},"level":"info","event":"stage_output","stage":"trainer","line":"hello"}}\n'
    pipeline.file.append("".join(line.format(SINCE + 60 * n) for n in range(minutes)).encode())
    extractor = pipeline.extractor()
    settle(extractor)
    assert summary(extractor)["events"] == minutes
    found = summary(extractor, since=SINCE)
    assert (found["since"], found["events"]) == (SINCE + 60 * 90, MINUTES_MAX)
    assert found["stages"]["trainer"]["first_seen"] == found["since"]
    last = summary(extractor, since=SINCE + 60 * (minutes - 7))
    assert (last["since"], last["events"]) == (SINCE + 60 * (minutes - 7), 7)


def test_minutes_of_a_clock_that_was_ahead(pipeline: Pipeline) -> None:
    """Minutes of a clock that was wrong for a while are forgotten in their turn, and what came after them can still be
    asked for."""
    line = '{{"ts":{},"level":"info","event":"stage_output","stage":"trainer","line":"x"}}\n'
    ahead, minutes = 3_000_000_000, MINUTES_MAX + 90
    text = line.format(ahead) + "".join(line.format(SINCE + 60 * n) for n in range(minutes))
    pipeline.file.append(text.encode())
    extractor = pipeline.extractor()
    settle(extractor)
    last = summary(extractor, since=SINCE + 60 * (minutes - 7))
    assert (last["since"], last["events"]) == (SINCE + 60 * (minutes - 7), 7)


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=20))
def test_no_burst_ends_before_it_begins(times: list[float]) -> None:
    """Whatever the clock does."""
    window = ErrorWindow()
    for ts in times:
        window = window.add(1000.0 + ts, window=10.0, threshold=3)
        if window.burst:
            assert window.burst.started <= window.burst.ended


def test_error_window() -> None:
    """A burst begins with the error that makes the window full, goes on while it stays full, and ends after."""
    window = ErrorWindow()
    seen: list[int | None] = []
    for ts in (0, 100, 101, 102, 103, 130, 131, 132):
        window = window.add(float(ts), window=5.0, threshold=3)
        seen.append(window.burst.errors if window.burst else None)
    assert seen == [None, None, None, 3, 4, None, None, 3]


@given(st.lists(st.floats(0, 100), max_size=50), st.integers(2, 6), st.floats(0.1, 50))
def test_error_window_is_the_brute_force_one(gaps: list[float], threshold: int, span: float) -> None:
    """The bounded window says 'burst' exactly when the unbounded list of errors would."""
    window, times = ErrorWindow(), [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    for n, ts in enumerate(times):
        window = window.add(ts, window=span, threshold=threshold)
        within = [t for t in times[: n + 1] if ts - t <= span]
        assert (window.burst is not None) == (len(within) >= threshold)
        assert len(window.times) <= threshold


def test_bursts_in_the_summary(pipeline: Pipeline) -> None:
    """Errors that come together are one burst with its times, also across a restart of the extractor."""
    extractor = pipeline.extractor(burst_errors=5, burst_window="10s")
    pipeline.say(4, level="error")
    settle(extractor)
    extractor.close()
    extractor = pipeline.extractor(burst_errors=5, burst_window="10s")
    pipeline.say(4, level="error")
    settle(extractor)
    (burst,) = summary(extractor)["bursts"]
    assert burst == {"stage": "trainer", "started": START + 1, "ended": START + 8, "errors": 8}


def test_unusable_database(pipeline: Pipeline) -> None:
    """A database file that is none is set aside, said, and everything counted anew."""
    (pipeline.place / FILE_NAME).write_bytes(b"this is no database" * 1000)
    pipeline.say(3)
    extractor = pipeline.extractor()
    settle(extractor)
    assert events(extractor) == 3
    assert pipeline.emitted.names == ["history_reset"]
    assert (pipeline.place / f"{FILE_NAME}.unusable").read_bytes().startswith(b"this is no database")


def test_database_damaged_while_running(pipeline: Pipeline) -> None:
    """A database damaged under a running extractor is replaced and the lines that exist are counted anew."""
    extractor = pipeline.extractor()
    pipeline.say(3)
    now = settle(extractor)
    database = pipeline.place / FILE_NAME
    with closing(sqlite3.connect(database)) as other:  # a write by another makes the extractor read pages again
        other.execute("UPDATE totals SET value = value")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.write(os.urandom(size))
    pipeline.say(2)
    settle(extractor, now + 1)
    assert events(extractor) == 5
    assert pipeline.emitted.names == ["history_reset"]


def test_database_locked(pipeline: Pipeline) -> None:
    """A database that cannot be written costs nothing but time: said once, and in the summary as long as it is so,
    nothing counted halfway, made up for."""
    extractor = pipeline.extractor()
    pipeline.say(5)
    now = settle(extractor)
    with closing(sqlite3.connect(pipeline.place / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pipeline.say(500)
        for _ in range(2):
            due = extractor.wake(now + 1)
            assert due is not None
            now = due
        assert events(extractor) == 5
        for given in ({}, {"since": 1.0}):
            assert extractor.query("summary", given)["unwritten"] == "database is locked"
    assert pipeline.emitted.names == ["history_failed"]
    settle(extractor, now + 10)
    assert events(extractor) == 505
    assert extractor.query("summary", {})["unwritten"] is None
    assert pipeline.emitted.names == ["history_failed", "history_recovered"]


def test_the_path_is_needed(tmp_path: Path) -> None:
    """Without a file to follow there is no extractor."""
    with pytest.raises(OptionError):
        LogExtractor(LogExtractorOptions(), StageContext("log_extractor", directory=tmp_path))
    with pytest.raises(KeyError):
        LogExtractor(LogExtractorOptions(path="x"), StageContext("log_extractor", directory=tmp_path)).query(
            "nonsense", {}
        )


CHILD = """
import select, sys, time
from pathlib import Path
from streampiped.stages import log_extractor
from streampiped.stages.base import StageContext
from streampiped.stages.log_extractor import LogExtractor, LogExtractorOptions
options = LogExtractorOptions(path=sys.argv[1], templates_max=30)
extractor = LogExtractor(options, StageContext("x", directory=Path(sys.argv[2])))
while True:
    due = extractor.wake(time.monotonic())
    wait = None if due is None else max(0.0, due - time.monotonic())
    select.select([extractor.wake_fd()], [], [], wait)
"""


@pytest.mark.system
def test_killed_at_any_instant(pipeline: Pipeline) -> None:
    """However often the extractor is killed while lines are written and files rotate, each line counts once, and the
    templates, also what was forgotten, are those of one that was never killed."""
    pipeline.rotate_at(20_000, 50)
    chance = random.Random(7)
    texts = [text for _, text in labelled(3000, 7)]
    written = 0
    for _ in range(12):
        command = [sys.executable, "-c", CHILD, str(pipeline.file.path), str(pipeline.place)]
        child = subprocess.Popen(command)
        try:
            wal = pipeline.place / f"{FILE_NAME}-wal"
            before = wal.stat().st_mtime_ns if wal.exists() else 0
            pipeline.say(line=texts[written % len(texts)])
            written += 1
            wait_until(lambda since=before, wal=wal: wal.exists() and wal.stat().st_mtime_ns > since)
            for _ in range(chance.randrange(1, 40)):
                for _ in range(chance.randrange(1, 20)):
                    pipeline.say(line=texts[written % len(texts)])
                    written += 1
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    extractor = pipeline.extractor(templates_max=30)
    settle(extractor)
    found = summary(extractor)
    assert (found["events"], found["garbage"], found["gaps"]) == (written, 0, 0)
    assert sum(row["count"] for row in found["templates"]) == written
    assert found["templates_forgotten"] > 0
    assert mined(extractor) == undisturbed(pipeline, templates_max=30)


CRASHES = """
import os, signal, sqlite3, sys
from pathlib import Path
from support.log_lines import labelled
from support.services import settle
from streampiped.runtime.event_file import EventFile
from streampiped.stages import log_extractor
from streampiped.stages.base import StageContext
from streampiped.stages.log_extractor import LogExtractor, LogExtractorOptions

logs, place, crashes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
file = EventFile(logs, file_bytes_max=1000, files_kept=1000)
line = b'{"ts":%d,"level":"error","event":"stage_died","stage":"trainer","reason":"x"}\\n'
connect = sqlite3.connect

def run(kill_at):
    seen = 0
    def trace(statement):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def traced(*args, **options):
        db = connect(*args, **options)
        db.set_trace_callback(trace)
        return db
    sqlite3.connect = traced
    settle(LogExtractor(LogExtractorOptions(path=str(file.path)), StageContext("x", directory=place)))
    os._exit(0)

killed = 0
for kill_at in range(1, crashes + 1):
    for n in range(3):
        file.append(line % (1_700_000_000 + 10 * kill_at + n))
    child = os.fork() or run(kill_at)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(killed)
"""


@pytest.mark.system
def test_killed_before_every_statement(pipeline: Pipeline) -> None:
    """Killed before each single statement it gives to its database, in turn, the extractor counts each line once."""
    crashes = 60  # of about 25 statements to open and 20 for a transaction, and there are several
    command = [sys.executable, "-c", CRASHES, str(pipeline.logs), str(pipeline.place), str(crashes)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert int(done.stdout) > crashes // 2
    extractor = pipeline.extractor()
    settle(extractor)
    found = summary(extractor)
    assert (found["events"], found["garbage"], found["gaps"]) == (3 * crashes, 0, 0)
    assert found["stages"]["trainer"]["deaths"]["count"] == 3 * crashes
