"""The evaluator behind the trainer that is built in: what is served is what was measured, and the model's section is
read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.reference import STREAMS, read_stream
from support.report_schema import faults

BATCH = 16


def learned(name: str, directory: Path, **options: Any) -> tuple[Trainer, Evaluator]:
    """Trainer and evaluator after a whole stream of tests/data, and an epoch that both have committed."""
    columns, context = read_stream(name), StageContext("trainer", 5, 7, directory)
    trainer = Trainer(TrainerOptions(target=STREAMS[name], **options), context)
    evaluator = Evaluator(EvaluatorOptions(target=STREAMS[name]), StageContext("evaluator", pipeline_seed=7))
    for start in range(0, len(columns[STREAMS[name]]), BATCH):
        part = {column: values[start : start + BATCH] for column, values in columns.items()}
        rows = len(part[STREAMS[name]])
        evaluator.process(trainer.process(Batch.build(part, spans=(Span("file", start, rows),))))
    for stage in (trainer, evaluator):
        stage.snapshot()
    trainer.committed(3)
    return trainer, evaluator


def test_a_model_that_looks_at_labels_is_asked_as_it_was_measured(tmp_path: Path) -> None:
    """Served again, the held-out rows are predicted nearly as they were in band; asked without the labels before them a
    model that lags is tens of times worse."""
    trainer, evaluator = learned("trump_approval.csv", tmp_path, members=["lagged"])
    call = evaluator.committed(3)
    assert call is not None
    evaluator.api_answer(trainer.api()[call.method](**call.params), None)
    check = evaluator.query("report", {})["operations"]["crosscheck"]
    assert check["served"]["mse"] == pytest.approx(check["in_band"]["mse"], rel=0.5)
    blind = {name: value for name, value in call.params.items() if name != "past"}
    assert trainer.api()[call.method](**blind)["mse"] > 10 * check["in_band"]["mse"]


@pytest.mark.parametrize("name", STREAMS)
def test_rows_before_the_first_error_are_neither_inside_nor_outside(name: str, tmp_path: Path) -> None:
    """What is predicted before an error is known has no interval, and is in no figure of the coverage."""
    results = learned(name, tmp_path, holdout=0)[1].query("report", {})["results"]
    coverage, first = results["coverage"], results["curve"]["bins"][0]
    assert coverage["rows"] == results["scored"] - 2
    assert coverage["total"] == pytest.approx(0.9, abs=0.02)
    assert first["covered"] * (first["rows"] - 2) == pytest.approx(round(first["covered"] * (first["rows"] - 2)))


@pytest.mark.parametrize("name", STREAMS)
def test_the_models_section_is_told(name: str, tmp_path: Path) -> None:
    """The section is as the specification says; the text says who serves, and has a line for every member."""
    trainer, evaluator = learned(name, tmp_path)
    section = trainer.query("section", {})
    assert list(faults(section["results"], "@model")) == []
    text = evaluator.query("report", {"sections": {section["name"]: section["results"]}})["text"]
    assert f"Model: {section['results']['champion']} serves" in text
    assert all(f" {member['name']} " in text for member in section["results"]["members"])
    assert "not of a form" not in text
