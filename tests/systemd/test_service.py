"""The installed service on a real systemd does what an operator expects of any service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from support.nspawn import Container, eventually
from support.service import CONFIGURATION, SERVICES, STAGES, UNBOUNDED, Service

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(180)]

BACK_S = 60.0
"""From the death of the supervisor until everything is ready again: half a second of RestartSec=, then a cold
start, 1 s when nothing else runs."""
JOURNAL_CHARACTERS = 6000
READY_S = 2.0
FOLLOWED = "/run/followed"
STARTS = 5


@pytest.fixture
def service(installed: Container) -> Iterator[Service]:
    """The service, in whatever state the test before left it. Its journal is shown when the test fails."""
    each = Service(installed)
    yield each
    print(installed.journal(each.name)[-JOURNAL_CHARACTERS:])


@pytest.fixture
def stopped(service: Service) -> Service:
    """Stopped and not failed, with a stream that never ends."""
    service.reset()
    return service


@pytest.fixture
def running(service: Service) -> Service:
    """Ready, with a stream that never ends: still, after a test that left it so, which saves a cold start."""
    if not service.is_ready():
        service.reset()
        service.systemctl("start")
    return service


def test_start_returns_when_every_stage_is_ready(stopped: Service) -> None:
    """When `systemctl start` returns, `streampipectl status` says that every wanted process is there, and the line of
    `systemctl status` that it runs."""
    stopped.systemctl("start")
    assert stopped.show("StatusText")["StatusText"].startswith("running: ")
    status = stopped.status()
    assert {process["name"] for process in status["processes"]} == {*STAGES, *SERVICES}
    assert all(process["pid"] for process in status["processes"])


@pytest.mark.timing
def test_ready_within_two_seconds(stopped: Service) -> None:
    """From the execution of the daemon to READY=1, by systemd's own clock, the median of several cold starts of the
    five built-in stages and both services is below two seconds."""
    seconds = []
    for _ in range(STARTS):
        stopped.systemctl("start")
        shown = stopped.show("ActiveEnterTimestampMonotonic", "ExecMainStartTimestampMonotonic")
        seconds.append(
            (int(shown["ActiveEnterTimestampMonotonic"]) - int(shown["ExecMainStartTimestampMonotonic"])) / 1e6
        )
        stopped.systemctl("stop")
    print("exec to READY:", ", ".join(f"{each:.2f} s" for each in sorted(seconds)))
    assert median(seconds) < READY_S, seconds


def test_systemctl_status_says_what_goes_on(running: Service) -> None:
    """`systemctl status` has a line with the state of the pipeline, its rate and its epoch."""
    eventually(
        lambda: (
            re.search(
                r'Status: "running: [0-9.e+]+ records/s, epoch \d+"',
                running.box.run("systemctl", "status", "--no-pager", "--full", running.name).stdout,
            )
            is not None
        ),
        "the line",
    )


def test_systemctl_status_names_the_processes(running: Service) -> None:
    """`systemctl status` lists every process by the name that the documentation gives it, each once; the supervisor, as
    the main process, by its command."""
    shown = running.box.run("systemctl", "status", "--no-pager", "--full", running.name).stdout
    for name in (*STAGES, *SERVICES, "launcher", "warden"):
        assert len(re.findall(rf"streampipe: {name}\b", shown)) == 1, shown
    listed = [line.partition("─")[2] for line in shown.splitlines() if "─" in line]
    assert [line for line in listed if "streampipe: " not in line and "streampiped run" not in line] == []


def test_restart_of_one_stage_leaves_the_others(running: Service) -> None:
    """`streampipectl restart normalizer` gives that stage another process and no other one."""
    before = running.pids()
    running.box.run("streampipectl", "restart", "normalizer")
    after = running.pids()
    assert {name for name in before if before[name] != after[name]} == {"normalizer"}


def test_reload_puts_an_option_into_effect(running: Service) -> None:
    """`systemctl reload` returns when the edited option is in effect: the stage that it belongs to is another process
    and no other one is; the journal names the change, and the service is active as before."""
    before = running.pids()
    running.box.write(CONFIGURATION, UNBOUNDED.replace("[stages.normalizer]", "[stages.normalizer]\nlimit = 4.5"))
    running.systemctl("reload")
    after = running.pids()
    assert {name for name in before if before[name] != after[name]} == {"normalizer"}
    assert running.status()["config"]["reloads"] == 1
    eventually(lambda: "stages.normalizer.limit: unset -> 4.5" in running.box.journal(running.name), "the change")
    assert running.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}


def test_reload_that_is_refused_fails_and_changes_nothing(running: Service) -> None:
    """`systemctl reload` fails with a wrong file, the journal has every reason, and the pipeline runs on as it was."""
    before = running.pids()
    running.box.write(CONFIGURATION, UNBOUNDED.replace("[stages.normalizer]", "[stages.normalizer]\nlimmit = 4.5"))
    try:
        assert running.systemctl("reload", check=False) != 0
        eventually(lambda: 'did you mean "limit"' in running.box.journal(running.name), "the reason in the journal")
        assert running.pids() == before
        assert running.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
    finally:
        running.box.write(CONFIGURATION, UNBOUNDED)


def test_report_has_the_scores(running: Service) -> None:
    """`streampipectl report` gives MSE and R2 of the stream that runs."""
    eventually(lambda: b"R2" in _report(running), "a report with scores")
    done = running.box.run("streampipectl", "report", "--json", check=False)
    assert json.loads(done.stdout)["results"]["verdict"] == ("good", "not_better", "not_enough_data")[done.returncode]


def _report(service: Service) -> bytes:
    return service.box.run("streampipectl", "report", check=False).stdout.encode()


def test_journal_has_the_story(running: Service) -> None:
    """`journalctl -u streampipe` tells of the start in readable lines."""
    eventually(lambda: "every stage is ready" in running.box.journal(running.name), "the start in the journal")


def test_group_looks_and_strangers_do_not(running: Service) -> None:
    """A member of the group may look and not change; who is not in it is denied it and told which group (exit 6); root
    may change."""
    running.box.run("useradd", "--groups", "streampipe", "member")
    running.box.run("useradd", "stranger")
    running.box.run("streampipectl", "status", user="member")
    before = running.pids()
    assert running.box.run("streampipectl", "restart", user="member", check=False).returncode == 6
    assert running.pids() == before
    refused = running.box.run("streampipectl", "status", user="stranger", check=False)
    assert refused.returncode == 6
    assert "permission denied; it is for root and group streampipe; " in refused.stderr
    running.box.run("streampipectl", "restart", "normalizer")
    assert running.pids()["normalizer"] != before["normalizer"]


def test_kill_of_the_supervisor_is_survived(running: Service) -> None:
    """After `kill -9` of the main process systemd starts it again, and there is one of everything."""
    names = running.process_names()
    before = running.show("MainPID", "NRestarts")
    killed = before["MainPID"]
    running.box.run("kill", "-KILL", killed)
    seconds = eventually(lambda: _is_back(running, killed), "the service is ready again", BACK_S)
    print(f"supervisor killed to every stage ready: {seconds:.2f} s")
    assert running.process_names() == names
    assert int(running.show("NRestarts")["NRestarts"]) == int(before["NRestarts"]) + 1


def test_log_is_followed_across_a_kill_of_the_supervisor(running: Service) -> None:
    """`streampipectl logs -f` goes on by itself with the service that systemd has started again: what was shown is
    the end of the event file, every event once and in its order, and all that the journal has of the new life."""
    follow = ("streampipectl", "logs", "-f", "--json", "--lines", "50")
    outputs = (f"--property=StandardOutput=file:{FOLLOWED}", "--property=StandardError=journal")
    running.box.run("systemd-run", "--unit=follower", *outputs, *follow)
    try:
        eventually(lambda: bool(_followed(running)), "it has begun", BACK_S)
        first, killed = _followed(running)[0], running.show("MainPID")["MainPID"]
        running.box.run("kill", "-KILL", killed)
        eventually(lambda: _is_back(running, killed), "the service is ready again", BACK_S)
        running.box.run("streampipectl", "restart", "normalizer")
        began = running.events().index(first)
        eventually(lambda: _followed(running) == running.events()[began:], "every event, each once", BACK_S)
        shown = _followed(running)
    finally:
        running.box.run("systemctl", "stop", "follower")
        running.box.run("rm", "-f", FOLLOWED)
    begun = ("pipeline_started", "supervisor", running.show("MainPID")["MainPID"])
    told = [(each["event"], each["stage"], str(each["pid"])) for each in shown]
    new, noted = (each[each.index(begun) :] for each in (told, _in_the_journal(running)))
    assert noted[: len(new)] == new


def _followed(service: Service) -> list[dict[str, Any]]:
    """What the follower has shown so far."""
    path = service.box.root / FOLLOWED.lstrip("/")
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _in_the_journal(service: Service) -> list[tuple[str, str, str]]:
    """Event, stage and pid of the service's entries."""
    service.box.run("journalctl", "--sync")
    text = service.box.run("journalctl", "--unit", service.name, "--output=json", "--all", "--quiet").stdout
    entries = [json.loads(line) for line in text.splitlines()]
    keys = [f"STREAMPIPE_{name}" for name in ("EVENT", "STAGE", "PID")]
    return [tuple(entry[key] for key in keys) for entry in entries if keys[0] in entry]


