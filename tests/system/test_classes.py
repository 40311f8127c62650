"""A stream of classes on the real daemon: kills change nothing, and the tool's predictions are labels."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from support.daemon import BIN, Daemon, chain, running, wait_for
from support.law import PATIENT, disturbed, undisturbed

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "3"))
ROWS = 8000
STRIKES = 5
SOURCE = """
batch_max = 128
linger = "1s"
rate = "{rate}"
[stages.generator.source]
type = "csv"
path = "{path}"
"""


def written(path: Path) -> Path:
    """Text classes about centres of their own, one label in twenty missing; the third class comes halfway."""
    rng = np.random.default_rng(4)
    codes = np.where(np.arange(ROWS) < ROWS // 2, rng.integers(0, 2, size=ROWS), rng.integers(0, 3, size=ROWS))
    points = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])[codes] + 0.5 * rng.normal(size=(ROWS, 2))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", "b", "y"])
        for point, code, told in zip(points.tolist(), codes.tolist(), rng.random(ROWS) > 0.05, strict=True):
            rows.writerow([*map(repr, point), ("zebra", "ant", "mole")[code] if told else ""])
    return path


def config(path: Path, rate: str, trainer: str = "") -> str:
    made = chain(SOURCE.format(path=path, rate=rate))
    return PATIENT.format(interval="50ms") + made.replace("[stages.trainer]\n", f"[stages.trainer]\n{trainer}\n")


@pytest.mark.parametrize("trainer", ["", "boosting = true"], ids=["default", "boosting"])
def test_kills_change_no_class(tmp_path: Path, trainer: str) -> None:
    """Under random SIGKILLs of stages and supervisor, across a new class and, where it is asked for, fits of boosting:
    rows, snapshots and results are those of an undisturbed run, and the model is better than any guess."""
    path = written(tmp_path / "classes.csv")
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm = undisturbed(config(path, "0/s", trainer), tmp_path / "calm")
    found = disturbed(config(path, "4k/s", trainer), tmp_path / "killed", SEED, STRIKES)
    assert found.outcome.rows == ROWS
    assert found.outcome.differences(calm) == []
    assert found.letters == 0
    assert (calm.results["task"], calm.results["verdict"]) == ("classification", "good")
    assert calm.results["total"]["accuracy"] > 0.9
    assert len(calm.results["classes"]) == 3
    members = {member["name"]: member["rows"] for member in calm.results["model"]["members"]}
    assert ("boosting" in members) == bool(trainer)


def test_the_tool_predicts_labels(tmp_path: Path) -> None:
    """`streampipectl predict` answers a label and its probability, `model list` has the log-loss, `model export` writes
    files of every format, and the evaluator's cross-check is answered by the accuracy of the model that is served."""
    path = written(tmp_path / "classes.csv")
    with running(config(path, "1k/s")) as daemon:
        wait_for(lambda: _checked(daemon), "an answered cross-check")
        done = subprocess.run(
            [BIN / "streampipectl", "--runtime-dir", str(daemon.run), "predict"],
            input="a,b,n\n-1,0,first\n1,0,second\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        header, *lines = csv.reader(done.stdout.splitlines())
        assert header == ["a", "b", "n", "prediction", "probability"]
        assert [line[2:4] for line in lines] == [["first", "zebra"], ["second", "ant"]]
        assert all(0.5 < float(line[4]) < 1 for line in lines)
        listed = daemon.ctl("model", "list")
        assert "LOG-LOSS" in listed.stdout, listed
        shown = json.loads(daemon.ctl("model", "export", "--format", "json").stdout)
        assert set(shown["formula"]["classes"]) >= {"zebra", "ant"}
        formats = [each for each in ("npz", "onnx", "skops") if each == "npz" or find_spec(each) or "CI" in os.environ]
        for each in formats:
            done = daemon.ctl("model", "export", "--format", each, "--output", str(tmp_path / f"m.{each}"))
            assert (done.returncode, (tmp_path / f"m.{each}").stat().st_size > 500) == (0, True), done.stderr


def _checked(daemon: Daemon) -> bool:
    told = daemon.call("report")["operations"]["crosscheck"]
    return bool(told.get("answered")) and "accuracy_difference" in told
