"""The daemon on a state directory that somebody or something has harmed: it goes on exactly, or says why not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampiped.errors import ExitCode
from streampiped.runtime.snapshots import StateDirectory, manifest_name
from support.daemon import BIN, Daemon, running, simple, wait_for
from support.state_dirs import contents

pytestmark = pytest.mark.system

RECORDS = 30_000
OFF = "\n[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n"
QUICK = '[pipeline]\n[checkpoint]\ninterval = "200ms"\n'
STORE = f"""{QUICK}{OFF}
[stages.generator]
class = "generator"
batch_max = 500
linger = "10s"
rate = "{{rate}}/s"
source = {{{{ type = "synthetic", records = {RECORDS} }}}}
[stages.normalizer]
class = "normalizer"
input = "generator"
[stages.consumer]
class = "consumer"
input = "normalizer"
"""
"""Batches of one size at any rate: then what the normalizer learns does not depend on the clock."""
TELLER = f"""{QUICK}{OFF}
[stages.generator]
class = "generator"
rate = "10k/s"
[stages.teller]
class = "support.teller:Teller"
input = "generator"
"""


def killed_after(config: str, directory: Path, epochs: int) -> None:
    """Run the pipeline until it has committed so many epochs, then kill everything at once."""
    with running(config, directory) as daemon:
        wait_for(lambda: (daemon.status()["epoch"] or 0) >= epochs, f"{epochs} epochs")


def rows(directory: Path) -> list[Any]:
    """What somebody with the sqlite3 shell sees, but for the epochs, which are not part of the result."""
    with contextlib.closing(sqlite3.connect(directory / "state" / "stages" / "consumer" / "records.sqlite")) as store:
        cursor = store.execute("SELECT * FROM committed_records ORDER BY id")
        epoch = [name for name, *_ in cursor.description].index("epoch")
        return [row[:epoch] + row[epoch + 1 :] for row in cursor]


def finished(config: str, directory: Path) -> list[dict[str, Any]]:
    """Run the pipeline to the end of its stream; its warnings."""
    daemon = Daemon(config, directory, "--until-finished")
    try:
        assert daemon.wait() == ExitCode.OK, daemon.stderr()
        return [e for e in daemon.events() if e["event"] in ("epoch_damaged", "epoch_fell_back")]
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    directory = tmp_path_factory.mktemp("undisturbed")
    assert finished(STORE.format(rate="1M"), directory) == []
    return rows(directory)


SLOW = STORE.format(rate="10k")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pipeline that was killed has left; for `copied`."""
    directory = tmp_path_factory.mktemp("killed")
    killed_after(SLOW, directory, epochs=3)
    return directory


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one whose sink cannot take back."""
    directory = tmp_path_factory.mktemp("told")
    killed_after(TELLER, directory, epochs=3)
    return directory


def copied(left: Path, directory: Path) -> None:
    """The state that a killed pipeline has left, for one test to harm."""
    shutil.copytree(left / "state", directory / "state")


def newest(directory: Path) -> tuple[Path, Path, int]:
    """Manifest and a snapshot of the newest epoch, and its number."""
    state = StateDirectory(directory / "state", "streampipe", create=False)
    try:
        manifest = state.newest().manifest
        assert manifest is not None
        file = manifest.parts["generator"][0]
        return state.epochs / manifest_name(manifest.epoch), state.epochs / file, manifest.epoch
    finally:
        state.close()


def restore(directory: Path, wanted: str) -> subprocess.CompletedProcess[str]:
    """`streampiped restore` as an operator types it."""
    place = ["--config", str(directory / "streampipe.toml"), "--state-dir", str(directory / "state")]
    command = [str(BIN / "streampiped"), "restore", *place, "--from", wanted, "--yes"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        lambda manifest, snapshot: snapshot.write_bytes(snapshot.read_bytes()[:-1]),
        lambda manifest, snapshot: flip(snapshot),
        lambda manifest, snapshot: snapshot.unlink(),
        lambda manifest, snapshot: flip(manifest),
    ],
    ids=["snapshot cut", "snapshot flipped", "snapshot gone", "manifest flipped"],
)
def test_damage_of_the_newest_epoch_costs_no_row(
    tmp_path: Path, killed: Path, undisturbed: list[Any], harm: Callable[[Path, Path], Any]
) -> None:
    """With a damaged newest epoch the daemon goes back to the one before, says so, and at the end the store has the
    very rows of a run that nobody disturbed."""
    copied(killed, tmp_path)
    manifest, snapshot, epoch = newest(tmp_path)
    harm(manifest, snapshot)
    warnings = finished(STORE.format(rate="1M"), tmp_path)
    assert [e["event"] for e in warnings] == ["epoch_damaged", "epoch_fell_back"]
    assert {e["level"] for e in warnings} == {"warning"}
    assert warnings[0]["epoch"] == epoch
    assert warnings[1]["epoch"] < epoch
    assert manifest.with_name(manifest.name + ".damaged").exists()
    assert rows(tmp_path) == undisturbed


def test_a_restored_epoch_is_exact(tmp_path: Path, killed: Path, undisturbed: list[Any]) -> None:
    """After `streampiped restore` of a kept epoch the stream goes on from there, the store takes back what came later,
    and at the end it has the very rows of a run that nobody disturbed."""
    copied(killed, tmp_path)
    state = StateDirectory(tmp_path / "state", "streampipe", create=False)
    state.keep("early", state.store.committed()[0])
    state.close()
    killed_after(SLOW, tmp_path, epochs=6)
    done = restore(tmp_path, "early")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert "NOT EXACT" not in done.stdout
    assert finished(STORE.format(rate="1M"), tmp_path) == []
    assert rows(tmp_path) == undisturbed


def test_what_cannot_go_back_waits_for_the_operator(tmp_path: Path, told: Path) -> None:
    """With a damaged newest epoch and a sink that cannot take back, the daemon does not start, exits 78 with the
    choices and touches nothing; after `streampiped restore` it runs."""
    copied(told, tmp_path)
    manifest, _, epoch = newest(tmp_path)
    flip(manifest)
    before = contents(tmp_path / "state")
    daemon = Daemon(TELLER, tmp_path)
    try:
        assert daemon.wait() == ExitCode.CONFIG
    finally:
        daemon.close()
    assert contents(tmp_path / "state") == before
    text = daemon.stderr()
    assert f"{manifest}: not a manifest of format 1" in text
    assert "teller cannot go back" in text
    assert f"--from EPOCH` (whole: {epoch - 1}, " in text
    done = restore(tmp_path, str(epoch - 1))
    assert (done.returncode, "NOT EXACT: teller: cannot take back" in done.stdout) == (ExitCode.OK, True), done
    with running(TELLER, tmp_path) as again:
        assert again.status()["epoch"] >= epoch - 1


def test_another_pipelines_state_is_refused_whole(tmp_path: Path, told: Path) -> None:
    """The daemon leaves the state of another pipeline as it is: exit 78, one clear line, no file made or changed."""
    copied(told, tmp_path)
    before = contents(tmp_path / "state")
    daemon = Daemon(TELLER.replace("[pipeline]\n", '[pipeline]\nname = "other"\n', 1), tmp_path)
    try:
        assert daemon.wait() == ExitCode.CONFIG
    finally:
        daemon.close()
    assert "expected format 1 of pipeline 'other'; use another --state-dir" in daemon.stderr()
    assert contents(tmp_path / "state") == before


def test_damaged_list_of_dead_letters_is_waited_for(tmp_path: Path) -> None:
    """A list that is damaged while the daemon runs keeps the pipeline from restoring: it says which file and what would
    be right, gives nobody up, and goes on by itself when that is done."""
    with running(simple(rate="1k/s"), tmp_path) as daemon:
        letters = tmp_path / "state" / "dead_letters.sqlite"
        letters.write_bytes(b"no database" * 1000)
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        status = wait_for(lambda: (s := daemon.status())["state"] == "degraded" and s, "it is said", 30.0)
        assert f"{letters}: file is not a database; put the right file back" in status["reason"]
        letters.unlink()
        daemon.wait_running(status["generation"] + 1)
        assert "failed" not in {process["state"] for process in daemon.status()["processes"]}


def test_who_is_stopped_must_be_text(tmp_path: Path) -> None:
    """A file of names that holds something else is exit 78 and one line that says what would be right."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "stopped").write_bytes(b"middle\n\xff\xfe")
    daemon = Daemon(simple(), tmp_path)
    try:
        assert daemon.wait() == ExitCode.CONFIG
    finally:
        daemon.close()
    (line,) = daemon.stderr().splitlines()
    assert f"{state / 'stopped'}: " in line
    assert "the names of the stages that an operator has stopped" in line
