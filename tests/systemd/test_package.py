"""The Debian package's life on a machine with a running systemd, in the order of that life."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import law
from support.nspawn import Container, eventually
from support.package import build, bumped, dpkg, hand_over, members, require_dpkg
from support.service import CONFIGURATION, SERVICES, STAGES, Service
from support.tree import REPOSITORY

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(300)]

OLD, NEW = "0.1.0~test1", "0.1.0~test2"
RECORDS = 60_000
FAST = law.config(RECORDS)
SLOW = FAST.replace("[stages.generator]\n", '[stages.generator]\nmax_rate = "1k/s"\n')
"""Slow until the upgrade, which therefore meets a stream with a minute to go; the new version finishes it at once. Both
cut the same batches."""
COMMITTED_S = FINISHED_S = 60.0
EXPOSURE_MAX = 0.4
"""As in test_install.py."""
OURS = ("/etc", "/usr", "/var", "/run", "/tmp")
JOURNAL_CHARACTERS = 6000


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Two versions of the same tree."""
    require_dpkg()
    output = tmp_path_factory.mktemp("packages")
    old = build(output, OLD)
    yield {OLD: old, NEW: bumped(old, NEW)}
    shutil.rmtree(output)


@pytest.fixture(scope="module")
def machine(box: Container, packages: dict[str, Path]) -> Container:
    """A machine where packages may start services; images of build machines forbid it."""
    box.run("rm", "-f", "/usr/sbin/policy-rc.d")
    for package in packages.values():
        hand_over(box, package)
    return box


@pytest.fixture
def service(machine: Container) -> Iterator[Service]:
    each = Service(machine)
    yield each
    print(machine.journal(each.name)[-JOURNAL_CHARACTERS:])


def install(service: Service, packages: dict[str, Path], version: str) -> str:
    return dpkg(service.box, "--install", f"/root/{packages[version].name}")


def package_state(service: Service) -> str:
    """As dpkg has it: `0.1.0 installed`, `0.1.0 config-files`, nothing."""
    form = "--showformat=${Version} ${db:Status-Status}"
    return service.box.run("dpkg-query", "--show", form, "streampipe", check=False).stdout


def ours(service: Service) -> list[str]:
    """Every path that has our name, but the packages that the tests brought."""
    return service.box.run("find", *OURS, "-xdev", "-name", "*streampipe*").stdout.split()


def test_package_does_not_tell_where_it_was_made(packages: dict[str, Path]) -> None:
    """All entries are root's and of one time, and none has a path of the checkout or of its environment in it: two
    machines with the same packages make the same bytes."""
    made_here = [str(path).encode() for path in (REPOSITORY, Path(sys.prefix))]
    times, owners, wrong = set(), set(), []
    for member, data in members(packages[OLD]):
        times.add(member.mtime)
        owners.add((member.uid, member.gid))
        if any(path in data for path in made_here):
            wrong.append(member.name)
    assert (len(times), owners, wrong) == (1, {(0, 0)}, [])


def test_installing_starts_the_service(service: Service, packages: dict[str, Path]) -> None:
    """`dpkg -i` makes the user, enables the service and returns when every stage is ready."""
    install(service, packages, OLD)
    assert service.show("ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    status = service.status()
    assert status["version"] == OLD
    assert {process["name"] for process in status["processes"]} == {*STAGES, *SERVICES}
    assert service.box.run("id", "--name", "--group", "streampipe").stdout == "streampipe\n"
    assert package_state(service) == f"{OLD} installed"


def test_package_has_what_was_packed(service: Service) -> None:
    """Every file is as its sum says, no module lacks its .pyc, the secrets' directory is root's alone."""
    assert dpkg(service.box, "--verify", "streampipe") == ""
    modules = list((service.box.root / "usr/lib/streampipe/lib").rglob("*.py"))
    assert modules
    assert [path for path in modules if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))] == []
    assert service.box.run("stat", "--format=%a %U", "/etc/streampipe/credentials").stdout == "700 root\n"


