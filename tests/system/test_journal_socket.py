"""What an operator fears of the journal: that it blocks the daemon, hides what was lost, or loses all after a restart
of journald. Against a datagram socket that is read like journald reads its own."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streampiped.runtime.event_log import EventLog
from streampiped.runtime.journal import JournalWriter
from streampiped.runtime.line_writer import PENDING_BYTES_MAX
from support.journal import Journald, journald
from support.screens import read_now

pytestmark = pytest.mark.system

STORM = 3000  # entries that nobody reads: twice of what the socket and the waiting bytes hold
BLOCKED_S = 5.0  # a log that waits for journald would take for ever; 3000 entries take about 0.3 s
LARGE_TEXTS = 30  # of 16 KiB each; a datagram holds what net.core.wmem_default says, 208 KiB


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def reader(place: Path) -> Iterator[Journald]:
    with journald(place) as each:
        yield each


@contextmanager
def opened(place: Path, directory: Path | None = None) -> Iterator[tuple[EventLog, int]]:
    """A log whose standard error is, as systemd says, the journal's, and the other end of that stream."""
    ours, theirs = (end.detach() for end in socket.socketpair())
    found = os.fstat(theirs)
    environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    log = EventLog(directory, stderr_fd=theirs, environ=environ, journal_path=str(place))
    try:
        yield log, ours
    finally:
        log.close()
        os.close(ours)
        os.close(theirs)


def say(log: EventLog, number: int) -> None:
    log.write("stage_output", stage="trainer", line=f"{number} {'x' * 100}")


def numbers(found: list[dict[str, str]]) -> list[int]:
    """Of `say`, in the order of the entries; losses as what they say, negative."""
    return [
        -int(each["STREAMPIPE_COUNT"])
        if each["STREAMPIPE_EVENT"] == "log_lines_dropped"
        else int(each["MESSAGE"].split()[1])
        for each in found
    ]


def test_an_event_is_one_entry(reader: Journald, place: Path) -> None:
    """An event is an entry with its fields, a traceback of several lines a part of it; nothing is on standard error."""
    with opened(place) as (log, stream):
        log.epoch = 3
        log.write("stage_raised", stage="trainer", phase="process", reason="E: x", traceback="Traceback\n  a\nE: x\n")
        (found,) = reader.entries()
        assert found["MESSAGE"] == "trainer: raised in process: E: x\nTraceback\n  a\nE: x"
        assert (found["PRIORITY"], found["STREAMPIPE_STAGE"], found["STREAMPIPE_EPOCH"]) == ("3", "trainer", "3")
        assert read_now(stream) == ""


def test_another_standard_error_is_no_journal(reader: Journald, place: Path) -> None:
    """A JOURNAL_STREAM that was inherited and names another socket does not lead to the journal."""
    ours, theirs = os.pipe()
    log = EventLog(None, stderr_fd=theirs, environ={"JOURNAL_STREAM": "1:2"}, journal_path=str(place))
    say(log, 1)
    log.close()
    assert reader.entries() == []
    assert read_now(ours).startswith('{"ts":')
    os.close(ours)
    os.close(theirs)


def test_a_full_journal_never_blocks_and_every_loss_is_said(reader: Journald, place: Path) -> None:
    """With a journald that reads nothing the log goes on at once; when it reads, what is missing is exactly what one
    event says is missing, at its place, without another event that would bring it out."""
    with opened(place) as (log, _):
        started = time.monotonic()
        for n in range(STORM):
            say(log, n)
        assert time.monotonic() - started < BLOCKED_S
        found = []
        assert log.pending
        while log.pending:
            found += numbers(reader.entries())
            log.flush()
        found += numbers(reader.entries())
        lost = log.counts()["journal_dropped"]
        assert 0 < lost < STORM
        assert found == [*range(STORM - lost), -lost]
        say(log, STORM)
        assert numbers(reader.entries()) == [STORM]


