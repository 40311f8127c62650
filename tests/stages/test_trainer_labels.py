"""The trainer with labels that come late: what was served is what is scored, and the question is what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.marks import LABEL_REBASED, MARKS, QUARANTINED
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.late_labels import COEFFICIENTS, Late, late_labels
from support.report_schema import faults

NAN = float("nan")
FLOATS = ("prediction", "prediction_low", "prediction_high", "guess_mean", "guess_last")
SERVED = (*FLOATS, "model_version")
ADDED = (*FLOATS, "model_version", "model_generation")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage without a directory of its own keeps its files where it is."""
    monkeypatch.chdir(tmp_path)


def trainer(*, labels: dict[str, Any] | None = None, **options: Any) -> Trainer:
    chosen = TrainerOptions.model_validate({**options, "labels": {"id": "id", **(labels or {})}})
    return Trainer(chosen, StageContext("trainer", seed=5, pipeline_seed=7))


def outputs(stage: Trainer, late: Late, **cut: Any) -> dict[str, np.ndarray]:
    """Every added column over the whole stream."""
    parts = [stage.process(batch) for batch in late.batches(**cut)]
    return {name: np.concatenate([part[name] for part in parts]) for name in ADDED}


def pending(stage: Trainer) -> dict[str, int]:
    found: dict[str, int] = stage.query("section", {})["results"]["pending"]
    return found


def errors(labels: np.ndarray, given: np.ndarray) -> float:
    scored = np.isfinite(labels) & np.isfinite(given)
    return float(np.mean((labels[scored] - given[scored]) ** 2))


@pytest.mark.parametrize("delay", [0.5, 20.0, 300.0])
@pytest.mark.parametrize("most", [100_000, 50])
def test_scores_are_those_of_a_plain_loop(delay: float, most: int) -> None:
    """With random delays, rows never answered, answered twice and given up, each label's row has what was served for
    its question, and the mean and the last label known when it was asked, as a loop with a dict has them; a label that
    has no question has no prediction."""
    late = late_labels(800, delay)
    stage = trainer(labels={"wait_rows_max": most})
    out = outputs(stage, late)
    waiting: dict[int, tuple[float, ...]] = {}
    known: list[float] = []
    counts = dict.fromkeys(("asked", "answered", "given_up", "late"), 0)
    by_loop, by_stage = [], []
    for row, (key, label) in enumerate(zip(late.ids.tolist(), late.labels.tolist(), strict=True)):
        if np.isnan(label):
            guesses = (float(np.mean(known)), known[-1]) if known else (NAN, NAN)
            assert out["guess_mean"][row] == pytest.approx(guesses[0], rel=1e-12, nan_ok=True)
            assert out["guess_last"][row] == pytest.approx(guesses[1], rel=0, nan_ok=True)
            waiting[key] = tuple(out[name][row] for name in SERVED)
            counts["asked"] += 1
            if len(waiting) > most:
                del waiting[next(iter(waiting))]
                counts["given_up"] += 1
        elif key in waiting:
            served = waiting.pop(key)
            assert np.array_equal(served, [out[name][row] for name in SERVED], equal_nan=True)
            by_loop.append((label - served[0]) ** 2)
            by_stage.append((label - out["prediction"][row]) ** 2)
            known.append(label)
            counts["answered"] += 1
        else:
            assert np.isnan([out[name][row] for name in ("prediction", "prediction_low", "prediction_high")]).all()
            counts["late"] += 1
    assert np.mean(by_stage) == np.mean(by_loop)
    assert pending(stage) == {**counts, "waiting": len(waiting), "repeated": 0, "without_id": 0}
    assert counts["late"] > 0
    assert (counts["given_up"] > 0) == (most == 50)


@pytest.mark.parametrize("delay", [0.5, 300.0])
def test_no_interval_before_an_error_is_known(delay: float) -> None:
    """A question has an interval as soon as a label has come whose question was asked behind a label, and its label's
    row has that of the question."""
    late = late_labels(800, delay, repeated=0)
    out = outputs(trainer(holdout=0), late)
    asks, missing = np.isnan(late.labels), np.isnan(out["prediction_low"])
    first = int(np.flatnonzero(~asks & np.isfinite(out["guess_mean"]))[0])
    assert missing[:first].all()
    assert not (missing & asks)[first + 1 :].any()
    assert np.array_equal(missing, np.isnan(out["prediction_high"]))
    assert np.count_nonzero(missing) > (0 if delay < 1 else 100)


