"""streampipe as an installed service inside a booted container, as an operator sees and uses it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.nspawn import Container
from support.tree import REPOSITORY

STAGES: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
SERVICES: Final = ("log_extractor", "service_monitor")
CONFIGURATION: Final = "/etc/streampipe/streampipe.toml"
CHANGE_S: Final = 80.0
"""For systemctl start and stop: a start takes 2 s, a drain at most 25 s; on a machine with other work, far more."""
HIDDEN: Final = ("/home/", "/root/")
"""What the unit's ProtectHome=yes hides, and where an interpreter may nevertheless be on a developer's
machine."""

UNBOUNDED: Final = """
[pipeline]
name = "proof"

[stages.generator]
rate = "2k/s"
batch_max = 100
source = { type = "synthetic", features = 4 }

[stages.normalizer]
input = "generator"

[stages.consumer]
input = "normalizer"

[stages.trainer]
input = "consumer"

[stages.evaluator]
input = "trainer"
"""
"""A stream that never ends, at a rate that leaves the machine to the tests."""


def shared_directories() -> list[Path]:
    """What the container has to see besides the root file system, should it be on others."""
    return [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]


def install(box: Container) -> None:
    """`make install` inside, of what is being tested. Nothing is fetched: make is told to take the
    environment of these tests as it is (`--old-file`), whatever the times of its files."""
    environment = Path(sys.prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = {"VENV": environment, "INTERPRETER": Path(sys.base_prefix, "bin", version)}
    if str(places["INTERPRETER"]).startswith(HIDDEN):
        places["INTERPRETER"] = Path("/usr/bin", version)
    settings = [f"{name}={path}" for name, path in places.items()]
    old = f"--old-file={environment}/installed"
    box.run("make", "--silent", f"--directory={REPOSITORY}", old, *settings, "install", timeout=120)


def uninstall(box: Container) -> None:
    box.run("make", "--silent", f"--directory={REPOSITORY}", f"VENV={sys.prefix}", "uninstall")


@dataclass(frozen=True, slots=True)
class Service:
    """The unit streampipe.service in a container."""

    box: Container
    name: str = "streampipe"

    def systemctl(self, verb: str, check: bool = True) -> int:
        """`systemctl VERB streampipe`, its exit code."""
        return self.box.run("systemctl", verb, self.name, check=check, timeout=CHANGE_S).returncode

    def show(self, *properties: str) -> dict[str, str]:
        return self.box.show(self.name, *properties)

    @property
    def state(self) -> Path:
        """The state directory. Not for SQLite, which resolves the link in this path and ends up outside: copy it."""
        return self.box.root / "var/lib/private/streampipe"

    @property
    def events_file(self) -> Path:
        return self.box.root / "var/log/private/streampipe/events.jsonl"

    def events(self) -> list[dict[str, Any]]:
        """The event file so far."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def ask(self, command: str) -> Any:
        """The answer to `streampipectl COMMAND --json`."""
        return json.loads(self.box.run("streampipectl", command, "--json").stdout)

    def status(self) -> dict[str, Any]:
        """`streampipectl status --json`; the test fails unless every wanted stage is ready."""
        answer: dict[str, Any] = self.ask("status")
        return answer

    def is_ready(self) -> bool:
        return self.box.run("streampipectl", "status", check=False).returncode == 0

    def pids(self) -> dict[str, int]:
        """Process name to pid, as the daemon says."""
        return {process["name"]: process["pid"] for process in self.status()["processes"]}

    def process_names(self) -> list[str]:
        """The title of every process in the unit's control group, as the kernel says, sorted. Numbers are taken out:
        some titles have a pid."""
        group = self.show("ControlGroup")["ControlGroup"]
        members = self.box.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs").stdout.split() if group else []
        titles = (self.box.run("cat", f"/proc/{pid}/cmdline").stdout for pid in members)
        return sorted(re.sub(r"\d+", "N", title.replace("\0", " ").strip()) for title in titles)

    def last_words(self) -> str:
        """What the journal has since the last time that systemd was told to stop the service."""
        return self.box.journal(self.name).rpartition("Stopping streampipe.service")[2]

    def reset(self) -> None:
        """Stopped, not failed, with the unbounded configuration."""
        self.systemctl("stop")
        self.box.run("systemctl", "reset-failed", self.name, check=False)
        self.box.write(CONFIGURATION, UNBOUNDED)
