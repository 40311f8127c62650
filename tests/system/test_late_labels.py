"""Labels that come late, on the real daemon: kills lose no question that waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, chain, running, wait_for
from support.late_labels import Late, late_classes, late_labels
from support.law import PATIENT, disturbed, undisturbed

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "3"))
QUESTIONS = 6000
STRIKES = 6
SOURCE = """
batch_max = 128
linger = "1s"
rate = "{rate}"
[stages.generator.source]
type = "csv"
path = "{path}"
types = {{ id = "int" }}
"""
LABELS = """
[stages.trainer.labels]
id = "id"
wait_rows_max = 500
"""


def config(path: Path, rate: str) -> str:
    return PATIENT.format(interval="50ms") + chain(SOURCE.format(path=path, rate=rate)) + LABELS


@pytest.mark.parametrize("made", [late_labels, late_classes], ids=["numbers", "classes"])
def test_nothing_that_waits_is_lost(tmp_path: Path, made: Callable[..., Late]) -> None:
    """Under random SIGKILLs of stages and supervisor, with labels 100 questions late, some of them never or twice:
    rows, snapshots and results, the questions that wait among them, are those of an undisturbed run. Of classes the
    third comes while questions wait."""
    late, path = made(QUESTIONS, 100.0, drift=QUESTIONS // 2), tmp_path / "orders.csv"
    late.write_csv(path)
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm = undisturbed(config(path, "0/s"), tmp_path / "calm")
    found = disturbed(config(path, "4k/s"), tmp_path / "killed", SEED, STRIKES)
    assert found.done.total() >= 3 * STRIKES // 4, found.done
    assert found.outcome.rows == len(late.ids)
    assert found.outcome.differences(calm) == []
    assert found.letters == 0
    assert calm.results["task"] == ("classification" if late.names else "regression")
    pending = calm.results["model"]["pending"]
    assert pending["asked"] == QUESTIONS
    assert pending["waiting"] + pending["answered"] + pending["given_up"] == QUESTIONS
    assert min(pending[name] for name in ("waiting", "answered", "given_up", "late")) > 0


@pytest.mark.parametrize("made", [late_labels, late_classes], ids=["numbers", "classes"])
def test_the_served_model_is_asked_what_was_asked(tmp_path: Path, made: Callable[..., Late]) -> None:
    """While it runs, the evaluator's cross-check is answered for held-out questions, by a model that scores them at
    least half as well as they were scored in band."""
    path = tmp_path / "orders.csv"
    made(40_000, 50.0).write_csv(path)
    with running(config(path, "2k/s")) as daemon:
        check = wait_for(lambda: _answered(daemon), "a cross-check of 50 rows")
        assert check["served"]["rows"] == check["rows"]
        assert check["error"] is None
        if "mse" in check["in_band"]:
            assert check["served"]["mse"] < 2 * check["in_band"]["mse"]
        else:
            assert check["served"]["accuracy"] > check["in_band"]["accuracy"] / 2


def _answered(daemon: Daemon) -> dict[str, Any] | None:
    check: dict[str, Any] = daemon.call("report")["operations"]["crosscheck"]
    return check if check.get("rows", 0) >= 50 else None