def test_what_is_learned_is_the_question_with_its_label() -> None:
    """A ridge knows the same as one that was taught the questions' features with their labels, in order of arrival."""
    late = late_labels(1500, 40.0, repeated=0)
    stage = trainer(members=["ridge"], holdout=0)
    outputs(stage, late)
    told = np.isfinite(late.labels)
    asked = {key: late.features[row] for row, key in enumerate(late.ids.tolist()) if not told[row]}
    features = np.array([asked[key] for key in late.ids[told].tolist()])
    columns = {f"x{n}": column for n, column in enumerate(features.T)}
    spans = (Span("s", 0, len(features)),)
    plain = Trainer(TrainerOptions(members=["ridge"], holdout=0), StageContext("trainer", seed=5, pipeline_seed=7))
    plain.process(Batch.build({**columns, "y": late.labels[told]}, spans=spans))
    answers = []
    for each in (stage, plain):
        each.snapshot()
        each.committed(1)
        answer = each.api()["predict"](rows=features[:20].tolist())
        assert (answer["champion"], answer["rows_learned"]) == ("ridge", len(features))
        answers.append(answer["predictions"])
    assert answers[0] == pytest.approx(answers[1], rel=1e-7)


def test_labels_in_their_own_rows_change_nothing() -> None:
    """With `immediate`, a stream that brings every label at once is worked on as without this table, to the last
    bit, across a drift and with rows held out."""
    late = late_labels(2500, 1.0, answered=0, drift=1500)
    y = 10 + late.features @ np.array(COEFFICIENTS)
    y[1500:] = 10 - 2 * (y[1500:] - 10)
    y += 0.5 * np.random.default_rng(2).normal(size=len(y))
    at_once = Late(late.ids, late.features, y)
    plain = Trainer(TrainerOptions(), StageContext("trainer", seed=5, pipeline_seed=7))
    stage = trainer(labels={"immediate": True})
    for batch in at_once.batches():
        ours, theirs = stage.process(batch), plain.process(batch)
        for name in (*FLOATS[:3], "model_version", "model_generation"):
            assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert equal(stage.snapshot()["model"], plain.snapshot()["model"])
    assert len(stage.query("section", {})["results"]["drifts"]) == 1


def test_a_label_counts_from_when_it_comes() -> None:
    """Another label changes nothing in any row up to its own, and something later."""
    late = late_labels(400, 30.0, repeated=0)
    row = int(np.flatnonzero(np.isfinite(late.labels))[100])
    labels = late.labels.copy()
    labels[row] += 5
    plain, other = outputs(trainer(holdout=0), late), outputs(trainer(holdout=0), Late(late.ids, late.features, labels))
    for name in ADDED:
        assert plain[name][: row + 1].tobytes() == other[name][: row + 1].tobytes()
    assert plain["prediction"][row + 1 :].tobytes() != other["prediction"][row + 1 :].tobytes()


def test_held_out_labels_are_never_learned() -> None:
    """A label whose row is held out changes nothing that a member on features alone has learned, whatever it says."""
    late = late_labels(600, 30.0)
    ours, theirs = (trainer(holdout=0.3, members=["ridge", "sgd"]) for _ in range(2))
    for batch in late.batches():
        spared = held_out(7, batch, 0.3)
        ours.process(batch)
        theirs.process(batch.with_columns({"y": np.where(spared & np.isfinite(batch["y"]), 1e9, batch["y"])}))
    for name in ("ridge", "sgd"):
        one, other = (each.snapshot()["model"]["members"][name]["member"] for each in (ours, theirs))
        assert equal(one, other)
    assert ours.query("summary", {})["held_out"] > 100


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_a_restored_trainer_goes_on_bit_for_bit(cut: int, text: bool) -> None:
    """Snapshot after any batch, restore in a fresh object: the same columns, counts and state to the last bit."""
    batches = list(late_labels(900, 60.0, drift=500).batches(text=text))
    whole, twin = (trainer(labels={"wait_rows_max": 100}) for _ in range(2))
    for batch in batches[:cut]:
        whole.process(batch)
    twin.process(batches[-1])  # whatever happened since must be forgotten
    twin.restore(whole.snapshot() if cut else None)
    for batch in batches[cut:]:
        ours, theirs = whole.process(batch), twin.process(batch)
        for name in ADDED:
            assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert equal(whole.snapshot(), twin.snapshot())
    assert pending(whole) == pending(twin)
    assert pending(whole)["given_up"] > 0


