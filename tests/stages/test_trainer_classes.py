"""stages/trainer.py where the target is a class: columns, types, labels that are none, the API, versions, snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from streampiped.errors import OptionError, StateError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.learn.known_classes import CLASSES_MAX
from streampiped.marks import LABEL_REBASED, MARKS, QUARANTINED
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.report_schema import faults

NAN = float("nan")
ROWS = 40
NAMES = {0: "zebra", 1: "ant", 2: "mole"}


def trainer(**options: Any) -> Trainer:
    return Trainer(TrainerOptions(**options), StageContext("trainer", seed=5, pipeline_seed=7))


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer keeps its models below the directory that it is begun in."""
    monkeypatch.chdir(tmp_path)


def stream(batches: int, *, text: bool = False, classes: int = 2, missing: float = 0.0) -> list[Batch]:
    """Classes about centres of their own; the third comes in the fourth batch."""
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        codes = rng.integers(0, classes if number > 3 else 2, size=ROWS)
        a, b = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])[codes].T + 0.6 * rng.normal(size=(2, ROWS))
        y: Any = [NAMES[code] for code in codes.tolist()] if text else codes * 10
        if missing:
            y = [None if gone else label for gone, label in zip(rng.random(ROWS) < missing, y, strict=True)]
        result.append(Batch.build({"a": a, "y": y, "b": b}, spans=(Span("s", number * ROWS, ROWS),)))
    return result


def taught(batches: int = 20, *, text: bool = False, classes: int = 2, **options: Any) -> Trainer:
    result = trainer(**options)
    for batch in stream(batches, text=text, classes=classes):
        result.process(batch)
    commit(result, batches)
    return result


def commit(stage: Trainer, epoch: int) -> None:
    stage.snapshot()
    stage.committed(epoch)


def rows_of(batch: Batch) -> list[list[float]]:
    return [list(pair) for pair in zip(batch["a"].tolist(), batch["b"].tolist(), strict=True)]


def right(stage: Trainer, batches: list[Batch]) -> float:
    hits = [
        label == guess
        for batch in batches
        for out in [stage.process(batch)]
        for label, guess in zip(out["y"], out["prediction"], strict=True)
    ]
    return float(np.mean(hits))


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_learned(text: bool, classes: int) -> None:
    """Ints and text, two classes and a third that comes late: nearly all of the last rows are predicted rightly."""
    batches = stream(30, text=text, classes=classes)
    stage = trainer()
    right(stage, batches[:20])
    assert right(stage, batches[20:]) > 0.9
    assert not stage.query("summary", {})["fallback"]
    assert stage.query("section", {})["results"]["champion"] not in ("prior", "last_class")


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_the_columns_are_of_the_targets_type(text: bool) -> None:
    """Prediction as the target; probability and score floats; version and generation ints; no interval."""
    (batch,) = stream(1, text=text)
    out = trainer().process(batch)
    assert out.schema.floats == ("a", "b", "probability", "score")
    assert set(out.schema.ints) - {"y"} == {"model_version", "model_generation"} | (set() if text else {"prediction"})
    assert out.schema.texts == (("y", "prediction") if text else ())
    assert out.spans == batch.spans


def test_before_the_first_label_there_is_no_class() -> None:
    """A row before it has None or 0, and NaN as probability; the score needs two classes."""
    (batch,) = stream(1, text=True)
    labels = [None, None, "zebra", "zebra", "ant", *batch["y"][5:]]
    out = trainer(holdout=0).process(batch.with_columns({"y": labels}))
    assert out["prediction"][:5] == [None, None, None, "zebra", "zebra"]
    assert np.isnan(out["probability"][:3]).all()
    assert np.isfinite(out["probability"][3:]).all()
    assert np.isnan(out["score"][:5]).all()
    assert np.isfinite(out["score"][5:]).all()
    (batch,) = stream(1)
    quiet = batch.with_columns({MARKS: np.full(ROWS, QUARANTINED)})
    assert set(trainer().process(quiet)["prediction"].tolist()) == {0}