def test_a_stages_claim_is_no_command(reader: Journald, place: Path) -> None:
    """What the supervisor says of a command's user is a field; what a stage says is another one."""
    with opened(place) as (log, _):
        log.write("command_received", stage="supervisor", method="stop", params="all", uid=7, who="uid 7")
        log.relay("command_received", {"method": "stop", "params": "all", "uid": 0, "who": "root"}, stage="mine")
        command, claim = reader.entries()
        assert command["STREAMPIPE_UID"] == "7"
        assert (claim["STREAMPIPE_STAGE"], claim["STREAMPIPE_UID_"]) == ("mine", "0")
        assert "STREAMPIPE_UID" not in claim


def test_room_is_told(reader: Journald, place: Path) -> None:
    """The descriptor becomes writable when journald has room again, and not before."""
    with opened(place) as (log, _):
        while not log.pending:
            say(log, 1)
        poll = select.poll()
        poll.register(log.fileno(), select.POLLOUT)
        assert poll.poll(0) == []
        reader.entries()
        assert poll.poll(1000)
        log.flush()
        assert not log.pending


def test_large_entries_go_by_memfd(reader: Journald, place: Path) -> None:
    """An entry that no datagram holds comes whole, by a sealed memfd, in its order."""
    with opened(place) as (log, _):
        before = len(os.listdir("/proc/self/fd"))
        say(log, 1)
        texts = {f"text{n}": "ü" * 8192 for n in range(LARGE_TEXTS)}
        log.relay("my_event", texts, stage="trainer")
        say(log, 3)
        first, large, third = reader.entries()
        assert reader.large == 1
        assert large["STREAMPIPE_TEXT29"].startswith("üüü")
        assert numbers([first, third]) == [1, 3]
        assert len(os.listdir("/proc/self/fd")) == before


def test_journald_is_restarted(place: Path) -> None:
    """While journald's socket is gone entries wait, without a loop that asks for it; when there is a new one it gets
    them all, in order."""
    with journald(place) as old, opened(place) as (log, _):
        say(log, 1)
        assert numbers(old.entries()) == [1]
        fd = log.fileno()
        old.close()
        say(log, 2)
        say(log, 3)
        assert not log.pending
        with journald(place) as new:
            log.flush()
            assert numbers(new.entries()) == [2, 3]
            say(log, 4)
            assert numbers(new.entries()) == [4]
        assert log.fileno() == fd
        assert log.counts()["journal_dropped"] == 0


def test_journald_dies_while_full(place: Path) -> None:
    """What waited for room when journald died goes to its successor; only what its socket had is lost with it."""
    with journald(place) as old, opened(place) as (log, _):
        n = 0
        while not log.pending:
            say(log, n)
            n += 1
        old.close()
        with journald(place) as new:
            log.flush()
            assert numbers(new.entries()) == [n - 1]


def test_a_journald_that_stays_away_costs_bounded_memory(place: Path, tmp_path: Path) -> None:
    """Without journald entries are dropped and counted beyond the bound, the event file is complete, and the count is
    told to the next journald."""
    with journald(place) as old, opened(place, tmp_path) as (log, _):
        old.close()
        for n in range(STORM):
            say(log, n)
        lost = log.counts()["journal_dropped"]
        assert lost > STORM - PENDING_BYTES_MAX // 200
        assert len(log.tail(lines=STORM)) > PENDING_BYTES_MAX // 300
        with journald(place) as new:
            found: list[int] = []
            while len(found) < STORM - lost + 1:
                log.flush()
                found += numbers(new.entries())
            assert found == [*range(STORM - lost), -lost]


def test_what_cannot_be_sent_does_not_stand_in_the_way(reader: Journald, place: Path) -> None:
    """An entry that fails for good (here: too large, and no descriptor for a memfd) is counted, and the next ones
    come. A notice that fails too ends in no loop."""
    writer = JournalWriter(lambda count: b"LOST=%d\n" % count, str(place))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        writer.write(b"A=" + b"x" * 300_000 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert writer.dropped_total == 1
    writer.write(b"B=1\n")
    assert reader.entries() == [{"LOST": "1"}, {"B": "1"}]
    writer.close()