def test_ids_of_either_type() -> None:
    """Text ids give what the same ids as numbers give."""
    late = late_labels(300, 30.0)
    ours, theirs = outputs(trainer(), late), outputs(trainer(), late, text=True)
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ADDED)


def test_asked_twice_and_without_id() -> None:
    """A question whose id waits already, or that has none, is answered and not kept: the first one gets the label."""
    columns = {"x": np.arange(4.0), "y": np.array([NAN, NAN, NAN, 5.0]), "id": ["a", "a", None, "a"]}
    stage = trainer()
    out = stage.process(Batch.build(columns, spans=(Span("s", 0, 4),)))
    assert np.isfinite(out["prediction"]).all()
    assert pending(stage) == {
        "waiting": 0, "asked": 1, "answered": 1, "given_up": 0, "late": 0, "repeated": 1, "without_id": 1,
    }  # fmt: skip


def test_late_rows_alone() -> None:
    """Labels before any question are counted, have no prediction, and leave the model as it was."""
    stage = trainer()
    columns = {"x": np.full(3, NAN), "y": np.arange(3.0), "id": np.arange(3)}
    out = stage.process(Batch.build(columns, spans=(Span("s", 0, 3),)))
    assert np.isnan(out["prediction"]).all()
    assert np.isnan(out["guess_mean"]).all()  # a label that nobody asked for is not looked back at
    assert pending(stage)["late"] == 3
    assert stage.query("summary", {})["rows_learned"] == 0


def test_a_drift_is_found_once_and_followed() -> None:
    """Labels 50 rows late: one drift, some rows after its first labels have come, and the error comes down again; the
    intervals cover what they are meant to."""
    late = late_labels(4000, 50.0, answered=1, repeated=0, drift=2000)
    stage = trainer()
    out = outputs(stage, late)
    assert (np.diff(out["model_generation"]) >= 0).all()
    (drift,) = stage.query("section", {})["results"]["drifts"]
    first = int(np.flatnonzero(late.ids == 2000)[0])
    assert first < drift["row"] < first + 200
    end = int(np.flatnonzero(late.ids == 3000)[0])
    assert errors(late.labels[end:], out["prediction"][end:]) < 1.5
    assert errors(late.labels, out["prediction"]) < 0.5 * errors(late.labels, out["guess_mean"])
    told = np.isfinite(late.labels)
    inside = (out["prediction_low"] <= late.labels) & (late.labels <= out["prediction_high"])
    assert 0.88 <= inside[told].mean() <= 0.92


