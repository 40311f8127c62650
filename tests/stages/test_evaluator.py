"""stages/evaluator.py: scores in band, the cross-check, and the law of snapshots."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError
from streampiped.learn.estimators import equal
from streampiped.records import Batch, Span, held_out
from streampiped.stages.base import ApiCall, StageContext
from streampiped.stages.evaluator import CELLS_MAX, Evaluator, EvaluatorOptions

NAN = float("nan")


def evaluator(**options: Any) -> Evaluator:
    return Evaluator(EvaluatorOptions(**options), StageContext("evaluator", seed=5, pipeline_seed=7))


def stream(batches: int, rows: int = 30, *, dirty: bool = False) -> list[Batch]:
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        y = 5 + rng.normal(size=rows)
        columns = {"x": rng.normal(size=rows), "y": y, "prediction": y + rng.normal(size=rows) / 3}
        if dirty:
            columns["y"][rng.random(rows) < 0.1] = NAN
        spans = (Span("s", number * rows, rows),)
        result.append(Batch.build({**columns, "model_version": np.full(rows, number)}, spans=spans))
    return result


def told(batches: list[Batch], **options: Any) -> Evaluator:
    result = evaluator(**options)
    for batch in batches:
        assert result.process(batch) is batch
    return result


def whole(batches: list[Batch], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def test_total_window_and_held_out_rows_are_scored_apart() -> None:
    """Each of the three equals plain arithmetic over its own rows."""
    batches = stream(20)
    results = told(batches, last=100, holdout=0.2).query("report", {})["results"]
    errors = (whole(batches, "y") - whole(batches, "prediction")) ** 2
    spared = np.concatenate([held_out(7, batch, 0.2) for batch in batches])
    for part, chosen in (("total", errors), ("last", errors[-100:]), ("held_out", errors[spared])):
        assert results[part]["rows"] == len(chosen)
        assert results[part]["mse"] == pytest.approx(chosen.mean(), rel=1e-9)


def test_the_guesses_are_scored_on_the_same_rows() -> None:
    """Baselines and skill are those of a loop over the targets, in total and over the window."""
    batches = stream(10)
    results = told(batches, last=50).query("report", {})["results"]
    y, prediction = whole(batches, "y"), whole(batches, "prediction")
    before = np.array([y[:i].mean() if i else 0.0 for i in range(len(y))])
    last = np.concatenate(([0.0], y[:-1]))
    for name, guess in (("running_mean", before), ("last_value", last)):
        for part, rows in (("total", slice(None)), ("last", slice(-50, None))):
            mse = np.mean((y - guess)[rows] ** 2)
            assert results["baselines"][name][part]["mse"] == pytest.approx(mse, rel=1e-9)
            skill = 1 - np.mean((y - prediction)[rows] ** 2) / mse
            assert results["skill"][name][part] == pytest.approx(skill, rel=1e-9)


def test_rows_that_cannot_be_scored_are_counted() -> None:
    """A row without a finite target or prediction is in no score and in its count."""
    batch = Batch.build({"y": [1.0, NAN, 3.0, 4.0], "prediction": [1.0, 2.0, NAN, 4.5]}, spans=(Span("s", 0, 4),))
    results = told([batch]).query("report", {})["results"]
    assert (results["rows"], results["missing_target"], results["unpredicted"]) == (4, 1, 1)
    assert results["total"]["rows"] == 2


def test_the_report_is_plain_and_readable() -> None:
    """Results and operations are JSON without NaN, the text begins with the verdict."""
    for batches in ([], stream(10, dirty=True)):
        report = told(batches).query("report", {})
        json.dumps(report, allow_nan=False)
        assert report["text"].startswith("Good" if batches else "Not enough data")
        summary = told(batches).query("summary", {})
        assert json.loads(json.dumps(summary, allow_nan=False))["verdict"] == report["results"]["verdict"]


def test_an_unknown_question_is_a_key_error() -> None:
    """A method that nobody has is named."""
    with pytest.raises(KeyError, match="weather"):
        evaluator().query("weather", {})


def test_the_question_is_about_the_snapshot_of_its_epoch() -> None:
    """committed asks for the held-out rows up to the snapshot, not for those that came since."""
    batches = stream(20)
    stage = told(batches[:10], holdout=0.2, trainer="teacher")
    stage.snapshot()
    for batch in batches[10:]:
        stage.process(batch)
    call = stage.committed(31)
    assert isinstance(call, ApiCall)
    spared = np.concatenate([held_out(7, batch, 0.2) for batch in batches[:10]])
    assert (call.stage, call.method, call.params["version"]) == ("teacher", "score", 31)
    assert call.params["targets"] == whole(batches[:10], "y")[spared].tolist()
    assert call.params["rows"] == {"x": whole(batches[:10], "x")[spared].tolist()}


def test_the_reservoir_is_bounded() -> None:
    """The newest held-out rows are asked for, at most `reservoir` of them and CELLS_MAX numbers."""
    batches = stream(10)
    stage = told(batches, holdout=1, reservoir=40)
    stage.snapshot()
    call = stage.committed(1)
    assert call is not None
    assert call.params["targets"] == whole(batches, "y")[-40:].tolist()
    wide = {f"x{i}": np.zeros(40) for i in range(3000)} | {"y": np.zeros(40), "prediction": np.zeros(40)}
    stage = told([Batch.build(wide, spans=(Span("s", 0, 40),))], holdout=1)
    stage.snapshot()
    call = stage.committed(1)
    assert call is not None
    assert len(call.params["targets"]) * 3002 <= CELLS_MAX
    for none in (evaluator(), told(batches, holdout=0), told(batches, reservoir=0)):
        none.snapshot()
        assert none.committed(1) is None


def test_an_answer_goes_to_operations_alone() -> None:
    """The comparison is kept beside results and state, an error in its place, and a stray answer is ignored."""
    stage = told(stream(10), holdout=0.3)
    before, results = stage.snapshot(), stage.query("report", {})["results"]
    stage.api_answer({"mse": 1.0}, None)
    stage.committed(5)
    stage.api_answer(None, "no such socket")
    assert stage.query("report", {})["operations"]["crosscheck"]["error"] == "no such socket"
    stage.committed(6)
    stage.api_answer({"rows": 9, "mse": 0.5, "rmse": 0.7, "mae": 0.5, "r2": 0.1, "version": 6}, None)
    check = stage.query("report", {})["operations"]["crosscheck"]
    assert (check["epoch"], check["asked"], check["answered"], check["error"]) == (6, 2, 1, None)
    assert check["mse_difference"] == 0.5 - check["in_band"]["mse"]
    assert equal(before, stage.snapshot())
    assert stage.query("report", {})["results"] == results


@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_restored_evaluator_goes_on_bit_for_bit(cut: int) -> None:
    """Snapshot after any batch, restore in a fresh object: the same results, question and state to the last bit."""
    batches = stream(12, dirty=True)
    options = {"last": 100, "reservoir": 10, "holdout": 0.2}
    stage = told(batches[:cut], **options)
    state = stage.snapshot()
    twin = told(batches[-1:], **options)  # whatever happened since must be forgotten
    twin.restore(state if cut else None)
    for batch in batches[cut:]:
        stage.process(batch)
        twin.process(batch)
    assert equal(stage.snapshot(), twin.snapshot())
    assert stage.query("report", {}) == twin.query("report", {})
    assert stage.committed(3) == twin.committed(3)


def test_a_missing_column_is_named() -> None:
    """A stream without predictions is an OptionError that says so."""
    with pytest.raises(OptionError, match="'prediction'"):
        evaluator().process(Batch.build({"y": [1.0]}))