def _is_back(service: Service, killed: str) -> bool:
    shown = service.show("MainPID", "ActiveState")
    return shown["ActiveState"] == "active" and shown["MainPID"] not in ("0", killed) and service.is_ready()


def test_hung_supervisor_is_replaced(stopped: Service) -> None:
    """A supervisor that makes no decisions any more is ended by systemd's watchdog and started again; where it hung is
    in the journal. Three seconds here; SIGSTOP is how it hangs."""
    drop_in = f"/run/systemd/system/{stopped.name}.service.d/quick.conf"
    stopped.box.write(drop_in, "[Service]\nWatchdogSec=3s\n")
    stopped.box.run("systemctl", "daemon-reload")
    try:
        stopped.systemctl("start")
        before = stopped.show("MainPID", "NRestarts")
        stopped.box.run("kill", "-STOP", before["MainPID"])
        eventually(lambda: stopped.show("MainPID")["MainPID"] not in (before["MainPID"], "0"), "another one", BACK_S)
        eventually(stopped.is_ready, "everything is ready again", BACK_S)
        assert int(stopped.show("NRestarts")["NRestarts"]) == int(before["NRestarts"]) + 1
        journal = stopped.box.journal(stopped.name)
        assert "Watchdog timeout" in journal
        assert re.search(r"Fatal Python error: Aborted[\s\S]*File .*streampiped/start", journal)
    finally:
        (stopped.box.root / drop_in.lstrip("/")).unlink()
        stopped.box.run("systemctl", "daemon-reload")


