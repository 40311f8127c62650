"""The log extractor on the journal: every entry once, whatever happens to it, to journalctl and to the journal."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.stages.base import StageContext
from streampiped.stages.log_extractor import JOURNAL_NAME, LogExtractor, LogExtractorOptions
from streampiped.stages.log_journal import RETRY_MAX_S, fact_of_entry
from support.fake_journalctl import START, Journal, lives, on_path
from support.log_lines import labelled
from support.services import Emitted, wait_until


class Reader:
    """The extractor on a clock of its own: what it waits for in real time is journalctl alone."""

    def __init__(self, journal: Journal, name: str = "state") -> None:
        self.place = journal.root / name
        self.place.mkdir(exist_ok=True)
        self.emitted = Emitted()
        options = LogExtractorOptions.model_validate({"from": "journal"})
        self.extractor = LogExtractor(options, StageContext("log_extractor", directory=self.place, emit=self.emitted))
        self.now = 0.0

    def summary(self) -> dict[str, Any]:
        return dict(self.extractor.query("summary", {}))

    def until(self, condition: Callable[[], Any]) -> None:
        def step() -> Any:
            due = self.extractor.wake(self.now)
            self.now = max(self.now + 0.11, due or 0.0)
            return condition()

        wait_until(step)

    def read(self, events: int) -> dict[str, Any]:
        """The summary when so many events are counted."""
        self.until(lambda: self.summary()["events"] >= events)
        return self.summary()

    def close(self) -> None:
        self.extractor.close()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal")
    monkeypatch.setenv("PATH", found.path())
    yield found
    for pid in found.pids():
        assert not lives(pid), "a journalctl outlived its test"


@pytest.fixture
def reader(journal: Journal) -> Iterator[Reader]:
    found = Reader(journal)
    yield found
    found.close()


def test_entries_are_facts(journal: Journal, reader: Reader) -> None:
    """Entries of the daemon count by their fields, those of others by message and unit; levels are priorities."""
    journal.say("trainer: loss 0.5")
    journal.say("loss 0.25")
    journal.say("died: killed by SIGKILL", "stage_died", PRIORITY="3", STREAMPIPE_REASON="killed by SIGKILL")
    journal.say("7 lines of output dropped", "output_dropped", PRIORITY="4", STREAMPIPE_COUNT="7")
    slow = {"STREAMPIPE_EPOCH": "9", "STREAMPIPE_SECONDS": "1.5", "STREAMPIPE_MEDIAN": "0.05"}
    journal.say("epoch 9 took long", "epoch_delayed", "supervisor", STREAMPIPE_PART="fsync", **slow)
    journal.say("Started streampipe.service.", None, _SYSTEMD_UNIT="init.scope")
    found = reader.read(6)
    assert found["garbage"] == 0
    trainer = found["stages"]["trainer"]
    assert trainer["levels"] == {"info": 2, "error": 1, "warning": 1}
    assert trainer["drops"] == {"output_dropped": 7}
    assert trainer["deaths"] == {"count": 1, "last": START + 3, "reason": "killed by SIGKILL"}
    assert found["stages"]["init.scope"]["levels"] == {"info": 1}
    assert found["slow_epochs"]["last"][0]["seconds"] == 1.5
    assert found["templates"][0]["template"] == "loss <n>"
    assert [(row["stage"], row["reason"]) for row in found["restarts"]] == [("trainer", "killed by SIGKILL")]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([104, 228, 105], "h\ufffdi"),
        (None, ""),
        (["a", "b"], "a"),
        ([], ""),
        ([[104, 105], "b"], "hi"),
        ([1, 999], ""),
        ({"a": 1}, ""),
    ],
)
def test_odd_messages(message: Any, text: str) -> None:
    """Bytes that are no UTF-8, a message given twice and one too long for journalctl are entries all the same."""
    entry = {"__REALTIME_TIMESTAMP": "1700000000000000", "MESSAGE": message, "_SYSTEMD_UNIT": "x.service"}
    fact = fact_of_entry(json.dumps(entry).encode())
    assert fact is not None
    assert (fact.text, fact.stage, fact.level) == (text, "x.service", "info")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b'{"__REALTIME_TIMESTAMP":"x"}', b'{"MESSAGE":"a"}',
             b'{"__REALTIME_TIMESTAMP":"1","PRIORITY":"high"}', b'{"__REALTIME_TIMESTAMP":"-5"}']
)  # fmt: skip
def test_what_is_no_entry(line: bytes) -> None:
    """What is no entry is told apart, without an exception."""
    assert fact_of_entry(line) is None


@given(st.binary())
def test_no_bytes_raise(line: bytes) -> None:
    """No bytes at all make the parser raise."""
    fact_of_entry(line)


def test_goes_on_where_it_was(journal: Journal, reader: Reader) -> None:
    """A second extractor counts what came since, and nothing again."""
    for n in range(50):
        journal.say(f"row {n}")
    reader.read(50)
    reader.close()
    for n in range(7):
        journal.say(f"row {n}")
    second = Reader(journal)
    journal.say("the last")
    assert second.read(58)["events"] == 58
    assert second.summary()["gaps"] == 0
    second.close()


def test_vacuumed_beyond_the_cursor(journal: Journal, reader: Reader) -> None:
    """A journal that has forgotten where the counts stand is said and counted as a gap; its oldest entry counts."""
    for n in range(20):
        journal.say(f"row {n}")
    reader.read(20)
    reader.close()
    for n in range(20):
        journal.say(f"row {n}")
    journal.vacuum(5)
    second = Reader(journal)
    found = second.read(25)
    assert (found["events"], found["gaps"]) == (25, 1)
    assert second.emitted.names == ["journal_skipped"]
    journal.say("more")
    assert second.read(26)["gaps"] == 1
    second.close()


def test_journalctl_ends(journal: Journal, reader: Reader) -> None:
    """A journalctl that ends is said once, with its last words, tried again ever more rarely, and made up for."""
    journal.say("one")
    reader.read(1)
    journal.complain("Failed to seek: no such thing\n")
    journal.end(3)
    reader.until(lambda: reader.emitted.names)
    name, fields = reader.emitted.events[0]
    assert (name, fields["seconds"]) == ("journal_failed", 1.0)
    begun = reader.now
    reader.until(lambda: reader.now > begun + 2000)
    assert reader.emitted.names == ["journal_failed"]
    tries = len(journal.pids())
    assert 20 < tries < 2 + 8 + 2000 / RETRY_MAX_S
    journal.say("two")
    journal.end(None)
    assert reader.read(2)["events"] == 2
    assert reader.emitted.names == ["journal_failed", "journal_recovered"]


def test_why_journalctl_ends(journal: Journal, reader: Reader) -> None:
    """The last line of what it says on standard error is the reason, else its exit code."""
    journal.complain("Hm.\nFailed to open the files: no such thing\n")
    journal.end(1)
    reader.until(lambda: reader.emitted.events)
    assert reader.emitted.events[0][1]["reason"] == "Failed to open the files: no such thing"
    assert reader.extractor.wake_fd() is None
    journal.end(None)
    (journal.root / "stderr").unlink()
    journal.say("one")
    reader.read(1)


def test_no_journalctl(journal: Journal, reader: Reader) -> None:
    """Without journalctl the extractor lives, says so, and goes on when there is one."""
    journal.uninstall()
    journal.say("one")
    reader.until(lambda: reader.emitted.events)
    assert "cannot be run: No such file" in reader.emitted.events[0][1]["reason"]
    journal.install()
    assert reader.read(1)["events"] == 1
    assert reader.emitted.names == ["journal_failed", "journal_recovered"]


@pytest.mark.parametrize(
    "words",
    [
        "Hint: You are currently not seeing messages from other users and the system.\n      Users in groups ...\n",
        "No journal files were opened due to insufficient permissions.\n",
    ],
)
def test_not_permitted(journal: Journal, reader: Reader, words: str) -> None:
    """A journalctl that shows nothing because it may not is told by what it says, and the group is named."""
    journal.complain(words)
    reader.until(lambda: reader.emitted.events)
    assert "group systemd-journal" in reader.emitted.events[0][1]["reason"]


def test_garbage_and_giants(journal: Journal, reader: Reader) -> None:
    """What is no entry is counted as garbage, also one beyond all limits, and what stands around it counts."""
    journal.say("one")
    journal.raw(b"{nonsense")
    journal.raw(b'{"__CURSOR":"s=ab;i=2","MESSAGE":"' + b"x" * (3 << 20) + b'"}')
    journal.say("two")
    found = reader.read(2)
    assert found["events"] == 2
    assert 2 <= found["garbage"] <= 8


def test_a_flood_does_not_fill_the_memory(journal: Journal, reader: Reader) -> None:
    """While its database is locked the extractor reads no more than a bounded piece, and wants no waking by more."""
    for n in range(20_000):
        journal.say(f"row {n} " + "x" * 200)
    reader.until(lambda: reader.summary()["events"] > 0)
    follower = reader.extractor._follower
    wait_until(lambda: follower.drain(reader.now) is None and follower.fd is None)
    assert len(reader.extractor._follower._buffer) <= 2 << 20  # type: ignore[union-attr]  # it follows the journal
    assert reader.extractor.wake_fd() is None
    assert reader.read(20_000)["events"] == 20_000


CHILD = """
import select, sys, time
from pathlib import Path
from streampiped.stages.base import StageContext
from streampiped.stages.log_extractor import LogExtractor, LogExtractorOptions
options = LogExtractorOptions.model_validate({"from": "journal"})
extractor = LogExtractor(options, StageContext("x", directory=Path(sys.argv[1])))
while True:
    due = extractor.wake(time.monotonic())
    wait = None if due is None else max(0.0, due - time.monotonic())
    fd = extractor.wake_fd()
    select.select([] if fd is None else [fd], [], [], wait)
