"""What an operator fears of a log: that it blocks the daemon, tears lines, fills the disk or hides what was lost."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streampiped.runtime import event_log
from streampiped.runtime.console import Console
from streampiped.runtime.event_file import EventFile
from streampiped.runtime.event_log import EventLog, stderr_style
from support.screens import read_now, screen_of, terminal

pytestmark = pytest.mark.system

STORM = 5000  # events that nobody reads: three times of what a pipe and the pending buffer hold
BLOCKED_S = 5.0  # a log that waits for its reader would take for ever; 5000 events take about 0.4 s


@contextmanager
def opened(directory: Path | None, fd: int, **options: Any) -> Iterator[EventLog]:
    log = EventLog(directory, stderr_fd=fd, environ={}, **options)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def channel(kind: str) -> Iterator[tuple[int, int]]:
    """(reader, writer) descriptors of a pipe or a stream socket."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_WRONLY)
    yield fd
    os.close(fd)


def records(data: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def say(log: EventLog, number: int, *, stage: str = "trainer", padding: int = 100) -> None:
    log.write("stage_output", stage=stage, line=f"{number} {'x' * padding}")


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [int(r["line"].split()[0]) for r in found if r["event"] == "stage_output"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_slow_reader_never_blocks_and_every_loss_is_said(kind: str) -> None:
    """With nobody reading standard error the log goes on at once; when somebody does, every line is whole and what
    is missing is exactly what is said to be missing."""
    with channel(kind) as (reader, writer), opened(None, writer) as log:
        started = time.monotonic()
        for n in range(STORM):
            say(log, n)
        assert time.monotonic() - started < BLOCKED_S
        assert os.get_blocking(writer), "the descriptor that others share must stay blocking"
        data = ""
        while log.pending:
            log.flush()
            data += read_now(reader)
        say(log, STORM)
        found = records(data + read_now(reader))
        lost = sum(r["count"] for r in found if r["event"] == "log_lines_dropped")
        seen = numbers(found)
        assert lost > 0
        assert len(seen) + lost == STORM + 1
        assert seen == [*range(STORM - lost), STORM]


def test_reader_gone(tmp_path: Path) -> None:
    """A reader that closed its end costs the lines on standard error only: counted, the file complete."""
    reader, writer = os.pipe()
    os.close(reader)
    with opened(tmp_path, writer) as log:
        for n in range(10):
            say(log, n)
        assert log.counts() == {"journal_dropped": 0, "stderr_dropped": 10, "file_dropped": 0}
        assert numbers(log.tail()) == list(range(10))
    os.close(writer)


def test_losses_add_up_over_several_troubles(tmp_path: Path) -> None:
    """A notice that is itself lost is made up for: when lines come through again, the count is of all since."""
    place = tmp_path / "err"
    program = (
        "import resource, signal, sys\n"
        "from streampiped.runtime.line_writer import LineWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit = lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))\n"
        "writer = LineWriter(1, lambda count: b'lost %d\\n' % count)\n"
        "writer.write(b'one\\n'); limit(6)\n"
        "for _ in range(5): writer.write(b'two\\n')\n"
        "limit(1000); writer.write(b'three\\n'); writer.write(b'four\\n')\n"
    )
    with place.open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert place.read_text() == "one\ntw\nlost 5\nthree\nfour\n"


def test_stopped_terminal() -> None:
    """A terminal that takes nothing (Ctrl-S) does not stop the log; later lines are whole."""
    with terminal() as (master, slave), opened(None, slave) as log:
        started = time.monotonic()
        for n in range(STORM):
            say(log, n)
        assert time.monotonic() - started < BLOCKED_S
        data = ""
        while log.pending:
            log.flush()
            data += read_now(master)
        lines = [line for line in data.splitlines() if line]
        assert all(line.endswith("x" * 100) for line in lines)
        assert log.counts()["stderr_dropped"] + len(lines) == STORM


def test_styles(tmp_path: Path) -> None:
    """A terminal is written for people, the journal with priorities, everything else as JSON lines."""
    with terminal() as (_master, slave):
        assert stderr_style(slave, {}) == "terminal"
    with channel("socket") as (_reader, writer):
        found = os.fstat(writer)
        journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert stderr_style(writer, journal) == "journal"
        assert stderr_style(writer, {"JOURNAL_STREAM": "1:2"}) == "json"
        assert stderr_style(writer, {}) == "json"


def test_journal_without_its_socket(tmp_path: Path) -> None:
    """Where journald's own socket is not to be had, lines on its stream begin with their syslog priority."""
    with channel("socket") as (reader, writer):
        found = os.fstat(writer)
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        log = EventLog(None, stderr_fd=writer, environ=environ, journal_path=str(tmp_path / "none"))
        log.write("stage_died", stage="trainer", reason="signal 9", traceback="a\nb")
        log.close()
        assert read_now(reader) == "<3>trainer: died: signal 9\n<3>    a\n<3>    b\n"


def test_regular_file_appends(tmp_path: Path) -> None:
    """Standard error redirected into a file keeps what was there and what others write to the same descriptor."""
    fd = os.open(tmp_path / "err", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before\n")
    with opened(None, fd) as log:
        say(log, 1)
        os.write(fd, b"between\n")
        say(log, 2)
    os.close(fd)
    lines = (tmp_path / "err").read_text().splitlines()
    assert [line[:6] for line in lines] == ["before", '{"ts":', "betwee", '{"ts":']
    assert numbers([json.loads(line) for line in lines if line.startswith("{")]) == [1, 2]


def test_levels(tmp_path: Path, null: int) -> None:
    """What is below the level goes nowhere, and the level can be changed while running."""
    with opened(tmp_path, null, level="warning") as log:
        say(log, 1)
        log.write("stage_died", stage="trainer", reason="x")
        log.level = "debug"
        log.write("stage_ready", stage="trainer", generation=2)
        say(log, 2)
        assert [r["event"] for r in log.tail()] == ["stage_died", "stage_ready", "stage_output"]
        assert [r["event"] for r in log.tail(level="error")] == ["stage_died"]


def test_rotation_bounds_the_disk(tmp_path: Path, null: int) -> None:
    """However much is logged, the files stay within their bound, and the newest events can be read across them."""
    with opened(tmp_path, null, file_bytes_max=10_000, files_kept=2) as log:
        for n in range(1000):
            say(log, n)
        files = sorted(p.name for p in tmp_path.iterdir())
        assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
        assert all(p.stat().st_size <= 10_000 for p in tmp_path.iterdir())
        assert numbers(log.tail(lines=80)) == list(range(920, 1000))
        everything = numbers(log.tail(lines=1000))
        assert everything == list(range(everything[0], 1000))


def test_no_old_files_kept(tmp_path: Path, null: int) -> None:
    """`files_kept` 0 leaves one file."""
    with opened(tmp_path, null, file_bytes_max=2000, files_kept=0) as log:
        for n in range(100):
            say(log, n)
        assert [p.name for p in tmp_path.iterdir()] == ["events.jsonl"]
        assert numbers(log.tail())[-1] == 99


def test_tail_of_one_stage(tmp_path: Path, null: int) -> None:
    """`tail` finds the newest of one stage among many of another, oldest first."""
    with opened(tmp_path, null) as log:
        for n in range(500):
            say(log, n, stage="trainer" if n % 50 == 0 else "generator")
        assert numbers(log.tail("trainer", 3)) == [350, 400, 450]
        assert log.tail("nobody") == []


def test_tail_since(tmp_path: Path, null: int) -> None:
    """`tail` gives nothing older than `since`, also where lines are a little out of order, and does not read on for
    ever behind those that are far older."""
    with opened(tmp_path, null, file_bytes_max=4000, files_kept=9) as log:
        for n in range(100):
            log.write("stage_output", stage="trainer", line=f"{n} x", ts=1000.0 + 10 * (n ^ 1))
        assert numbers(log.tail(lines=100, since=1950.0)) == [94, 96, 97, 98, 99]
        assert numbers(log.tail(lines=100)) == list(range(100))
        assert log.tail(since=5000.0) == []


def test_look_back_says_when_it_may_have_missed_something(
    tmp_path: Path, null: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole is what reaches the beginning, the moment asked for or the number asked for; not what one of the bounds
    ended, whether anything was found or not."""
    with opened(tmp_path, null, file_bytes_max=20_000, files_kept=2) as log:
        for n in range(300):
            log.write("stage_output", stage="generator" if n else "trainer", line=f"{n} x", ts=1000.0 + n)
        for asked in ((None, 10, None, 0.0), (None, 1000, None, 0.0), ("trainer", 10, None, 0.0)):
            assert log.look_back(*asked)[1], asked
        monkeypatch.setattr(event_log, "TAIL_SCAN_BYTES_MAX", 10_000)
        assert log.look_back("trainer", 10, None, 0.0) == ([], False)
        assert log.look_back(None, 10, None, 0.0)[1]
        assert log.look_back(None, 1000, None, 1295.0)[1]
        monkeypatch.setattr(event_log, "TAIL_RESULT_BYTES_MAX", 2000)
        assert not log.look_back(None, 100, None, 0.0)[1]


def test_killed_in_the_middle_of_a_line(tmp_path: Path, null: int) -> None:
    """A line torn by a kill stays alone: the next one begins on its own line."""
    with opened(tmp_path, null) as log:
        say(log, 1)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"ts":1,"level":"info","event":"stage_output","stage":"trainer","li')
    with opened(tmp_path, null) as log:
        say(log, 2)
        assert numbers(log.tail()) == [1, 2]
    assert len((tmp_path / "events.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize("act", ["delete", "move", "truncate"])
def test_operator_meddles_with_the_file(tmp_path: Path, null: int, act: str) -> None:
    """A log file deleted, moved away or truncated while running is simply there again with the next event."""
    path = tmp_path / "events.jsonl"
    with opened(tmp_path, null) as log:
        say(log, 1)
        match act:
            case "delete":
                path.unlink()
            case "move":
                path.rename(tmp_path / "mine")
            case _:
                os.truncate(path, 0)
        say(log, 2)
        assert numbers(records(path.read_text())) == [2]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(tiny_disk: Path) -> None:
    """On a full disk nothing raises, it is said once on standard error, no line is torn; with room again the file
    says how many are missing."""
    (tiny_disk / "filler").write_bytes(b"x" * 40_000)
    with channel("pipe") as (reader, writer), opened(tiny_disk, writer) as log:
        for n in range(300):
            say(log, n)
        told = records(read_now(reader))
        assert [r["reason"] for r in told if r["event"] == "log_file_failed"] == [os.strerror(errno.ENOSPC)]
        (tiny_disk / "filler").unlink()
        say(log, 300)
        found = records((tiny_disk / "events.jsonl").read_text())
        lost = sum(r["count"] for r in found if r["event"] == "log_lines_dropped")
        assert log.counts()["file_dropped"] == lost > 0
        assert numbers(found) == [*range(300 - lost), 300]


def test_disk_with_room_for_the_notice_alone(tiny_disk: Path) -> None:
    """Room for the line that says how many are missing, and not for the next one, is no room: one trouble is said once,
    and its number of missing lines comes when a line does."""
    path = tiny_disk / "events.jsonl"
    path.write_bytes(b"x" * (64 * 1024 - 1001) + b"\n")
    with channel("pipe") as (reader, writer), opened(tiny_disk, writer) as log:
        for n in range(5):
            say(log, n, padding=2000)
        assert [r["event"] for r in records(read_now(reader))].count("log_file_failed") == 1
        path.unlink()
        say(log, 5)
        found = records(path.read_text())
    assert [r["count"] for r in found if r["event"] == "log_lines_dropped"] == [5]
    assert numbers(found) == [5]


def test_directory_vanishes(tmp_path: Path, null: int) -> None:
    """A log directory that is taken away and given back loses only what was logged meanwhile."""
    place = tmp_path / "logs"
    place.mkdir()
    with opened(place, null) as log:
        say(log, 1)
        place.rename(tmp_path / "gone")
        say(log, 2)
        place.mkdir()
        say(log, 3)
        assert [r["event"] for r in log.tail()] == ["log_lines_dropped", "stage_output"]


def test_short_write_is_taken_back(tmp_path: Path) -> None:
    """A line of which only a part fitted is not in the file (a file size limit makes the write short)."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from streampiped.runtime.event_file import EventFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "file = EventFile(Path(sys.argv[1]), file_bytes_max=1000, files_kept=1)\n"
        "file.append(b'a' * 79 + b'\\n')\n"
        "try: file.append(b'b' * 79 + b'\\n')\n"
        "except OSError: print('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "failed\n"
    assert (tmp_path / "events.jsonl").read_bytes() == b"a" * 79 + b"\n"


def test_followers(tmp_path: Path, null: int) -> None:
    """A follower gets every record from its subscription on; one that raises is let go, the others stay."""
    first: list[Mapping[str, Any]] = []

    def broken(record: Mapping[str, Any]) -> None:
        raise RuntimeError("boom")

    with opened(tmp_path, null) as log:
        say(log, 1)
        leave = log.subscribe(first.append)
        log.subscribe(broken)
        say(log, 2)
        say(log, 3)
        leave()
        say(log, 4)
    assert [r["line"].split()[0] for r in first] == ["2", "3"]


def test_what_a_user_stage_sends(tmp_path: Path, null: int) -> None:
    """An event that is not listed, odd levels and times and fields with the log's own names are taken in."""
    with opened(tmp_path, null) as log:
        log.relay("my_event", {"stage": "x", "ts": "y", "self": 1}, stage="mine", level="loud", ts=float("nan"))
        (found,) = log.tail()
        assert (found["event"], found["stage"], found["level"]) == ("my_event", "mine", "info")
        assert abs(found["ts"] - time.time()) < 60
        with pytest.raises(AssertionError):
            log.write("my_event", stage="supervisor")


def test_log_lines_go_above_the_progress() -> None:
    """On a terminal the log's lines stand above the status block, which is whole and there once."""
    status = {"state": "running", "totals": {"records": 5}, "processes": [{"name": "trainer", "state": "ready"}]}
    with terminal() as (master, slave), opened(None, slave) as log:
        console = Console(slave)
        log.screen = console
        console.update(status, 1.0)
        say(log, 1, padding=1)
        console.update(status, 2.0)
        log.write("stage_died", stage="trainer", reason="signal 9", traceback="a\nb")
        console.update(status, 3.0)
        drawn = read_now(master)
        shown = [line[25:] if line.startswith("20") else line for line in screen_of(drawn)]
        assert shown[:4] == ["INFO     trainer        1 x", "ERROR    trainer        died: signal 9", "    a", "    b"]
        assert len(shown) == 6
        assert shown[-1].startswith("running")
        console.close()
        assert len(screen_of(drawn + read_now(master))) == 4


def test_stopped_terminal_gets_no_queue_of_pictures() -> None:
    """A terminal that takes nothing costs no memory: redraws are left out while older output waits."""
    status = {"state": "running", "processes": [{"name": f"p{n}", "state": "ready"} for n in range(10)]}
    with terminal() as (_master, slave):
        console = Console(slave)
        for n in range(10_000):
            console.update(status, float(n))
        assert console.waiting < 4096


def test_the_supervisor_stays_small() -> None:
    """Neither the log nor the console brings in what the supervisor must not import."""
    program = (
        "import sys, streampiped.runtime.event_log, streampiped.runtime.console\n"
        "print([m for m in ('numpy', 'sklearn', 'pydantic', 'psutil', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_files_are_for_the_group_only(tmp_path: Path) -> None:
    """Others than the owner and the group cannot read the log."""
    file = EventFile(tmp_path, file_bytes_max=1000, files_kept=1)
    file.append(b"x\n")
    file.close()
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o007 == 0


def test_nothing_is_left_open(tmp_path: Path, null: int) -> None:
    """Closing gives every descriptor back."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with channel("socket") as (_reader, writer), opened(tmp_path, writer) as log:
            say(log, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_complaints_before_there_is_a_log() -> None:
    """What keeps the daemon from starting is plain lines, and errors where systemd reads them."""
    with channel("socket") as (reader, writer):
        found = os.fstat(writer)
        program = "from streampiped.runtime.event_log import complain; complain('wrong:\\n  key')"
        for stream in ("1:2", f"{found.st_dev}:{found.st_ino}"):
            environ = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", program], stderr=writer, env=environ, check=True)
        assert read_now(reader) == "wrong:\n  key\n<3>wrong:\n<3>  key\n"