def test_unit_is_valid_and_closed(service: Service) -> None:
    """systemd has nothing to say about the packaged unit, and counts no more exposure than for `make install`."""
    done = service.box.run("systemd-analyze", "verify", "streampipe.service", check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    service.box.run("systemd-analyze", "security", "--offline=true", threshold, "streampipe.service")


def test_upgrade_under_load_loses_nothing(service: Service, packages: dict[str, Path], tmp_path: Path) -> None:
    """An upgrade in the middle of a stream ends with the new version, which goes on from the old one's epoch; at the
    stream's end everything is, to the last bit, as if nobody had upgraded anything."""
    expected = law.undisturbed(FAST, tmp_path)
    service.systemctl("stop")
    for entry in service.state.iterdir():
        service.box.run("rm", "-r", f"/var/lib/private/streampipe/{entry.name}")
    service.box.write(CONFIGURATION, SLOW)
    service.systemctl("start")
    eventually(lambda: bool(service.status()["epoch"]), "records are committed", COMMITTED_S)

    service.box.write(CONFIGURATION, FAST)
    before = service.status()
    install(service, packages, NEW)
    after = service.status()
    shown = service.show("ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", "NRestarts")

    assert (before["version"], after["version"]) == (OLD, NEW)
    assert before["pid"] != after["pid"]
    assert before["state"] == "running"
    assert _origin(service) >= before["epoch"] > 0
    assert shown["NRestarts"] == "0"
    eventually(lambda: service.status()["state"] == "finished", "the stream has ended", FINISHED_S)
    told = [e["event"] for e in service.events() if e["event"] in ("generation_started", "pipeline_finished")]
    assert told[-2:] == ["generation_started", "pipeline_finished"], "the stream ended before the upgrade"
    left = shutil.copytree(service.state, tmp_path / "left")
    assert law.left_in(left, service.ask("report")["results"]).differences(expected) == []
    down = (int(shown["ActiveEnterTimestampMonotonic"]) - int(shown["ActiveExitTimestampMonotonic"])) / 1e6
    print(f"not ready for {down:.2f} s")


def _origin(service: Service) -> int:
    """The epoch from which the last start went on, as its event says."""
    origins = [str(e["origin"]) for e in service.events() if e["event"] == "generation_started"]
    return int(origins[-1].removeprefix("epoch "))


def test_upgrade_leaves_a_stopped_service_stopped(service: Service, packages: dict[str, Path]) -> None:
    """Whoever has stopped and disabled the service finds it so after an upgrade."""
    service.box.run("systemctl", "disable", "--now", service.name)
    install(service, packages, NEW)
    assert service.show("ActiveState", "UnitFileState") == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    service.box.run("systemctl", "enable", "--now", service.name)


def test_upgrade_leaves_a_stopped_one_stopped_though_it_is_enabled(service: Service, packages: dict[str, Path]) -> None:
    """A stop is for now: an upgrade does not end it, the next boot or the operator does. The mark of it is gone."""
    service.box.run("systemctl", "stop", service.name)
    install(service, packages, NEW)
    assert service.show("ActiveState", "UnitFileState") == {"ActiveState": "inactive", "UnitFileState": "enabled"}
    assert service.box.run("ls", "/run/streampipe.stopped", check=False).stdout == ""
    service.box.run("systemctl", "start", service.name)


def test_upgrade_leaves_one_that_drains_to_its_end(service: Service, packages: dict[str, Path]) -> None:
    """A stop that is still going on when the package is unpacked is a stop: nothing is started behind it."""
    stuck = service.pids()["trainer"]
    service.box.run("kill", "-STOP", str(stuck))
    service.box.run("systemctl", "stop", "--no-block", service.name)
    eventually(lambda: service.show("ActiveState") == {"ActiveState": "deactivating"}, "it drains", COMMITTED_S)
    install(service, packages, NEW)
    service.box.run("kill", "-CONT", str(stuck), check=False)
    eventually(lambda: service.show("ActiveState") == {"ActiveState": "inactive"}, "it has stopped", COMMITTED_S)
    assert service.box.run("ls", "/run/streampipe.stopped", check=False).stdout == ""
    service.box.run("systemctl", "start", service.name)


def test_upgrade_starts_one_that_has_failed(service: Service, packages: dict[str, Path]) -> None:
    """What has failed nobody has stopped: the upgrade tries it once more. If it fails again the package is configured
    all the same and the service failed; when its reason is gone the next upgrade brings it back."""
    right = service.box.run("cat", CONFIGURATION).stdout
    service.box.write(CONFIGURATION, right + "\n[nonsense]\n")
    service.box.run("systemctl", "restart", service.name, check=False)
    assert service.show("ActiveState") == {"ActiveState": "failed"}
    before = service.show("ExecMainStartTimestampMonotonic")
    install(service, packages, NEW)
    assert service.show("ActiveState", "ExecMainStatus") == {"ActiveState": "failed", "ExecMainStatus": "78"}
    assert service.show("ExecMainStartTimestampMonotonic") != before, "nobody has tried it"
    assert package_state(service) == f"{NEW} installed"
    service.box.write(CONFIGURATION, right)
    install(service, packages, NEW)
    assert service.show("ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}


def test_upgrade_after_an_interrupted_one_restarts_what_runs(service: Service, packages: dict[str, Path]) -> None:
    """An upgrade of a stopped service that was broken off has left its mark, and the operator has started it since.
    The next upgrade restarts it: no old code goes on over new files."""
    service.box.run("touch", "/run/streampipe.stopped")
    before = service.status()["pid"]
    install(service, packages, NEW)
    assert service.status()["pid"] != before
    assert service.box.run("ls", "/run/streampipe.stopped", check=False).stdout == ""


def test_removal_leaves_what_is_the_operators(service: Service) -> None:
    """Removing stops the service and takes the program; the configuration, the state and the logs stay."""
    dpkg(service.box, "--remove", "streampipe")
    assert service.box.run("pgrep", "-u", "streampipe", check=False).stdout == ""
    assert service.show("LoadState")["LoadState"] == "not-found"
    for gone in ("usr/lib/streampipe", "usr/bin/streampipectl", "run/streampipe"):
        assert not (service.box.root / gone).exists()
    assert (service.state / "stages/consumer/records.sqlite").exists()
    assert "seed = 7" in service.box.run("cat", CONFIGURATION).stdout
    assert (service.box.root / "var/log/private/streampipe/events.jsonl").exists()
    assert package_state(service) == f"{NEW} config-files"


def test_installed_again_it_goes_on(service: Service, packages: dict[str, Path]) -> None:
    """A package that was removed and comes back is enabled, starts, and finds its state."""
    install(service, packages, OLD)
    assert service.show("ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert _origin(service) > 0
    assert service.status()["state"] == "finished"


def test_purge_leaves_nothing(service: Service) -> None:
    """After a purge there is no file, link, unit or directory of ours, whatever the operator had put into
    /etc/streampipe; the user stays, as Debian's system users do. Also where a policy keeps packages from stopping
    services: no daemon is left without its files."""
    service.box.write("/etc/streampipe/credentials/mqtt", "secret")
    service.box.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    service.box.run("chmod", "755", "/usr/sbin/policy-rc.d")
    dpkg(service.box, "--purge", "streampipe")
    service.box.run("rm", "/usr/sbin/policy-rc.d")
    assert service.box.run("pgrep", "-u", "streampipe", check=False).stdout == ""
    assert ours(service) == []
    assert service.box.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "streampipe*").stdout == ""
    service.box.run("id", "streampipe")
    assert package_state(service) in ("", " not-installed")
