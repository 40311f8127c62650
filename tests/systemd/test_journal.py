"""What the service's day leaves in the journal of a real systemd: fields to ask for, and lines that read well."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from support.nspawn import Container, eventually
from support.service import CONFIGURATION, UNBOUNDED, Service
from support.tree import REPOSITORY

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(180)]

RISKY = '''
import traceback
from pathlib import Path
from streampiped.stages.base import Stage

ONCE = Path("/tmp/raised")  # the service's own /tmp, which lives as long as it


class Risky(Stage):
    """Raises once, and afterwards claims to be somebody else and prints a traceback."""

    def __init__(self, options, context):
        self.context = context

    def process(self, batch):
        if not ONCE.exists():
            ONCE.touch()
            raise ValueError("first line\\nPRIORITY=0\\nSTREAMPIPE_STAGE=evaluator")
        if self.context is not None:
            said = {"Stage": "evaluator", "uid": 0, "PRIORITY": 0, "x=y": 1, "reason": "a\\nSTREAMPIPE_FORGED=1"}
            self.context.emit("claim_made", **said)
            self.context = None
            try:
                1 / 0
            except ZeroDivisionError:
                traceback.print_exc()
        return batch
'''
CONFIGURED = f"""
{UNBOUNDED.replace('name = "proof"', 'name = "proof"' + chr(10) + 'python_path = ["/srv/stages"]')}
[stages.risky]
class = "risky:Risky"
input = "normalizer"
""".replace('input = "normalizer"', 'input = "risky"', 1)
BACK_S = 60.0
WHOLE = "--all"  # without it journalctl's JSON has null for a field beyond 4096 bytes


@pytest.fixture(scope="module")
def service(installed: Container) -> Service:
    """A service in whose life a stage raised, another one was killed, and root restarted a third."""
    each = Service(installed)
    installed.write("/srv/stages/risky.py", RISKY)
    installed.write(CONFIGURATION, CONFIGURED)
    each.systemctl("start")
    eventually(lambda: bool(_entries(each, "STREAMPIPE_EVENT=claim_made")), "the stage goes on after it raised", BACK_S)
    installed.run("kill", "-KILL", str(each.pids()["trainer"]))
    eventually(lambda: bool(_entries(each, "STREAMPIPE_STAGE=trainer")), "the trainer's death", BACK_S)
    eventually(each.is_ready, "everything is ready again", BACK_S)
    installed.run("streampipectl", "restart", "normalizer")
    return each


def _entries(service: Service, *matches: str) -> list[dict[str, Any]]:
    service.box.run("journalctl", "--sync")
    shown = service.box.run("journalctl", "--output=json", WHOLE, "--no-pager", *matches).stdout
    return [json.loads(line) for line in shown.splitlines()]


def _entry(service: Service, *matches: str) -> dict[str, Any]:
    found = _entries(service, *matches)
    assert len(found) == 1, found
    return found[0]


def test_one_stage_can_be_asked_for(service: Service) -> None:
    """`journalctl STREAMPIPE_STAGE=trainer` has what was about the trainer, from the supervisor of the unit."""
    found = _entries(service, "STREAMPIPE_STAGE=trainer")
    assert {each["_SYSTEMD_UNIT"] for each in found} == {"streampipe.service"}
    assert {each["_PID"] for each in found} == {service.show("MainPID")["MainPID"]}
    died = next(each for each in found if each["STREAMPIPE_EVENT"] == "stage_died")
    assert (died["PRIORITY"], died["SYSLOG_IDENTIFIER"]) == ("3", "streampipe")
    assert died["STREAMPIPE_REASON"] == "killed by SIGKILL"
    assert died["MESSAGE"] == "trainer: died: killed by SIGKILL"
    assert int(died["STREAMPIPE_EPOCH"]) >= 0
    assert died["STREAMPIPE_PID"].isdigit()


def test_a_traceback_is_one_entry(service: Service) -> None:
    """What a stage raised is one entry of priority err, with the place in its code, whatever the exception says."""
    raised = _entry(service, "STREAMPIPE_EVENT=stage_raised")
    assert (raised["PRIORITY"], raised["STREAMPIPE_STAGE"]) == ("3", "risky")
    assert raised["MESSAGE"].startswith("risky: raised in ")
    assert "Traceback (most recent call last)" in raised["MESSAGE"]
    assert raised["MESSAGE"].endswith("STREAMPIPE_STAGE=evaluator")
    place = (raised["CODE_FILE"], raised["CODE_FUNC"], RISKY.splitlines()[int(raised["CODE_LINE"]) - 1].split()[0])
    assert place == ("/srv/stages/risky.py", "process", "raise")


def test_a_printed_traceback_is_one_entry(service: Service) -> None:
    """A traceback that a stage only prints is one entry of priority err too."""
    printed = _entry(service, "STREAMPIPE_EVENT=stage_output", "STREAMPIPE_STAGE=risky")
    assert printed["PRIORITY"] == "3"
    assert printed["MESSAGE"].startswith("risky: Traceback (most recent call last):\n  File")
    assert printed["MESSAGE"].endswith("ZeroDivisionError: division by zero")
    assert (printed["CODE_FILE"], printed["CODE_FUNC"]) == ("/srv/stages/risky.py", "process")


def test_a_stage_cannot_forge(service: Service) -> None:
    """Fields that a stage made up stand beside the supervisor's own, or nowhere."""
    claim = _entry(service, "STREAMPIPE_EVENT=claim_made")
    assert (claim["STREAMPIPE_STAGE"], claim["STREAMPIPE_STAGE_"]) == ("risky", "evaluator")
    assert (claim["PRIORITY"], claim["STREAMPIPE_PRIORITY"]) == ("6", "0")
    assert (claim["STREAMPIPE_UID_"], "STREAMPIPE_UID" in claim) == ("0", False)
    assert _entries(service, "STREAMPIPE_FORGED=1") == []


