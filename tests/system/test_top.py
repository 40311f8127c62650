"""`streampipectl top` on a terminal of its own, before a real daemon."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from streampipectl.terminal import LEAVE, Terminal
from support.daemon import BIN, Daemon, simple, stat, wait_for
from support.screens import Session, rows_of, session, terminal

pytestmark = pytest.mark.system

CPU_SHARE_MAX = 0.03  # of a core, at a frame a second
ESCAPE = re.compile("\x1b")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    started = Daemon(simple())
    try:
        started.wait_running()
        yield started
    finally:
        started.close()


def top(daemon: Daemon, *words: str) -> list[str]:
    return [str(BIN / "streampipectl"), "--runtime-dir", str(daemon.run), "top", *words]


def showing(*parts: str, rows: int = 24) -> object:
    """A condition for `Session.wait`: the screen has all of these."""
    return lambda text: all(any(part in line for line in rows_of(text, rows)) for part in parts)


def drawn(text: str) -> int:
    """How many lines were written."""
    return len(re.findall(r"\x1b\[2K", text))


def test_live(daemon: Daemon) -> None:
    """Stages, flow and rates are there; keys sort, pause and help; a resize is followed; q leaves with 0 and gives the
    terminal back."""
    with session(top(daemon)) as seen:
        first = seen.wait(showing("count", "→ middle", "running", "q quit"), "a first frame")
        assert first.startswith("\x1b[?1049h")
        assert "\x1b[32mrunning\x1b[0m" in first
        seen.type("s")
        seen.wait(showing("s sort: cpu"), "sorted by CPU")
        seen.type("?")
        seen.wait(showing("pause, and go on"), "help")
        seen.type("?p")
        seen.wait(showing("paused"), "paused")
        seen.type("p")
        seen.resize(60, 16)
        small = seen.wait(lambda text: re.search(r"\x1b\[16;1H.*q quit", text), "a frame of 16 lines")
        assert not re.search(r"\x1b\[17;1H", small[small.rindex("\x1b[1;1H") :])
        seen.type("q")
        assert seen.end() == 0
        assert seen.text.endswith(LEAVE)
        assert seen.modes() == seen.before


def test_events_and_restarts(daemon: Daemon) -> None:
    """A stage that is killed is seen to be, as an event in red."""
    with session(top(daemon)) as seen:
        seen.wait(showing("middle", "q quit"), "a first frame")
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        seen.wait(lambda text: "\x1b[31mdied: killed by SIGKILL\x1b[0m" in text, "the death")
    daemon.wait_running(generation=2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_signals_give_the_terminal_back(daemon: Daemon, number: signal.Signals, code: int) -> None:
    """However it is ended the cursor, the modes and the screen are those of before."""
    with session(top(daemon)) as seen:
        seen.wait(showing("q quit"), "a first frame")
        assert seen.modes() != seen.before
        seen.process.send_signal(number)
        assert seen.end() == code
        assert seen.text.endswith(LEAVE)
        assert seen.modes() == seen.before


def test_an_exception_gives_the_terminal_back() -> None:
    """So does a mistake of ours; handlers of signals are as before, too."""
    before = signal.getsignal(signal.SIGTERM)
    with terminal() as (_, theirs):
        import termios

        modes = termios.tcgetattr(theirs)
        held = Terminal(theirs, theirs)
        with pytest.raises(ZeroDivisionError), held.held():
            raise ZeroDivisionError(termios.tcgetattr(theirs) == modes and pytest.fail("nothing was changed"))
        assert termios.tcgetattr(theirs) == modes
    assert signal.getsignal(signal.SIGTERM) is before


def test_job_control(daemon: Daemon) -> None:
    """Ctrl-Z gives a shell its terminal, fg takes it again and draws everything anew."""
    with session(["bash", "--norc", "--noprofile", "-i"], PS1="ready> ") as seen:
        seen.wait(lambda text: "ready> " in text, "a prompt")
        seen.type(" ".join(top(daemon)) + "\n")
        seen.wait(showing("q quit"), "a first frame")
        seen.type("\x1a")
        stopped = seen.wait(lambda text: "Stopped" in text and "ready> " in text, "the shell")
        assert LEAVE in stopped
        seen.type("stty -a\n")
        modes = seen.wait(lambda text: "echoke" in text and text.endswith("ready> "), "modes")
        assert re.search(r"(?<!-)\bicanon\b", modes)
        assert re.search(r"(?<!-)\becho\b", modes)
        seen.type("fg\n")
        again = seen.wait(showing("count", "q quit"), "a frame after fg")
        assert drawn(again) >= 24
        seen.type("q")
        seen.wait(lambda text: "ready> " in text, "the shell again")
        seen.type("exit $?\n")
        assert seen.end() == 0


def test_no_colour(daemon: Daemon) -> None:
    """With NO_COLOR there is none."""
    with session(top(daemon), NO_COLOR="1") as seen:
        text = seen.wait(showing("running", "q quit"), "a first frame")
    assert not re.search(r"\x1b\[\d+m", text)


def test_only_what_changes_is_written(daemon: Daemon) -> None:
    """After the first frame less than all of it is written, in one synchronized update each."""
    with session(top(daemon)) as seen:
        seen.wait(showing("q quit"), "a first frame")
        text = seen.wait(lambda text: text.count("\x1b[?2026l") >= 3, "three more frames")
    assert text.count("\x1b[?2026h") == text.count("\x1b[?2026l")
    assert drawn(text) < 24 * text.count("\x1b[?2026h")
    assert "\x1b[2J" not in text


def test_interval(daemon: Daemon) -> None:
    """An interval below the daemon's second is asked for, a longer one waited for."""
    frames = {}
    for interval in ("200ms", "1s", "3s"):
        with session(top(daemon, "--interval", interval)) as seen:
            seen.wait(showing("q quit"), "a first frame")
            begun = time.monotonic()
            seen.wait(lambda text: text.count("\x1b[?2026l") >= 2, "two more frames")
            frames[interval] = time.monotonic() - begun
    assert frames["200ms"] < 1.5
    assert 1.5 < frames["1s"] < 5.0 < frames["3s"]


