"""Verdicts that are true: of labels that never change, rare classes, guesses that are served, and the first row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.records import Array, Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions

ROWS = 2000


def evaluated(columns: dict[str, Any], **options: Any) -> Evaluator:
    stage = Evaluator(EvaluatorOptions(**options), StageContext("evaluator", pipeline_seed=7))
    rows = len(columns["y"])
    stage.process(Batch.build(columns, spans=(Span("s", 0, rows),)))
    return stage


def reported(columns: dict[str, Any], model: dict[str, Any] | None = None, **options: Any) -> tuple[str, Any]:
    """(the first paragraph of the text, results)."""
    stage = evaluated(columns, **options)
    report = stage.query("report", {"sections": {"model": model} if model else {}})
    return " ".join(report["text"].split("\n\n")[0].split()), report["results"]


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, -1e12])
def test_of_a_label_that_never_changes_nothing_is_said(value: float) -> None:
    """No R2, no skill, no praise: whoever predicts it says what every guess says."""
    y = np.full(ROWS, value)
    text, results = reported({"y": y, "prediction": np.concatenate(([0.0], y[1:]))})
    assert results["verdict"] == "not_enough_data"
    assert results["total"]["r2"] is results["last"]["r2"] is results["skill"]["running_mean"]["last"] is None
    assert results["constant"] == value
    assert text.startswith(f"Not enough data: over all 2,000 rows the label was {value:.4g} and so was the prediction")


def test_a_constant_label_that_is_missed_is_worse_than_guessing() -> None:
    """Any guess is right there, and the model is not."""
    text, results = reported({"y": np.full(ROWS, 7.0), "prediction": np.full(ROWS, 7.5)})
    assert results["verdict"] == "not_better"
    assert text == (
        "Not better than guessing: over all 2,000 rows the label was 7, which any guess gets right, and the model does "
        "not (RMSE 0.5)."
    )


def test_a_label_that_begins_to_vary_is_judged_by_how_it_varies() -> None:
    """Constant in the older half of the window and learned in the newer one: good, with an R2."""
    y = np.concatenate((np.full(ROWS // 2, 7.0), 7 + np.random.default_rng(1).normal(size=ROWS // 2)))
    text, results = reported({"y": y, "prediction": y + 0.01})
    assert (results["verdict"], results["constant"]) == ("good", None)
    assert results["last"]["r2"] > 0.99
    assert text.startswith("Good: over all 2,000 rows the squared error is")


def test_a_class_that_never_changes_is_as_a_constant_label() -> None:
    """However sure the model is of the only class there is, that is nothing to be judged by."""
    columns = {"y": ["a"] * ROWS, "prediction": ["a"] * ROWS, "probability": np.full(ROWS, 0.9999)}
    text, results = reported(columns)
    assert (results["verdict"], results["constant"]) == ("not_enough_data", "a")
    assert text.startswith("Not enough data: over all 2,000 rows the label was a and so was the prediction")


def rare(informed: bool) -> dict[str, Any]:
    """A class in one row of fifty; informed, its probability is told well, though never above a half."""
    luck = np.random.default_rng(3).random((2, 20_000))
    odds = np.where(luck[0] < 0.05, 0.4, 0.0) if informed else np.full(20_000, 0.04)
    y = (luck[1] < np.where(luck[0] < 0.05, 0.4, 0.0)).astype(np.int64)
    return {"y": y, "prediction": np.zeros(20_000, dtype=np.int64), "probability": 1 - np.maximum(odds, 1e-4)}


def test_a_rare_class_is_judged_by_its_probability() -> None:
    """Never said and told well: good, though no answer is right more often than the most frequent class; told as
    twice its share: worse than guessing."""
    text, results = reported(rare(informed=True))
    assert results["verdict"] == "good"
    assert results["skill"]["class_prior"]["errors"] == 0.0
    assert text.endswith("its answers are right no more often than the most frequent class.")
    assert results["skill"]["class_prior"]["p"] < 0.001
    _, results = reported(rare(informed=False))
    assert results["verdict"] == "not_better"


def test_without_probabilities_answers_are_counted() -> None:
    """The stream of a classifier that says no probability is judged by its errors."""
    y = np.random.default_rng(1).integers(0, 2, ROWS)
    text, results = reported({"y": y, "prediction": y})
    assert (results["judged_by"], results["verdict"]) == ("errors", "good")
    assert text.startswith("Good: over all 2,000 rows errors are 100.0 % below guessing")


def walk() -> tuple[Array, Array]:
    y = np.random.default_rng(2).normal(size=ROWS)
    return y, y + 0.1


def test_good_is_not_said_of_a_guess() -> None:
    """A window however good is no praise while a guess is served, and the sentence says which."""
    y, prediction = walk()
    columns = {"y": y, "prediction": prediction}
    assert reported(columns, {"champion": "ridge", "fallback": False})[1]["verdict"] == "good"
    text, results = reported(columns, {"champion": "recent_mean", "fallback": True})
    assert results["verdict"] == "not_better"
    assert text.startswith(
        "Not better than guessing: a guess (recent_mean) is what is served, as no member beats guessing; over all"
    )
    last = np.concatenate(([0.0], y[:-1]))
    text, _ = reported({"y": y, "prediction": last}, {"champion": "last_label", "fallback": True})
    assert "guessing the running mean or the last value or the discounted mean is at least as good" in text
    assert text.endswith("; a guess (last_label) is what is served, as no member beats guessing.")


@pytest.mark.parametrize("classes", [False, True])
def test_the_report_alone_has_a_verdict(classes: bool) -> None:
    """Only the report is given the trainer's section: a verdict of `summary` could praise the guess that it names."""
    y, prediction = walk()
    columns: dict[str, Any] = {"y": y, "prediction": prediction}
    if classes:
        columns = {name: (column > 0).astype(np.int64) for name, column in columns.items()}
    stage = evaluated(columns)
    assert "verdict" not in stage.query("summary", {})
    assert "verdict" in stage.query("report", {})["results"]


def test_the_row_before_the_first_label_is_named_and_compared_with_nobody() -> None:
    """Far from 0 it is most of the squared error: the total keeps it, the text says so, and neither the verdict nor the
    gap to held-out rows is moved by it."""
    y, prediction = walk()
    y, prediction = y + 1e9, prediction + 1e9
    prediction[0] = 0.0
    columns = {"y": y, "prediction": prediction}
    _, results = reported(columns)
    near = reported({"y": y - 1e9, "prediction": np.concatenate(([0.0], prediction[1:] - 1e9))})[1]
    assert results["verdict"] == near["verdict"] == "good"
    assert results["blind"]["rows"] == 1
    assert results["total"]["mse"] == pytest.approx(1e18 / ROWS)
    assert results["skill"]["running_mean"]["total"] == pytest.approx(near["skill"]["running_mean"]["total"], rel=1e-6)
    assert results["gap"]["ratio"] == pytest.approx(near["gap"]["ratio"], rel=1e-6)
    stage = Evaluator(EvaluatorOptions(), StageContext("evaluator", pipeline_seed=7))
    stage.process(Batch.build(columns, spans=(Span("s", 0, ROWS),)))
    lines = " ".join(stage.query("report", {"sections": {}})["text"].split())
    assert "The first row came before any label and had to be guessed as 0: 100.0 % of all squared error." in lines
