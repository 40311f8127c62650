"""docs/specs/report.md: real reports, held to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.report_schema import faults

SECTIONS: Final[dict[str, Any]] = {
    "model": {
        "champion": "ridge", "fallback": False, "generation": 1, "rows_seen": 9, "rows_learned": 8, "drift_count": 1,
        "members": [
            {"name": "ridge", "kind": "r", "trivial": False, "loss": None, "rows": 8, "rollbacks": 0, "resets": 1}
        ],
        "timeline": [{"from": 0, "to": None, "member": "ridge", "reason": "start"}],
        "drifts": [{"row": 5, "kind": "shift", "member": "ridge"}],
        "interval": {"target": 0.9, "coverage": None}, "counts": {"held_out": 1}, "pending": None,
    },
    "gate": {
        "rows": 9, "rows_dropped": 0,
        "columns": {"x": {"state": "dead", "seen": 9, "missing": 9, "infinite": 0, "imputed": 9, "bounded": 0,
                          "rebased": 0, "dead_rows": 0, "mean": None, "deviation": None}},
        "label": {"name": "y", "quarantined_missing": 1, "quarantined_spike": 0, "rebased": 0, "mean": 1.0,
                  "deviation": 2.0},
    },
}  # fmt: skip


def report(task: str, rows: int, sections: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    y = rng.normal(size=rows)
    columns: dict[str, Any] = {"x": y, "y": y, "prediction": y + 0.5, "prediction_low": y, "prediction_high": y + 1}
    if task == "classification":
        labels = [["b", "a"][int(value > 0)] for value in y]
        columns = {
            "x": y,
            "y": labels,
            "prediction": labels,
            "probability": np.full(rows, 0.9),
            "score": rng.random(rows),
        }
    stage = Evaluator(EvaluatorOptions(), StageContext("evaluator", pipeline_seed=7))
    columns["model_generation"] = np.arange(rows) // 200
    stage.process(Batch.build(columns, spans=(Span("s", 0, rows),)))
    answer: dict[str, Any] = json.loads(json.dumps(stage.query("report", {"sections": sections}), allow_nan=False))
    return answer


@pytest.mark.parametrize("sections", [{}, SECTIONS], ids=["alone", "sections"])
@pytest.mark.parametrize("rows", [0, 1, 5000])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_report_is_as_the_page_says(task: str, rows: int, sections: dict[str, Any]) -> None:
    """Every field of real results is on the page with its type, and none of the page's is missing."""
    if rows == 0 and task == "classification":
        rows = 2  # an empty list has no type, so that it takes a row to know the task
    results = report(task, rows, sections)["results"]
    assert list(faults(results, f"@{task}")) == []
    assert results["rows"] == sum(
        results[n] for n in ("scored", "missing_target", "unlabelled", "quarantined", "unpredicted")
    )
    assert len(results["curve"]["bins"]) <= 128
    assert len(results["sample"]) <= 256
    assert len(results["calibration"]) <= 20


@pytest.mark.parametrize("target", ["y", "label"])
def test_the_sections_of_trainer_and_normalizer_are_as_the_page_says(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the two stages themselves add to a report: every field is on the page, and none is missing."""
    monkeypatch.chdir(tmp_path)  # the trainer keeps its versions where it is
    x = np.random.default_rng(2).normal(size=300)
    columns: dict[str, Any] = {"x": x, "dead": np.zeros(300), "y": 2 * x, "label": [["b", "a"][int(v > 0)] for v in x]}
    columns["x"][7] = np.nan
    batch = Batch.build(columns, spans=(Span("s", 0, 300),))
    gate = Normalizer(NormalizerOptions(target=target), StageContext("normalizer", seed=1))
    cleaned = gate.process(batch)
    assert cleaned is not None
    trainer = Trainer(TrainerOptions(target=target, ignore=["y"]), StageContext("trainer", seed=1, pipeline_seed=7))
    trainer.process(cleaned)
    for stage, name in ((gate, "gate"), (trainer, "model")):
        section = json.loads(json.dumps(stage.query("section", {}), allow_nan=False))
        assert (section["name"], list(faults(section["results"], f"@{name}"))) == (name, [])


def test_the_page_can_find_a_fault() -> None:
    """A field too many, one too few, and one of another type are found."""
    results = report("regression", 300, {})["results"]
    del results["gap"]["ratio"]
    results |= {"mood": 1, "rows": "many", "verdict": "fine"}
    assert len(list(faults(results, "@regression"))) == 4
