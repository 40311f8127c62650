"""Records that kill a stage are found, put aside, and can come back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from streampiped.wire.letters import unpack
from support.daemon import Daemon, running, simple, wait_for

pytestmark = [pytest.mark.system]

RECORDS = 60_000
POISON = 30_000
"""The position of the record that kills."""
HEAD = """
[supervision]
max_restarts = 3
window = "60s"
backoff_first = "10ms"
probe_timeout = "100ms"
[checkpoint]
interval = "200ms"
"""


def poisoned(kind: str, flag: Path) -> str:
    """A bounded stream whose middle stage dies of one record, while `flag` is there."""
    mischief = f'mischief = "{kind}"\nat = {POISON}\nflag = "{flag}"'
    return simple(head=HEAD, count=f"records = {RECORDS}", middle=mischief)


MANNERS = {
    # mischief: how the letter says it, what its reason or traceback has
    "raise": ("exception", "process refused on purpose"),
    "segfault": ("crash", "Segmentation fault"),
    "loop": ("loop", "simple_stages.py"),
}
POISONS = {"raise": 20_000, "segfault": 30_000, "loop": 40_000}
"""The position of the record that each of them is about."""


def thrice_poisoned(flag: Path) -> str:
    """A bounded stream through three stages that each die of one record in a manner of their own, while `flag` is
    there; the stage is named like its mischief."""
    stages, before = "", "middle"
    for kind, position in POISONS.items():
        hang = 'hang_timeout = "500ms"\n' if kind == "loop" else ""
        stages += (
            f'[stages.{kind}]\nclass = "support.simple_stages:Mischief"\ninput = "{before}"\n'
            f'mischief = "{kind}"\nat = {position}\nflag = "{flag}"\n{hang}'
        )
        before = kind
    text = simple(head=HEAD, count=f"records = {RECORDS}").replace('input = "middle"', f'input = "{before}"')
    return text + stages


def finished(daemon: Daemon) -> dict[str, Any]:
    """The summary of the last stage when everything is committed."""
    wait_for(lambda: daemon.status()["state"] == "finished", "the stream has ended and is committed", 60.0)
    report: dict[str, Any] = daemon.call("report")["results"]
    return report


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    path = tmp_path / "flag"
    path.touch()
    return path


def test_one_record_is_put_aside_and_comes_back_once(flag: Path) -> None:
    """A record that raises, crashes or loops is put aside, alone, with reason and traceback; the stream goes on
    to its end without using up the restarts, and the other stages stay. A loop has left its stack in the log as well.
    When the cause is gone the records are replayed, and each enters once."""
    with running(thrice_poisoned(flag)) as daemon:
        others = {name: pid for name, pid in daemon.pids().items() if name not in POISONS}
        found = finished(daemon)
        assert found["rows"] == RECORDS - len(POISONS)
        assert found["sum"] == RECORDS * (RECORDS - 1) // 2 - sum(POISONS.values())
        letters = {letter["stage"]: letter for letter in daemon.call("dead_letters", whole=True)["letters"]}
        assert letters.keys() == POISONS.keys()
        for kind, (manner, trace) in MANNERS.items():
            letter = letters[kind]
            place = (letter["source"], letter["position"], letter["manner"], letter["status"])
            assert place == ("count", POISONS[kind], manner, "dead")
            assert trace in letter["reason"] + letter["traceback"]
            assert daemon.process_status(kind)["restarts"] <= 3
        assert daemon.status()["dead_letters"] == len(POISONS)
        assert {name: daemon.pids()[name] for name in others} == others
        assert {event["stage"] for event in daemon.events("stage_hung")} == {"loop"}
        stack = [event for event in daemon.events("stage_output") if "simple_stages.py" in event["line"]]
        assert {(event["stage"], event["level"]) for event in stack} >= {("loop", "error")}
        assert all("most recent call" in event["line"] for event in stack)
        flag.unlink()
        numbers = [str(letter["id"]) for letter in letters.values()]
        for number in numbers:
            done = daemon.ctl("dlq", "replay", number)
            assert done.returncode == 0, done.stderr
        assert finished(daemon)["rows"] == RECORDS
        for name in ("count", "raise", "total"):
            generation = daemon.status()["generation"]
            os.kill(daemon.pids()[name], signal.SIGKILL)
            daemon.wait_running(generation + 1)
        again = finished(daemon)
        assert (again["rows"], again["sum"]) == (RECORDS, RECORDS * (RECORDS - 1) // 2)
        assert daemon.ctl("dlq", "replay", numbers[0]).returncode == 7


def test_replay_behind_one_that_waits_says_so(flag: Path) -> None:
    """A replay that no barrier comes to commit (a stage is frozen) is answered with 8 and why, and so is the one behind
    it, which then comes to its turn and finds its record replayed. Meanwhile the letter cannot be dropped."""
    with running(poisoned("raise", flag)) as daemon:
        assert finished(daemon)["rows"] == RECORDS - 1
        flag.unlink()
        frozen = daemon.pids()["total"]
        os.kill(frozen, signal.SIGSTOP)
        first, second = (daemon.ctl("dlq", "replay", "1", "--timeout", "0.3") for _ in range(2))
        dropped = daemon.ctl("dlq", "drop", "1")
        os.kill(frozen, signal.SIGCONT)
        assert (dropped.returncode, "on its way back" in dropped.stderr) == (7, True)
        assert (first.returncode, second.returncode) == (8, 8)
        assert "still going on after 0.3 s: " in first.stderr
        assert second.stderr == "streampipectl: still going on after 0.3 s: it comes behind another replay\n"
        wait_for(lambda: daemon.status()["dead_letters"] == 0, "the first is committed")
        failed = daemon.wait_event("request_failed")
        assert (failed["method"], "1" in failed["reason"]) == ("replay", True)
        assert finished(daemon)["rows"] == RECORDS


def test_replay_of_several_stages_goes_on_behind_its_client(flag: Path) -> None:
    """A replay of everything is one change per stage. Its operator leaves while the first waits for its epoch; the
    others follow all the same, and each record enters once."""
    with running(thrice_poisoned(flag)) as daemon:
        assert finished(daemon)["rows"] == RECORDS - len(POISONS)
        flag.unlink()
        frozen = daemon.pids()["total"]
        os.kill(frozen, signal.SIGSTOP)
        late = daemon.ctl("dlq", "replay", "--all", "--timeout", "0.3")
        assert late.returncode == 8, late
        assert daemon.status()["dead_letters"] == len(POISONS)
        os.kill(frozen, signal.SIGCONT)
        wait_for(lambda: daemon.status()["dead_letters"] == 0, "all are committed")
        found = finished(daemon)
        assert (found["rows"], found["sum"]) == (RECORDS, RECORDS * (RECORDS - 1) // 2)


def test_letters_outlive_the_daemon(flag: Path, tmp_path: Path) -> None:
    """After the supervisor is killed and started again the record is still skipped, and still on the list. Replayed
    while its cause is still there, it is put aside again; the pipeline goes on."""
    config = poisoned("segfault", flag)
    (tmp_path / "run").mkdir()
    with running(config, tmp_path / "run") as daemon:
        wait_for(lambda: daemon.call("dead_letters")["letters"], "the verdict", 30.0)
        daemon.process.kill()
        daemon.process.wait(10.0)
    with running(config, tmp_path / "run") as daemon:
        assert finished(daemon)["rows"] == RECORDS - 1
        (letter,) = daemon.call("dead_letters")["letters"]
        assert daemon.process_status("middle")["restarts"] == 0
        daemon.call("replay", ids=[letter["id"]], timeout=30.0)
        wait_for(
            lambda: (now := daemon.call("dead_letter", id=letter["id"]))["attempt"] == 1 and now["status"] == "dead",
            "the verdict on the replay",
            30.0,
        )
        assert finished(daemon)["rows"] == RECORDS - 1


LONG = """
[stages.count]
class = "support.simple_stages:Long"
records = 2000
batch_max = 100
at = [500, 510, 520, 530, 540]
chars = {chars}
[stages.choke]
class = "support.simple_stages:Choke"
input = "count"
at = [500, 510, 520, 530, 540]
flag = "{flag}"
[stages.consumer]
class = "consumer"
input = "choke"
[stages.total]
class = "support.simple_stages:Total"
input = "consumer"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
CHARS = 1_200_000


