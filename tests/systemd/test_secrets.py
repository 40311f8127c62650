"""LoadCredential= on a real systemd: the secret reaches the stage that wants it and nobody else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import secret_stage
from support.nspawn import Container, eventually
from support.service import CONFIGURATION, Service

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(180)]

SECRET = "correct-horse-battery-staple"
FILE = "/etc/streampipe/credentials/mqtt"
DROP_IN = "/etc/systemd/system/streampipe.service.d/secrets.conf"
PIPELINE = """
[pipeline]
python_path = ["classes"]

[stages.generator]
max_rate = "2k/s"

[stages.careless]
class = "secret_stage:Careless"
input = "generator"
token = { credential = "mqtt" }
"""
SEEN = (
    "/var/lib/private/streampipe",
    "/var/log/private/streampipe",
    "/run/streampipe",
    "/run/log/journal",
    "/run/systemd",
)
"""Where anything of it could have been written, the credential's own directory apart."""
RAISED_S = 60.0


@pytest.fixture(scope="module")
def service(installed: Container) -> Iterator[Service]:
    """Started with a stage that is told a secret, and careless with it."""
    each = Service(installed)
    classes = Path("/etc/streampipe/classes/secret_stage.py")
    each.box.write(str(classes), Path(secret_stage.__file__).read_text())
    each.box.write(CONFIGURATION, PIPELINE)
    each.box.run("sh", "-c", f"umask 077; echo {SECRET} > {FILE}")
    each.box.write(DROP_IN, f"[Service]\nLoadCredential=mqtt:{FILE}\n")
    each.box.run("systemctl", "daemon-reload")
    yield each
    print(each.box.journal(each.name)[-6000:])


def test_check_reads_the_file_of_the_operator(service: Service) -> None:
    """Outside of the service root's `check` takes the secret from /etc/streampipe/credentials, and does not show it."""
    done = service.box.run("streampiped", "check", "--config", CONFIGURATION)
    assert "careless" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_stage_has_the_secret(service: Service) -> None:
    """The stage was given exactly the text of the file: its digest is in the journal."""
    service.systemctl("start")
    digest = hashlib.sha256(SECRET.encode()).hexdigest()[:12]
    eventually(lambda: digest in service.box.journal(service.name), "the stage has said what it was given")


def test_nobody_is_shown_the_secret(service: Service) -> None:
    """The stage quotes it in an event and in an error; it is not in the journal, in a file, in a command line, in an
    environment or in what streampipectl says, which have a mask in its place."""
    eventually(lambda: "cannot reach tcp://me:********@host" in service.box.journal(service.name), "raised", RAISED_S)
    eventually(service.is_ready, "the stage is back", RAISED_S)
    commands = (["status"], ["status", "--json"], ["report"], ["why", "careless"], ["logs"], ["dlq", "list"])
    said = "".join(_said(service, *command) for command in commands)
    assert SECRET not in said + service.box.journal(service.name) + "".join(service.process_names())
    service.box.run("journalctl", "--sync")
    found = service.box.run("grep", "--recursive", "--files-with-matches", SECRET, *SEEN, check=False)
    assert found.stdout == ""
    environment = service.box.run("sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'").stdout
    assert SECRET not in environment


def _said(service: Service, *command: str) -> str:
    done = service.box.run("streampipectl", *command, check=False)
    return done.stdout + done.stderr


def test_missing_credential_is_told(service: Service) -> None:
    """Without LoadCredential= the start is refused with 78, the key, and what would be right."""
    service.systemctl("stop")
    service.box.run("rm", DROP_IN)
    service.box.run("systemctl", "daemon-reload")
    assert service.systemctl("start", check=False) != 0
    assert service.show("ExecMainStatus")["ExecMainStatus"] == "78"
    told = service.box.journal(service.name)
    assert re.search(
        r'streampipe.toml:\d+: stages.careless.token = {"credential": "mqtt"}: .*LoadCredential=mqtt:', told
    )
