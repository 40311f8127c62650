"""A model of River as a member, on the real daemon: kills in the middle of learning change nothing."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from support.daemon import chain
from support.law import PATIENT, disturbed, undisturbed

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "3"))
ROWS = 6000
STRIKES = 5
SOURCE = """
batch_max = 128
linger = "1s"
rate = "{rate}"
[stages.generator.source]
type = "csv"
path = "{path}"
"""
MODEL = """class = "trainer"
members = ["estimator", "ridge"]
estimator = "river.tree.HoeffdingAdaptiveTreeRegressor"
params = { grace_period = 50, drift_detector = { class = "river.drift.ADWIN", delta = 0.01 } }
"""


def written(path: Path) -> Path:
    """Steps that a tree can follow and no line; the steps change halfway."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(ROWS, 3))
    labels = 5.0 * (points[:, 0] * points[:, 1] > 0) + np.sign(points[:, 2]) + 0.1 * rng.normal(size=ROWS)
    labels[ROWS // 2 :] *= -1
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", "b", "c", "y"])
        rows.writerows(
            [*map(repr, [*point, label])] for point, label in zip(points.tolist(), labels.tolist(), strict=True)
        )
    return path


def test_kills_change_nothing_of_a_model_of_river(tmp_path: Path) -> None:
    """Under random SIGKILLs of stages and supervisor in the middle of learning: rows, snapshots with the trees, their
    generators and ADWIN's windows in them, and results are those of an undisturbed run; the model was served."""
    path = written(tmp_path / "steps.csv")
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()

    def config(rate: str) -> str:
        stages = chain(SOURCE.format(path=path, rate=rate)).replace('class = "trainer"\n', MODEL)
        return PATIENT.format(interval="200ms") + stages

    calm = undisturbed(config("0/s"), tmp_path / "calm")
    found = disturbed(config("3k/s"), tmp_path / "killed", SEED, STRIKES)
    assert found.outcome.rows == ROWS
    assert found.outcome.differences(calm) == []
    assert found.letters == 0
    members = {entry["name"]: entry for entry in calm.results["model"]["members"]}
    assert members["estimator"]["rows"] > 0
    assert members["estimator"]["rollbacks"] == 0
    assert members["estimator"]["loss"] < members["ridge"]["loss"]