def test_long_records_come_back_whole(flag: Path) -> None:
    """Records with texts of more than a megabyte are kept, exported and replayed as they came, though no message
    between processes, no answer of the daemon and no frame holds one or all of them."""
    with running(HEAD + LONG.format(chars=CHARS, flag=flag)) as daemon:
        assert finished(daemon)["rows"] == 2000 - 5
        exported = [json.loads(line) for line in daemon.ctl("dlq", "export").stdout.splitlines()]
        assert [(letter["record"]["x"], len(letter["record"]["text"])) for letter in exported] == [
            (at, CHARS) for at in (500, 510, 520, 530, 540)
        ]
        assert f"... ({CHARS} characters" in daemon.ctl("dlq", "show", "1").stdout
        flag.unlink()
        done = daemon.ctl("dlq", "replay", "--all")
        assert done.returncode == 0, done.stderr
        assert finished(daemon)["rows"] == 2000
        with contextlib.closing(sqlite3.connect(daemon.state / "stages/consumer/records.sqlite")) as db:
            query = "SELECT position, length(text) FROM committed_records WHERE length(text) > 1 ORDER BY position"
            assert db.execute(query).fetchall() == [(at, CHARS) for at in (500, 510, 520, 530, 540)]


SWELL = """
[stages.count]
class = "support.simple_stages:Long"
records = 2000
batch_max = 100
{count}
[stages.swell]
class = "support.simple_stages:Swell"
input = "count"
{swell}
[stages.total]
class = "support.simple_stages:Total"
input = "swell"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
TOO_LONG = (16 << 20) + 1
"""Characters that no frame takes."""


@pytest.mark.parametrize("at", [0, 500])
def test_what_makes_no_frame_ends_nobody(at: int) -> None:
    """A record whose result is too long for a frame is put aside as any that kills; one that comes so from the source,
    be it the very first, is left out, named, and the others of its batch go on."""
    count = f"at = [{at}]\nchars = {TOO_LONG}"
    with running(HEAD + SWELL.format(count=count, swell=f"at = [1500]\nchars = {TOO_LONG}")) as daemon:
        found = finished(daemon)
        assert (found["rows"], found["sum"]) == (2000 - 2, 2000 * 1999 // 2 - at - 1500)
        assert [event["position"] for event in daemon.events("record_left_out")][-1] == at
        (letter,) = daemon.call("dead_letters")["letters"]
        assert (letter["stage"], letter["position"], letter["reason"][:10]) == ("swell", 1500, "FrameError")
        assert daemon.process_status("count")["restarts"] == 0


KILLS = int(os.environ.get("STREAMPIPE_POISON_KILLS", "20"))


def kill_inside(daemon: Daemon, stage: str) -> None:
    """SIGKILL while it is in `process`: it is stopped first, and goes on when it was somewhere else."""

    def killed() -> bool:
        pid = daemon.pids()[stage]
        os.kill(pid, signal.SIGSTOP)
        inside = daemon.process_status(stage)["phase"] == "processing"
        os.kill(pid, signal.SIGKILL if inside else signal.SIGCONT)
        return inside

    wait_for(killed, f"{stage} is stopped inside process")


def test_kills_put_nothing_aside() -> None:
    """However often a stage is killed by chance in the middle of a batch, no record is put aside for it, also where
    the same ones are there so often that they are tried."""
    head = HEAD.replace("max_restarts = 3", 'max_restarts = 1000000\nbackoff_max = "20ms"')
    slow = "seconds_per_record = 0.0001\n"
    with running(simple(head=head, count="batch_max = 64", middle=slow)) as daemon:
        for _ in range(KILLS):
            generation = daemon.wait_running()["generation"]
            daemon.wait_progress()  # before that it may still try what it is suspected to die of
            kill_inside(daemon, "middle")
            daemon.wait_running(generation + 1)
            deaths = [line["what"] for line in daemon.call("why", stage="middle")["story"] if "died" in line["what"]]
            assert deaths[-1] == "died: killed by SIGKILL inside process"
        assert daemon.events("records_suspected")
        assert daemon.call("dead_letters")["letters"] == []
        daemon.wait_progress(100)


# a record that reaches one stage over two branches

SHIFT = 1_000_000
"""What the branch `right` adds to x; `left` adds nothing."""
DIAMOND = """
[stages.count]
class = "support.simple_stages:Count"
records = {records}
[stages.left]
class = "support.simple_stages:Shift"
input = "count"
[stages.right]
class = "support.simple_stages:Shift"
input = "count"
by = {shift}
[stages.join]
class = "support.simple_stages:Choke"
input = ["left", "right"]
at = {join}
flag = "{flag}"
[stages.behind]
class = "support.simple_stages:Choke"
input = "join"
at = {behind}
flag = "{flag}"
[stages.total]
class = "support.simple_stages:Total"
input = "behind"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
VALUES = {"left": POISON, "right": POISON + SHIFT}
"""x of the record at POISON, by branch."""
WHOLE = (2 * RECORDS, RECORDS * (RECORDS - 1) + RECORDS * SHIFT)
"""Rows and sum of x at the last stage when nothing is missing."""


