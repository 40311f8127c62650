"""Health and metrics of the installed service: under the closed unit, and with the network that HTTP needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.nspawn import Container, eventually
from support.service import CONFIGURATION, SERVICES, STAGES, UNBOUNDED, Service
from support.tree import REPOSITORY

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(180)]

LISTEN = '[metrics]\nlisten = "127.0.0.1:9464"\n'
DROP_IN = "/etc/systemd/system/streampipe.service.d/network.conf"
FETCH = (
    "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/metrics', timeout=5).read().decode())"
)
FILE = "/var/lib/prometheus/node-exporter/streampipe.prom"
MEMORY = "streampipe_process_unique_memory_bytes"


@pytest.fixture
def service(installed: Container) -> Iterator[Service]:
    """Ready, with metrics wanted at a port. Its journal is shown when the test fails."""
    each = Service(installed)
    each.reset()
    installed.write(CONFIGURATION, UNBOUNDED + LISTEN)
    each.systemctl("start")
    yield each
    print(installed.journal(each.name)[-6000:])
    each.systemctl("stop")
    installed.run("rm", "-f", DROP_IN)
    installed.run("systemctl", "daemon-reload")


def seen(text: str) -> set[str]:
    """The processes whose memory the page knows."""
    families = text_string_to_metric_families(text)
    return {sample.labels["stage"] for family in families if family.name == MEMORY for sample in family.samples}


def test_the_closed_unit_gives_everything_but_http(service: Service) -> None:
    """Without a network the service says once that it cannot listen, and is well; the page comes through the control
    socket, figures of every process included, also for a member of the group and into a file for the node exporter."""
    box = service.box
    box.run("useradd", "--groups", "streampipe", "prober")
    assert box.run("streampipectl", "health", user="prober").stdout.startswith("proof: healthy, live, ready")
    everybody = {*STAGES, *SERVICES, "supervisor", "launcher"}
    eventually(  # the service is ready before its monitor is
        lambda: seen(box.run("streampipectl", "metrics", user="prober").stdout) == everybody, "everybody on the page"
    )
    box.run("mkdir", "-p", FILE.rpartition("/")[0])
    box.run("streampipectl", "metrics", "--output", FILE)
    assert box.run("stat", "--format=%a", FILE).stdout.strip() == "644"
    assert seen(box.run("cat", FILE).stdout) == everybody
    eventually(lambda: "cannot listen at 127.0.0.1:9464" in box.journal(service.name), "it says that it cannot listen")
    assert box.journal(service.name).count("cannot listen at 127.0.0.1:9464") == 1
    assert box.run(sys.executable, "-c", FETCH, check=False).returncode != 0


def test_the_network_drop_in_opens_the_port(service: Service) -> None:
    """With network.conf, narrowed to this machine as the documentation says, the page is there over HTTP."""
    box = service.box
    text = (REPOSITORY / "systemd" / "network.conf").read_text()
    box.run("mkdir", "-p", DROP_IN.rpartition("/")[0])
    box.write(DROP_IN, text.replace("IPAddressAllow=any", "IPAddressAllow=localhost"))
    box.run("systemctl", "daemon-reload")
    service.systemctl("restart")
    eventually(lambda: box.run(sys.executable, "-c", FETCH, check=False).returncode == 0, "the page is there")
    assert seen(box.run(sys.executable, "-c", FETCH).stdout) == {*STAGES, *SERVICES, "supervisor", "launcher"}


def test_a_stopped_service_is_not_reached(service: Service) -> None:
    """`systemctl stop` makes every probe answer 5: nobody is there."""
    service.systemctl("stop")
    for probe in ((), ("--live",), ("--ready",)):
        assert service.box.run("streampipectl", "health", *probe, check=False).returncode == 5