def test_the_score_is_of_the_second_class_or_the_positive_one() -> None:
    """Of "ant" and "zebra" the second in sorted order is zebra, whichever came first; `positive` says otherwise."""
    batches = stream(6, text=True)
    plain, told, absent = trainer(), trainer(positive="ant"), trainer(positive="newt")
    for batch in batches:
        one, other, none = (stage.process(batch) for stage in (plain, told, absent))
    zebra = np.array([label == "zebra" for label in one["prediction"]])
    assert one["score"] == pytest.approx(np.where(zebra, one["probability"], 1 - one["probability"]))
    assert other["score"] == pytest.approx(1 - one["score"])
    assert np.isnan(none["score"]).all()


def test_labels_that_are_none_are_counted_and_not_learned() -> None:
    """Missing, quarantined and held-out labels change nothing in what is learned, whatever they are."""
    ours, theirs = (trainer(holdout=0.2, members=["ridge", "sgd"]) for _ in range(2))
    counts = dict.fromkeys(("missing_target", "quarantined", "held_out"), 0)
    for batch in stream(10, text=True):
        place = np.arange(ROWS)
        bad, gone = place % 7 == 3, place % 7 == 4
        marked = batch.with_columns({MARKS: np.where(bad, QUARANTINED | LABEL_REBASED, 0)})
        labels = [None if lost else label for lost, label in zip(gone, batch["y"], strict=True)]
        others = ["never" if wrong else label for wrong, label in zip(bad, labels, strict=True)]
        ours.process(marked.with_columns({"y": labels}))
        theirs.process(marked.with_columns({"y": others}))
        counts["missing_target"] += int(gone.sum())
        counts["quarantined"] += int(bad.sum())
        counts["held_out"] += int((held_out(7, batch, 0.2) & ~bad & ~gone).sum())
    assert equal(ours.snapshot(), theirs.snapshot())
    summary = ours.query("summary", {})
    assert {name: summary[name] for name in counts} == counts
    assert summary["rows_learned"] == 10 * ROWS - sum(counts.values())
    assert summary["generation"] == 0


def test_classes_beyond_the_most_are_counted() -> None:
    """The first CLASSES_MAX are learned, rows of others are left out under a name of their own."""
    labels = np.arange(ROWS * 2)
    batch = Batch.build({"a": np.zeros(ROWS * 2), "y": labels}, spans=(Span("s", 0, ROWS * 2),))
    stage = trainer(holdout=0)
    assert stage.process(batch)["prediction"].max() < CLASSES_MAX
    assert stage.query("summary", {})["too_many_classes"] == ROWS * 2 - CLASSES_MAX
    assert stage.query("summary", {})["rows_learned"] == CLASSES_MAX


def test_the_target_chooses_and_the_option_overrides() -> None:
    """Ints are classes unless `task` says that they are numbers; what cannot be is refused by name."""
    (numbers,), (texts,) = stream(1), stream(1, text=True)
    floats = numbers.with_columns({"y": numbers["y"].astype(np.float64)})
    assert trainer(task="regression").process(numbers).schema.floats[-3:] == (
        "prediction",
        "prediction_low",
        "prediction_high",
    )
    assert "prediction_low" in trainer().process(floats)
    with pytest.raises(OptionError, match="float column"):
        trainer(task="classification").process(floats)
    with pytest.raises(OptionError, match="text column"):
        trainer(task="regression").process(texts)
    with pytest.raises(OptionError, match="'score' already"):
        trainer().process(numbers.with_columns({"score": np.zeros(ROWS)}))
    with pytest.raises(OptionError, match="positive"):
        trainer(positive=1).process(texts)
    with pytest.raises(OptionError, match="late need a float"):
        trainer(labels={"id": "y"}).process(numbers)
    with pytest.raises(OptionError, match="no column 'z'"):
        trainer(target="z").process(numbers)