def test_once(daemon: Daemon) -> None:
    """--once, and whatever is no terminal, is one frame without control sequences, as wide as COLUMNS."""
    for words in ((), ("--once",)):
        done = subprocess.run(
            top(daemon, *words), capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "60"}
        )
        assert "\x1b" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 60
        assert "count" in done.stdout
    with session(top(daemon, "--once")) as seen:
        assert seen.end() == 0
        assert not ESCAPE.search(seen.text)


def test_no_daemon_to_begin_with(tmp_path: object) -> None:
    """A wrong place is said at once, with 5 and without touching the terminal."""
    with session([str(BIN / "streampipectl"), "--runtime-dir", str(tmp_path), "top"]) as seen:
        assert seen.end() == 5
        assert "streampipe is not running" in seen.text
        assert not ESCAPE.search(seen.text)


def test_a_daemon_that_dies() -> None:
    """Its death is said, keys still work, and a daemon that comes back is shown again."""
    first = Daemon(simple())
    try:
        first.wait_running()
        with session(top(first)) as seen:
            seen.wait(showing("running", "q quit"), "a first frame")
            first.process.kill()
            first.process.wait()
            seen.wait(lambda text: "trying again" in text, "the word of its death")
            seen.type("s")
            seen.wait(lambda text: "s sort: cpu" in text, "a key")
            second = Daemon(simple(), first.root)
            try:
                second.wait_running()
                seen.wait(lambda text: "\x1b[32mrunning" in text and "generation 1" in text, "the next daemon")
                assert_quits(seen)
            finally:
                second.close()
    finally:
        first.close()


def assert_quits(seen: Session) -> None:
    seen.type("q")
    assert seen.end() == 0


@pytest.mark.timing
def test_it_costs_little(daemon: Daemon) -> None:
    """At a frame a second it takes less than 3 % of a core."""
    with session(top(daemon)) as seen:
        seen.wait(showing("q quit"), "a first frame")
        begun = cpu_seconds(seen.process.pid)
        seen.wait(lambda text: text.count("\x1b[?2026l") >= 8, "eight frames")
        spent = cpu_seconds(seen.process.pid) - begun
    assert spent / 8 < CPU_SHARE_MAX


def cpu_seconds(pid: int) -> float:
    fields = wait_for(lambda: stat(pid), "the process")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
