"""`streampipectl` as a process: exit codes, what it prints and where, signals, and how fast it is."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from streampiped.wire.letters import pack
from streampiped.wire.messages import Guilty
from support.control_backend import DEADLINE_S, STAGES, Daemon, process, running, until
from support.report_answer import answer as report_answer

pytestmark = pytest.mark.system

START_BUDGET_S = 0.1  # of the whole process; docs/components/streampipectl.md has what it takes
HEAVY = ("numpy", "sklearn", "asyncio", "uvloop", "psutil", "pydantic", "rich", "typer", "dataclasses", "inspect")
"""Each of them alone costs a tenth to the whole of the budget."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        yield started


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "streampipectl.app", *words]


def tool(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tool to its end."""
    return subprocess.run(
        command("--socket", daemon.path, *words), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def begun(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    """Start the tool and let it run."""
    return subprocess.Popen(
        command("--socket", daemon.path, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_status(daemon: Daemon) -> None:
    """A healthy pipeline is a table without colours into a pipe, and exit code 0."""
    done = tool(daemon, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("friedman: running, up 4m12s")
    assert "\x1b" not in done.stdout
    assert all(f"\n{name} " in done.stdout for name in STAGES)


def test_status_of_an_unready_stage(daemon: Daemon) -> None:
    """A wanted stage that is not ready makes 3, one that was stopped on purpose does not."""
    daemon.backend.processes = [process("trainer", state="stopped", wanted=False)]
    assert tool(daemon, "status").returncode == 0
    daemon.backend.processes = [process("trainer", state="backoff", last_reason="killed by SIGKILL")]
    done = tool(daemon, "status")
    assert done.returncode == 3
    assert "trainer: killed by SIGKILL" in done.stdout


def test_status_as_json(daemon: Daemon) -> None:
    """--json is the daemon's answer, whole."""
    answer = json.loads(tool(daemon, "status", "--json").stdout)
    assert answer["totals"]["records"] == 1_200_000
    assert [row["name"] for row in answer["processes"]] == list(STAGES)


def test_changes(daemon: Daemon) -> None:
    """start, stop and restart say what they changed."""
    assert tool(daemon, "restart", "normalizer").stdout.startswith("restart normalizer: normalizer, 0.")
    assert tool(daemon, "stop").stdout.startswith("stop of the pipeline: monitor, generator, ")
    assert [change[:2] for change in daemon.backend.changes] == [("restart", ("normalizer",)), ("stop", ())]


def test_restart_by_force(daemon: Daemon) -> None:
    """--force is asked for when it is said."""
    assert tool(daemon, "restart", "normalizer", "--force").stdout.startswith("restart normalizer: normalizer, 0.")
    assert daemon.backend.forced == ["restart"]


def test_why(daemon: Daemon) -> None:
    """why says the state and how it came to it, as text or as JSON."""
    daemon.backend.story = [{"ts": 5.0, "what": "died: killed by SIGKILL", "cause": "c1"}]
    lines = tool(daemon, "why", "trainer").stdout.splitlines()
    assert lines[0].startswith("trainer: ready for ")
    assert lines[1].endswith(" died: killed by SIGKILL (c1)")
    assert json.loads(tool(daemon, "why", "trainer", "--json").stdout)["story"] == daemon.backend.story


def test_checkpoints(daemon: Daemon) -> None:
    """A checkpoint says what it is, the list shows its name, and --forget takes the name away."""
    made = tool(daemon, "checkpoint", "--keep", "nightly").stdout
    assert made.startswith("checkpoint: epoch 232, 1.2M records, 0.")
    assert made.endswith(" s, kept as nightly\n")
    assert "232*" in (listed := tool(daemon, "checkpoints").stdout)
    assert listed.endswith("  nightly\n")
    assert tool(daemon, "checkpoints", "--forget", "nightly").stdout == "nightly: epoch 232 is kept no longer\n"
    answer = json.loads(tool(daemon, "checkpoints", "--json").stdout)
    assert [row["epoch"] for row in answer["checkpoints"]] == [230, 231, 232]
    daemon.backend.hold = daemon.do(asyncio.Event)
    assert tool(daemon, "checkpoint", "--timeout", "100ms").returncode == 8


def test_logs_since(daemon: Daemon) -> None:
    """--since is asked for as a moment, and all from then on is shown."""
    for number in range(200):
        daemon.do(lambda n=number: daemon.backend.log("stage_output", "trainer", line=f"line {n}"))
    assert len(tool(daemon, "logs").stdout.splitlines()) == 50
    assert len(tool(daemon, "logs", "--since", "1h").stdout.splitlines()) == 200
    assert len(tool(daemon, "logs", "--since", "1h", "--lines", "7").stdout.splitlines()) == 7
    assert tool(daemon, "logs", "--since", "2999-01-01").stdout == ""


def test_logs_summary(daemon: Daemon) -> None:
    """--summary is the log extractor's answer as text or JSON, and 7 when there is none to ask."""
    done = tool(daemon, "logs", "--summary")
    assert (done.returncode, done.stdout) == (7, "")
    assert "no log_extractor" in done.stderr
    seen = {"first_seen": time.time(), "last_seen": time.time()}
    lists: dict[str, Any] = {name: [] for name in ("templates", "incidents", "restarts", "bursts")}
    daemon.backend.summary = {
        "events": 3, "garbage": 0, "gaps": 0, "templates_forgotten": 0, "slow_epochs": {"count": 0, "last": []},
        "stages": {"trainer": {"levels": {"info": 3}, **seen}}, **lists,
    }  # fmt: skip
    assert tool(daemon, "logs", "--summary").stdout.startswith("3 events since ")
    assert json.loads(tool(daemon, "logs", "--summary", "trainer", "--json").stdout)["stage"] == "trainer"
    assert tool(daemon, "logs", "--summary", "nobody").returncode == 4
    assert tool(daemon, "logs", "--summary", "--since", "2020-01-01T00:00Z").stdout.startswith(
        "3 events since 2020-01-01"
    )
    assert json.loads(tool(daemon, "logs", "--summary", "--since", "2020-01-01", "--json").stdout)["garbage"] is None
    assert "only STAGE, --since and --json" in tool(daemon, "logs", "--summary", "--lines", "3").stderr


def bury(daemon: Daemon, *records: dict[str, object]) -> None:
    """A dead letter of the trainer for each record."""
    words = ("raised", "ValueError: no", "Traceback ...")
    verdicts = [Guilty(3, "left", "generator", n, 0, *words, pack(record)) for n, record in enumerate(records)]
    daemon.do(lambda: daemon.backend.letters.add("trainer", verdicts, 1.0))


ODD = {"nan": float("nan"), "inf": float("-inf"), "text": "a\ud800\n", "n": 2**63}
ODD_JSON = {"nan": None, "inf": "-Infinity", "text": "a\ud800\n", "n": 2**63}


def test_letters_are_listed(daemon: Daemon) -> None:
    """The list is a line per letter, or JSON, as many as --limit says, over as many pages as it takes."""
    assert tool(daemon, "dlq", "list").stdout == "no dead letters\n"
    bury(daemon, *({"n": n} for n in range(1200)))
    lines = tool(daemon, "dlq", "list", "--limit", "1100").stdout.splitlines()
    assert len(lines) == 1 + 1100 + 1
    assert lines[-1] == "1100 of 1200; --limit shows more"
    assert (lines[0].split()[5], lines[1].split()[5]) == ("VIA", "left")
    answer = json.loads(tool(daemon, "dlq", "list", "--stage", "trainer", "--limit", "2", "--json").stdout)
    assert [letter["id"] for letter in answer["letters"]] == [1, 2]
    assert answer["total"] == 1200
    assert json.loads(tool(daemon, "dlq", "list", "--status", "dropped", "--json").stdout)["total"] == 0


def test_letters_are_shown_and_exported(daemon: Daemon) -> None:
    """Whatever a record holds is shown, and is JSON by the book in --json and in every line of an export."""
    bury(daemon, ODD, {"x": "y" * 100_000}, *({"x": "y" * 100_000} for _ in range(10)))
    shown = tool(daemon, "dlq", "show", "1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("letter 1: dead, in the stream\nstage: trainer, generation 3\n")
    assert "\nrecord: generator 0 via left\n" in shown.stdout
    assert '  inf: "-Infinity"\n' in shown.stdout
    assert json.loads(tool(daemon, "dlq", "show", "1", "--json").stdout)["record"] == ODD_JSON
    exported = [json.loads(line) for line in tool(daemon, "dlq", "export").stdout.splitlines()]
    assert [letter["id"] for letter in exported] == list(range(1, 13))
    assert exported[0]["record"] == ODD_JSON
    assert exported[0]["traceback"] == "Traceback ..."
    assert exported[0]["via"] == "left"


def test_letters_are_decided_about(daemon: Daemon) -> None:
    """replay and drop say how many, in which epoch, and what is left; what is being replayed is not dropped."""
    bury(daemon, {}, {}, {}, {})
    assert tool(daemon, "dlq", "replay", "2").stdout.startswith("replay: 1 letter, epoch 232, 0.")
    assert tool(daemon, "dlq", "drop", "1").stdout == "drop: 1 letter, 2 still dead\n"
    daemon.backend.hold = daemon.do(asyncio.Event)
    assert tool(daemon, "dlq", "replay", "3", "--no-wait").stdout == "replay: accepted, going on\n"
    assert tool(daemon, "dlq", "replay", "3", "--timeout", "100ms").returncode == 8
    assert tool(daemon, "dlq", "drop", "3").returncode == 7  # it is on its way back into the stream
    assert tool(daemon, "dlq", "drop", "--all", "--stage", "trainer").stdout == "drop: 1 letter, 1 still dead\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("why", "nobody"), 4, "no stage 'nobody'"),
        (("checkpoints", "--forget", "nightly"), 4, "no checkpoint 'nightly'"),
        (("dlq", "show", "7"), 4, "no dead letter 7"),
        (("dlq", "replay", "7"), 4, "no dead letter 7"),
        (("dlq", "drop"), 2, "give either numbers of letters or --all"),
        (("dlq", "frob"), 2, "No such command 'frob'"),
        (
            ("restart", "normaliser"),
            4,
            "no stage 'normaliser' (did you mean normalizer?); there are monitor, generator,",
        ),
        (("logs", "nobody"), 4, "no stage 'nobody'; there are monitor,"),
        (("report",), 7, "nothing has been scored yet"),
        (("frob",), 2, "No such command 'frob'"),
        (("restart", "--timeout", "soon"), 2, "'soon' should be a time such as 500ms"),
    ],
)
def test_failures(daemon: Daemon, words: tuple[str, ...], code: int, text: str) -> None:
    """A failure is its exit code and a clear word on stderr, with nothing on stdout."""
    done = tool(daemon, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(("status",), 3), (("restart",), 5), (("report",), 5), (("logs",), 5), (("dlq", "list"), 5), (("version",), 0)],
)
@pytest.mark.parametrize("left_behind", [False, True])
def test_daemon_is_down(tmp_path: Path, words: tuple[str, ...], code: int, left_behind: bool) -> None:
    """Without a daemon, its socket left behind or not, one line says so: 3 for status, 5 for the rest."""
    path = tmp_path / "control.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    done = subprocess.run(command(*words, "--socket", str(path)), capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "streampipe is not running" in (done.stdout if code == 0 else done.stderr)
    assert len((done.stdout + done.stderr).splitlines()) == (2 if code == 0 else 1)