def test_the_estimator_suits_the_task() -> None:
    """A regressor for classes and a classifier for numbers are refused, as early as it can be known."""
    (numbers,) = stream(1)
    bayes = "sklearn.naive_bayes.GaussianNB"
    with pytest.raises(OptionError, match="learns classes"):
        trainer(task="regression", estimator=bayes)
    with pytest.raises(OptionError, match="predict_proba"):
        trainer(task="classification", estimator="sklearn.linear_model.SGDRegressor")
    with pytest.raises(OptionError, match="predict_proba"):
        trainer(estimator="sklearn.linear_model.SGDRegressor").process(numbers)
    with pytest.raises(OptionError, match="no_such"):
        trainer(params={"no_such": 1})
    assert "SGDClassifier" in taught(params={"loss": "log_loss"}).query("summary", {})["estimator"]
    with pytest.raises(OptionError, match="log_loss"):
        trainer(params={"loss": "log_loss"}).process(numbers.with_columns({"y": np.zeros(ROWS)}))
    stage = taught(estimator=bayes, members=["estimator"])
    assert stage.query("summary", {})["estimator"] == bayes
    assert not stage.query("summary", {})["fallback"]


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
@pytest.mark.parametrize("cut", [0, 1, 4, 5, 9])
def test_a_restored_trainer_goes_on_bit_for_bit(cut: int, text: bool) -> None:
    """Snapshot after any batch, also behind a new class: the same output and state to the last bit."""
    batches = stream(12, text=text, classes=3, missing=0.1 if text else 0.0)
    whole, twin = trainer(), trainer()
    for batch in batches[:cut]:
        whole.process(batch)
    state = whole.snapshot()
    twin.process(batches[-1])  # whatever happened since must be forgotten
    twin.restore(state if cut else None)
    for batch in batches[cut:]:
        ours, theirs = whole.process(batch), twin.process(batch)
        assert list(ours["prediction"]) == list(theirs["prediction"])
        for name in ("probability", "score", "model_version"):
            assert ours[name].tobytes() == theirs[name].tobytes()
    assert equal(whole.snapshot(), twin.snapshot())


def test_the_state_of_another_task_is_refused() -> None:
    """A snapshot is never restored into a model of another kind."""
    state = taught(2).snapshot()
    with pytest.raises(StateError, match="classification"):
        trainer(task="regression").restore(state)


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_the_api_answers_labels_and_probabilities(text: bool) -> None:
    """As in band: predictions are labels, a probability for each of the classes, and scores as scikit-learn's."""
    stage, batch = taught(text=text, classes=3), stream(21, text=text, classes=3)[-1]
    answer = stage.api()["predict"](rows=rows_of(batch))
    table, classes = np.array(answer["probabilities"]), answer["classes"]
    assert sorted(classes) == (["ant", "mole", "zebra"] if text else [0, 10, 20])
    assert answer["probability"] == table.max(axis=1).tolist()
    assert answer["predictions"] == [classes[place] for place in table.argmax(axis=1)]
    out = stage.process(batch)
    assert out["probability"][0] == table[0].max()
    labels = list(batch["y"]) if text else batch["y"].tolist()
    figures = stage.api()["score"](rows=rows_of(batch), targets=[None, *labels[1:]])
    order = np.argsort(classes)
    guesses = answer["predictions"][1:]
    assert figures["rows"] == ROWS - 1
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels[1:], guesses))
    assert figures["f1"] == pytest.approx(f1_score(labels[1:], guesses, average="macro"))
    assert figures["log_loss"] == pytest.approx(log_loss(labels[1:], table[1:, order], labels=sorted(classes)))
    assert stage.api()["score"](rows=rows_of(batch)[:1], targets=["newt"])["accuracy"] == 0.0
    with pytest.raises(ValueError, match="one per row"):
        stage.api()["score"](rows=rows_of(batch), targets=labels[1:])


