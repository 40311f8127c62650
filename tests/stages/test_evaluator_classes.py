"""stages/evaluator.py where the target is a class: against scikit-learn, and through cuts and restores."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from streampiped.classes import CLASSES_MAX, ClassGuesses
from streampiped.errors import OptionError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.marks import MARKS, QUARANTINED
from streampiped.measure.class_metrics import AUC_BINS, Confusion, confusion_of
from streampiped.measure.report import render
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions

ROWS = 30


def evaluator(**options: Any) -> Evaluator:
    return Evaluator(EvaluatorOptions(**options), StageContext("evaluator", seed=5, pipeline_seed=7))


def columns_of(rows: int, *, text: bool, classes: int = 2) -> dict[str, Any]:
    """A stream of classes, four fifths predicted rightly, with what the trainer adds; one row in 50 is quarantined."""
    rng = np.random.default_rng(3)
    y = rng.choice(classes, size=rows, p=np.arange(classes, 0, -1) / sum(range(classes + 1)))
    given = np.where(rng.random(rows) < 0.8, y, rng.integers(0, classes, size=rows))
    probability = 0.5 + rng.random(rows) / 2
    names = ["zebra", "ant", "mole", "bee"]  # not in the order of their appearance
    label = (lambda codes: [names[c] for c in codes]) if text else (lambda codes: codes * 10 - 10)
    columns: dict[str, Any] = {"x": rng.normal(size=rows), "y": label(y), "prediction": label(given)}
    columns["probability"] = probability
    if classes == 2:
        second = 0 if text else 1  # of the labels in their order
        columns["score"] = np.where(given == second, probability, 1 - probability)
    columns[MARKS] = np.where(np.arange(rows) % 50 == 7, QUARANTINED, 0)
    columns["model_generation"] = (np.arange(rows) >= rows * 0.7).astype(np.int64)
    return columns


def cut(columns: dict[str, Any], size: int) -> list[Batch]:
    rows = len(columns["y"])
    return [
        Batch.build({n: v[i : i + size] for n, v in columns.items()}, spans=(Span("s", i, min(size, rows - i)),))
        for i in range(0, rows, size)
    ]


def told(columns: dict[str, Any], size: int = ROWS, **options: Any) -> Evaluator:
    result = evaluator(**options)
    for batch in cut(columns, size):
        assert result.process(batch) is batch
    return result


def results_of(stage: Evaluator) -> dict[str, Any]:
    results: dict[str, Any] = stage.query("report", {})["results"]
    return results


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_figures_equal_scikit_learn(text: bool, classes: int) -> None:
    """Accuracy, F1, and for two classes log-loss and AUC equal scikit-learn's, in total, over the window, and for what
    was held out; AUC that of scores rounded to the histogram's bins."""
    columns = columns_of(900, text=text, classes=classes)
    results = results_of(told(columns, last=200, holdout=0.2))
    known = columns[MARKS] == 0
    whole = Batch.build({"x": columns["x"]}, spans=(Span("s", 0, 900),))
    parts = {
        "total": np.flatnonzero(known),
        "last": np.flatnonzero(known)[-200:],
        "held_out": np.flatnonzero(known & held_out(7, whole, 0.2)),
    }
    assert results["task"] == "classification"
    assert (results["scored"], results["quarantined"]) == (np.count_nonzero(known), np.count_nonzero(~known))
    for name, rows in parts.items():
        y, given = (np.array(columns[column])[rows] for column in ("y", "prediction"))
        part = results[name]
        assert part["rows"] == len(rows)
        assert part["accuracy"] == pytest.approx(accuracy_score(y, given), rel=1e-9)
        assert part["f1_macro"] == pytest.approx(f1_score(y, given, average="macro"), rel=1e-9)
        if classes > 2:
            assert part["auc"] is part["f1_positive"] is None
            continue
        score, positive = columns["score"][rows], sorted(set(y.tolist()))[1]
        rounded = np.floor(score * AUC_BINS) / AUC_BINS
        assert part["auc"] == pytest.approx(roc_auc_score(y == positive, rounded), rel=1e-9)
        assert part["f1_positive"] == pytest.approx(f1_score(y, given, pos_label=positive), rel=1e-9)
        assert part["log_loss"] == pytest.approx(log_loss(y == positive, score), rel=1e-9)