def test_stop_drains_and_leaves_nothing(running: Service) -> None:
    """`systemctl stop` ends with exit 0 and leaves no process and no socket; the state stays."""
    running.systemctl("stop")
    assert running.show("ActiveState")["ActiveState"] == "inactive"
    # systemd forgets the exit code of a unit that nothing refers to; its journal has a line for any but 0
    told = running.last_words()
    assert "Deactivated successfully" in told
    assert "Main process exited" not in told
    assert running.box.run("pgrep", "-u", "streampipe", check=False).stdout == ""
    assert not (running.box.root / "run/streampipe").exists()
    assert list((running.box.root / "var/lib/private/streampipe").iterdir())
    assert running.box.run("streampipectl", "status", check=False).returncode == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("[pipeline]\nnome = 1\n", "nome"), ("[pipeline\n", CONFIGURATION), (None, CONFIGURATION)],
    ids=["unknown key", "not TOML", "no file"],
)
def test_broken_configuration_stays_down(stopped: Service, wrong: str | None, said: str) -> None:
    """With a configuration that cannot work the start fails with 78, says what is wrong, and is not
    repeated."""
    if wrong is None:
        stopped.box.run("rm", CONFIGURATION)
    else:
        stopped.box.write(CONFIGURATION, wrong)
    assert stopped.systemctl("start", check=False) != 0
    shown = stopped.show("ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    assert said in stopped.box.journal(stopped.name)


def test_unreadable_configuration_stays_down(stopped: Service) -> None:
    """So does one that only root may read, and the journal says for whom it is not readable."""
    stopped.box.run("chmod", "600", CONFIGURATION)
    try:
        assert stopped.systemctl("start", check=False) != 0
    finally:
        stopped.box.run("chmod", "644", CONFIGURATION)
    shown = stopped.show("ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    assert f"{CONFIGURATION}: cannot be read: Permission denied for the user streampipe" in stopped.box.journal(
        stopped.name
    )


def test_wrong_command_line_stays_down(stopped: Service) -> None:
    """A drop-in with an option that there is not fails the start with 2, and is not tried again."""
    drop_in = "/etc/systemd/system/streampipe.service.d/wrong.conf"
    stopped.box.write(drop_in, "[Service]\nExecStart=\nExecStart=/usr/local/bin/streampiped run --confg x\n")
    stopped.box.run("systemctl", "daemon-reload")
    try:
        assert stopped.systemctl("start", check=False) != 0
        shown = stopped.show("ActiveState", "ExecMainStatus", "NRestarts")
        assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}
    finally:
        stopped.box.run("rm", drop_in)
        stopped.box.run("systemctl", "daemon-reload")