def test_who_did_what(service: Service) -> None:
    """A command is in the journal with who gave it, and a refused one too."""
    given = _entry(service, "STREAMPIPE_EVENT=command_received", "STREAMPIPE_UID=0")
    assert (given["STREAMPIPE_METHOD"], given["STREAMPIPE_PARAMS"]) == ("restart", "normalizer")
    assert (given["STREAMPIPE_WHO"], given["MESSAGE"]) == ("root", "supervisor: restart normalizer by root")
    service.box.run("useradd", "--groups", "streampipe", "reader")
    uid = service.box.run("id", "--user", "reader").stdout.strip()
    service.box.run("streampipectl", "stop", "trainer", user="reader", check=False)
    refused = _entry(service, "STREAMPIPE_EVENT=command_refused", f"STREAMPIPE_UID={uid}")
    assert (refused["STREAMPIPE_METHOD"], refused["STREAMPIPE_WHO"], refused["PRIORITY"]) == ("stop", "reader", "4")


def test_plain_journalctl_reads_well(service: Service) -> None:
    """`journalctl -u streampipe` has a line per event that says who and what, and no JSON; `-p err` the errors."""
    shown = service.box.run("journalctl", "--unit", "streampipe", "--no-pager", "--no-hostname").stdout
    told = r"streampipe\[\d+\]: "
    assert re.search(told + r"supervisor: every stage is ready, generation 1, after \d", shown), shown
    assert re.search(told + r"trainer: died: killed by SIGKILL\n", shown), shown
    assert re.search(told + r"risky: raised in process: ValueError: first line\n {20,}PRIORITY=0\n", shown), shown
    assert shown.count("Traceback (most recent call last)") == 2
    assert "STREAMPIPE_EVENT" not in shown
    assert '{"ts"' not in shown
    errors = service.box.run("journalctl", "--unit", "streampipe", "-p", "err", "--no-pager", "-o", "cat").stdout
    assert "trainer: died" in errors
    assert "every stage is ready" not in errors


def test_documented_queries(service: Service) -> None:
    """Every query of docs/operations/journal.md is one that journalctl understands, and finds something here."""
    page = (REPOSITORY / "docs" / "operations" / "journal.md").read_text()
    queries = re.findall(r"^journalctl[^|#\n]*", page, re.MULTILINE)
    assert len(queries) > 10
    epochs = (each.get("STREAMPIPE_EPOCH") for each in _entries(service, "STREAMPIPE_EVENT=stage_died"))
    epoch = next(each for each in epochs if each)
    for query in queries:
        here = query.replace(" -f", "").replace("=231", f"={epoch}").replace("=alice", "=root")
        shown = service.box.run(*shlex.split(here), "--no-pager", "--quiet").stdout
        assert shown, query


@pytest.mark.parametrize(
    "units", [["systemd-journald.service"], ["systemd-journald.socket", "systemd-journald.service"]]
)
def test_restarted_journald(service: Service, units: list[str]) -> None:
    """After a restart of journald, its sockets too, events come to it as before, from the same supervisor."""
    before = len(_entries(service, "STREAMPIPE_METHOD=checkpoint"))
    if len(units) > 1:
        service.box.run("systemctl", "stop", *units)
    service.box.run("systemctl", "restart", *units)
    service.box.run("streampipectl", "checkpoint")
    eventually(lambda: len(_entries(service, "STREAMPIPE_METHOD=checkpoint")) == before + 1, "an entry afterwards")
    assert service.status()["log_drops"]["journal_dropped"] == 0


def test_hanging_journald(service: Service) -> None:
    """While journald hangs, commands are carried out as ever; their events are there when it goes on."""
    before = len(_entries(service, "STREAMPIPE_METHOD=checkpoint"))
    journald = service.box.show("systemd-journald", "MainPID")["MainPID"]
    service.box.run("kill", "-STOP", journald)
    try:
        for _ in range(3):
            service.box.run("streampipectl", "checkpoint", timeout=20)
    finally:
        service.box.run("kill", "-CONT", journald)
    eventually(lambda: len(_entries(service, "STREAMPIPE_METHOD=checkpoint")) == before + 3, "all entries afterwards")


def test_a_wrong_configuration_is_an_error(service: Service) -> None:
    """What keeps the daemon from starting is an error of the same name, and none of its lines shows the mark."""
    service.systemctl("stop")
    service.box.write(CONFIGURATION, "[pipeline]\nnome = 1\n")
    service.systemctl("start", check=False)
    service.reset()
    found = _entries(service, "SYSLOG_IDENTIFIER=streampipe", "PRIORITY=3", "_TRANSPORT=stdout")
    assert any("nome" in each["MESSAGE"] for each in found)
    assert not any("<3>" in each["MESSAGE"] for each in found)
