"""`make install` and `make uninstall` on a machine with a running systemd."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from support.nspawn import Container
from support.service import CONFIGURATION, install, uninstall

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd")]

EXPOSURE_MAX = 0.4
"""Of `systemd-analyze security`: 10 is open, 0 closed; Debian's supervisor.service has 9.6."""
LIBRARY = Path("usr/local/lib/streampipe")
DROP_INS = ("/usr/local/lib/streampipe/systemd/network.conf", "/usr/local/lib/streampipe/systemd/newer.conf")
DROP_IN_DIRECTORY = "/etc/systemd/system/streampipe.service.d"
NEWER = 254
"""The systemd that knows every key of newer.conf."""


def test_unit_is_valid(installed: Container) -> None:
    """systemd has nothing to say about the installed unit: no unknown key, no missing program."""
    done = installed.run("systemd-analyze", "verify", "streampipe.service", check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_unit_is_not_wide_open(installed: Container) -> None:
    """What the unit leaves open, as systemd counts it, stays below the figure that was reached."""
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    installed.run("systemd-analyze", "security", "--offline=true", threshold, "streampipe.service")


def test_drop_ins_are_valid(installed: Container) -> None:
    """Copied as the documentation says, the drop-ins have no fault; an older systemd knows none of newer.conf's keys,
    which is why nothing of it is in force by itself."""
    version = int(installed.run("systemctl", "--version").stdout.split()[1])
    installed.run("install", "-D", "-m", "644", *DROP_INS, "-t", DROP_IN_DIRECTORY)
    done = installed.run("systemd-analyze", "verify", "streampipe.service", check=False)
    installed.run("rm", "-r", DROP_IN_DIRECTORY)
    unknown = re.findall(r"newer\.conf:\d+: Unknown key(?: name)? '(\w+)'", done.stdout + done.stderr)
    assert unknown == ([] if version >= NEWER else ["RestartSteps", "RestartMaxDelaySec"])
    assert len((done.stdout + done.stderr).splitlines()) == len(unknown)


def test_old_event_files_age(installed: Container) -> None:
    """Event files that were not written for 90 days are cleaned away; the current one never, and no younger one."""
    logs = "/var/log/private/streampipe"
    for name, age in (("events.jsonl", 91), ("events.jsonl.1", 91), ("events.jsonl.2", 89)):
        installed.write(f"{logs}/{name}", "{}")
        installed.run("touch", "--date", f"{age} days ago", f"{logs}/{name}")
    installed.run("systemd-tmpfiles", "--clean", "streampipe.conf")
    assert installed.run("ls", logs).stdout.split() == ["events.jsonl", "events.jsonl.2"]


def test_secrets_are_for_root_alone(installed: Container) -> None:
    """The directory that the documentation puts secrets into is there, and nobody else may look into it."""
    assert installed.run("stat", "--format=%a %U", "/etc/streampipe/credentials").stdout == "700 root\n"


def test_everything_is_in_place(installed: Container) -> None:
    """The commands answer, the user and the group exist, the configuration is there and is TOML."""
    assert installed.run("streampiped", "--version").stdout.startswith("streampiped ")
    assert "status" in installed.run("streampipectl", "--help").stdout
    assert installed.run("id", "--name", "--user", "streampipe").stdout == "streampipe\n"
    assert installed.run("id", "--name", "--group", "streampipe").stdout == "streampipe\n"
    tomllib.loads(installed.run("cat", CONFIGURATION).stdout)


def test_every_module_is_compiled(installed: Container) -> None:
    """No module lacks its .pyc: the service cannot write one, and would compile it at every start."""
    modules = list((installed.root / LIBRARY / "lib").rglob("*.py"))
    assert modules
    missing = [path for path in modules if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    assert missing == []


def test_uninstall_keeps_what_is_the_operators(installed: Container) -> None:
    """Uninstalling takes the program and the unit; the configuration as edited and the user stay, also when
    it is installed again."""
    edited = "# edited by the operator\n"
    installed.write(CONFIGURATION, edited)
    uninstall(installed)
    assert not (installed.root / LIBRARY).exists()
    assert not (installed.root / "usr/lib/tmpfiles.d/streampipe.conf").exists()
    assert installed.show("streampipe", "LoadState")["LoadState"] == "not-found"
    assert installed.run("streampipectl", "status", check=False).returncode == 127
    installed.run("id", "streampipe")
    install(installed)
    assert installed.run("cat", CONFIGURATION).stdout == edited