def test_behind_the_gate() -> None:
    """The gate marks questions as having no label, and fills in features for labels: both change nothing of who asks
    and who answers; what it quarantines is answered and not learned."""
    late = late_labels(1200, 40.0, repeated=0)
    spoilt = int(np.flatnonzero(np.isfinite(late.labels))[600])
    labels = late.labels.copy()
    labels[spoilt] = 1e9
    gate = Normalizer(NormalizerOptions(), StageContext("normalizer", seed=5, pipeline_seed=7))
    stage, out = trainer(), []
    for batch in Late(late.ids, late.features, labels).batches():
        mended = gate.process(batch)
        assert mended is not None
        out.append(stage.process(mended)["prediction"])
    results = stage.query("section", {})["results"]
    assert results["pending"]["answered"] == np.count_nonzero(np.isfinite(late.labels))
    assert (results["counts"]["quarantined"], results["counts"]["missing_target"]) == (1, 0)
    predicted, tail = np.concatenate(out), slice(len(late.ids) // 2, None)
    assert errors(late.labels[tail], predicted[tail]) < 0.4
    assert np.isfinite(predicted).all()


def test_bad_labels_leave_the_model_alone() -> None:
    """Whatever a quarantined label says, the model is the same; one behind which another level is believed is
    looked back at and not learned."""
    late = late_labels(400, 20.0, repeated=0)
    ours, theirs = trainer(), trainer()
    for batch in late.batches():
        bad = np.isfinite(batch["y"]) & (batch["id"] % 7 == 3)
        marked = batch.with_columns({MARKS: np.where(bad, QUARANTINED, 0)})
        ours.process(marked)
        theirs.process(marked.with_columns({"y": np.where(bad, 1e9, batch["y"])}))
    assert equal(ours.snapshot(), theirs.snapshot())
    (batch,) = late_labels(30, 1.0, seed=2, answered=1, repeated=0).batches()
    first = int(np.flatnonzero(np.isfinite(batch["y"]))[0])
    marks = np.where(np.arange(batch.rows) == first, LABEL_REBASED | QUARANTINED, 0)
    out = ours.process(batch.with_columns({"y": batch["y"] + 1000, MARKS: marks, "id": batch["id"] + 10_000}))
    assert (np.abs(out["guess_last"][first + 1 :][np.isnan(batch["y"][first + 1 :])] - 1010) < 20).all()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": np.arange(3.0)}, "'id' .* float column; let its source read it as int or text"),
        ({"other": np.arange(3)}, "no column 'id'"),
        ({"id": np.arange(3), "y": np.arange(3)}, "need a float target, or classes as text"),
    ],
)
def test_what_cannot_be_joined_is_named(columns: dict[str, Any], words: str) -> None:
    """An id that is a float or is not there, and a target that can have no missing labels, are OptionErrors."""
    batch = Batch.build({"x": np.arange(3.0), "y": np.arange(3.0), **columns}, spans=(Span("s", 0, 3),))
    with pytest.raises(OptionError, match=words):
        trainer().process(batch)


def test_the_evaluator_scores_what_was_served() -> None:
    """Its figures, of the model and of both guesses, are those of a loop that keeps the answers by id; a question
    counts as unlabelled, a label without one as unpredicted, and the report tells of those that wait."""
    late = late_labels(900, 40.0)
    stage = trainer(labels={"wait_rows_max": 100})
    evaluator = Evaluator(EvaluatorOptions(), StageContext("evaluator", pipeline_seed=7))
    waiting: dict[int, tuple[float, ...]] = {}
    losses: list[list[float]] = []
    for batch in late.batches():
        out = stage.process(batch)
        evaluator.process(out)
        answers = zip(*(out[name].tolist() for name in ("prediction", "guess_mean", "guess_last")), strict=True)
        for key, label, answer in zip(batch["id"].tolist(), batch["y"].tolist(), answers, strict=True):
            if np.isnan(label):
                waiting[key] = answer
                if len(waiting) > 100:
                    del waiting[next(iter(waiting))]
            elif key in waiting:
                losses.append([(label - (0.0 if np.isnan(given) else given)) ** 2 for given in waiting.pop(key)])
    section = stage.query("section", {})["results"]
    report = evaluator.query("report", {"sections": {"model": section}})
    results, told = report["results"], np.isfinite(late.labels)
    model, mean, last = np.mean(losses, axis=0)
    assert results["total"]["mse"] == pytest.approx(model, rel=1e-9)
    assert results["baselines"]["running_mean"]["total"]["mse"] == pytest.approx(mean, rel=1e-9)
    assert results["baselines"]["last_value"]["total"]["mse"] == pytest.approx(last, rel=1e-9)
    assert results["unlabelled"] == np.count_nonzero(~told)
    assert results["scored"] == section["pending"]["answered"] == len(losses)
    assert results["unpredicted"] == section["pending"]["late"] == np.count_nonzero(told) - len(losses)
    assert results["held_out"]["rows"] == section["counts"]["held_out"] > 0
    assert list(faults(section, "@model")) == []
    assert f"{len(losses)} of 900 questions are answered" in " ".join(report["text"].split())