def test_the_remaining_probability_goes_to_the_others_evenly() -> None:
    """With three classes a wrong answer of probability 0.8 gave 0.1 to the true one."""
    columns = {"y": np.array([1, 2, 3]), "prediction": np.array([1, 2, 1]), "probability": np.array([1.0, 1.0, 0.8])}
    assert results_of(told(columns))["total"]["log_loss"] == pytest.approx(-np.log(0.1) / 3, rel=1e-9)


def test_the_guesses_are_those_of_a_loop() -> None:
    """Majority and last class are guessed from the targets before the row, and a guess of nothing is wrong."""
    columns = columns_of(300, text=True, classes=4)
    results = results_of(told(columns, holdout=0))
    y = [label for label, mark in zip(columns["y"], columns[MARKS], strict=True) if mark == 0]
    given = [label for label, mark in zip(columns["prediction"], columns[MARKS], strict=True) if mark == 0]
    seen = [sorted(set(y[:i]), key=lambda label: (-y[:i].count(label), y.index(label))) for i in range(len(y))]
    prior = np.mean([bool(before) and before[0] == label for before, label in zip(seen, y, strict=True)])
    last = np.mean([label == before for label, before in zip(y[1:], y, strict=False)]) * (len(y) - 1) / len(y)
    assert results["baselines"]["class_prior"]["total"]["accuracy"] == pytest.approx(prior)
    assert results["baselines"]["last_class"]["total"]["accuracy"] == pytest.approx(last)
    losses, pairs = [], list(pairwise([None, *y]))
    for place, (before, label) in enumerate(pairs):
        classes = max(2, len({*y[: place + 1], *given[: place + 1]}))
        stay = (sum(a == b for a, b in pairs[1:place]) + 1) / (max(place - 1, 0) + 2)
        odds = stay if label == before else (1 - stay) / (classes - 1)
        losses.append(-np.log(odds if place else 1 / classes))
    assert results["baselines"]["last_class"]["total"]["log_loss"] == pytest.approx(np.mean(losses))
    share = 1 - results["total"]["log_loss"] / np.mean(losses)
    assert results["skill"]["last_class"]["total"] == pytest.approx(share)
    wrong = 1 - results["total"]["accuracy"]
    assert results["skill"]["class_prior"]["errors"] == pytest.approx(1 - wrong / (1 - prior))


@pytest.mark.parametrize("size", [1, 64, 600])
@pytest.mark.parametrize("text", [False, True])
def test_how_a_stream_of_classes_is_cut_changes_no_figure(size: int, text: bool) -> None:
    """The results of other cuts are the same to 1e-9."""
    columns = columns_of(600, text=text, classes=4)
    assert close(results_of(told(columns, size, last=100)), results_of(told(columns, last=100)))


def close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == pytest.approx(other, rel=1e-9, abs=1e-12)) if isinstance(one, float) else one == other


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("at", [1, 7])
def test_a_restored_evaluator_of_classes_goes_on_bit_for_bit(text: bool, at: int) -> None:
    """Snapshot after any batch, restore in a used object: the same report, question and state to the last bit."""
    options = {"last": 100, "reservoir": 10, "holdout": 0.2}
    batches = cut(columns_of(600, text=text, classes=4), ROWS)
    stage, twin = evaluator(**options), evaluator(**options)
    for batch in batches[:at]:
        stage.process(batch)
    twin.process(batches[-1])
    twin.restore(stage.snapshot())
    for batch in batches[at:]:
        stage.process(batch)
        twin.process(batch)
    assert equal(stage.snapshot(), twin.snapshot())
    assert stage.query("report", {}) == twin.query("report", {})
    assert stage.committed(3) == twin.committed(3)