def test_info_show_history_and_export_tell_of_classes() -> None:
    """What is learned, with which classes; the champion's parameters, and its formula, with
    the classes in their order."""
    stage = taught()
    api = stage.api()
    assert (api["info"]()["task"], sorted(api["info"]()["classes"])) == ("classification", [0, 10])
    assert api["show"]()["members"][0]["name"] == "prior"
    assert set(api["history"]()["versions"][-1]["metrics"]) == {"log_loss", "guess_log_loss"}
    plain = api["export"]()
    assert plain["formula"]["format"] == "streampipe-class-formula/1"
    assert plain["formula"]["classes"] == api["info"]()["classes"]
    assert plain["champion"] == stage.query("summary", {})["champion"]


def test_a_rollback_brings_the_classes_of_then() -> None:
    """Gone back to before the third class came, the model knows two, and learns the third when it comes again."""
    stage, batches = trainer(retain_versions=9, version_rows=1), stream(12, classes=3)
    for epoch, batch in enumerate(batches[:8]):
        stage.process(batch)
        commit(stage, epoch)
    assert len(stage.api()["info"]()["classes"]) == 3
    plan = stage.query("plan", {"kind": "rollback", "params": {"version": 2}})
    assert plan["refused"] is None
    stage.change("rollback", plan["params"])
    assert len(stage.api()["info"]()["classes"]) == 2
    outs = [stage.process(batch) for batch in batches[8:]]
    assert len(stage.api()["info"]()["classes"]) == 3
    assert all(np.isfinite(out["probability"]).all() for out in outs)


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_the_evaluator_scores_what_is_served(text: bool) -> None:
    """Behind the trainer the report is one of a classification, better than the class prior and the last class."""
    stage = trainer()
    scorer = Evaluator(EvaluatorOptions(last=400), StageContext("evaluator", seed=5, pipeline_seed=7))
    for batch in stream(40, text=text):
        scorer.process(stage.process(batch))
    results = scorer.query("report", {"sections": {"model": stage.query("section", {})["results"]}})["results"]
    assert list(faults(results, "@classification")) == []
    assert (results["task"], results["verdict"]) == ("classification", "good")
    assert results["total"]["accuracy"] > 0.85
    assert results["total"]["auc"] > 0.9
    assert results["total"]["log_loss"] < results["baselines"]["class_prior"]["total"]["log_loss"]


def checkered(batches: int) -> list[Batch]:
    """Two classes on the squares of a board, which neither lines nor products tell apart."""
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        points = rng.random((ROWS, 2)) * 4
        labels = [("black", "white")[int(x) % 2 ^ int(y) % 2] for x, y in points.tolist()]
        columns = {"a": points[:, 0], "b": points[:, 1], "y": labels}
        result.append(Batch.build(columns, spans=(Span("s", number * ROWS, ROWS),)))
    return result


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_boosting_competes_when_asked_for(late: bool) -> None:
    """On a checkered board it is what is served, and tells the squares apart; restored while a fit is under way, and
    between two, the trainer goes on to the last bit. So it does where every label is of an id."""
    options: dict[str, Any] = {"boosting": True}
    if late:
        options["labels"] = {"id": "id", "immediate": True}
    batches = checkered(3000 // ROWS)
    batches = [each.with_columns({"id": np.arange(each.rows)}) for each in batches]
    whole, right = trainer(**options), []
    cuts = {600 // ROWS, 1300 // ROWS}
    twins: list[Trainer] = []
    for number, batch in enumerate(batches):
        if number in cuts:
            twins.append(trainer(**options))
            twins[-1].restore(whole.snapshot())
        out = whole.process(batch)
        for twin in twins:
            assert twin.process(batch)["probability"].tobytes() == out["probability"].tobytes()
        right += [given == label for given, label in zip(out["prediction"], batch["y"], strict=True)]
    assert all(equal(twin.snapshot(), whole.snapshot()) for twin in twins)
    assert whole.query("summary", {})["champion"] == "boosting"
    assert np.mean(right[2000:]) > 0.85
    names = [row["name"] for row in trainer().query("section", {})["results"]["members"]]
    assert "boosting" not in names