def diamond(flag: Path, stage: str, *branches: str) -> str:
    """A bounded stream whose stage (`join`, or the one `behind` it) dies of the record at POISON where it comes over
    one of `branches`."""
    at = {"join": [], "behind": []} | {stage: [VALUES[branch] for branch in branches]}
    return HEAD + DIAMOND.format(records=RECORDS, shift=SHIFT, flag=flag, **at)


def without(*branches: str) -> tuple[int, int]:
    """Rows and sum of x when the record at POISON is missing over these."""
    return WHOLE[0] - len(branches), WHOLE[1] - sum(VALUES[branch] for branch in branches)


def arrived(daemon: Daemon) -> tuple[int, int]:
    found = finished(daemon)
    return found["rows"], found["sum"]


@pytest.mark.parametrize(("stage", "branch"), [("join", "left"), ("join", "right"), ("behind", "right")])
def test_poison_over_one_branch_takes_the_other_branch_not_along(stage: str, branch: str, flag: Path) -> None:
    """Of a record that reaches a stage over two branches and kills it over one, only that row is put aside, also by a
    stage that gets both by one input. The letter names the branch, and a replay brings exactly that row, whoever dies
    afterwards."""
    with running(diamond(flag, stage, branch)) as daemon:
        assert arrived(daemon) == without(branch)
        (letter,) = daemon.call("dead_letters", whole=True)["letters"]
        assert (letter["stage"], letter["via"], letter["source"]) == (stage, branch, "count")
        assert unpack(letter["record"]) == {"x": VALUES[branch]}
        heading, line = daemon.ctl("dlq", "list").stdout.splitlines()
        assert (heading.split()[5], line.split()[5]) == ("VIA", branch)
        assert f"record: count {POISON} via {branch}\n" in daemon.ctl("dlq", "show", "1").stdout
        flag.unlink()
        done = daemon.ctl("dlq", "replay", "1")
        assert done.returncode == 0, done.stderr
        assert arrived(daemon) == WHOLE
        for name in ("count", stage):
            generation = daemon.status()["generation"]
            os.kill(daemon.pids()[name], signal.SIGKILL)
            daemon.wait_running(generation + 1)
            assert arrived(daemon) == WHOLE


def test_poison_over_both_branches_is_two_letters(flag: Path) -> None:
    """A record that kills a stage over both branches is put aside over both; each row dies, and comes back, for
    itself."""
    with running(diamond(flag, "join", "left", "right")) as daemon:
        assert arrived(daemon) == without("left", "right")
        ids = {letter["via"]: letter["id"] for letter in daemon.call("dead_letters")["letters"]}
        assert sorted(ids.values()) == [1, 2]
        daemon.call("replay", all=True, timeout=30.0)
        wait_for(
            lambda: [letter["attempt"] for letter in daemon.call("dead_letters")["letters"]] == [1, 1],
            "the verdicts on the replay",
            30.0,
        )
        assert arrived(daemon) == without("left", "right")
        flag.unlink()
        assert daemon.ctl("dlq", "replay", str(ids["right"])).returncode == 0
        assert arrived(daemon) == without("left")
        assert daemon.ctl("dlq", "replay", str(ids["left"])).returncode == 0
        assert arrived(daemon) == WHOLE
        generation = daemon.status()["generation"]
        os.kill(daemon.pids()["join"], signal.SIGKILL)
        daemon.wait_running(generation + 1)
        assert arrived(daemon) == WHOLE