def test_merged_counts_are_those_of_all_rows() -> None:
    """Counts of two parts, the second with a class more, add up to those of the whole."""
    rng = np.random.default_rng(5)
    y, given, score = rng.integers(0, 2, 500), rng.integers(0, 2, 500), rng.random(500)
    y[400], part = 2, Confusion()
    for rows in (slice(0, 200), slice(200, 500)):
        part.merge(confusion_of(y[rows], given[rows], score[rows]))
    whole = confusion_of(y, given, score)
    assert equal(part.state(), whole.state())


@pytest.mark.parametrize("text", [False, True])
def test_the_report_of_classes_is_plain_and_readable(text: bool) -> None:
    """Results are JSON, the text begins with a verdict and fits 80 columns, the question names targets as they came."""
    stage = told(columns_of(900, text=text), holdout=0.3)
    report = stage.query("report", {})
    json.dumps(report, allow_nan=False)
    assert report["text"].startswith("Good: over all 882 rows the log-loss is")
    assert max(map(len, report["text"].splitlines())) <= 80
    assert {"class", "rows", "predicted", "right", "f1"} == set(report["results"]["classes"][0])
    stage.snapshot()
    call = stage.committed(4)
    assert call is not None
    assert set(call.params["targets"]) == ({"ant", "zebra"} if text else {-10, 0})
    assert set(call.params["rows"]) == {"x"}
    stage.api_answer({"accuracy": 0.5}, None)
    check = stage.query("report", {})["operations"]["crosscheck"]
    assert check["accuracy_difference"] == 0.5 - check["in_band"]["accuracy"]


def test_rows_without_a_class_are_counted() -> None:
    """No target, no prediction, and a probability that is no number each have their count."""
    columns = {
        "y": ["a", None, "b", "a"], "prediction": ["a", "a", None, "a"], "probability": [0.9, 0.9, 0.9, float("nan")]
    }  # fmt: skip
    results = results_of(told(columns))
    counts = ("rows", "scored", "missing_target", "quarantined", "unpredicted")
    assert [results[name] for name in counts] == [4, 1, 1, 0, 2]


def test_more_classes_than_a_classification_has_are_bounded() -> None:
    """A target that is a number in disguise costs no more than 100 classes; the rows beyond count as unpredicted."""
    columns = {"y": np.arange(3000), "prediction": np.arange(3000), "probability": np.full(3000, 0.9)}
    results = results_of(told(columns))
    assert (results["scored"], results["unpredicted"]) == (CLASSES_MAX, 3000 - CLASSES_MAX)


def test_whole_numbers_with_float_predictions_are_a_regression() -> None:
    """A regressor's answer to an int target is scored as one; a text target with numbers is an error that says so."""
    columns = {"y": np.array([1, 2]), "prediction": np.array([1.5, 2.0])}
    assert results_of(told(columns))["total"]["mse"] == 0.125
    with pytest.raises(OptionError, match="another type"):
        told({"y": ["a", "b"], "prediction": np.array([1.5, 2.0])})
    with pytest.raises(OptionError, match="'prediction'"):
        told({"y": ["a", "b"]})


def test_a_report_of_no_classes_is_a_report() -> None:
    """An empty batch decides the task, and every figure is a dash."""
    stage = told(columns_of(300, text=True))
    empty = evaluator()
    empty.process(cut(columns_of(300, text=True), ROWS)[0].select(np.zeros(ROWS, dtype=bool)))
    assert results_of(empty).keys() == results_of(stage).keys()
    assert render(results_of(empty), {}).startswith("Not enough data")


def test_guesses_of_classes_know_only_what_came_before() -> None:
    """In stretches or at once: the same guesses, and shares that are Laplace's."""
    targets = np.random.default_rng(1).integers(0, 3, 9000)
    known = np.maximum(np.maximum.accumulate(targets) + 1, 1)
    one, many = ClassGuesses(), ClassGuesses()
    whole = one.follow(targets, known)
    parts = [many.follow(targets[i : i + 700], known[i : i + 700]) for i in range(0, 9000, 700)]
    for place in range(4):
        assert np.array_equal(whole[place], np.concatenate([part[place] for part in parts]))
    assert whole[2][5000] == (np.count_nonzero(targets[:5000] == targets[5000]) + 1) / (5000 + 3)