def test_not_permitted(daemon: Daemon) -> None:
    """Who may not open the socket is told which group may: 6."""
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    os.chmod(daemon.path, 0o660)
    for place in (Path(daemon.path).parent, *Path(daemon.path).parent.parents):
        os.chmod(place, place.stat().st_mode | 0o055)
    script = (
        "import os, sys, grp\nfrom streampipectl.app import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nsys.exit(main(sys.argv[1:]))"
    )
    for words in (("status",), ("restart",)):
        done = subprocess.run(
            [sys.executable, "-c", script, "--socket", daemon.path, *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 6
        assert "it is for root and group root; usermod -aG root USER" in done.stderr


def test_timed_out(daemon: Daemon) -> None:
    """A change that takes longer than --timeout is 8, and goes on."""
    daemon.backend.hold = daemon.do(asyncio.Event)
    done = tool(daemon, "stop", "--timeout", "100ms")
    assert done.returncode == 8
    assert "still going on" in done.stderr
    assert tool(daemon, "stop", "--no-wait").stdout == "stop of the pipeline: accepted, going on\n"


def test_interrupted_change_goes_on(daemon: Daemon) -> None:
    """Ctrl-C leaves with 130 and says that the change goes on, which it does."""
    daemon.backend.hold = daemon.do(asyncio.Event)
    with begun(daemon, "restart", "trainer") as running_tool:
        until(lambda: daemon.backend.changes, "the change begins")
        running_tool.send_signal(signal.SIGINT)
        _, errors = running_tool.communicate(timeout=DEADLINE_S)
    assert running_tool.returncode == 130
    assert errors == "streampipectl: restart goes on; `streampipectl status` shows how far it is\n"
    daemon.do(daemon.backend.hold.set)
    until(lambda: daemon.backend.finished == ["restart"], "the change finishes")


@pytest.mark.parametrize(("pid", "code"), [("$$", 0), ("1", -signal.SIGTERM)])
def test_reload_is_ended_with_its_service(daemon: Daemon, pid: str, code: int) -> None:
    """`systemctl stop` ends a `systemctl reload` under way by SIGTERM: as ExecReload= that is no failure, which would
    leave a unit that was stopped in good order as failed. Where systemd has executed somebody else it is one."""
    daemon.backend.hold = daemon.do(asyncio.Event)
    executed = ["sh", "-c", f'SYSTEMD_EXEC_PID={pid} exec "$@"', "sh", *command("--socket", daemon.path, "reload")]
    with subprocess.Popen(executed, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running_tool:
        until(lambda: daemon.backend.changes, "the reload begins")
        running_tool.terminate()
        running_tool.communicate(timeout=DEADLINE_S)
    assert running_tool.returncode == code
    daemon.do(daemon.backend.hold.set)


def test_logs(daemon: Daemon) -> None:
    """Events are one line each, as text or as JSON, and escape sequences in them stay text."""
    daemon.backend.log("stage_output", "trainer", line="hello \x1b[2J")
    assert tool(daemon, "logs").stdout.endswith(" info     trainer: hello ?[2J\n")
    assert json.loads(tool(daemon, "logs", "trainer", "--json").stdout)["event"] == "stage_output"
    assert tool(daemon, "logs", "generator").stdout == ""


def test_logs_say_when_older_ones_may_be_missing(daemon: Daemon) -> None:
    """That nothing was found within what was looked at is not that there is nothing."""
    assert tool(daemon, "logs", "trainer", "--level", "error").stderr == ""
    daemon.backend.log_is_whole = False
    done = tool(daemon, "logs", "trainer", "--level", "error")
    assert done.returncode == 0
    assert "older events may be missing" in done.stderr


def test_follow(daemon: Daemon) -> None:
    """--follow prints each event when it happens, and Ctrl-C ends it quietly."""
    with begun(daemon, "logs", "-f", "--lines", "0") as running_tool:
        until(lambda: daemon.backend.subscribers["logs"], "the tool follows")
        assert running_tool.stdout is not None
        for line in ("one", "two"):
            daemon.do(lambda line=line: daemon.backend.log("stage_output", "trainer", line=line))  # type: ignore[misc]
            assert running_tool.stdout.readline().endswith(f"trainer: {line}\n")
        running_tool.send_signal(signal.SIGINT)
        _, errors = running_tool.communicate(timeout=DEADLINE_S)
    assert (running_tool.returncode, errors) == (130, "")


def test_daemon_that_goes_ends_the_follower(tmp_path: Path) -> None:
    """A follower whose daemon leaves in an orderly way says so in a line, and has done what it was asked for."""
    with running(tmp_path) as daemon:
        running_tool = begun(daemon, "logs", "-f")
        until(lambda: daemon.backend.subscribers["logs"], "the tool follows")
    _, errors = running_tool.communicate(timeout=DEADLINE_S)
    assert running_tool.returncode == 0
    (line,) = errors.splitlines()
    assert line.endswith("the daemon is going down")


def test_reader_of_the_pipe_leaves(daemon: Daemon) -> None:
    """A closed stdout (`| head -1`) ends the tool without a word."""
    for number in range(2000):
        daemon.backend.log("stage_output", "trainer", line="x" * 100 + str(number))
    with begun(daemon, "logs", "--lines", "2000") as running_tool:
        assert running_tool.stdout is not None
        assert running_tool.stderr is not None
        running_tool.stdout.readline()
        running_tool.stdout.close()
        assert running_tool.stderr.read() == ""
    assert running_tool.returncode == 0


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (0, 0), (6, 40)])
def test_watch_redraws_in_place(daemon: Daemon, rows: int, columns: int) -> None:
    """--watch on a terminal draws the next status over the last one, in colour and inside its size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    words = command("--socket", daemon.path, "status", "--watch")
    running_tool = subprocess.Popen(words, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    first = read_until(ours, b"\x1b[J")
    assert b"\x1b[32mrunning\x1b[0m" in first
    drawn = first.count(b"\n")
    assert drawn == min(4 + 1 + len(STAGES), (rows or 24) - 1)
    until(lambda: daemon.backend.subscribers["status"], "the server subscribes")
    assert read_until(ours, b"\x1b[J").startswith(b"\x1b[%dF" % drawn)
    running_tool.send_signal(signal.SIGINT)
    _, errors = running_tool.communicate(timeout=DEADLINE_S)
    os.close(ours)
    assert (running_tool.returncode, errors) == (130, b"")


def read_until(terminal: int, mark: bytes) -> bytes:
    """What the terminal shows up to and with the mark."""
    seen = b""
    while not seen.endswith(mark):
        ready, _, _ = select.select([terminal], [], [], DEADLINE_S)
        assert ready, f"nothing after {seen!r}"
        seen += os.read(terminal, 1)
    return seen


def test_watch_into_a_pipe(daemon: Daemon) -> None:
    """--watch --json into a pipe is one status per line."""
    with begun(daemon, "status", "--watch", "--json") as running_tool:
        assert running_tool.stdout is not None
        rows = [json.loads(running_tool.stdout.readline()) for _ in range(2)]
        running_tool.send_signal(signal.SIGINT)
    assert [row["pipeline"] for row in rows] == ["friedman"] * 2
    assert running_tool.returncode == 130


def test_version(daemon: Daemon) -> None:
    """version names both sides."""
    lines = tool(daemon, "version").stdout.splitlines()
    assert lines[0].startswith("streampipectl 0.")
    assert lines[1] == "streampiped 0.1.0, protocol 1, pipeline friedman"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (msgpack.packb([1, 1, {"code": 9, "message": "another release"}, None]), 9),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 9),
        (b"\x94\x01", 3),
        (b"", 3),
    ],
)
def test_something_else_answers(tmp_path: Path, answer: bytes, code: int) -> None:
    """A daemon of another protocol, or something that is no daemon, is one line and its code."""
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        running_tool = subprocess.Popen(command("--socket", path, "status"), stderr=subprocess.PIPE, text=True)
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
        _, errors = running_tool.communicate(timeout=DEADLINE_S)
    assert running_tool.returncode == code
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("status", "--json"), ("restart", "trainer"), ("restart", "nobody"), ("why", "trainer"),
        ("checkpoints",), ("dlq", "list"), ("dlq", "export"),
    ],
)  # fmt: skip
def test_nothing_heavy_is_imported(daemon: Daemon, words: tuple[str, ...]) -> None:
    """The ordinary commands import none of what is slow to import."""
    script = (
        "import sys\nfrom streampipectl.app import main\nmain(sys.argv[2:])\n"
        "print(sorted(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, " ".join(HEAVY), "--socket", daemon.path, *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [("status",), ("restart", "nobody")])
def test_fast_enough(daemon: Daemon, words: tuple[str, ...]) -> None:
    """The whole process, from its start to its exit code, stays inside its budget."""
    assert is_fast("--socket", daemon.path, *words)


def test_fast_failure_when_down(tmp_path: Path) -> None:
    """To say that there is no daemon takes no longer than to ask one."""
    assert is_fast("--socket", str(tmp_path / "none.sock"), "status")


def is_fast(*words: str) -> bool:
    """The least processor time of ten runs is within the budget; the first that is ends the matter. Not wall time: on
    a machine with other work that measures the work."""
    return any(cpu_seconds(words) < START_BUDGET_S for _ in range(10))


def cpu_seconds(words: tuple[str, ...]) -> float:
    running_tool = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(running_tool.pid, 0)
    running_tool.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


ILL = {"health": "stalled", "reason": "no progress for 12.0 s in phase waiting", "cause": None, "since": 1_000.0}


def test_health(daemon: Daemon) -> None:
    """A table with the reasons; 0 when all are healthy, 3 when one is not, and of one stage that of the stage."""
    assert tool(daemon, "health").returncode == 0
    daemon.backend.verdicts = {"trainer": ILL}
    done = tool(daemon, "health")
    assert done.returncode == 3
    assert done.stdout.startswith("friedman: stalled, live, ready\nno progress for 12.0 s in phase waiting\n\nNAME")
    assert [line.split()[:2] for line in done.stdout.splitlines()[-4:]][-1] == ["trainer", "stalled"]
    assert tool(daemon, "health", "trainer").returncode == 3
    assert tool(daemon, "health", "generator").returncode == 0
    assert tool(daemon, "health", "treiner").returncode == 4
    assert json.loads(tool(daemon, "health", "--json").stdout)["stages"][-1]["reason"] == ILL["reason"]


@pytest.mark.parametrize(
    ("live", "ready", "words", "code", "said"),
    [
        (True, True, ("--live",), 0, "live"),
        (True, False, ("--live",), 0, "live"),
        (True, False, ("--ready",), 3, "not ready"),
        (False, True, ("--live",), 3, "not live"),
        (True, False, ("--live", "--ready"), 3, "live, not ready"),
        (True, True, ("--live", "--ready"), 0, "live, ready"),
    ],
)
def test_probes(daemon: Daemon, live: bool, ready: bool, words: tuple[str, ...], code: int, said: str) -> None:
    """`--live` and `--ready` answer what they ask for, whatever the health of single stages is."""
    daemon.backend.live, daemon.backend.ready = live, ready
    daemon.backend.verdicts = {"trainer": ILL}
    done = tool(daemon, "health", *words)
    assert (done.returncode, done.stdout) == (code, f"{said}\n")


def test_health_without_a_daemon(tmp_path: Path) -> None:
    """Nobody there, or nobody who answers, is 5: a probe tells it from a pipeline that is ill."""
    place = str(tmp_path / "control.sock")
    done = subprocess.run(command("--socket", place, "health"), capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 5
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(place)
        deaf.listen()
        done = subprocess.run(command("--socket", place, "health"), capture_output=True, timeout=30, check=False)
        assert done.returncode == 5


def test_silence_is_no_change_that_goes_on(tmp_path: Path) -> None:
    """A daemon that does not even greet was asked for nothing: 5, and not the 8 of a change that goes on."""
    place = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(place)
        deaf.listen()
        done = subprocess.run(
            command("--socket", place, "restart", "normalizer"), capture_output=True, timeout=30, check=False
        )
    assert done.returncode == 5


@pytest.mark.parametrize("words", [("status",), ("metrics",), ("logs", "--json"), ("report", "--html", "-")])
def test_full_disk_behind_stdout(daemon: Daemon, words: tuple[str, ...]) -> None:
    """What cannot be written is one line and the code of that, not a traceback."""
    daemon.do(lambda: daemon.backend.log("stage_ready", "trainer", seconds=1.0, generation=1))
    daemon.backend.reported = report_answer()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("--socket", daemon.path, *words), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "streampipectl: standard output: No space left on device\n")


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
@pytest.mark.parametrize(("words", "code"), [("health", 0), ("why nobody", 4)])
def test_closed_streams(daemon: Daemon, closed: str, words: str, code: int) -> None:
    """A standard stream that is not there changes no exit code, and no socket takes its number."""
    line = shlex.join(command("--socket", daemon.path, *words.split())) + "".join(f" {n}>&-" for n in closed.split())
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("help",), ("help", "model"), ("help", "restart"), ("model", "help")])
@pytest.mark.parametrize("where", [(), ("--runtime-dir", "help"), ("--socket=help",)])
def test_help_is_a_word_too(words: tuple[str, ...], where: tuple[str, ...]) -> None:
    """Where people look first, also behind the options that say which daemon is meant."""
    done = subprocess.run(command(*where, *words), capture_output=True, text=True, timeout=30, check=False)
    asked = " ".join(word for word in words if word != "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: streampipectl {asked}".rstrip())


@pytest.mark.parametrize("words", [(), ("model",), ("dlq",)])
def test_help_cuts_nothing(words: tuple[str, ...]) -> None:
    """At 80 columns each command has its sentence, whole."""
    done = subprocess.run(
        command(*words, "--help"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    _, commands, sentences = done.stdout.partition("Commands:")
    assert commands
    assert "..." not in sentences


def test_a_number_below_zero(daemon: Daemon) -> None:
    """It is told as a number that is wrong, and not as an option that is not there."""
    done = tool(daemon, "model", "rollback", "-3", "--no-wait")
    assert done.returncode == 2
    assert "'-3' should be the number of a version" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("state", "about", "words"),
    [
        ("failed", {"last_reason": "died 6 times"},
         "trainer: given up until `streampipectl start trainer`: died 6 times"),
        ("stopped", {"wanted": False}, "trainer is stopped; `streampipectl start trainer` starts it"),
        ("backoff", {"last_reason": "killed by SIGKILL", "next_attempt_s": 2.0},
         "trainer: killed by SIGKILL; next attempt in 2.0s"),
        ("loading", {}, "trainer is loading"),
        ("running", {}, "no stage has a model to ask"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("line", ["model list", "model promote ridge", "predict"])
def test_who_has_a_model_and_is_down(daemon: Daemon, line: str, state: str, about: Any, words: str) -> None:
    """Where nobody can be asked for a model it is said who is down, why, and what to type; services have none."""
    daemon.backend.processes = [
        process("generator"),
        process("monitor", role="service", state="failed", last_reason="x"),
        process("trainer", state=state, **about),
    ]
    done = tool(daemon, *line.split())
    assert done.returncode == 7
    assert words in done.stderr
    assert "monitor" not in done.stderr
    assert len(done.stderr.splitlines()) == (1 if state == "running" else 2)


def test_what_to_type_for_a_stage_that_was_given_up(daemon: Daemon) -> None:
    """`status` and `health` name the command by which an operator begins it anew."""
    failed = {**ILL, "health": "failed", "reason": "given up: died 6 times"}
    daemon.backend.verdicts = {"trainer": failed}
    daemon.backend.processes = [process("trainer", state="failed", last_reason="died 6 times")]
    for line in ("health", "status"):
        said = " ".join(tool(daemon, line).stdout.split())
        assert "`streampipectl start trainer`" in said, line
        assert "died 6 times" in said, line


def test_a_stage_that_does_not_answer(daemon: Daemon) -> None:
    """A socket behind which nobody answers is said too."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(os.path.join(os.path.dirname(daemon.path), "trainer.sock"))
        done = tool(daemon, "model", "show")
    assert done.returncode == 7
    assert "trainer does not answer; `streampipectl why trainer` says more" in done.stderr


def test_devices_and_links_stay(daemon: Daemon, tmp_path: Path) -> None:
    """What is no file is written to and not replaced, and a link leads where it led: /dev/null stays what it is."""
    pipe, real, link = tmp_path / "pipe", tmp_path / "real", tmp_path / "link"
    os.mkfifo(pipe)
    real.write_text("old")
    link.symlink_to(real)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for place in (pipe, link):
            done = tool(daemon, "metrics", "--output", str(place))
            assert (done.returncode, done.stderr) == (0, "")
        assert pipe.is_fifo()
        assert os.read(reading, 1 << 16).decode() == real.read_text() == tool(daemon, "metrics").stdout
        assert link.is_symlink()
    finally:
        os.close(reading)


def test_metrics_into_a_file(daemon: Daemon, tmp_path: Path) -> None:
    """A file for the textfile collector is replaced as a whole, readable for others whatever the umask is, and nothing
    else is left in its directory; what cannot be written leaves the old one."""
    directory = tmp_path / "textfile"
    directory.mkdir()
    place = directory / "streampipe.prom"
    place.write_text("old")
    old = place.stat().st_ino
    words = command("--socket", daemon.path, "metrics", "--output", str(place))
    assert subprocess.run(words, umask=0o077, timeout=DEADLINE_S, check=False).returncode == 0
    assert place.read_text() == tool(daemon, "metrics").stdout
    assert place.stat().st_mode & 0o777 == 0o644
    assert place.stat().st_ino != old
    assert os.listdir(directory) == ["streampipe.prom"]
    (directory / "taken").mkdir()
    done = tool(daemon, "metrics", "--output", str(directory / "taken"))
    assert done.returncode == 7
    assert sorted(os.listdir(directory)) == ["streampipe.prom", "taken"]
