"""A full disk under the registry of models alone: learning goes on, it is told, and versions are made again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streampipectl.client import Client
from streampiped.stages.model_files import ModelFiles
from support.daemon import Daemon, chain, wait_for

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs, which only root may"),
]

VERSION_ROWS = 3_000
CONFIG = chain('rate = "5k/s"').replace("[stages.trainer]\n", f"[stages.trainer]\nversion_rows = {VERSION_ROWS}\n")


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Path]:
    """The registry's directory, on a disk of its own with 2 MiB."""
    directory = tmp_path / "state" / "stages" / "trainer" / "models"
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_a_full_disk_under_the_models_stops_nobody(tmp_path: Path, models: Path) -> None:
    """No version is made there and every row is learned all the same; event and status say why; no half of anything is
    left; and when there is room the next epoch is a version again."""
    daemon = Daemon(CONFIG, tmp_path)
    try:
        daemon.wait_running()
        api = Client(str(daemon.run / "trainer.sock"), 60.0)

        def versions() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = api.call("history", {})["versions"]
            return found

        wait_for(versions, "the first version")
        pids = daemon.pids()
        filler = fill(models)
        told = daemon.wait_event("version_left_out")
        assert "space" in str(told), told
        made, rows = versions(), api.call("info", {})["rows"]
        wait_for(lambda: api.call("info", {})["rows"] > rows + 3 * VERSION_ROWS, "learning goes on")
        assert versions() == made
        assert "space" in daemon.call("report")["operations"]["model"]["versions_refused"]
        assert daemon.status()["state"] == "running"
        assert {path.suffix for path in models.iterdir()} <= {".npz", ".json", ".jsonl", ""}
        listed = daemon.ctl("model", "list")
        assert "No version is made" in listed.stdout, listed
        filler.unlink()
        wait_for(lambda: len(versions()) > len(made), "a version again")
        assert daemon.pids() == pids
        assert len(daemon.events("version_left_out")) == 1
        records, complaints = ModelFiles(models).records()
        assert complaints == []
        listed = {record["version"] for record in records}
        assert ModelFiles(models).kept() <= listed
        api.close()
    finally:
        daemon.close()
