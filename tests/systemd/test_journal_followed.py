"""The log extractor on a real journal, inside the closed unit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.nspawn import Container, eventually
from support.service import CONFIGURATION, UNBOUNDED, Service

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(180)]

SHIPPED = "/usr/local/lib/streampipe/systemd/journal.conf"
DROP_IN = "/etc/systemd/system/streampipe.service.d/journal.conf"
COUNTED_S = 30.0


@pytest.fixture
def service(installed: Container) -> Iterator[Service]:
    """Stopped, with a log extractor that follows the journal. The journal is shown when the test fails."""
    each = Service(installed)
    each.reset()
    each.box.write(CONFIGURATION, f'[log_extractor]\nfrom = "journal"\n{UNBOUNDED}')
    yield each
    print(each.box.journal(each.name)[-6000:])
    each.systemctl("stop")
    each.box.run("rm", "-f", DROP_IN)
    each.box.run("systemctl", "daemon-reload")


def summary(service: Service) -> dict[str, Any]:
    """What the extractor has counted; nothing while it is not there."""
    done = service.box.run("streampipectl", "logs", "--summary", "--json", check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {"events": -1, "garbage": 0, "stages": {}}


def entries(service: Service) -> int:
    """Entries of the unit in the journal."""
    service.box.run("journalctl", "--sync")
    shown = service.box.run("journalctl", "--unit", service.name, "--output=json", "--quiet", "--all").stdout
    return len(shown.splitlines())


def all_counted(service: Service) -> bool:
    found = summary(service)
    return int(found["events"] + found["garbage"]) == entries(service)


def test_journal_is_counted(service: Service) -> None:
    """With the drop-in that is shipped the extractor counts every entry of the unit once, also across kills of itself
    and restarts of the service, and no journalctl is left behind."""
    service.box.run("install", "-D", "-m", "644", SHIPPED, DROP_IN)
    service.box.run("systemctl", "daemon-reload")
    service.systemctl("start")
    eventually(lambda: all_counted(service), "every entry is counted", COUNTED_S)
    killed = service.pids()["log_extractor"]
    service.box.run("kill", "-KILL", str(killed))
    service.box.run("streampipectl", "restart", "normalizer")
    eventually(lambda: service.pids()["log_extractor"] not in (killed, None), "another extractor", COUNTED_S)
    eventually(lambda: all_counted(service), "every entry is counted after a kill", COUNTED_S)
    assert sum("journalctl" in name for name in service.process_names()) == 1
    service.systemctl("stop")
    assert not service.process_names()
    service.systemctl("start")
    eventually(lambda: all_counted(service), "every entry is counted after a restart", COUNTED_S)
    assert summary(service)["gaps"] == 0


def test_who_may_not_read_it_is_told(service: Service) -> None:
    """Without the group the service runs, and its log says which group the extractor needs."""
    service.systemctl("start")
    eventually(lambda: "systemd-journal" in service.box.journal(service.name), "the reason in the journal", COUNTED_S)
    assert service.is_ready()
