"""Nothing lost, nothing doubled, where systemd is the one that starts, stops and restarts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import law
from support.nspawn import Container, eventually
from support.service import CONFIGURATION, Service

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(300)]

RECORDS = 60_000
FAST = law.config(RECORDS)
SLOW = FAST.replace("[stages.generator]\n", '[stages.generator]\nmax_rate = "1k/s"\n')
"""A minute of load. The last start of a test finishes the stream at once; both cut the same batches."""
DEADLINE_S = 60.0
JOURNAL_CHARACTERS = 6000


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> law.Outcome:
    return law.undisturbed(FAST, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def service(installed: Container) -> Iterator[Service]:
    """In the middle of a slow stream that began with an empty state."""
    each = Service(installed)
    each.systemctl("stop")
    for directory in (each.state, each.events_file.parent):
        shutil.rmtree(directory, ignore_errors=True)
    installed.write(CONFIGURATION, SLOW)
    each.systemctl("start")
    _flows(each)
    yield each
    print(installed.journal(each.name)[-JOURNAL_CHARACTERS:])


def _flows(service: Service) -> None:
    """Records flow, and are committed, since the last start."""
    first = service.status()["epoch"] or 0
    eventually(lambda: (service.status()["epoch"] or 0) > first, "an epoch is committed", DEADLINE_S)
    assert service.status()["state"] == "running"


def _kill(service: Service) -> None:
    killed = service.show("MainPID")["MainPID"]
    service.box.run("kill", "-KILL", killed)
    eventually(lambda: service.show("MainPID")["MainPID"] not in ("0", killed), "another one", DEADLINE_S)
    eventually(service.is_ready, "every stage is ready", DEADLINE_S)


def _differences(service: Service, expected: law.Outcome, directory: Path) -> list[str]:
    """Of the stream's end from that of an undisturbed run."""
    eventually(lambda: service.status()["state"] == "finished", "the stream has ended", DEADLINE_S)
    left = shutil.copytree(service.state, directory / "left")
    return law.left_in(left, service.ask("report")["results"]).differences(expected)


def test_kills_of_the_supervisor_under_load(service: Service, expected: law.Outcome, tmp_path: Path) -> None:
    """The main process is killed again and again in the middle of a stream: there is one copy of everything after each,
    and at the end rows, snapshots and results are, to the last bit, those of an undisturbed run."""
    names = service.process_names()
    for _ in range(2):
        _kill(service)
        assert service.process_names() == names
        _flows(service)
    service.box.write(CONFIGURATION, FAST)
    _kill(service)
    assert service.show("NRestarts") == {"NRestarts": "3"}
    assert [event["event"] for event in service.events()].count("pipeline_started") == 4
    assert _differences(service, expected, tmp_path) == []


def test_stopped_and_started_again_it_goes_on(service: Service, expected: law.Outcome, tmp_path: Path) -> None:
    """`systemctl stop` in the middle of a stream commits a last epoch; the next start goes on from it and from no other
    one, and the end is that of an undisturbed run."""
    before = service.status()["epoch"]
    service.systemctl("stop")
    last = max(int(path.name[1:].partition(".")[0]) for path in (service.state / "epochs").glob("e*.manifest"))
    assert last > before
    service.box.write(CONFIGURATION, FAST)
    service.systemctl("start")
    started = [event for event in service.events() if event["event"] == "generation_started"]
    assert started[-1]["origin"] == f"epoch {last}"
    assert _differences(service, expected, tmp_path) == []