"""


@contextlib.contextmanager
def child(journal: Journal) -> Iterator[subprocess.Popen[bytes]]:
    """The extractor in a process of its own; killed at the end."""
    place = journal.root / "state"
    place.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(place)], env=on_path(journal))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.system
def test_killed_at_any_instant(journal: Journal) -> None:
    """However often it is killed while entries come, each counts once, the templates are those of an extractor that
    nothing happened to, and no journalctl is left behind."""
    chance = random.Random(3)
    texts = [text for _, text in labelled(2000, 3)]
    written = 0
    wal = journal.root / "state" / f"{JOURNAL_NAME}-wal"
    for _ in range(8):
        with child(journal):
            before = wal.stat().st_mtime_ns if wal.exists() else 0
            journal.say(texts[written])
            written += 1
            wait_until(lambda since=before: wal.exists() and wal.stat().st_mtime_ns > since)
            for _ in range(chance.randrange(1, 150)):
                journal.say(texts[written])
                written += 1
        wait_until(lambda: not any(map(lives, journal.pids())))
    reader, whole = Reader(journal), Reader(journal, "undisturbed")
    found = reader.read(written)
    assert (found["events"], found["garbage"], found["gaps"]) == (written, 0, 0)
    assert found["templates"] == whole.read(written)["templates"]
    reader.close()
    whole.close()
